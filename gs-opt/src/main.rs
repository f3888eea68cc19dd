//! The command-line tool; see the library part for what it is made of.

use clap::Parser;
use gs_opt::cli::{Cli, Command};
use gs_opt::failure::Outcome;
use gs_opt::{convert, eval, explain, groups, lookup, manual, passes, prune, quantize, say, warn};
use std::process::ExitCode;

fn main() -> ExitCode {
    // clap itself answers wrong usage, with status 2.
    let cli = Cli::parse();
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
        Some(Command::Convert(args)) => convert::run(args),
        Some(Command::Passes(args)) => lookup::passes(args),
        Some(Command::Ops(args)) => lookup::ops(args),
        Some(Command::Rules(args)) => lookup::rules(args),
        Some(Command::Algos) => {
            lookup::algos();
            Ok(())
        }
        Some(Command::Targets(args)) => lookup::targets(args),
        Some(Command::Explain { code }) => explain::run(code.as_deref()),
        Some(Command::Completions { shell }) => {
            manual::completions(*shell);
            Ok(())
        }
        Some(Command::Man { command }) => manual::man(command.as_deref()),
    }
}
