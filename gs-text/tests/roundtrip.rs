//! Printing and parsing are inverse to each other.

#[allow(dead_code)]
mod support;

use gs_ir::{Module, Registry};
use gs_text::{
    Diagnostic, PrintOptions, SourceMap, Style, parse_module, print_to_string, read_file, render_all, same,
    write_files,
};
use proptest::prelude::*;

fn parse(text: &str) -> Module {
    let fail = |d: Vec<Diagnostic>| -> Module {
        panic!("{}", render_all(&d, &SourceMap::single("test.gsir", text), Style::Plain));
    };
    parse_module(text, None, &Registry::builtin()).unwrap_or_else(fail)
}

/// Parses a text that is in printed form and demands that it prints to itself.
fn check(text: &str) {
    let module = parse(text);
    let printed = print_to_string(&module, &PrintOptions::default());
    assert_eq!(printed, text);
    same(&module, &parse(&printed)).unwrap();
}

#[test]
fn everything_of_a_module() {
    check(include_str!("modules/conv_net.gsir"));
}

#[test]
fn regions_and_their_names() {
    check(include_str!("modules/regions.gsir"));
    check(include_str!("modules/control.gsir"));
}

/// Text in any other form prints in the one form.
#[test]
fn free_form_is_normalised() {
    let module = parse(
        "gsir 1 // a comment
        param @w: f32[2,2,1,1,] = dense(1,2,0x1p1,-3e-1,) const @k : i64 [ 1 ] = dense(0x10)
        graph @main(%x : f32[N-1+1, 2, 1+H*1, H+1]) -> (%y:f32[N,2,H+1,H+1]) {
          %unused = relu(%x) : f32[N, 2, H + 1, H + 1] %y = conv(%x, @w) {strides = [1, 1], group = 1}
          %z = leaky_relu(%y,) {alpha = 1}
          %s = \"o::p\"(@k) {d = dims[N, 3], e = [N, 3], f = [1, 2.5], g = [], h = [nan]}
          return %z }",
    );
    let text = "gsir 1

param @w : f32[2, 2, 1, 1] = dense(1.0, 2.0, 2.0, -0.3)
const @k : i64[1] = dense(16)

graph @main(%x : f32[N, 2, H + 1, H + 1]) -> (%y : f32[N, 2, H + 1, H + 1]) {
  %unused = relu(%x) : f32[N, 2, H + 1, H + 1]
  %y = conv(%x, @w) : f32[N, 2, H + 1, H + 1]
  %z = leaky_relu(%y) {alpha = 1.0} : f32[N, 2, H + 1, H + 1]
  %s = \"o::p\"(@k) {d = dims[N, 3], e = dims[N, 3], f = [1.0, 2.5], g = ints[], h = floats[nan]} : any
  return %z
}
";
    assert_eq!(print_to_string(&module, &PrintOptions::default()), text);
    check(text);
}

/// The generator must make what it is there for.
#[test]
fn random_modules_have_variety() {
    let text: String =
        (0..200).map(|seed| print_to_string(&support::module(seed, 30), &PrintOptions::default())).collect();
    for part in [
        "conv(",
        "matmul(",
        "add(",
        "region ",
        "updates",
        "gone",
        "kept",
        "onnx",
        "dims ",
        "floordiv(",
        "?1",
        "splat(",
        "uniform(",
        "normal(",
        "hex(",
        "dense(",
        "seq<",
        "opt<",
        "map<",
        "sparse<",
        "any",
        "[*]",
        "raw(",
        "b\"",
        "float(",
        "ints[",
        "floats[",
        "strs[",
        "dims[",
        " _",
        "_, %",
        " #",
        "from ",
        "u4[",
        "str[",
        "c64[",
        "param frozen",
        "\\u{202e}",
    ] {
        assert!(text.contains(part), "no module has {part}");
    }
    // Operators that take what random values are.
    let declared =
        Registry::builtin().iter().filter(|(_, d)| text.contains(&format!(" = {}(", d.name))).count();
    assert!(declared > 30, "{declared}");
}

/// Equal names in the source get suffixes in order; sibling regions keep theirs.
#[test]
fn names_are_made_unique() {
    let mut module = Module::new();
    let mut rw = gs_ir::Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let mut x = rw.add_param(graph, "a", gs_ir::Type::fixed(gs_ir::ElemType::F32, &[2]));
    for name in ["a", "a", "a.1", ""] {
        x = rw.emit("relu", &[x], gs_ir::AttrSet::new(), gs_ir::At::End(graph)).unwrap();
        rw.set_name(x, name);
    }
    let text = print_to_string(&module, &PrintOptions::default());
    let names: Vec<&str> = text.lines().filter_map(|l| l.trim().split_once(" = ")).map(|l| l.0).collect();
    assert_eq!(names, ["%a.1", "%a.2", "%a.1.1", "%0"]);
    check(&text);
}

