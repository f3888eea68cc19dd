//! Writing to standard output. A reader that closes the pipe early (`gs-opt ops | head`) ends the program quietly.

use std::fmt;
use std::io::{self, Write};

/// Writes text to standard output.
pub fn write(text: fmt::Arguments<'_>) {
    let result = io::stdout().lock().write_fmt(text);
    if result.is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        std::process::exit(0);
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
