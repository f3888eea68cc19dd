//! The main job on the shipped example, from start to end: a trained network in float, its IR, quantising it, what
//! became of each operation, the IR of the result, and the accuracy before and after. Needs no download.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use gs_ir::Module;
use gs_opt::cli::{Cli, Command};
use gs_opt::failure::Outcome;
use gs_opt::{eval, files, quantize};
use std::path::Path;
use std::process::ExitCode;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shapes/shapes.onnx");

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.status)
        }
    }
}

fn run() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("shapes.int8.onnx").display().to_string();

    println!("== the network in float\n{}", graph_of(&files::read(Path::new(MODEL))?));
    tool(&["eval", MODEL, "--data", "shapes:test:2000"])?;

    println!("\n== quantising it, with ranges from 512 training pictures");
    tool(&["quantize", MODEL, "--data", "shapes:train:512", "-o", &output])?;

    let mut deployed = files::read(Path::new(&output))?;
    eval::run_in_integers(&mut deployed)?;
    println!("\n== the network in integers\n{}", graph_of(&deployed));
    tool(&["eval", &output, "--data", "shapes:test:2000"])
}

/// Runs a command of the tool.
fn tool(args: &[&str]) -> Outcome<()> {
    println!("$ gs-opt {}", args.join(" ").replace(concat!(env!("CARGO_MANIFEST_DIR"), "/../"), ""));
    let cli = Cli::try_parse_from(std::iter::once("gs-opt").chain(args.iter().copied()))?;
    match &cli.command {
        Some(Command::Eval(args)) => eval::run(args),
        Some(Command::Quantize(args)) => quantize::run(args),
        _ => Ok(()),
    }
}

/// The graph as text, without the weights above it.
fn graph_of(module: &Module) -> String {
    let text = files::text(module, true);
    text.find("graph @").map_or(text.clone(), |at| text[at..].trim_end().to_owned())
}
