//! What a parser of either text form stands on: the current token, one token of foresight, and the list of
//! diagnostics. Functions return `None` where they have reported an error; the caller recovers.

use crate::diagnostics::Diagnostic;
use crate::lexer::{Lexer, Token, TokenKind};
use crate::quote;
use crate::span::{FileId, Span};
use std::borrow::Cow;

/// More errors than this are not reported: what follows is noise.
const MAX_ERRORS: usize = 50;

/// A position in a text, with the diagnostics so far.
pub struct Cursor<'s> {
    lexer: Lexer<'s>,
    file: FileId,
    token: Token,
    previous_end: u32,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
}

/// A place in a text.
#[derive(Clone, Debug)]
pub struct Mark<'s> {
    lexer: Lexer<'s>,
    token: Token,
    previous_end: u32,
}

impl<'s> Cursor<'s> {
    /// At the first token of a text.
    pub fn new(file: FileId, text: &'s str) -> Self {
        Self::over(file, Lexer::new(text))
    }

    /// At the first token of a lexer.
    pub fn over(file: FileId, lexer: Lexer<'s>) -> Self {
        let token = Token { kind: TokenKind::Eof, first_on_line: true, start: 0, end: 0 };
        let mut cursor = Self { lexer, file, token, previous_end: 0, diagnostics: Vec::new(), errors: 0 };
        if u32::try_from(cursor.lexer.text().len()).is_err() {
            cursor.error(Diagnostic::error("GS0005", "the text is longer than 4 GiB"));
            cursor.lexer = Lexer::new("");
        }
        cursor.bump();
        cursor.previous_end = 0;
        cursor
    }

    /// The current token.
    #[inline]
    pub fn token(&self) -> Token {
        self.token
    }

    /// The kind of the current token.
    #[inline]
    pub fn kind(&self) -> TokenKind {
        self.token.kind
    }

