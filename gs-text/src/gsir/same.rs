//! Whether two modules are the same: the same text and the same contents.

use super::options::PrintOptions;
use super::print_to_string;
use gs_ir::{Init, Module};
use std::fmt;

/// Where two modules differ first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// A line of their texts, counted from 1; an empty text where one ended before.
    Line {
        /// The line's number.
        line: usize,
        /// The line in the first.
        left: String,
        /// The line in the second.
        right: String,
    },
    /// The contents of a global of this name.
    Contents(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Line { line, left, right } => write!(f, "line {line}:\n  {left}\n  {right}"),
            Difference::Contents(name) => write!(f, "the contents of `@{name}` differ"),
        }
    }
}

impl std::error::Error for Difference {}

/// Compares two modules by what is printed of them and by the contents of their globals. Handles, and the order in which
/// things were made where it does not show, are no difference.
///
/// # Errors
/// The first difference.
pub fn same(a: &Module, b: &Module) -> Result<(), Difference> {
    let options = PrintOptions::with_file("contents");
    let (left, right) = (print_to_string(a, &options), print_to_string(b, &options));
    if left != right {
        return Err(first_difference(&left, &right));
    }
    // The same text names the same globals in the same order.
    for ((_, x), (_, y)) in a.globals().zip(b.globals()) {
        if let (Init::Data(p), Init::Data(q)) = (&x.init, &y.init)
            && p != q
        {
            return Err(Difference::Contents(a.str(x.name).to_owned()));
        }
    }
    Ok(())
}

fn first_difference(left: &str, right: &str) -> Difference {
    let (mut a, mut b) = (left.lines(), right.lines());
    let mut line = 0;
    loop {
        line += 1;
        let (x, y) = (a.next(), b.next());
        if x != y || x.is_none() {
            let text = |l: Option<&str>| l.unwrap_or("").to_owned();
            return Difference::Line { line, left: text(x), right: text(y) };
        }
    }
}
