//! Reading and writing networks, by suffix: `.onnx`, `.gsir`, and `-` for GSIR text on standard streams.

use crate::failure::{Failure, Outcome};
use crate::{say, warn};
use gs_eval::Materializer;
use gs_ir::{GlobalId, Module, OpId, Phase, Registry, Role, TensorData};
use gs_onnx::{ExportError, ExportOptions, Materialise};
use gs_passes::target::Target;
use gs_text::output::{self, OutputError, atomic_write};
use gs_text::{PrintOptions, SourceMap, Style, Weights};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

/// What a path means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An ONNX file.
    Onnx,
    /// GSIR text.
    Gsir,
    /// Standard input or output, as GSIR text.
    Stream,
}

impl Kind {
    /// Whether a path means a standard stream.
    pub fn is_stream(path: &Path) -> bool {
        path.as_os_str() == "-"
    }

    /// By suffix.
    ///
    /// # Errors
    /// A suffix that means nothing here.
    pub fn of(path: &Path) -> Outcome<Kind> {
        if Kind::is_stream(path) {
            return Ok(Kind::Stream);
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("onnx") => Ok(Kind::Onnx),
            Some("gsir") => Ok(Kind::Gsir),
            // What is no regular file has no suffix that could mean something.
            _ if path.exists() && !path.is_file() && !path.is_dir() => Ok(Kind::Gsir),
            _ => Err(Failure::new(format!("{}: neither .onnx nor .gsir", path.display()))
                .help("the suffix says how a network is read or written; `-` is GSIR text on standard input or output")),
        }
    }
}

/// Reads a network and infers its types.
///
/// # Errors
/// A file that cannot be read or is wrong; several diagnostics where there are several errors.
pub fn read(path: &Path) -> Outcome<Module> {
    let module = load(path)?;
    if Kind::of(path)? == Kind::Onnx {
        warn_of_opaque(path, &module);
        warn_of_inputs(path, &module);
    }
    Ok(module)
}

/// Reads a network that is to be run, as [`read`] does.
///
/// # Errors
/// As [`read`], and a node that was kept as it is: it can be converted, but not run.
pub fn read_to_run(path: &Path) -> Outcome<Module> {
    let module = load(path)?;
    if Kind::of(path)? == Kind::Onnx {
        warn_of_inputs(path, &module);
    }
    let ops = module.all_ops();
    let opaque: Vec<OpId> = ops.into_iter().filter(|&op| module.opaque_name(op).is_some()).collect();
    if opaque.is_empty() {
        return Ok(module);
    }
    let mut lines: Vec<String> = opaque.iter().take(NAMED).map(|&op| not_run(&module, op)).collect();
    if opaque.len() > NAMED {
        lines.push(format!("{} more nodes", opaque.len() - NAMED));
    }
    Err(Failure::new(format!("{}: it cannot be run: {}", path.display(), lines.join("\n  "))).help(
        "a converted file keeps such a node as it is; to run it, correct the file, or make the node of operators that \
         are known (`gs-opt ops` lists them)",
    ))
}

/// Why a node that was kept as it is cannot be run.
fn not_run(module: &Module, op: OpId) -> String {
    let entry = module.first_source(op).and_then(|name| module.kept.get(&name));
    let reason = entry.and_then(|e| e.reason).map_or("no such operator is declared", |r| module.str(r));
    let name = module.opaque_name(op).unwrap_or_default();
    format!("node \"{}\" ({name}): {reason}", module.label(op))
}

