//! Writing to standard output. A reader that closes the pipe early (`gs-opt ops | head`) ends the program quietly.

use crate::failure::{Failure, Outcome};
use std::fmt;
use std::io::{self, BufWriter, Write};

/// Writes text to standard output.
pub fn write(text: fmt::Arguments<'_>) {
    let result = io::stdout().lock().write_fmt(text);
    if let Err(failure) = outcome(result) {
        eprintln!("{failure}");
        std::process::exit(i32::from(failure.status));
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
            Words::Err => eprintln!("{text}"),
        }
    }
}

/// Writes a whole document to standard output.
///
/// # Errors
/// Those of `write`, of standard output.
pub fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    // What is left in the buffer would be written, and its error lost, when it is dropped.
    outcome(write(&mut out).and_then(|()| out.flush()))
}

fn outcome(result: io::Result<()>) -> Outcome<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::new(format!("standard output: {e}"))),
        Ok(()) => Ok(()),
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
