//! What import and export do with the particular constructs of ONNX, on small models.

mod support;

use gs_ir::{Attr, AttrSet, Dim, ElemType, GlobalId, Init, Literal, Module, NewGlobal, Rewriter, Role, Type};
use gs_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto, TypeProto, attribute_type as at, data_type as dt,
};
use gs_onnx::{Error, ExportError, ExportOptions, NodeProblem, export};
use std::collections::BTreeSet;
use support::*;

fn function(
    name: &str,
    input: &[&str],
    output: &[&str],
    node: Vec<gs_onnx::proto::NodeProto>,
) -> FunctionProto {
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("my".to_owned()),
        input: strings(input),
        output: strings(output),
        node,
        opset_import: vec![
            OperatorSetIdProto { domain: Some(String::new()), version: Some(17) },
            OperatorSetIdProto { domain: Some("my".to_owned()), version: Some(1) },
        ],
        ..Default::default()
    }
}

fn calling(call: gs_onnx::proto::NodeProto, functions: Vec<FunctionProto>) -> ModelProto {
    let mut m = model(17, graph(vec![call], vec![value("x", &["N", "4"])], vec![value("y", &["N", "4"])]));
    m.opset_import.push(OperatorSetIdProto { domain: Some("my".to_owned()), version: Some(1) });
    m.functions = functions;
    m
}

#[test]
fn calls_become_the_body_with_attributes_bound_and_inner_calls_expanded() {
    let inner = function(
        "scaled",
        &["a", "unused"],
        &["b"],
        vec![with(node("LeakyRelu", &["a"], &["b"]), reference("alpha", at::FLOAT, "slope"))],
    );
    let outer = FunctionProto {
        attribute_proto: vec![float("slope", 0.25)],
        ..function(
            "outer",
            &["p"],
            &["r"],
            vec![
                in_domain("my", with(node("scaled", &["p"], &["q"]), reference("slope", at::FLOAT, "slope"))),
                node("Neg", &["q"], &["r"]),
            ],
        )
    };
    let call = named("call", in_domain("my", node("outer", &["x"], &["y"])));
    let module = read_ok(&calling(call, vec![inner, outer]));
    assert_eq!(op_names(&module), ["leaky_relu", "neg"]);
    let ops = module.all_ops();
    assert_eq!(module.attrs_of(ops[0]).float("alpha", 0.0), 0.25);
    assert!(ops.iter().all(|&op| module.label(op) == "call"), "all of the body stands for the call");
    let written = write(&module);
    assert!(written.functions.is_empty());
    assert_eq!(main_graph(&written).node[1].output, ["y"]);
}

#[test]
fn endless_functions_are_an_error() {
    let again = function("f", &["a"], &["b"], vec![in_domain("my", node("f", &["a"], &["b"]))]);
    let result = read(&calling(in_domain("my", node("f", &["x"], &["y"])), vec![again]));
    assert!(matches!(result, Err(Error::Node { problem: NodeProblem::Recursion(_), .. })));
    // Each calls the next twice: 2^30 nodes from thirty functions.
    let doubling = |i: usize| {
        let next = format!("f{}", i + 1);
        let op = |a: &str, b: &str| match i {
            30 => node("Neg", &[a], &[b]),
            _ => in_domain("my", node(&next, &[a], &[b])),
        };
        function(&format!("f{i}"), &["a"], &["c"], vec![op("a", "b"), op("b", "c")])
    };
    let result =
        read(&calling(in_domain("my", node("f0", &["x"], &["y"])), (0..=30).map(doubling).collect()));
    assert!(matches!(result, Err(Error::Node { problem: NodeProblem::Recursion(_), .. })));
}

#[test]
fn regions_capture_outer_values_and_bring_their_own_weights() {
    let branch = |name: &str, op: &str| {
        GraphProto {
            initializer: vec![f32s("w", &[4], &[1.0, 2.0, 3.0, 4.0])],
            ..graph(
                vec![node(op, &["h", "w"], &["r"])],
                vec![],
                vec![gs_onnx::proto::ValueInfoProto { name: Some("r".to_owned()), ..Default::default() }],
            )
        }
        .renamed(name)
    };
    let choose = with(
        with(named("choose", node("If", &["c"], &["y"])), graph_attr("then_branch", branch("t", "Add"))),
        graph_attr("else_branch", branch("e", "Mul")),
    );
    let m = model(
        17,
        graph(
            vec![node("Relu", &["x"], &["h"]), choose],
            vec![value("x", &["N", "4"]), typed("c", dt::BOOL, &[])],
            vec![value("y", &["N", "4"])],
        ),
    );
    let module = read_ok(&m);
    assert_eq!(op_names(&module), ["relu", "if", "add", "mul"]);
    assert_eq!(module.globals().count(), 2, "one weight for each branch");
    let written = write(&module);
    let g = main_graph(&written);
    assert_eq!(g.node[1].attribute.len(), 2);
    let names: Vec<&str> = g.initializer.iter().map(TensorProto::name).collect();
    assert_eq!(names, ["w", "w.1"], "weights of regions have names of their own");
}

