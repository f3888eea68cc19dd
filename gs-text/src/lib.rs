//! The text forms: `.gsir` modules (here: [`gsir`]) and what they share with `.gsr` rules: the [`lexer`], the
//! [`cursor`] that parsers stand on, [`span`]s into a source map, and [`diagnostics`] that show the source.
//!
//! What is printed of a module is all there is of it: printing and parsing gives the same module, and parsing
//! printed text and printing it again gives the same bytes.

pub mod cursor;
pub mod diagnostics;
pub mod element;
pub mod gsir;
pub mod gsr;
pub mod lexer;
pub mod output;
pub mod quote;
pub mod span;

pub use cursor::Cursor;
pub use diagnostics::{Diagnostic, Label, Severity, Style, TextError, render, render_all};
pub use gsir::{
    Difference, Parsed, PrintOptions, Weights, parse_module, print_module, print_to_string, read_file, same,
    write_files, write_module, write_weights,
};
pub use lexer::{Lexer, Token, TokenKind};
pub use span::{FileId, SourceMap, Span};