fn load(path: &Path) -> Outcome<Module> {
    let mut module = match Kind::of(path)? {
        Kind::Onnx => gs_onnx::import_file(path, &Registry::builtin()).map_err(|e| {
            let (file, text) = (path.display().to_string(), e.to_string());
            Failure::new(if text.contains(&file) { text } else { format!("{file}: {text}") })
        })?,
        Kind::Gsir => {
            gs_text::read_file(path, &Registry::builtin()).map_err(|e| Failure::new(e.render(style())))?
        }
        Kind::Stream => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| Failure::new(format!("standard input: {e}")))?;
            gs_text::parse_module(&text, Some(Path::new(".")), &Registry::builtin()).map_err(
                |diagnostics| {
                    let sources = SourceMap::single("<stdin>", text);
                    Failure::new(gs_text::render_all(&diagnostics, &sources, style()))
                },
            )?
        }
    };
    if module.main().is_none() {
        return Err(Failure::new(format!("{}: it holds no graph", path.display())));
    }
    gs_ir::infer_module(&mut module);
    gs_ir::verify(&module).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|e| e.describe(&module)).collect();
        Failure::new(format!("{}: {}", path.display(), lines.join("\n  ")))
    })?;
    Ok(module)
}

/// Nodes named in a warning.
const NAMED: usize = 3;

/// Says which nodes of an imported file are kept as they are, because no declared operator covers them.
fn warn_of_opaque(path: &Path, module: &Module) {
    let opaque: Vec<_> = module.kept.iter().filter(|(_, e)| module.str(e.code) == "opaque").collect();
    for (node, entry) in opaque.iter().take(NAMED) {
        let reason = entry.reason.map_or("", |r| module.str(r));
        warn!("warning: {}: node \"{}\" stays as it is: {reason}", path.display(), module.str(**node));
    }
    if opaque.len() > NAMED {
        warn!("warning: {}: {} more nodes stay as they are", path.display(), opaque.len() - NAMED);
    }
}

/// Says which weights of an imported file are no constants, because the file offers them as inputs too.
fn warn_of_inputs(path: &Path, module: &Module) {
    let inputs: Vec<&str> =
        module.globals().filter(|(_, g)| g.role == Role::Input).map(|(_, g)| module.str(g.name)).collect();
    if inputs.is_empty() {
        return;
    }
    let named = inputs[..inputs.len().min(NAMED)].join(", ");
    let more = if inputs.len() > NAMED { ", ..." } else { "" };
    warn!(
        "warning: {}: {} weights are inputs too ({named}{more}), so a run may override them and no pass takes them for \
         constants; take them off the inputs of the graph if that is not meant",
        path.display(),
        inputs.len()
    );
}

/// Colours on a terminal.
fn style() -> Style {
    if io::stderr().is_terminal() { Style::Coloured } else { Style::Plain }
}

/// Whether a network can be written to a path, as far as that can be told beforehand.
///
/// # Errors
/// A suffix that means nothing here, or a place that cannot be written.
pub fn check_output(path: &Path) -> Outcome<()> {
    if Kind::of(path)? != Kind::Stream {
        output::check(path)?;
    }
    Ok(())
}

/// Whether a file that is no network can be written to a path. `-` would be a file of that name, which nobody means.
///
/// # Errors
/// Standard output, or a place that cannot be written.
pub fn check_file(option: &str, path: &Path) -> Outcome<()> {
    if Kind::is_stream(path) {
        return Err(Failure::usage(format!("{option} -: it is not written to standard output"))
            .help("name a file; ./- is one of that name"));
    }
    Ok(output::check(path)?)
}

/// Writes a network: to a temporary file beside the target, which gets its name at the end. Tells where an ONNX file
/// has not the operator set version that the network's target wants.
///
/// # Errors
/// A target that cannot be written, or what the form cannot hold. Nothing half-written stays.
pub fn write(module: &Module, path: &Path, brief: bool) -> Outcome<()> {
    let target = module.meta.target.as_deref().and_then(|name| gs_algos::targets::find(name).ok());
    if let Some(note) = opset_note(module, path, target.as_ref())? {
        warn!("note: {note}");
    }
    write_for(module, path, brief, target.as_ref())
}

