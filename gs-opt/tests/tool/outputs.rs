//! What is written, and where: files of one's own stay, what cannot be written is told.

use crate::harness::{
    data, folder, gs_opt, gs_opt_with, gs_opt_with_input, gs_opt_without_reader, network, put, refuses,
    succeeds,
};
use std::fs;
use std::path::Path;

#[test]
fn places_that_cannot_be_written() {
    let folder = folder();
    let dir = folder.path();
    fs::create_dir(dir.join("taken.onnx")).expect("a folder");
    fs::create_dir(dir.join("taken.gsir")).expect("a folder");
    // The path that was given, not that of a temporary file, and what to do.
    for args in [
        &["net.gsir", "-o", "absent/out.onnx"][..],
        &["net.gsir", "-o", "absent/out.gsir"],
        &["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "absent/out.onnx"],
        &["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "out.onnx", "--report", "absent/r.json"],
        &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "absent/out.npz"],
    ] {
        let ended = gs_opt(dir, args);
        let says = |text: &str| ended.stderr.contains(text);
        assert!(says("absent/") && says("no folder absent") && says("mkdir -p absent"), "{}", ended.stderr);
        assert!(!says(".tmp"), "{}", ended.stderr);
    }
    if Path::new("/dev/full").exists() {
        for args in [
            &["net.gsir", "-o", "/dev/full"][..],
            &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "/dev/full"],
        ] {
            refuses(dir, args, &["/dev/full", "No space left", "make room"]);
        }
    }
    for out in ["absent/out.onnx", "absent/out.gsir", "taken.onnx", "out.pb", "taken.gsir"] {
        let stem = out.trim_end_matches(".gsir");
        refuses(dir, &["net.gsir", "-o", out], &[stem]);
        refuses(dir, &["quantize", "net.gsir", "--data", "npz:good.npz", "-o", out], &[stem]);
    }
    refuses(
        dir,
        &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "absent/out.npz"],
        &["absent/out.npz"],
    );
}

