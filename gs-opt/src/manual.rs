//! `gs-opt completions SHELL` and `gs-opt man [COMMAND]`: made from the declaration of the command line itself.

use crate::cli;
use crate::failure::{Failure, Outcome};
use crate::say_part;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use gs_algos::selector::closest;

/// The name of the program, as users type it.
const NAME: &str = "gs-opt";

/// Prints a completion script.
pub fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), NAME, &mut script);
    say_part!("{}", String::from_utf8_lossy(&script));
}

/// Prints a man page: of the tool, or of one of its commands.
///
/// # Errors
/// A command that does not exist.
pub fn man(command: Option<&str>) -> Outcome<()> {
    let mut page = Vec::new();
    Man::new(page_of(command)?).render(&mut page)?;
    say_part!("{}", String::from_utf8_lossy(&page));
    Ok(())
}

fn page_of(name: Option<&str>) -> Outcome<Command> {
    // Options that all commands have are known to each after this.
    let mut tool = cli::command();
    tool.build();
    let Some(name) = name else { return Ok(tool) };
    if let Some(found) = tool.find_subcommand(name) {
        return Ok(found.clone());
    }
    let close = closest(name, tool.get_subcommands().map(Command::get_name));
    let failure = Failure::new(format!("no command is named `{name}`"));
    Err(failure.help(if close.is_empty() {
        "`gs-opt --help` lists all".to_owned()
    } else {
        format!("close are: {}", close.join(", "))
    }))
}