/// Writes a network as [`write()`] does, for this target, and says nothing of versions.
///
/// # Errors
/// As [`write()`].
pub fn write_for(module: &Module, path: &Path, brief: bool, target: Option<&Target>) -> Outcome<()> {
    match Kind::of(path)? {
        Kind::Onnx => {
            let exported = gs_onnx::export(module, &versions(module, target)).map_err(no_version)?;
            if !exported.left_out.is_empty() {
                warn!("warning: {}: ONNX has no place for {}", path.display(), exported.left_out);
            }
            let contents = &mut Contents { materializer: Materializer::new(module) };
            atomic_write(path, |out: &mut dyn Write| {
                exported.write(out, contents).map_err(|e| match e {
                    gs_onnx::Error::Write(source) => at(path)(source).into(),
                    other => Failure::from(other),
                })
            })
        }
        Kind::Stream => say::stream(|out| write_text(module, out, brief)),
        Kind::Gsir if brief => {
            atomic_write(path, |out: &mut dyn Write| write_text(module, out, true).map_err(at(path)))?;
            Ok(())
        }
        Kind::Gsir => Ok(gs_text::write_files(module, path)?),
    }
}

/// What stands in the way of the operator set version that the target wants, if an ONNX file is to be written.
///
/// # Errors
/// No version that the target takes will do.
pub fn opset_note(module: &Module, path: &Path, target: Option<&Target>) -> Outcome<Option<String>> {
    let Some(target) = target else { return Ok(None) };
    if Kind::of(path)? != Kind::Onnx {
        return Ok(None);
    }
    let chosen = gs_onnx::opset_for(module, &versions(module, Some(target))).map_err(no_version)?;
    Ok(chosen.blocked.map(|why| {
        let (version, wanted) = (chosen.version, target.opset.default);
        format!("written in opset {version}, not in {wanted} as target `{}` wants: {why}", target.name)
    }))
}

/// The operator set versions for a network: a deployed one gets that of its target, others keep their own.
fn versions(module: &Module, target: Option<&Target>) -> ExportOptions {
    let deployed = matches!(Phase::of(module), Phase::Frozen | Phase::Deployed);
    let Some(target) = target.filter(|_| deployed) else { return ExportOptions::default() };
    let (at_least, at_most) = (Some(target.opset.default), Some(target.opset.max));
    ExportOptions { at_least, at_most, ..ExportOptions::default() }
}

/// Says what to do where no operator set version will do.
fn no_version(error: ExportError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        ExportError::Opaque { from, to, .. } => failure.help(format!(
            "only an operator that this program knows moves from opset {from} to another; convert the source file to \
             opset {to} before it is read (onnx.version_converter), or replace the operator in it"
        )),
        _ => failure,
    }
}

/// An error of writing, with the path that was asked for.
fn at(path: &Path) -> impl Fn(io::Error) -> OutputError {
    move |source| OutputError { path: path.to_path_buf(), source }
}

/// Text alone; weights are inline where they are small, else left out.
fn write_text(module: &Module, out: &mut dyn Write, brief: bool) -> io::Result<()> {
    gs_text::write_module(module, &text_options(brief), out)
}

/// Writes a network without its weights as text, with all that is known of where its operations come from.
///
/// # Errors
/// A file that cannot be written.
pub fn write_form(module: &Module, path: &Path) -> Outcome<()> {
    let options = PrintOptions { weights: Weights::None, ..PrintOptions::default() };
    atomic_write(path, |out: &mut dyn Write| gs_text::write_module(module, &options, out).map_err(at(path)))?;
    Ok(())
}

/// A module as text, for showing.
pub fn text(module: &Module, brief: bool) -> String {
    gs_text::print_to_string(module, &text_options(brief))
}

fn text_options(brief: bool) -> PrintOptions {
    if brief {
        PrintOptions::snapshot()
    } else {
        PrintOptions { weights: Weights::Inline, ..PrintOptions::default() }
    }
}

/// The contents of globals, for the exporter.
struct Contents<'m> {
    materializer: Materializer<'m>,
}

impl Materialise for Contents<'_> {
    fn materialise(&mut self, global: GlobalId, out: &mut dyn Write) -> io::Result<()> {
        match self.materializer.data(global).map_err(io::Error::other)? {
            TensorData::Bytes(bytes) => out.write_all(&bytes),
            TensorData::Strings(_) => Err(io::Error::other("computed strings are not written")),
        }
    }
}
