//! Pipelines as text: `fold-bn,simqat{act={bits=8}, exclude=[fc]},calibrate{data=calib}`. Parsing gives back what
//! printing writes; options print sorted by name.

use serde_json::{Map, Number, Value};
use std::fmt;
use thiserror::Error;

/// A pass with its options, as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Name of the pass.
    pub name: String,
    /// Its options: a table of numbers, words, truth values, lists and tables.
    pub options: Map<String, Value>,
    /// Where it begins in the text, in bytes.
    pub at: usize,
}

/// Passes in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pipeline {
    /// The steps.
    pub steps: Vec<Step>,
}

/// Why a text is no pipeline.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("pipeline, character {}: {message}\n  {text}\n  {}^", .at + 1, " ".repeat(*.at))]
pub struct PipelineError {
    /// The text.
    pub text: String,
    /// Where, in characters.
    pub at: usize,
    /// What was expected.
    pub message: String,
}

impl Pipeline {
    /// Reads a pipeline.
    ///
    /// # Errors
    /// With the place and what was expected there.
    pub fn parse(text: &str) -> Result<Self, PipelineError> {
        let mut p = Parser { text, chars: text.char_indices().collect(), at: 0, depth: 0 };
        let mut steps = Vec::new();
        p.blanks();
        while p.peek().is_some() {
            let at = p.byte();
            let name = p.word("the name of a pass")?;
            let options = if p.eat('{') { p.table()? } else { Map::new() };
            steps.push(Step { name, options, at });
            if p.peek().is_some() {
                p.expect(',')?;
                if p.peek().is_none() {
                    return Err(p.error("the name of a pass is expected behind the comma"));
                }
            }
        }
        Ok(Pipeline { steps })
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            f.write_str(if i > 0 { "," } else { "" })?;
            f.write_str(&step.name)?;
            if !step.options.is_empty() {
                write_table(f, &step.options)?;
            }
        }
        Ok(())
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, table: &Map<String, Value>) -> fmt::Result {
    f.write_str("{")?;
    for (i, (k, v)) in table.iter().enumerate() {
        f.write_str(if i > 0 { ", " } else { "" })?;
        write_word(f, k)?;
        f.write_str("=")?;
        write_value(f, v)?;
    }
    f.write_str("}")
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::String(s) => write_word(f, s),
        Value::Array(items) => {
            f.write_str("[")?;
            for (i, v) in items.iter().enumerate() {
                f.write_str(if i > 0 { ", " } else { "" })?;
                write_value(f, v)?;
            }
            f.write_str("]")
        }
        Value::Object(table) => write_table(f, table),
        // Numbers, truth values and null print as in JSON.
        other => write!(f, "{other}"),
    }
}

/// Writes a word bare where it reads back as one, else quoted.
fn write_word(f: &mut fmt::Formatter<'_>, word: &str) -> fmt::Result {
    if !word.is_empty() && word.chars().all(is_word) && scalar(word).is_string() {
        f.write_str(word)
    } else {
        write!(f, "{}", Value::String(word.to_owned()))
    }
}

/// Characters that need no quotes: names, paths, globs, selectors.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "_-.*?:/+@%".contains(c)
}