#[test]
fn a_broken_module_still_prints() {
    let mut module = Module::new();
    let mut rw = gs_ir::Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let other = rw.add_graph("other");
    let x = rw.add_param(other, "x", gs_ir::Type::Any);
    rw.add_result(graph, "y", x, None);
    let text = print_to_string(&module, &PrintOptions::default());
    assert!(text.contains("return %undefined.0"));
    assert!(parse_module(&text, None, &Registry::builtin()).is_err());
}

/// The form for snapshots has neither large contents nor provenance, and prints to itself.
#[test]
fn snapshot_form() {
    let mut module = parse(include_str!("modules/conv_net.gsir"));
    let large = gs_ir::Literal::f32s([5, 5], &[0.5; 25]);
    gs_ir::Rewriter::new(&mut module).add_global(gs_ir::NewGlobal {
        name: "large",
        role: gs_ir::Role::Const,
        trainable: false,
        ty: gs_ir::Type::fixed(gs_ir::ElemType::F32, &[5, 5]),
        init: gs_ir::Init::Data(large.data),
    });
    let text = print_to_string(&module, &PrintOptions::snapshot());
    insta::assert_snapshot!(text);
    assert_eq!(print_to_string(&parse(&text), &PrintOptions::snapshot()), text);
}

#[test]
fn differences_are_found() {
    let text = include_str!("modules/conv_net.gsir");
    let module = parse(text);
    let other = parse(&text.replace("alpha = 1.0", "alpha = 1.5"));
    let difference = same(&module, &other).unwrap_err();
    assert!(difference.to_string().contains("alpha = 1.5"), "{difference}");

    let with = |value: f32| {
        let contents = vec!["0.5"; 24].join(", ");
        parse(&format!("gsir 1\nparam @w : f32[5, 5] = dense({contents}, {value:?})"))
    };
    same(&with(1.0), &with(1.0)).unwrap();
    assert_eq!(same(&with(1.0), &with(2.0)).unwrap_err(), gs_text::Difference::Contents("w".into()));
}

/// Through files every kind of element comes back, mapped; a second file replaces the first under readers.
#[test]
fn files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.gsir");
    let mut module = Module::new();
    let mut rng = support::Rng::new(1);
    let mut rw = gs_ir::Rewriter::new(&mut module);
    for elem in gs_ir::ElemType::all() {
        let data = match elem {
            gs_ir::ElemType::Str => gs_ir::TensorData::Strings((0..21).map(|_| rng.bytes().into()).collect()),
            _ => gs_ir::TensorData::Bytes(rng.contents(elem, 21).into()),
        };
        for name in [elem.name(), "__metadata__"] {
            let ty = gs_ir::Type::fixed(elem, &[3, 7]);
            let init = gs_ir::Init::Data(data.clone());
            rw.add_global(gs_ir::NewGlobal { name, role: gs_ir::Role::Param, trainable: true, ty, init });
        }
    }
    // Somebody's own file, which is not for us to replace.
    std::fs::write(dir.path().join("net.safetensors"), "own").unwrap();
    write_files(&module, &path).unwrap();
    let read = read_file(&path, &Registry::builtin()).unwrap();
    same(&module, &read).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("param @f32 : f32[3, 7] = file(\"net.gsir.safetensors\", \"f32\")"), "{text}");

    // Writing over the files that the module was read from leaves it intact.
    write_files(&read, &path).unwrap();
    same(&module, &read).unwrap();
    same(&module, &read_file(&path, &Registry::builtin()).unwrap()).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(std::fs::read(dir.path().join("net.safetensors")).unwrap(), b"own");
    // Whatever the text is called, its tensors have a name of their own.
    write_files(&module, &dir.path().join("net")).unwrap();
    assert_eq!(std::fs::read(dir.path().join("net.safetensors")).unwrap(), b"own");
    same(&module, &read_file(&dir.path().join("net"), &Registry::builtin()).unwrap()).unwrap();
}