trait Renamed {
    fn renamed(self, name: &str) -> Self;
}

impl Renamed for GraphProto {
    fn renamed(self, name: &str) -> Self {
        GraphProto { name: Some(name.to_owned()), ..self }
    }
}

/// `x [N, T, 8]` to `[Shape(x)[0], Shape(x)[1], 2, 4]`, computed as exporters do.
fn computed_reshape() -> GraphProto {
    let mut g = graph(
        vec![
            node("Shape", &["x"], &["s"]),
            with(named("pick", node("Gather", &["s", "01"], &["front"])), int("axis", 0)),
            with(node("Concat", &["front", "tail"], &["target"]), int("axis", 0)),
            named("view", node("Reshape", &["x", "target"], &["y"])),
        ],
        vec![value("x", &["N", "T", "8"])],
        vec![value("y", &["N", "T", "2", "4"])],
    );
    g.initializer = vec![i64s("01", &[2], &[0, 1]), i64s("tail", &[2], &[2, 4])];
    g
}

#[test]
fn a_computed_target_becomes_an_attribute_and_its_computation_goes() {
    let module = read_ok(&model(17, computed_reshape()));
    assert_eq!(op_names(&module), ["reshape"]);
    let view = module.all_ops()[0];
    let shape = module.attrs_of(view).dims("shape").expect("shape");
    assert_eq!(shape[2..], [Dim::Const(2), Dim::Const(4)]);
    assert!(shape[0].as_symbol().is_some() && shape[0] != shape[1]);
    assert_eq!(gone(&module, "pick"), Some("static"));
    assert_eq!(module.globals().count(), 0);
    let written = write(&module);
    assert_eq!(ops(&written), ["Reshape"]);
    let target = &main_graph(&written).initializer[0];
    assert_eq!((target.name(), target.raw_data.as_ref().map(|b| b.len())), ("view.shape", Some(32)));
    assert_eq!(target.raw_data.as_ref().map(|b| b[..16].to_vec()), Some(vec![0; 16]), "0 copies an extent");
}

#[test]
fn a_target_that_needs_another_tensors_extent_is_computed_again() {
    let mut g = graph(
        vec![
            node("Shape", &["z"], &["s"]),
            with(node("Concat", &["s", "rest"], &["target"]), int("axis", 0)),
            named("view", node("Reshape", &["x", "target"], &["y"])),
        ],
        vec![value("x", &["N", "T"]), value("z", &["M"])],
        vec![value("y", &["M", "K"])],
    );
    g.initializer = vec![i64s("rest", &[1], &[-1])];
    let module = read_ok(&model(17, g));
    assert_eq!(op_names(&module), ["reshape"]);
    let written = write(&module);
    assert_eq!(ops(&written), ["Shape", "Gather", "Concat", "Reshape"]);
}

#[test]
fn a_shape_that_still_has_other_readers_stays() {
    let mut g = computed_reshape();
    g.output.push(typed("s", dt::INT64, &["3"]));
    let module = read_ok(&model(17, g));
    assert_eq!(op_names(&module), ["shape", "reshape"]);
    assert_eq!(ops(&write(&module)), ["Shape", "Reshape"]);
}

