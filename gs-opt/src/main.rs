//! The command-line tool; see the library part for what it is made of.

use gs_opt::cli::{self, Cli, Command};
#[cfg(not(feature = "runtime"))]
use gs_opt::failure::Failure;
use gs_opt::failure::Outcome;
use gs_opt::{convert, eval, explain, groups, lookup, manual, passes, prune, quantize, say, warn};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::parse();
    match run(&cli).and_then(|()| say::ended()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            warn!("{failure}");
            ExitCode::from(failure.status)
        }
    }
}

fn run(cli: &Cli) -> Outcome<()> {
    match &cli.command {
        None => passes::run(&cli.passes),
        Some(Command::Quantize(args)) => quantize::run(args),
        Some(Command::Prune(args)) => prune::run(args),
        Some(Command::Groups(args)) => groups::run(args),
        Some(Command::Eval(args)) => eval::run(args),
        #[cfg(feature = "runtime")]
        Some(Command::Train(args)) => gs_opt::train::run(args),
        #[cfg(not(feature = "runtime"))]
        Some(Command::Train { .. }) => Err(Failure::usage("this program was built without training")
            .help("build it with the feature `runtime`")),
        Some(Command::Convert(args)) => convert::run(args),
        Some(Command::Passes(args)) => lookup::passes(args),
        Some(Command::Ops(args)) => lookup::ops(args),
        Some(Command::Rules(args)) => lookup::rules(args),
        Some(Command::Algos(args)) => lookup::algos(args),
        Some(Command::Targets(args)) => lookup::targets(args),
        Some(Command::Explain { code }) => explain::run(code.as_deref()),
        Some(Command::Completions { shell }) => {
            manual::completions(*shell);
            Ok(())
        }
        Some(Command::Man { command }) => manual::man(command.as_deref()),
    }
}