/// If the text cannot take its name, the tensors of the old text are still there.
#[test]
fn a_failed_write_leaves_both_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.gsir");
    let module =
        |value: &str| parse(&format!("gsir 1\nparam @w : f32[20] = dense({})", [value; 20].join(", ")));
    write_files(&module("1.0"), &path).unwrap();
    // A folder stands where the tensors belong.
    let tensors = dir.path().join("net.gsir.safetensors");
    let old = std::fs::read(&tensors).unwrap();
    std::fs::remove_file(&tensors).unwrap();
    std::fs::create_dir(&tensors).unwrap();
    let text = std::fs::read(&path).unwrap();
    assert_eq!(write_files(&module("2.0"), &path).unwrap_err().path, tensors);
    assert_eq!(std::fs::read(&path).unwrap(), text);
    std::fs::remove_dir(&tensors).unwrap();
    std::fs::write(&tensors, &old).unwrap();
    // And where the text belongs.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(write_files(&module("2.0"), &path).unwrap_err().path, path);
    assert_eq!(std::fs::read(&tensors).unwrap(), old);
}

#[test]
fn files_that_are_not_right_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.gsir");
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        read_file(&path, &Registry::builtin()).map(drop).unwrap_err().diagnostics[0].code
    };
    let weights = parse(&format!("gsir 1\nparam @w : f32[20] = dense({})", vec!["1.0"; 20].join(", ")));
    let mut bytes = Vec::new();
    gs_text::write_weights(&weights, &PrintOptions::with_file("w.safetensors"), &mut bytes).unwrap();
    std::fs::write(dir.path().join("w.safetensors"), &bytes).unwrap();
    std::fs::write(dir.path().join("short.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
    std::fs::write(dir.path().join("empty.safetensors"), b"").unwrap();
    let global = |ty: &str, file: &str, name: &str| {
        format!("gsir 1\nparam @w : {ty} = file(\"{file}\", \"{name}\")\n")
    };
    assert_eq!(refused(&global("f32[20]", "absent.safetensors", "w")), "GS0302");
    assert_eq!(refused(&global("f32[20]", "short.safetensors", "w")), "GS0302");
    assert_eq!(refused(&global("f32[20]", "empty.safetensors", "w")), "GS0302");
    assert_eq!(refused(&global("f32[20]", "../w.safetensors", "w")), "GS0302");
    assert_eq!(refused(&global("f32[20]", "w.safetensors", "v")), "GS0303");
    assert_eq!(refused(&global("f32[19]", "w.safetensors", "w")), "GS0304");
    assert_eq!(refused(&global("i32[20]", "w.safetensors", "w")), "GS0304");
    assert_eq!(refused(&global("f32[4, 5]", "w.safetensors", "w")), "GS0304");
    assert_eq!(refused(&global("f32[N]", "w.safetensors", "w")), "GS0132");
    std::fs::write(&path, b"gsir 1 \xff").unwrap();
    assert_eq!(read_file(&path, &Registry::builtin()).map(drop).unwrap_err().diagnostics[0].code, "GS0300");
    assert_eq!(
        read_file(&dir.path().join("no"), &Registry::builtin()).map(drop).unwrap_err().diagnostics[0].code,
        "GS0300"
    );
}

/// What a later graph stores to is no constant for those before it: it may be no shape by now.
#[test]
fn a_constant_that_is_stored_to_is_none() {
    let text = "gsir 1
const @\"a shape\" : i64[2] = splat(-5)
graph @main() -> (%y : f32[?1, ?2]) {
  %y = constant_of_shape(@\"a shape\") : f32[?1, ?2]
  return %y
}
graph @train() -> () {
  %0 = abs(@\"a shape\") : i64[2]
  return updates {
    @\"a shape\" = %0
  }
}
";
    let module = parse(text);
    let printed = print_to_string(&module, &PrintOptions::default());
    same(&module, &parse(&printed)).unwrap();
    let constant = text.replace("    @\"a shape\" = %0\n", "");
    assert!(parse_module(&constant, None, &Registry::builtin()).is_err(), "a constant is no such shape");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_modules(seed: u64, size in 0usize..40) {
        let module = support::module(seed, size);
        let text = print_to_string(&module, &PrintOptions::default());
        let parsed = parse(&text);
        prop_assert_eq!(&print_to_string(&parsed, &PrintOptions::default()), &text);
        if let Err(difference) = same(&module, &parsed) {
            return Err(TestCaseError::fail(difference.to_string()));
        }
        let snapshot = print_to_string(&module, &PrintOptions::snapshot());
        prop_assert_eq!(print_to_string(&parse(&snapshot), &PrintOptions::snapshot()), snapshot);
    }
}