#[test]
fn an_operator_that_is_kept_blocks_another_version_only_where_it_changed() {
    let prelu = |opset| {
        let mut g = graph(
            vec![named("act", node("PRelu", &["x", "slope"], &["y"]))],
            vec![value("x", &["N", "4"])],
            vec![value("y", &["N", "4"])],
        );
        g.initializer = vec![f32s("slope", &[1], &[0.1])];
        model(opset, g)
    };
    let module = read_ok(&prelu(6));
    assert!(kept(&module, "act").is_some_and(|why| why.contains('6')), "{:?}", kept(&module, "act"));
    let blocked = export(&module, &ExportOptions { opset: Some(21), ..Default::default() }).map(|_| ());
    let expected = ExportError::Opaque { node: "act".into(), op: "ai.onnx::PRelu".into(), from: 6, to: 21 };
    assert_eq!(blocked, Err(expected));

    let lrn = with(named("lrn", node("LRN", &["x"], &["y"])), int("size", 3));
    let g =
        graph(vec![lrn], vec![value("x", &["1", "4", "2", "2"])], vec![value("y", &["1", "4", "2", "2"])]);
    let written = write_in(&read_ok(&model(9, g)), Some(21));
    assert_eq!(written.opset_import[0].version(), 21);
    assert_eq!(written.ir_version(), 10, "the file format goes with the operator set");
}

#[test]
fn a_version_without_an_operator_is_raised_to_the_first_that_has_it() {
    let g = graph(
        vec![node("Relu", &["x"], &["h"])],
        vec![value("x", &["N", "4"])],
        vec![value("h", &["N", "4"])],
    );
    let mut module = read_ok(&model(9, g));
    let main = module.main().expect("main");
    let h = module.graph(main).results().next().expect("result");
    let mut rw = gs_ir::Rewriter::new(&mut module);
    let y = rw.emit("hard_swish", &[h], Default::default(), gs_ir::At::End(main)).expect("hard_swish");
    rw.set_result(main, 0, y);
    let written = write(&module);
    assert_eq!(written.opset_import[0].version(), 14);
    assert_eq!(ops(&written), ["Relu", "HardSwish"]);
    assert_eq!(main_graph(&written).output[0].name(), "h", "the interface keeps its name");
    let asked = export(&module, &ExportOptions { opset: Some(9), ..Default::default() }).map(|_| ());
    assert!(matches!(asked, Err(ExportError::Version { version: 9, .. })), "{asked:?}");
}

/// A reader's versions are met where all operations have a form in them; else those of the source stay.
#[test]
fn the_versions_that_a_reader_takes() {
    let with = |node: gs_onnx::proto::NodeProto| {
        let g = graph(vec![node], vec![value("x", &["N", "4"])], vec![value("y", &["N", "4"])]);
        read_ok(&model(11, g))
    };
    let (relu, hardmax) =
        (with(node("Relu", &["x"], &["y"])), with(named("top", node("Hardmax", &["x"], &["y"]))));
    let choose = |module, at_least, at_most| {
        let options =
            ExportOptions { at_least: Some(at_least), at_most: Some(at_most), ..Default::default() };
        let chosen = gs_onnx::opset_for(module, &options).expect("a version");
        let written = export(module, &options).expect("export");
        assert_eq!(written.model.opset_import[0].version(), chosen.version);
        (chosen.version, chosen.blocked)
    };
    assert_eq!(choose(&relu, 21, 27), (21, None));
    assert_eq!(choose(&relu, 9, 27), (11, None), "it is not lowered without need");
    assert_eq!(choose(&relu, 7, 10), (10, None));
    let why = ExportError::Opaque { node: "top".into(), op: "ai.onnx::Hardmax".into(), from: 11, to: 21 };
    assert_eq!(choose(&hardmax, 21, 27), (11, Some(why)), "Hardmax means something else from 13 on");
    assert_eq!(choose(&hardmax, 12, 27), (12, None));
    let options = ExportOptions { at_most: Some(10), ..Default::default() };
    let refused = gs_onnx::opset_for(&hardmax, &options);
    assert!(matches!(refused, Err(ExportError::Opaque { from: 11, to: 10, .. })), "{refused:?}");
}

fn gemm_of_old_format() -> ModelProto {
    let mut g = graph(
        vec![node("Gemm", &["x", "w", "b"], &["y"])],
        vec![value("x", &["N", "2"]), value("w", &["2", "3"]), value("b", &["3"])],
        vec![value("y", &["N", "3"])],
    );
    g.initializer = vec![f32s("w", &[2, 3], &[1.0; 6]), f32s("b", &[3], &[0.0; 3])];
    ModelProto { ir_version: Some(3), ..model(9, g) }
}

