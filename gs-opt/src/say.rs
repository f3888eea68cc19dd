//! Writing to standard output and standard error. What is said to people never ends the work: a reader that goes away
//! early (`gs-opt train ... | head`) hears no more, and output that cannot be written otherwise (a full disk) is told
//! at the end, when what was asked for is done.

use crate::failure::{Failure, Outcome};
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::sync::OnceLock;

/// The first error of standard output that is none of its reader's wishes.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Writes text to standard output.
pub fn write(text: fmt::Arguments<'_>) {
    keep(io::stdout().lock().write_fmt(text));
}

/// Writes text to standard error. Where that cannot be done there is nobody left to tell.
pub fn write_err(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Whether all was written that was said; asked at the end.
///
/// # Errors
/// The first error of standard output. A reader that has gone away is none.
pub fn ended() -> Outcome<()> {
    keep(io::stdout().flush());
    FAILED.get().map_or(Ok(()), |e| Err(Failure::new(format!("standard output: {e}"))))
}

fn keep(result: io::Result<()>) {
    if let Err(e) = result
        && e.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = FAILED.set(e);
    }
}

/// Where words for people go, when standard output may hold a document for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Words {
    /// Writes a line.
    pub fn line(self, text: fmt::Arguments<'_>) {
        match self {
            Words::Out => write(format_args!("{text}\n")),
            Words::Err => write_err(format_args!("{text}\n")),
        }
    }
}

/// Writes a whole document to standard output.
///
/// # Errors
/// Those of `write`, of standard output. A reader that has gone away wants no more of it, which is none.
pub fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    // What is left in the buffer would be written, and its error lost, when it is dropped.
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(format!("standard output: {e}"))),
        _ => Ok(()),
    }
}

/// Writes a line to standard output.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::say::write(format_args!("{}\n", format_args!($($arg)*)))
    };
}

/// Writes text to standard output, without an end of line.
#[macro_export]
macro_rules! say_part {
    ($($arg:tt)*) => {
        $crate::say::write(format_args!($($arg)*))
    };
}

/// Writes a line to standard error.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => {
        $crate::say::write_err(format_args!("{}\n", format_args!($($arg)*)))
    };
}
