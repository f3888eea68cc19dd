//! `gs-opt FILE --pass=PIPELINE`: runs passes over a file and shows what was asked for on the way.

use crate::cli::{Engine, PassArgs, ShowArgs};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::source::Samples;
use crate::{executor, files, say, warn};
use gs_eval::DataSource;
use gs_ir::Module;
use gs_passes::manager::{Event, PassContext, PassManager, PassRegistry, Pipeline, Remark};
use gs_text::output::AtomicFile;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Every pass that this tool knows.
pub fn registry() -> PassRegistry {
    let mut registry = PassRegistry::default();
    gs_passes::passes::register(&mut registry);
    gs_algos::passes::register(&mut registry);
    registry
}

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with the request, the file or a pass.
pub fn run(args: &PassArgs) -> Outcome<()> {
    let Some(file) = &args.file else {
        return Err(Failure::usage("a file is needed")
            .help("gs-opt FILE --pass=PIPELINE -o OUT; `gs-opt --help` shows all"));
    };
    let pipeline = Pipeline::parse(&args.pipeline)?;
    let registry = registry();
    registry.make(&pipeline)?;
    for name in args.show.print_ir_before.iter().chain(&args.show.print_ir_after) {
        if name != "all" && !pipeline.steps.iter().any(|s| s.name == *name) {
            let names: Vec<&str> = pipeline.steps.iter().map(|s| s.name.as_str()).collect();
            return Err(Failure::usage(format!("--print-ir-before/after: `{name}` is not in the pipeline"))
                .help(format!("all, or one of: {}", names.join(", "))));
        }
    }
    let output = args.output.clone().unwrap_or_else(|| "-".into());
    files::check_output(&output)?;
    if let Some(path) = &args.show.reproducer {
        files::check_file("--reproducer", path)?;
    }
    let mut module = files::read(file)?;
    let sources = open_sources(args, &module)?;
    let executor = executor::make(Engine::best(), args.running)?;
    let mut show = Show::new(&args.show);
    let mut remarks = Vec::new();
    let mut sink = |remark: Remark| remarks.push(remark);
    let mut progress = Progress::new();
    let mut tell = |what: &str, done: usize, total: usize| {
        progress.tell(what, done, total);
        true
    };
    let mut context = PassContext {
        executor: Some(executor.as_ref()),
        data: sources.iter().map(|(name, s)| (name.clone(), s as &dyn DataSource)).collect(),
        seed: args.seed,
        fuel: args.fuel,
        remarks: args.show.remarks.then_some(&mut sink),
        progress: Some(&mut tell),
    };
    let manager = PassManager { registry: &registry, verify_each: args.show.verify_each };
    let result = manager.run(&pipeline, &mut module, &mut context, &mut |event| show.event(event));
    progress.finish();
    for r in &remarks {
        warn!("remark: {} \"{}\": {}", r.by, r.place, r.text);
    }
    show.summary();
    if let Err(error) = result {
        return Err(show.reproduce(error.into()));
    }
    if let Some(failed) = show.failed.take() {
        return Err(failed);
    }
    files::write(&module, &output, args.brief)
}

fn open_sources(args: &PassArgs, module: &Module) -> Outcome<BTreeMap<String, Samples>> {
    let mut sources = BTreeMap::new();
    for given in &args.data {
        let Some((name, spec)) = given.split_once('=') else {
            return Err(Failure::usage(format!("--data {given}: NAME=SPEC is expected"))
                .help("for example --data calib=cifar10:data/cifar10:train"));
        };
        sources.insert(name.to_owned(), Samples::open(spec, None, &args.preprocess, module)?);
    }
    Ok(sources)
}

/// Shows what was asked for of a run.
struct Show<'a> {
    args: &'a ShowArgs,
    /// Text of the module before the current pass, where something needs it.
    before: Option<String>,
    rest: Pipeline,
    times: Vec<(String, Duration)>,
    counters: String,
    step: usize,
    failed: Option<Failure>,
}

impl<'a> Show<'a> {
    fn new(args: &'a ShowArgs) -> Self {
        Self {
            args,
            before: None,
            rest: Pipeline::default(),
            times: Vec::new(),
            counters: String::new(),
            step: 0,
            failed: None,
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Before { step, rest, module } => {
                if wanted(&self.args.print_ir_before, &step.name) {
                    warn!("// before {}\n{}", step.name, files::text(module, true));
                }
                let keep = self.args.print_ir_changed || self.args.reproducer.is_some();
                // The reproducer must be complete; for comparing, the text without weights does.
                self.before = keep.then(|| files::text(module, self.args.reproducer.is_none()));
                self.rest = rest;
            }
            Event::After { step, module, report, time } => {
                self.step += 1;
                self.times.push((step.name.clone(), time));
                for (name, count) in &report.counters {
                    let _ = writeln!(self.counters, "  {:>8}  {}: {name}", count, step.name);
                }
                for note in &report.notes {
                    warn!("note: {}: {note}", step.name);
                }
                self.print_after(&step.name, module);
                if let Some(dir) = &self.args.dump_dir {
                    self.dump(dir, &step.name, module);
                }
            }
        }
    }

    fn print_after(&self, name: &str, module: &Module) {
        let print = wanted(&self.args.print_ir_after, name);
        let changed = self.args.print_ir_changed;
        if !print && !changed {
            return;
        }
        let text = files::text(module, true);
        if print || self.before.as_ref().is_some_and(|b| *b != text) {
            warn!("// after {name}\n{text}");
        } else {
            warn!("// after {name}: unchanged");
        }
    }

    fn dump(&mut self, dir: &Path, name: &str, module: &Module) {
        let path = dir.join(format!("{:02}-{name}.gsir", self.step));
        let made = std::fs::create_dir_all(dir).map_err(|e| Failure::new(format!("{}: {e}", dir.display())));
        if let Err(failure) = made.and_then(|()| files::write(module, &path, false)) {
            self.failed.get_or_insert(failure);
        }
    }

    fn summary(&self) {
        if self.args.timing {
            let total: Duration = self.times.iter().map(|t| t.1).sum();
            warn!("time of each pass");
            for (name, time) in &self.times {
                let share = 100.0 * time.as_secs_f64() / total.as_secs_f64().max(1e-9);
                warn!("  {:>10.3} ms {share:>5.1} %  {name}", time.as_secs_f64() * 1e3);
            }
            warn!("  {:>10.3} ms 100.0 %  total", total.as_secs_f64() * 1e3);
        }
        if self.args.statistics {
            say::write_err(format_args!("counters\n{}", self.counters));
        }
    }

    /// Writes what reproduces a failure, and says so.
    fn reproduce(&self, failure: Failure) -> Failure {
        let (Some(path), Some(before)) = (&self.args.reproducer, &self.before) else { return failure };
        let text = format!("// gs-opt {} --pass='{}'\n{before}", path.display(), self.rest);
        let write = |out: &mut dyn io::Write| out.write_all(text.as_bytes());
        let written = AtomicFile::create(path).and_then(|mut file| file.write(write).and(Ok(file)));
        match written.and_then(AtomicFile::commit) {
            Ok(()) => failure
                .help(format!("{} holds the module before the pass and the command to run", path.display())),
            Err(e) => failure.help(format!("the reproducer could not be written: {e}")),
        }
    }
}

fn wanted(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n == "all" || n == name)
}