#[test]
fn old_files_list_weights_as_inputs_until_the_format_is_raised() {
    let module = read_ok(&gemm_of_old_format());
    let inputs =
        |m: &ModelProto| -> Vec<String> { main_graph(m).input.iter().map(|i| i.name().to_owned()).collect() };
    assert_eq!(inputs(&write(&module)), ["x", "w", "b"]);
    assert_eq!(
        inputs(&write_in(&module, Some(13))),
        ["x"],
        "from IR 4 on a listed weight could be overridden"
    );
}

/// From IR 4 on a listed weight may be overridden: it is no constant, and the inputs of the file stay what they were.
#[test]
fn weights_that_a_run_may_override_are_inputs() {
    let mut g = graph(
        vec![
            node("Conv", &["x", "w"], &["c"]),
            node("Identity", &["k"], &["k2"]),
            node("Mul", &["c", "k2"], &["m"]),
            node("Reshape", &["m", "sh"], &["r"]),
            node("Add", &["r", "one"], &["y"]),
        ],
        vec![
            value("x", &["N", "2", "4", "4"]),
            value("w", &["2", "2", "1", "1"]),
            typed("sh", dt::INT64, &["2"]),
            value("k", &["1"]),
            value("idle", &["1"]),
            value("large", &["1024"]),
        ],
        vec![value("y", &["N", "K"])],
    );
    g.initializer = vec![
        f32s("w", &[2, 2, 1, 1], &[1.0; 4]),
        i64s("sh", &[2], &[1, -1]),
        f32s("k", &[1], &[2.0]),
        f32s("one", &[1], &[1.0]),
        f32s("idle", &[1], &[1.0]),
        f32s("large", &[1024], &[0.5; 1024]),
    ];
    let source = model(13, g);
    let module = read_ok(&source);
    let role = |m: &gs_ir::Module, name: &str| m.global(m.global_named(name).expect(name)).role;
    for name in ["w", "sh", "k", "idle", "large"] {
        assert_eq!(role(&module, name), Role::Input, "{name}");
    }
    assert_eq!(role(&module, "one"), Role::Const);
    // Nothing was computed from what they hold in the file.
    let names: Vec<&str> = module.all_ops().into_iter().map(|op| module.op_name(op)).collect();
    assert_eq!(names, ["conv", "mul", "reshape_to", "add"]);
    let written = write(&module);
    let inputs = |m: &ModelProto| -> BTreeSet<String> {
        main_graph(m).input.iter().map(|i| i.name().to_owned()).collect()
    };
    assert_eq!(inputs(&written), inputs(&source));
    let stored = |m: &ModelProto| -> BTreeSet<String> {
        main_graph(m).initializer.iter().map(|i| i.name().to_owned()).collect()
    };
    assert_eq!(stored(&written), stored(&source));
    let again = read_ok(&written);
    assert_eq!(role(&again, "sh"), Role::Input);
    assert_eq!(write(&again), written);
}

#[test]
fn a_repeated_value_that_a_run_may_override_is_no_node() {
    let mut g = graph(
        vec![node("Add", &["x", "big"], &["y"])],
        vec![value("x", &["1024"])],
        vec![value("y", &["1024"])],
    );
    g.initializer = vec![f32s("big", &[1024], &[0.5; 1024])];
    let mut module = read_ok(&model(13, g));
    let big = module.global_named("big").expect("big");
    let mut rw = gs_ir::Rewriter::new(&mut module);
    rw.set_global(
        big,
        gs_ir::Type::fixed(gs_ir::ElemType::F32, &[1024]),
        Init::Splat(0.5f32.to_le_bytes().as_slice().into()),
    );
    assert_eq!(main_graph(&write(&module)).node.len(), 2, "a constant may be a node");
    gs_ir::Rewriter::new(&mut module).set_role(big, Role::Input, false);
    let written = write(&module);
    assert_eq!(main_graph(&written).node.len(), 1);
    assert_eq!(main_graph(&written).input.len(), 2);
}

#[test]
fn learned_weights_are_parameters_and_other_constants_are_not() {
    let mut g = graph(
        vec![
            node("Transpose", &["wt"], &["w"]),
            node("Gemm", &["x", "w", "b"], &["h"]),
            node("Mul", &["h", "two"], &["y"]),
        ],
        vec![value("x", &["N", "2"])],
        vec![value("y", &["N", "3"])],
    );
    g.initializer =
        vec![f32s("wt", &[3, 2], &[1.0; 6]), f32s("b", &[3], &[0.0; 3]), f32s("two", &[], &[2.0])];
    let module = read_ok(&model(13, g));
    let roles: Vec<(&str, Role)> = module.globals().map(|(_, g)| (module.str(g.name), g.role)).collect();
    assert_eq!(roles, [("wt", Role::Param), ("b", Role::Param), ("two", Role::Const)]);
}