/// `-` is GSIR text on standard input and output; what is said to people goes elsewhere then.
#[test]
fn standard_streams() {
    let folder = folder();
    let dir = folder.path();
    let printed = succeeds(dir, &["net.gsir"]);
    let piped = |args: &[&str], input: &str| {
        let ended = gs_opt_with_input(dir, args, input);
        assert_eq!(ended.status, Some(0), "{args:?}: {}", ended.stderr);
        // Progress is for terminals.
        assert!(!ended.stderr.contains(['\r', '\x1b']), "{args:?}: {}", ended.stderr);
        ended
    };
    for args in [&["-"][..], &["-", "-o", "-"], &["net.gsir", "-o", "-"], &["-", "--pass=dce"]] {
        assert_eq!(piped(args, &printed).stdout, printed, "{args:?}");
    }
    let said = piped(&["eval", "-", "--data", "npz:good.npz"], &printed).stdout;
    assert!(said.contains("4 samples"), "{said}");
    let quantised = piped(&["quantize", "-", "--data", "npz:good.npz", "-o", "-"], &printed);
    assert!(quantised.stderr.contains("compute in integers"), "{}", quantised.stderr);
    assert_eq!(piped(&["-"], &quantised.stdout).stdout, quantised.stdout);
    let report = ["quantize", "-", "--data", "npz:good.npz", "-o", "out.onnx", "--report", "-"];
    let json = piped(&report, &printed).stdout;
    assert!(json.starts_with('{') && json.trim_end().ends_with('}'), "{json}");
    fs::remove_file(dir.join("out.onnx")).expect("an output");
    refuses(
        dir,
        &["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "-", "--report", "-"],
        &["standard output"],
    );
    for (input, words) in [("", "<stdin>:1"), ("gsir 1\ngraph @main(", "<stdin>:2")] {
        let ended = gs_opt_with_input(dir, &["-", "-o", "out.onnx"], input);
        assert!(ended.status == Some(1) && ended.stderr.contains(words), "{}", ended.stderr);
    }
}

/// `gs-opt ops | head` is no error.
#[test]
fn a_reader_that_goes_away() {
    let folder = folder();
    for args in [&["ops"][..], &["net.gsir"], &["rules", "--json"], &["man"], &["completions", "bash"]] {
        let ended = gs_opt_without_reader(folder.path(), args);
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

/// What was asked for is done, whether or not anybody listens.
#[test]
fn a_reader_that_goes_away_ends_no_work() {
    let folder = folder();
    let dir = folder.path();
    let done = |args: &[&str], file: &str| {
        let ended = gs_opt_without_reader(dir, args);
        assert_eq!(ended.status, Some(0), "{args:?}: {}", ended.stderr);
        assert!(dir.join(file).exists(), "{args:?} wrote no {file}");
    };
    put(dir, "small.gsir", include_str!("../../../tests/networks/small.gsir"));
    let run = ["--data", "shapes:train:64", "--batch", "32", "-o", "run", "--algorithm", "simqat"];
    done(&[&["train", "small.gsir", "--val", "shapes:test:32"], &run[..]].concat(), "run/trained.gsir");
    done(&["convert", "run", "-o", "a.onnx", "--report", "a.json"], "a.onnx");
    done(&["convert", "run", "-o", "b.onnx", "--report", "-"], "b.onnx");
    done(&["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "c.onnx"], "c.onnx");
    done(&["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "d.onnx", "--report", "-"], "d.onnx");
    done(&["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "e.npz"], "e.npz");
    done(&["net.gsir", "--pass=dce", "-o", "f.gsir"], "f.gsir");
}

/// A full disk behind standard output is told when the work is done; behind standard error there is nobody to tell.
#[test]
fn streams_that_cannot_be_written() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full");
    if full().is_err() {
        return;
    }
    let folder = folder();
    let dir = folder.path();
    let out = |args: &[&str]| gs_opt_with(dir, args, |c| _ = c.stdout(full().expect("a device")));
    for args in
        [&["ops"][..], &["net.gsir"], &["algos"], &["man"], &["eval", "net.gsir", "--data", "npz:good.npz"]]
    {
        let ended = out(args);
        assert_eq!(ended.status, Some(1), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("standard output: No space left"), "{args:?}: {}", ended.stderr);
    }
    let quantize = ["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "q.onnx"];
    assert_eq!(out(&quantize).status, Some(1));
    assert!(dir.join("q.onnx").exists());
    let err = |args: &[&str]| gs_opt_with(dir, args, |c| _ = c.stderr(full().expect("a device")));
    let passes =
        ["net.gsir", "--pass=dce,simqat", "--statistics", "--timing", "--print-ir-after=all", "--remarks"];
    for (args, status) in [
        (&["absent.gsir"][..], 1),
        (&["ops", "absent"], 1),
        (&["net.gsir", "--no-such-option"], 2),
        (&["train", "absent.onnx", "--data", "npz:good.npz", "-o", "z"], 1),
        (&["eval", "net.gsir", "--data", "shapes:test:8"], 1),
        (&passes, 0),
        (&["quantize", "net.gsir", "--data", "npz:good.npz", "-o", "-"], 0),
    ] {
        assert_eq!(err(args).status, Some(status), "{args:?}");
    }
}

#[test]
fn what_is_no_text_does_not_go_to_standard_output() {
    let folder = folder();
    let dir = folder.path();
    refuses(
        dir,
        &["eval", "net.gsir", "--data", "npz:good.npz", "--outputs", "-"],
        &["--outputs -", "standard output"],
    );
    refuses(dir, &["net.gsir", "--pass=deploy", "--reproducer", "-"], &["--reproducer -", "standard output"]);
    assert!(!dir.join("-").exists());
}

#[test]
fn a_file_of_ones_own_beside_the_text_stays() {
    let folder = folder();
    let dir = folder.path();
    let weights = vec!["0.5"; 48].join(", ");
    let large = network("0.5")
        .replace(
            "f32[2, 3, 1, 1] = dense(0.5, -0.25, 1.0, 0.5, 0.125, -1.0)",
            &format!("f32[16, 3, 1, 1] = dense({weights})"),
        )
        .replace("[N, 2, 8, 8]", "[N, 16, 8, 8]");
    put(dir, "in.gsir", large);
    put(dir, "out.safetensors", "own");
    succeeds(dir, &["in.gsir", "-o", "out.gsir"]);
    assert_eq!(fs::read(dir.join("out.safetensors")).expect("the file is there"), b"own");
    assert_eq!(succeeds(dir, &["in.gsir"]), succeeds(dir, &["out.gsir"]));
}

/// A reproducer is a whole file or none, and replaces an older one in one step.
#[cfg(unix)]
#[test]
fn a_reproducer_replaces_an_old_one_as_a_whole() {
    use std::os::unix::fs::MetadataExt;
    let folder = folder();
    let dir = folder.path();
    put(dir, "fails.gsir", "old");
    let inode = fs::metadata(dir.join("fails.gsir")).expect("a file").ino();
    refuses(
        dir,
        &["net.gsir", "--pass=simqat{exclude=[nothing]}", "--reproducer", "fails.gsir"],
        &["fails.gsir holds the module"],
    );
    assert_ne!(fs::metadata(dir.join("fails.gsir")).expect("a file").ino(), inode);
    assert!(fs::read_to_string(dir.join("fails.gsir")).expect("text").contains("--pass='simqat{"));
}

/// ONNX has one graph, which writes nothing: what is lost is said, in one line, and what only that used is not written.
#[test]
fn what_onnx_cannot_hold_is_named() {
    let folder = folder();
    let dir = folder.path();
    let text = "gsir 1\n\
        param @w : f32[2] = dense(1.0, 2.0)\n\
        state @mean : f32[2] = dense(0.0, 0.0)\n\
        state @momentum : f32[2] = dense(7.0, 7.0)\n\
        const @idle : f32[2] = dense(3.0, 4.0)\n\
        graph @main(%c : bool[], %x : f32[2]) -> (%y : f32[2]) {\n\
          %0 = if(%c) : f32[2] region then_branch() -> (f32[2]) {\n    return @w\n  }\n\
          region else_branch() -> (f32[2]) {\n    return %x\n  }\n\
          return %0 updates { @mean = %0 }\n\
        }\n\
        graph @train(%x : f32[2]) -> (%y : f32[2]) {\n\
          %0 = mul(%x, @w) : f32[2]\n  %1 = add(%0, @momentum) : f32[2]\n\
          return %1 updates { @momentum = %1, @w = %0 }\n\
        }\n";
    put(dir, "trained.gsir", text);
    let ended = gs_opt(dir, &["trained.gsir", "-o", "trained.onnx"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let said = "warning: trained.onnx: ONNX has no place for the graph @train; the update of @mean; \
        the globals @mean, @momentum\n";
    assert_eq!(ended.stderr, said);
    let back = succeeds(dir, &["trained.onnx"]);
    assert!(back.contains("@w") && back.contains("@idle") && !back.contains("momentum"), "{back}");
    assert!(!back.contains("@mean"), "{back}");
    // A network that it holds whole is written without a word.
    assert_eq!(gs_opt(dir, &["net.gsir", "-o", "net.onnx"]).stderr, "");
}

#[test]
fn file_to_text_to_text_is_byte_identical() {
    let Some(model) = data("mlperf_tiny/resnet8_bn.onnx") else { return };
    let folder = folder();
    let dir = folder.path();
    for name in ["a", "b"] {
        fs::create_dir(dir.join(name)).expect("a folder");
    }
    succeeds(dir, &[model.to_str().expect("a path of text"), "-o", "a/net.gsir"]);
    succeeds(dir, &["a/net.gsir", "-o", "b/net.gsir"]);
    for file in ["net.gsir", "net.gsir.safetensors"] {
        let bytes = |name: &str| fs::read(dir.join(name).join(file)).expect("a written file");
        assert!(!bytes("a").is_empty() && bytes("a") == bytes("b"), "{file}");
    }
    let printed = succeeds(dir, &["a/net.gsir"]);
    put(dir, "printed.gsir", &printed);
    assert!(succeeds(dir, &["printed.gsir"]) == printed);
}