/// What a bare word means: a truth value, a number, or the word itself.
fn scalar(word: &str) -> Value {
    match word {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(n) = word.parse::<i64>() {
        return Value::Number(n.into());
    }
    let numeric = word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    match word.parse::<f64>().ok().filter(|_| numeric).and_then(Number::from_f64) {
        Some(n) => Value::Number(n),
        None => Value::String(word.to_owned()),
    }
}

struct Parser<'t> {
    text: &'t str,
    chars: Vec<(usize, char)>,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    /// Tables and lists nested deeper than this are refused, to bound the stack.
    const DEPTH: usize = 32;

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).map(|c| c.1)
    }

    fn byte(&self) -> usize {
        self.chars.get(self.at).map_or(self.text.len(), |c| c.0)
    }

    fn error(&self, message: impl Into<String>) -> PipelineError {
        PipelineError { text: self.text.to_owned(), at: self.at, message: message.into() }
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Takes a character and the blanks behind it, if it is the next one.
    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += 1;
            self.blanks();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), PipelineError> {
        if self.eat(wanted) {
            return Ok(());
        }
        let found = self.peek().map_or("the end".to_owned(), |c| format!("`{c}`"));
        Err(self.error(format!("`{wanted}` is expected, found {found}")))
    }

    fn word(&mut self, what: &str) -> Result<String, PipelineError> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let from = self.at;
        while self.peek().is_some_and(is_word) {
            self.at += 1;
        }
        if from == self.at {
            return Err(self.error(format!("{what} is expected")));
        }
        let word = self.chars[from..self.at].iter().map(|c| c.1).collect();
        self.blanks();
        Ok(word)
    }

    fn quoted(&mut self) -> Result<String, PipelineError> {
        let rest = &self.text[self.byte()..];
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        match stream.next() {
            Some(Ok(s)) => {
                let end = self.byte() + stream.byte_offset();
                while self.at < self.chars.len() && self.byte() < end {
                    self.at += 1;
                }
                self.blanks();
                Ok(s)
            }
            _ => Err(self.error("a string is expected, in double quotes and with JSON's escapes")),
        }
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, PipelineError>,
    ) -> Result<T, PipelineError> {
        self.depth += 1;
        if self.depth > Self::DEPTH {
            return Err(self.error("options are nested too deeply"));
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// A table; its opening brace was taken.
    fn table(&mut self) -> Result<Map<String, Value>, PipelineError> {
        self.nested(|p| {
            let mut table = Map::new();
            while !p.eat('}') {
                let key = p.word("the name of an option")?;
                p.expect('=')?;
                let value = p.value()?;
                if table.insert(key.clone(), value).is_some() {
                    return Err(p.error(format!("option `{key}` is given twice")));
                }
                if p.peek() != Some('}') {
                    p.expect(',')?;
                }
            }
            Ok(table)
        })
    }

    fn value(&mut self) -> Result<Value, PipelineError> {
        if self.eat('[') {
            return self.nested(|p| {
                let mut items = Vec::new();
                while !p.eat(']') {
                    items.push(p.value()?);
                    if p.peek() != Some(']') {
                        p.expect(',')?;
                    }
                }
                Ok(Value::Array(items))
            });
        }
        if self.eat('{') {
            return Ok(Value::Object(self.table()?));
        }
        if self.peek() == Some('"') {
            return Ok(Value::String(self.quoted()?));
        }
        let word = self.word("a value")?;
        // `mse{norm=2.4}` as a value: a word with options of its own stays text.
        if self.peek() == Some('{') {
            self.eat('{');
            let options = self.table()?;
            let step = Step { name: word, options, at: 0 };
            return Ok(Value::String(Pipeline { steps: vec![step] }.to_string()));
        }
        Ok(scalar(&word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_back_what_it_reads() {
        for text in [
            "",
            "fold-bn",
            "fold-bn,simqat{act={bits=8}, exclude=[layer1.*, \"a b\"], target=ort-cpu},calibrate{data=calib}",
            "calibrate{batch=64, observer=\"percentile{p=99.9}\", x=0.5, y=true, z=\"true\"}",
        ] {
            let pipeline = Pipeline::parse(text).unwrap();
            let printed = pipeline.to_string();
            let again = Pipeline::parse(&printed).unwrap();
            assert_eq!(again.to_string(), printed);
            assert_eq!(printed, text);
        }
        let spaced = Pipeline::parse(" fold-bn , calibrate { observer = mse{norm=2.4} } ").unwrap();
        assert_eq!(spaced.to_string(), "fold-bn,calibrate{observer=\"mse{norm=2.4}\"}");
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, at, needle) in [
            ("fold-bn,", 8, "behind the comma"),
            ("simqat{bits}", 11, "`=` is expected"),
            ("simqat{bits=8", 13, "`,` is expected"),
            ("a b", 2, "`,` is expected"),
            ("a{x=1, x=2}", 10, "given twice"),
            ("a{x=\"}", 4, "double quotes"),
        ] {
            let error = Pipeline::parse(text).unwrap_err();
            assert_eq!(error.at, at, "{error}");
            assert!(error.message.contains(needle), "{error}");
        }
        assert!(Pipeline::parse(&"a{x=[".repeat(1000)).is_err());
    }
}