#[test]
fn weights_behind_identity_and_cast_are_globals_and_stay_narrow_in_the_file() {
    let half = TensorProto {
        name: Some("w16".to_owned()),
        dims: vec![2, 2],
        data_type: Some(dt::FLOAT16),
        int32_data: vec![0x3c00, 0x4000, 0x4200, 0x4400],
        ..Default::default()
    };
    let mut g = graph(
        vec![
            named("same", node("Identity", &["w16"], &["alias"])),
            with(named("widen", node("Cast", &["alias"], &["w"])), int("to", 1)),
            node("MatMul", &["x", "w"], &["y"]),
        ],
        vec![value("x", &["N", "2"])],
        vec![value("y", &["N", "2"])],
    );
    g.initializer = vec![half];
    let module = read_ok(&model(13, g));
    assert_eq!(op_names(&module), ["matmul"]);
    assert_eq!((gone(&module, "same"), gone(&module, "widen")), (Some("alias"), Some("derived")));
    let w = module.global_named("w").map(|id| module.global(id)).expect("derived weight");
    assert!(matches!(w.init, Init::Derived(_)) && w.role == Role::Param && w.trainable);
    let written = write(&module);
    assert_eq!(ops(&written), ["Cast", "MatMul"]);
    assert_eq!(main_graph(&written).initializer[0].data_type(), dt::FLOAT16);
}

/// A constant of these packed bytes.
fn packed(rewriter: &mut Rewriter<'_>, name: &str, elem: ElemType, n: i64, bytes: &[u8]) -> GlobalId {
    let (role, trainable, ty) = (Role::Const, false, Type::fixed(elem, &[n]));
    let init = Init::Data(Literal::new(elem, [n], bytes.to_vec()).data);
    rewriter.add_global(NewGlobal { name, role, trainable, ty, init })
}

/// What an operator makes of constants.
fn derived(r: &mut Rewriter<'_>, name: &str, op: &str, attrs: AttrSet, of: &[GlobalId]) -> GlobalId {
    let kind = r.registry().kind(op).expect("an operator");
    let of: Vec<Option<GlobalId>> = of.iter().map(|&g| Some(g)).collect();
    r.derive_global(name, kind, attrs, &of).expect("a constant")
}

/// A network that adds eight numbers of i8, made of codes of this type through a table of levels.
fn through_a_table(codes: ElemType, levels: &[i8]) -> Module {
    let mut g = graph(
        vec![node("Add", &["x", "w"], &["y"])],
        vec![typed("x", dt::INT8, &["N", "8"])],
        vec![typed("y", dt::INT8, &["N", "8"])],
    );
    let raw_data = Some(vec![0u8; 8].into());
    let w = TensorProto {
        name: Some("w".to_owned()),
        data_type: Some(dt::INT8),
        dims: vec![8],
        ..Default::default()
    };
    g.initializer = vec![TensorProto { raw_data, ..w }];
    let mut module = read_ok(&model(17, g));
    let old = module.global_named("w").map(|id| module.global(id).value).expect("a weight");
    let mut rewriter = Rewriter::new(&mut module);
    let r = &mut rewriter;
    let bytes: Vec<u8> = levels.iter().map(|&n| n as u8).collect();
    let table = packed(r, "levels", ElemType::I8, levels.len() as i64, &bytes);
    let stored = packed(r, "codes", codes, 8, &vec![0x1b; codes.bits() as usize]);
    let places =
        derived(r, "places", "cast", AttrSet::new().with("to", Attr::Elem(ElemType::I32)), &[stored]);
    let w = derived(r, "numbers", "gather", AttrSet::new(), &[table, places]);
    let new = r.global(w).value;
    r.replace_uses(old, new);
    let old = r.as_global(old).expect("a weight");
    r.remove_global(old);
    module
}