    /// The text of the current token.
    #[inline]
    pub fn text(&self) -> &'s str {
        self.text_of(self.token)
    }

    /// The text of a token.
    #[inline]
    pub fn text_of(&self, token: Token) -> &'s str {
        self.lexer.text().get(token.start as usize..token.end as usize).unwrap_or("")
    }

    /// Number of bytes of the whole text: a bound for what a number in it may ask to be made.
    pub fn text_len(&self) -> usize {
        self.lexer.text().len()
    }

    /// The text whose tokens these are.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// The span of the current token.
    #[inline]
    pub fn span(&self) -> Span {
        self.span_of(self.token)
    }

    /// The span of a token.
    #[inline]
    pub fn span_of(&self, token: Token) -> Span {
        Span::new(self.file, token.start, token.end)
    }

    /// The span from a token's start to the end of the last token that was passed.
    #[inline]
    pub fn span_from(&self, start: Token) -> Span {
        Span::new(self.file, start.start, self.previous_end.max(start.start))
    }

    /// Goes to the next token and gives the one that was passed.
    #[inline]
    pub fn bump(&mut self) -> Token {
        let passed = self.token;
        self.previous_end = passed.end;
        self.token = self.lexer.next_token();
        if matches!(self.token.kind, TokenKind::BadChar | TokenKind::BadNumber | TokenKind::BadString) {
            self.bad_token();
        }
        passed
    }

    /// Reports a malformed token and goes on with what it was probably meant to be.
    #[cold]
    fn bad_token(&mut self) {
        let mut first_on_line = self.token.first_on_line;
        loop {
            let (span, text) = (self.span(), self.text());
            match self.token.kind {
                TokenKind::BadNumber => {
                    self.error(Diagnostic::error("GS0002", format!("`{text}` is no number")).label(span, ""));
                    if self.token.kind == TokenKind::Eof {
                        return; // too many errors: the text ends here
                    }
                    self.token.kind = TokenKind::Int;
                }
                TokenKind::BadString => {
                    let d = Diagnostic::error("GS0003", "a string ends on the line on which it begins");
                    self.error(
                        d.label(span, "no closing quote").help("an end of line within a string is `\\n`"),
                    );
                    if self.token.kind == TokenKind::Eof {
                        return;
                    }
                    self.token.kind = match text.as_bytes().first() {
                        Some(b'%') => TokenKind::Value,
                        Some(b'@') => TokenKind::Global,
                        Some(b'$') => TokenKind::Var,
                        Some(b'b') => TokenKind::Bytes,
                        _ => TokenKind::Str,
                    };
                }
                TokenKind::BadChar => {
                    let shown: String = text.chars().flat_map(char::escape_debug).collect();
                    self.error(
                        Diagnostic::error("GS0001", format!("`{shown}` begins nothing")).label(span, ""),
                    );
                    // One report for a run of them.
                    while self.token.kind == TokenKind::BadChar {
                        self.token = self.lexer.next_token();
                        first_on_line |= self.token.first_on_line;
                    }
                    continue;
                }
                _ => break,
            }
        }
        self.token.first_on_line = first_on_line;
    }

    /// The token after the current one.
    pub fn peek(&self) -> Token {
        self.lexer.clone().next_token()
    }

    /// The text from the current token on.
    #[inline]
    pub fn rest(&self) -> &'s str {
        self.lexer.text().get(self.token.start as usize..).unwrap_or("")
    }

    /// Passes so many bytes, which hold whole tokens that were seen to be well-formed before.
    pub fn jump(&mut self, bytes: usize) {
        let end = self.token.start as usize + bytes;
        self.lexer.seek(end);
        self.token.end = end as u32;
        self.bump();
    }

    /// A lexer that goes on behind the current token, for more foresight than that; it reports nothing.
    pub fn lexer(&self) -> Lexer<'s> {
        self.lexer.clone()
    }

    /// Whether the current token is of a kind.
    #[inline]
    pub fn at(&self, kind: TokenKind) -> bool {
        self.token.kind == kind
    }

    /// Whether the current token is this word.
    #[inline]
    pub fn at_word(&self, word: &str) -> bool {
        self.token.kind == TokenKind::Ident && self.text() == word
    }

    /// Passes the current token if it is of a kind.
    #[inline]
    pub fn eat(&mut self, kind: TokenKind) -> bool {
        let there = self.at(kind);
        if there {
            self.bump();
        }
        there
    }

    /// Passes the current token if it is this word.
    #[inline]
    pub fn eat_word(&mut self, word: &str) -> bool {
        let there = self.at_word(word);
        if there {
            self.bump();
        }
        there
    }

    /// Passes a token of a kind, or reports that it is missing.
    #[inline]
    pub fn expect(&mut self, kind: TokenKind) -> Option<Token> {
        if self.at(kind) { Some(self.bump()) } else { self.expected(kind.describe()) }
    }

    /// Passes this word, or reports that it is missing.
    pub fn expect_word(&mut self, word: &str) -> Option<Token> {
        if self.at_word(word) { Some(self.bump()) } else { self.expected(&format!("`{word}`")) }
    }

    /// Reports that something else was expected to go on with. What is missing at the end of a line is missing there,
    /// not where the next line begins.
    #[cold]
    pub fn expected<T>(&mut self, what: &str) -> Option<T> {
        let at_line_end = self.token.first_on_line && self.previous_end > 0;
        let place = if at_line_end {
            Span::new(self.file, self.previous_end, self.previous_end)
        } else {
            self.span()
        };
        self.expected_at(what, place)
    }

    /// Reports that something else was expected to begin here.
    #[cold]
    pub fn expected_here<T>(&mut self, what: &str) -> Option<T> {
        self.expected_at(what, self.span())
    }

    fn expected_at<T>(&mut self, what: &str, place: Span) -> Option<T> {
        let found = match self.kind() {
            TokenKind::Eof => "the end of the text".to_owned(),
            _ => format!("`{}`", shorten(self.text())),
        };
        let message = format!("expected {what}, found {found}");
        self.error(Diagnostic::error("GS0101", message).label(place, format!("expected {what}")));
        None
    }

    // ---- diagnostics ----

    /// Adds a diagnostic. After too many errors the text is taken to end here.
    #[cold]
    pub fn error(&mut self, diagnostic: Diagnostic) {
        // A token that is read again after recovery is reported once.
        let place = |d: &Diagnostic| (d.code, d.labels.first().map(|l| l.span));
        let again = self.diagnostics.iter().rev().take(8).any(|d| place(d) == place(&diagnostic));
        if again || self.errors >= MAX_ERRORS {
            return;
        }
        self.errors += usize::from(diagnostic.is_error());
        self.diagnostics.push(diagnostic);
        if self.errors == MAX_ERRORS {
            let last = Diagnostic::error("GS0100", format!("there are more than {MAX_ERRORS} errors"));
            self.diagnostics.push(last.note("what follows was not looked at"));
            self.lexer = Lexer::new("");
            self.token.kind = TokenKind::Eof;
        }
    }

    /// Whether an error was reported.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Goes back to a place.
    pub fn reset(&mut self, mark: &Mark<'s>) {
        if !self.lexer.text().is_empty() {
            self.lexer = mark.lexer.clone();
            self.token = mark.token;
            self.previous_end = mark.previous_end;
        }
    }

    /// What was reported so far.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Ends parsing and gives what was reported.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    // ---- recovery ----

    /// The current place, to come back to.
    pub fn mark(&self) -> Mark<'s> {
        Mark { lexer: self.lexer.clone(), token: self.token, previous_end: self.previous_end }
    }

    /// The names of globals that stand before `=` within `updates { ... }`, wherever ahead. Nothing is reported: malformed
    /// text is met again.
    pub fn stored_ahead(&self) -> Vec<Cow<'s, str>> {
        let mut names = Vec::new();
        let ahead = self.lexer.text().get(self.token.start as usize..).unwrap_or("");
        if !ahead.contains("updates") {
            return names; // most texts: they are not read twice
        }
        let (mut lexer, mut token, mut inside) = (self.lexer.clone(), self.token, false);
        while token.kind != TokenKind::Eof {
            let next = lexer.next_token();
            match (token.kind, next.kind) {
                (TokenKind::Ident, TokenKind::LBrace) => inside = self.text_of(token) == "updates",
                (TokenKind::RBrace, _) => inside = false,
                (TokenKind::Global, TokenKind::Equals) if inside => names.extend(self.plain_name(token)),
                _ => {}
            }
            token = next;
        }
        names
    }

    /// The name behind a sigil, where it is well formed.
    fn plain_name(&self, token: Token) -> Option<Cow<'s, str>> {
        let name = self.text_of(token).get(1..)?;
        let Some(quoted) = name.strip_prefix('"') else { return Some(Cow::Borrowed(name)) };
        let bytes = quote::unescape(quoted.strip_suffix('"')?).ok()?;
        String::from_utf8(bytes.into_owned()).ok().map(Cow::Owned)
    }

    /// After an error in the statement that began at `mark`: goes to the next statement, the next token that begins a
    /// line outside all braces that the statement opened, or to a `}` that it did not open. A word at the very
    /// start of a line ends it too, since there begins the next part of the text. Passes at least one token, unless
    /// that is such a `}` or the end, and reports nothing more.
    pub fn skip_statement(&mut self, mark: &Mark<'s>) {
        if self.lexer.text().is_empty() {
            self.token.kind = TokenKind::Eof; // ended early after too many errors
            return;
        }
        let (mut lexer, mut token) = (mark.lexer.clone(), mark.token);
        let mut depth = 0usize;
        let mut first = true;
        loop {
            let at_margin = token.kind == TokenKind::Ident && self.begins_line(token);
            let ends = match token.kind {
                TokenKind::Eof => true,
                TokenKind::RBrace => depth == 0,
                _ => token.first_on_line && !first && (depth == 0 || at_margin),
            };
            if ends {
                break;
            }
            match token.kind {
                TokenKind::LBrace => depth += 1,
                TokenKind::RBrace => depth -= 1,
                _ => {}
            }
            first = false;
            self.previous_end = token.end;
            token = lexer.next_token();
        }
        (self.lexer, self.token) = (lexer, token);
        if matches!(token.kind, TokenKind::BadChar | TokenKind::BadNumber | TokenKind::BadString) {
            self.bad_token();
        }
    }

    /// Whether a token stands at the very start of its line.
    fn begins_line(&self, token: Token) -> bool {
        let before = (token.start as usize).checked_sub(1).and_then(|i| self.lexer.text().as_bytes().get(i));
        before.is_none_or(|&b| b == b'\n')
    }

    // ---- leaves ----

    /// The bytes that a string token stands for (of any kind that can be quoted).
    pub fn string_bytes(&mut self, token: Token) -> Option<Cow<'s, [u8]>> {
        let text = self.text_of(token);
        let open = text.find('"')?;
        let inside = text.get(open + 1..text.len().checked_sub(1)?)?;
        match quote::unescape(inside) {
            Ok(bytes) => Some(bytes),
            Err(bad) => {
                let start = token.start + (open + 1 + bad.at) as u32;
                let span = Span::new(self.file, start, start + bad.len as u32);
                let help = "escapes are `\\n`, `\\r`, `\\t`, `\\\"`, `\\\\`, `\\xNN` (a byte) and `\\u{...}` (a character)";
                self.error(Diagnostic::error("GS0004", "this is no escape").label(span, "").help(help));
                None
            }
        }
    }

    /// The text that a string token stands for.
    pub fn string_text(&mut self, token: Token) -> Option<Cow<'s, str>> {
        let text = match self.string_bytes(token)? {
            Cow::Borrowed(b) => std::str::from_utf8(b).ok().map(Cow::Borrowed),
            Cow::Owned(b) => String::from_utf8(b).ok().map(Cow::Owned),
        };
        if text.is_none() {
            let d = Diagnostic::error("GS0004", "this must be text, but its bytes are no UTF-8");
            self.error(d.label(self.span_of(token), ""));
        }
        text
    }

    /// Passes a string and gives its text.
    pub fn string(&mut self) -> Option<Cow<'s, str>> {
        let token = self.expect(TokenKind::Str)?;
        self.string_text(token)
    }

    /// Passes a name that may be quoted: a word or a string.
    pub fn name(&mut self) -> Option<Cow<'s, str>> {
        match self.kind() {
            TokenKind::Ident => Some(Cow::Borrowed(self.text_of(self.token))).inspect(|_| {
                self.bump();
            }),
            TokenKind::Str => self.string(),
            _ => self.expected("a name or a string"),
        }
    }

    /// The name behind the sigil of a `%`, `@` or `$` token.
    #[inline]
    pub fn sigil_name(&mut self, token: Token) -> Option<Cow<'s, str>> {
        let text = self.text_of(token);
        if text.as_bytes().get(1) == Some(&b'"') {
            return self.string_text(token);
        }
        Some(Cow::Borrowed(text.get(1..).unwrap_or("")))
    }

    /// Passes a whole number with an optional sign.
    pub fn int(&mut self) -> Option<i64> {
        let start = self.token;
        let negative = self.eat(TokenKind::Minus);
        if !matches!(self.kind(), TokenKind::Int | TokenKind::HexInt) {
            return self.expected("a whole number");
        }
        let digits = self.text();
        self.bump();
        let magnitude = parse_magnitude(digits);
        let value = magnitude.and_then(|m| {
            let m = i128::from(m);
            i64::try_from(if negative { -m } else { m }).ok()
        });
        if value.is_none() {
            let span = self.span_from(start);
            self.error(Diagnostic::error("GS0002", "this number does not fit 64 bits").label(span, ""));
        }
        value
    }

    /// Parses a list `open item, item, ... close`; a trailing comma is allowed. After an error within an item it skips
    /// to the closing bracket.
    pub fn list(
        &mut self,
        open: TokenKind,
        close: TokenKind,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.expect(open)?;
        while !self.at(close) {
            item(self)?;
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        if self.at(close) {
            self.bump();
            return Some(());
        }
        self.expected(&format!("`,` or {}", close.describe()))
    }
}

