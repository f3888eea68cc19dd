//! What went wrong, in words for the person at the terminal, with what to do about it.

use gs_eval::OpError;
use gs_text::output::OutputError;
use std::fmt;

/// A failed request. The message says what, where, what was expected; the help what to do.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The exit status: 1 the input or the request, 2 usage, [`STOPPED`].
    pub status: u8,
}

/// The exit status of a run that was stopped with Ctrl-C, as shells have it.
pub const STOPPED: u8 = 130;

/// A result of the tool's parts.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// The input or the request was wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, status: 1 }
    }

    /// The command was used wrongly.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, status: 2 }
    }

    /// The user has stopped it, which is no error.
    pub fn stopped(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, status: STOPPED }
    }

    /// Adds what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rendered diagnostics begin with their own `error`; what was stopped is none.
        let own = self.status == STOPPED || self.message.starts_with("error");
        let prefix = if own { "" } else { "error: " };
        write!(f, "{prefix}{}", self.message.trim_end())?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// What to do where a run took too many steps. Errors that wrap it pass its text on, but hide it as a cause.
fn help_of_limit(error: &dyn std::error::Error) -> Option<String> {
    let of_limit = error.to_string().ends_with(&OpError::TooMuchWork.to_string());
    of_limit.then(|| "if no loop is endless: --max-steps N allows more".to_owned())
}

/// Any error, as a failure of the input; its causes are in its text already.
impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let output = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
            .find_map(|e| e.downcast_ref::<OutputError>());
        let help = output.and_then(OutputError::help).or_else(|| help_of_limit(&error));
        Self { help, ..Failure::new(error.to_string()) }
    }
}