#[test]
fn packed_codes_stay_packed_behind_a_table_that_reads_them() {
    // The places in the table alone are larger than the numbers: the chain counts as a whole.
    let module = through_a_table(ElemType::U4, &[-3, -1, 1]);
    let model = write(&module);
    assert_eq!(ops(&model), ["Cast", "Gather", "Add"]);
    let stored: Vec<(&str, i32)> =
        main_graph(&model).initializer.iter().map(|t| (t.name(), t.data_type())).collect();
    assert_eq!(stored, [("levels", dt::INT8), ("codes", dt::UINT4)]);
    // A table that is larger than what it saves is not worth it.
    let large = through_a_table(ElemType::U4, &[0; 16]);
    let exported = export(&large, &ExportOptions::default()).expect("a model");
    assert_eq!((ops(&exported.model), exported.opset.version), (vec!["Add"], 17));
}

#[test]
fn narrow_types_raise_the_version_unless_it_is_given() {
    let version = |codes, options: &ExportOptions| {
        let module = through_a_table(codes, &[-3, -1, 1]);
        let exported = export(&module, options).expect("a model");
        (exported.opset.version, ops(&exported.model).len())
    };
    let free = ExportOptions::default();
    assert_eq!(
        [ElemType::U8, ElemType::U4, ElemType::U2].map(|e| version(e, &free)),
        [(17, 1), (21, 3), (25, 3)]
    );
    let given = ExportOptions { opset: Some(21), ..free.clone() };
    assert_eq!([ElemType::U4, ElemType::U2].map(|e| version(e, &given)), [(21, 3), (21, 1)]);
    let old = ExportOptions { at_most: Some(24), at_least: Some(18), ..free };
    assert_eq!([ElemType::U4, ElemType::U2].map(|e| version(e, &old)), [(21, 3), (18, 1)]);
}

#[test]
fn limits_of_integers_are_integers() {
    let limit = |name: &str, value: u8| TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(dt::UINT8),
        raw_data: Some(vec![value].into()),
        ..Default::default()
    };
    let mut g = graph(
        vec![
            named("cut", node("Clip", &["x", "", "high"], &["c"])),
            named("rim", node("Pad", &["c", "pads", "zero"], &["y"])),
        ],
        vec![typed("x", dt::UINT8, &["N", "3"])],
        vec![typed("y", dt::UINT8, &["N", "5"])],
    );
    g.initializer = vec![limit("high", 15), limit("zero", 7), i64s("pads", &[4], &[0, 1, 0, 1])];
    let module = read_ok(&model(17, g));
    let written = write(&module);
    let stored = &main_graph(&written).initializer;
    let of =
        |name: &str| stored.iter().find(|t| t.name() == name).map(|t| (t.data_type(), t.raw_data().to_vec()));
    assert_eq!(of("cut.max"), Some((dt::UINT8, vec![15])));
    assert_eq!(of("rim.value"), Some((dt::UINT8, vec![7])));
}

#[test]
fn large_uniform_weights_stay_small_in_the_file() {
    let mut g = graph(
        vec![
            with(
                named("fill", node("ConstantOfShape", &["dims"], &["w"])),
                tensor_attr("value", f32s("", &[1], &[0.5])),
            ),
            node("MatMul", &["x", "w"], &["y"]),
        ],
        vec![value("x", &["N", "1000"])],
        vec![value("y", &["N", "1000"])],
    );
    g.initializer = vec![i64s("dims", &[2], &[1000, 1000])];
    let module = read_ok(&model(9, g));
    let w = module.global_named("w").map(|id| module.global(id)).expect("weight");
    assert!(matches!(w.init, Init::Splat(_)) && w.role == Role::Param);
    assert_eq!(gone(&module, "fill"), Some("constant"));
    let written = write(&module);
    assert_eq!(ops(&written), ["ConstantOfShape", "MatMul"]);
}