/// The value of the digits of an [`TokenKind::Int`] or [`TokenKind::HexInt`] token.
pub fn parse_magnitude(digits: &str) -> Option<u64> {
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// A text cut to what fits a message.
pub fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// The candidate that was probably meant by a name, if one is near enough.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = name.chars().count().min(40) / 3;
    let near = candidates.into_iter().filter_map(|c| Some((distance(name, c, limit)?, c)));
    near.min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// Number of edits between two short names, where it is at most `limit`.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().filter(|d| *d <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let names = ["relu", "leaky_relu", "conv", "strides", "pads"];
        assert_eq!(closest("stride", names), Some("strides"));
        assert_eq!(closest("rleu", names), None);
        assert_eq!(closest("conw", names), Some("conv"));
        assert_eq!(closest("zzz", names), None);
    }

    #[test]
    fn malformed_tokens_do_not_stop_the_cursor() {
        let mut c = Cursor::new(FileId(0), "a § 12ab \"x");
        assert!(c.eat_word("a"));
        assert!(c.eat(TokenKind::Int));
        assert!(c.eat(TokenKind::Str));
        assert!(c.at(TokenKind::Eof));
        let codes: Vec<_> = c.into_diagnostics().iter().map(|d| d.code).collect();
        assert_eq!(codes, ["GS0001", "GS0002", "GS0003"]);
    }

    #[test]
    fn errors_are_bounded() {
        let text = "§ 1 ".repeat(1000);
        let mut c = Cursor::new(FileId(0), &text);
        while !c.at(TokenKind::Eof) {
            c.bump();
        }
        assert_eq!(c.diagnostics().len(), MAX_ERRORS + 1);
    }

    #[test]
    fn whole_numbers_reach_both_ends() {
        let mut c =
            Cursor::new(FileId(0), "-9223372036854775808 9223372036854775807 0xff 9223372036854775808");
        assert_eq!(c.int(), Some(i64::MIN));
        assert_eq!(c.int(), Some(i64::MAX));
        assert_eq!(c.int(), Some(255));
        assert_eq!(c.int(), None);
    }
}