#[test]
fn constants_come_in_every_form() {
    let sparse = SparseTensorProto {
        values: Some(f32s("", &[2], &[5.0, 7.0])),
        indices: Some(i64s("", &[2, 2], &[0, 1, 1, 0])),
        dims: vec![2, 2],
    };
    let attr = |name: &str, kind| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(kind),
        ..Default::default()
    };
    let forms = [
        (tensor_attr("value", f32s("", &[1], &[1.5])), vec![1], 1.5f32.to_le_bytes().to_vec()),
        (float("value_float", 2.5), vec![], 2.5f32.to_le_bytes().to_vec()),
        (int("value_int", 3), vec![], 3i64.to_le_bytes().to_vec()),
        (ints("value_ints", &[4, 5]), vec![2], [4i64.to_le_bytes(), 5i64.to_le_bytes()].concat()),
        (
            AttributeProto {
                sparse_tensor: Some(Box::new(sparse)),
                ..attr("sparse_value", at::SPARSE_TENSOR)
            },
            vec![2, 2],
            [0.0f32, 5.0, 7.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
    ];
    for (attribute, dims, bytes) in forms {
        let nodes = vec![with(node("Constant", &[], &["c"]), attribute), node("Identity", &["c"], &["y"])];
        let output = gs_onnx::proto::ValueInfoProto { name: Some("y".to_owned()), ..Default::default() };
        let module = read_ok(&model(13, graph(nodes, vec![], vec![output])));
        let (_, global) = module.globals().next().expect("global");
        assert_eq!(module.ty(global.ty).as_tensor().and_then(|t| t.const_dims()), Some(dims));
        assert!(matches!(&global.init, Init::Data(d) if d.bytes().is_some_and(|b| **b == bytes[..])));
        assert_eq!(ops(&write(&module)), ["Identity"]);
    }
}

#[test]
fn unknown_operators_keep_everything_they_have() {
    let strange = AttributeProto {
        tp: Some(Box::new(TypeProto { denotation: Some("WHAT".to_owned()), ..Default::default() })),
        name: Some("tp".to_owned()),
        r#type: Some(at::TYPE_PROTO),
        ..Default::default()
    };
    let bytes = AttributeProto {
        s: Some(bytes::Bytes::from_static(&[0xff, 0xfe])),
        name: Some("bytes".to_owned()),
        r#type: Some(at::STRING),
        ..Default::default()
    };
    let graphs = AttributeProto {
        graphs: vec![
            graph(vec![], vec![], vec![]),
            graph(vec![node("Neg", &["x"], &["n"])], vec![], vec![value("n", &["N"])]),
        ],
        name: Some("graphs".to_owned()),
        r#type: Some(at::GRAPHS),
        ..Default::default()
    };
    let mut call = in_domain("their.domain", named("odd", node("Odd", &["x", "", "x", ""], &["y", "", "z"])));
    call.attribute = vec![
        bytes,
        float("f", f32::NAN),
        ints("is", &[]),
        tensor_attr("t", f32s("", &[1], &[1.0])),
        strange,
        graphs,
    ];
    call.overload = Some("special".to_owned());
    call.doc_string = Some("a remark".to_owned());
    let m = model(
        17,
        graph(vec![call.clone()], vec![value("x", &["N"])], vec![value("y", &["N"]), value("z", &["N"])]),
    );
    let module = read_ok(&m);
    assert_eq!(module.opaque_name(module.all_ops()[0]), Some("their.domain::Odd"));
    let written = write(&module);
    let back = &main_graph(&written).node[0];
    assert_eq!((&back.input, &back.output, back.overload()), (&call.input, &call.output, "special"));
    assert_eq!(back.doc_string(), "a remark");
    let sorted = |n: &gs_onnx::proto::NodeProto| {
        let mut names: Vec<(String, i32)> =
            n.attribute.iter().map(|a| (a.name().to_owned(), a.r#type())).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(back), sorted(&call));
    let kept_type = back.attribute.iter().find_map(|a| a.tp.as_ref()).expect("type");
    assert_eq!(kept_type.denotation(), "WHAT");
    assert_eq!(back.attribute.iter().map(|a| a.graphs.len()).sum::<usize>(), 2);
}

#[test]
fn contradictions_name_the_node() {
    let reads_nothing =
        graph(vec![named("n", node("Neg", &["nowhere"], &["y"]))], vec![], vec![value("y", &[])]);
    let text = read(&model(17, reads_nothing)).map(|_| ()).expect_err("unknown value").to_string();
    assert!(text.contains("'n'") && text.contains("'nowhere'"), "{text}");
    let twice = graph(
        vec![node("Neg", &["x"], &["y"]), node("Abs", &["x"], &["y"])],
        vec![value("x", &["1"])],
        vec![value("y", &["1"])],
    );
    let result = read(&model(17, twice)).map(|_| ());
    assert!(matches!(result, Err(Error::Node { problem: NodeProblem::Redefined(_), .. })));
    let no_output = graph(vec![], vec![value("x", &["1"])], vec![value("y", &["1"])]);
    assert!(matches!(read(&model(17, no_output)), Err(Error::Graph { .. })));
}

#[test]
fn outputs_that_are_inputs_weights_or_the_same_value_keep_their_names() {
    let mut g = graph(
        vec![node("Relu", &["x"], &["y"])],
        vec![value("x", &["2"])],
        vec![value("y", &["2"]), value("x", &["2"]), value("w", &["2"])],
    );
    g.initializer = vec![f32s("w", &[2], &[1.0, 2.0])];
    let mut module = read_ok(&model(17, g));
    assert_eq!(ops(&write(&module)), ["Relu"]);
    let main = module.main().expect("main");
    let y = module.graph(main).results().next().expect("result");
    let mut rw = gs_ir::Rewriter::new(&mut module);
    rw.set_result(main, 2, y);
    let written = write(&module);
    let names: Vec<&str> = main_graph(&written).output.iter().map(|o| o.name()).collect();
    assert_eq!((ops(&written), names), (vec!["Relu", "Identity"], vec!["y", "x", "w"]));
    gs_ir::Rewriter::new(&mut module).set_result(main, 1, y);
    let clash = export(&module, &ExportOptions::default()).map(|_| ());
    assert_eq!(clash, Err(ExportError::OutputIsInput("x".into())));
}

#[test]
fn the_same_symbol_is_one_dimension_and_unnamed_ones_are_none() {
    let g = graph(
        vec![node("Identity", &["a"], &["y"])],
        vec![value("a", &["N", "-1"]), value("b", &["N", "?"])],
        vec![value("y", &["N", "-1"])],
    );
    let module = read_ok(&model(17, g));
    let dims = |i: usize| {
        let p = module.graph(module.main().expect("main")).params()[i];
        module.type_of(p).dims().expect("rank").to_vec()
    };
    assert_eq!(dims(0)[0], dims(1)[0]);
    assert_ne!(dims(0)[1], dims(1)[1]);
    write(&module);
}

#[test]
fn static_operands_become_attributes_of_the_declared_kind() {
    let mut g = graph(
        vec![named("limit", node("Clip", &["x", "low"], &["y"]))],
        vec![typed("x", dt::FLOAT16, &["N"])],
        vec![typed("y", dt::FLOAT16, &["N"])],
    );
    g.initializer = vec![TensorProto {
        name: Some("low".to_owned()),
        data_type: Some(dt::FLOAT16),
        int32_data: vec![0xc000],
        ..Default::default()
    }];
    let module = read_ok(&model(17, g));
    let clip = module.all_ops()[0];
    assert_eq!(module.attrs_of(clip).get("min"), Some(&Attr::float(-2.0)));
    let written = write(&module);
    let low = &main_graph(&written).initializer[0];
    assert_eq!((low.name(), low.data_type(), low.dims.len()), ("limit.min", dt::FLOAT16, 0));
}

#[test]
fn what_matters_to_training_alone_survives_a_round_trip() {
    for opset in [9, 15] {
        let x = || value("x", &["1", "2", "3"]);
        let dropout = node("Dropout", if opset < 12 { &["n"] } else { &["n", "ratio"] }, &["y"]);
        let dropout = if opset < 12 { with(dropout, float("ratio", 0.25)) } else { dropout };
        let norm =
            with(node("BatchNormalization", &["x", "s", "s", "s", "s"], &["n"]), float("momentum", 0.75));
        let mut g = graph(vec![norm, dropout], vec![x()], vec![value("y", &["1", "2", "3"])]);
        g.initializer = vec![f32s("s", &[2], &[1.0, 2.0]), f32s("ratio", &[], &[0.25])];
        let first = read_ok(&model(opset, g));
        let again = read_ok(&write(&first));
        for module in [&first, &again] {
            let floats: Vec<Option<f32>> = module
                .all_ops()
                .into_iter()
                .map(|op| {
                    let name = if module.is(op, "dropout") { "ratio" } else { "momentum" };
                    module.decl(op).float(module.attrs_of(op), name)
                })
                .collect();
            assert_eq!(floats, [Some(0.75), Some(0.25)], "opset {opset}");
        }
    }
}

#[test]
fn a_ratio_that_is_computed_is_no_reason_to_give_up() {
    let x = || value("x", &["2"]);
    let g = graph(
        vec![node("Dropout", &["x", "r"], &["y"])],
        vec![x(), value("r", &[])],
        vec![value("y", &["2"])],
    );
    assert_eq!(op_names(&read_ok(&model(15, g))), ["dropout"]);
}
