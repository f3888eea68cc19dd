//! The lexer of both text forms. Tokens are made on demand and hold no text of their own; lines mean nothing
//! to it, but each token says whether it is the first of its line, so that parsers can recover there.

/// The kind of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the punctuation names itself
pub enum TokenKind {
    /// A word: letters, digits and `_`, several joined by single dots (`conv1.weight`).
    Ident,
    /// `_` alone.
    Underscore,
    /// `12`.
    Int,
    /// `0x2f`.
    HexInt,
    /// `1.5`, `1e-5`.
    Float,
    /// `0x1.8p-3`.
    HexFloat,
    /// `"..."`.
    Str,
    /// `b"..."`: bytes.
    Bytes,
    /// `%name`, `%12`, `%"any name"`.
    Value,
    /// `@name`, `@"any name"`.
    Global,
    /// `$name`, `$"any name"`.
    Var,
    /// A `///` line, where the lexer keeps those.
    Doc,
    LParen,
    RParen,
    LBrace,
    RBrace,
    LBracket,
    RBracket,
    Comma,
    Colon,
    Semicolon,
    Equals,
    EqualsEquals,
    NotEquals,
    Less,
    LessEquals,
    Greater,
    GreaterEquals,
    /// `->`
    Arrow,
    /// `=>`
    FatArrow,
    /// `<=>`
    BothArrow,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    At,
    Dollar,
    Question,
    Bang,
    Pipe,
    Ampersand,
    Tilde,
    Caret,
    Hash,
    Dot,
    DotDot,
    Ellipsis,
    /// A character that begins no token.
    BadChar,
    /// A malformed number.
    BadNumber,
    /// A string whose end is not on its line.
    BadString,
    /// The end of the text.
    Eof,
}

/// A token: its kind and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Its kind.
    pub kind: TokenKind,
    /// Whether it is the first of its line.
    pub first_on_line: bool,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

use TokenKind as K;

const WORD: u8 = 1;
const DIGIT: u8 = 2;
const SPACE: u8 = 4;

/// What each byte can be: part of a word, a digit, a space.
const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        if c.is_ascii_alphabetic() || c == b'_' {
            table[b] = WORD;
        } else if c.is_ascii_digit() {
            table[b] = WORD | DIGIT;
        } else if matches!(c, b' ' | b'\t' | b'\r' | b'\n') {
            table[b] = SPACE;
        }
        b += 1;
    }
    table
};

/// Makes tokens of a text.
#[derive(Clone, Debug)]
pub struct Lexer<'s> {
    text: &'s str,
    at: usize,
    docs: bool,
}

impl<'s> Lexer<'s> {
    /// A lexer over a text of less than 4 GiB; what lies behind is not seen (see [`crate::Cursor::new`]).
    pub fn new(text: &'s str) -> Self {
        Self { text, at: 0, docs: false }
    }

    /// Makes tokens of `///` lines too.
    pub fn with_docs(mut self) -> Self {
        self.docs = true;
        self
    }

    /// Goes on at a position, which must be a boundary between tokens.
    pub(crate) fn seek(&mut self, at: usize) {
        self.at = at.min(self.text.len());
    }

    /// The text that it reads.
    pub fn text(&self) -> &'s str {
        self.text
    }

    #[inline]
    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    #[inline]
    fn class(&self, ahead: usize) -> u8 {
        CLASS[usize::from(self.byte(ahead))]
    }

    /// The next token; [`TokenKind::Eof`] at the end, again and again.
    #[inline]
    pub fn next_token(&mut self) -> Token {
        let first_on_line = self.skip_space();
        let start = self.at;
        let kind = if start >= self.text.len() { K::Eof } else { self.scan() };
        Token { kind, first_on_line, start: start as u32, end: self.at as u32 }
    }

    /// Skips spaces and comments; says whether a line began.
    #[inline]
    fn skip_space(&mut self) -> bool {
        let mut line = self.at == 0;
        loop {
            let b = self.byte(0);
            if CLASS[usize::from(b)] & SPACE != 0 {
                line |= b == b'\n';
                self.at += 1;
            } else if b == b'/' && self.byte(1) == b'/' && !self.at_doc() {
                self.at += self.line_rest();
            } else {
                return line;
            }
        }
    }

    fn at_doc(&self) -> bool {
        self.docs && self.byte(2) == b'/' && self.byte(3) != b'/'
    }

    fn line_rest(&self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
    }

    #[inline]
    fn scan(&mut self) -> TokenKind {
        match self.byte(0) {
            b'b' if self.byte(1) == b'"' => self.string(1, K::Bytes),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.word(),
            b'0'..=b'9' => self.number(),
            b'"' => self.string(0, K::Str),
            b'%' => self.sigil(K::Value, K::Percent),
            b'@' => self.sigil(K::Global, K::At),
            b'$' => self.sigil(K::Var, K::Dollar),
            b => self.punctuation(b),
        }
    }

    fn word(&mut self) -> TokenKind {
        let start = self.at;
        self.words();
        if self.at == start + 1 && self.text.as_bytes()[start] == b'_' { K::Underscore } else { K::Ident }
    }

    /// Runs over words joined by single dots.
    #[inline]
    fn words(&mut self) {
        loop {
            while self.class(0) & WORD != 0 {
                self.at += 1;
            }
            if self.byte(0) != b'.' || self.class(1) & WORD == 0 {
                return;
            }
            self.at += 1;
        }
    }

    #[inline]
    fn sigil(&mut self, name: TokenKind, alone: TokenKind) -> TokenKind {
        let next = self.byte(1);
        if next == b'"' {
            return self.string(1, name);
        }
        self.at += 1;
        let class = CLASS[usize::from(next)];
        if class & DIGIT != 0 {
            while self.class(0) & DIGIT != 0 {
                self.at += 1;
            }
            name
        } else if class & WORD != 0 {
            self.words();
            name
        } else {
            alone
        }
    }

    /// A string whose opening quote stands `prefix` bytes ahead.
    fn string(&mut self, prefix: usize, kind: TokenKind) -> TokenKind {
        self.at += prefix + 1;
        loop {
            match self.byte(0) {
                b'"' => {
                    self.at += 1;
                    return kind;
                }
                b'\n' => return K::BadString,
                0 if self.at >= self.text.len() => return K::BadString,
                // Whatever follows the backslash, an end of line excepted, does not end the string.
                b'\\' if self.at + 1 < self.text.len() && self.byte(1) != b'\n' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.class(0) & DIGIT != 0 {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> TokenKind {
        if self.byte(0) == b'0' && matches!(self.byte(1), b'x' | b'X') {
            return self.hex_number();
        }
        self.digits();
        let mut kind = K::Int;
        if self.byte(0) == b'.' && self.class(1) & DIGIT != 0 {
            kind = K::Float;
            self.at += 1;
            self.digits();
        }
        if matches!(self.byte(0), b'e' | b'E') {
            kind = K::Float;
            self.at += 1 + usize::from(matches!(self.byte(1), b'+' | b'-'));
            if self.digits() == 0 {
                kind = K::BadNumber;
            }
        }
        self.end_of_number(kind)
    }

    fn hex_digits(&mut self) -> usize {
        let start = self.at;
        while self.byte(0).is_ascii_hexdigit() {
            self.at += 1;
        }
        self.at - start
    }

    fn hex_number(&mut self) -> TokenKind {
        self.at += 2;
        let mut kind = if self.hex_digits() > 0 { K::HexInt } else { K::BadNumber };
        if self.byte(0) == b'.' && self.byte(1).is_ascii_hexdigit() {
            self.at += 1;
            self.hex_digits();
            kind = K::BadNumber; // unless an exponent follows
        }
        if matches!(self.byte(0), b'p' | b'P') {
            self.at += 1 + usize::from(matches!(self.byte(1), b'+' | b'-'));
            kind = if self.digits() > 0 { K::HexFloat } else { K::BadNumber };
        }
        self.end_of_number(kind)
    }

    /// A number ends where no word goes on.
    fn end_of_number(&mut self, kind: TokenKind) -> TokenKind {
        if self.class(0) & WORD == 0 {
            return kind;
        }
        self.words();
        K::BadNumber
    }

    fn punctuation(&mut self, b: u8) -> TokenKind {
        let (kind, len) = match (b, self.byte(1), self.byte(2)) {
            (b'.', b'.', b'.') => (K::Ellipsis, 3),
            (b'<', b'=', b'>') => (K::BothArrow, 3),
            (b'.', b'.', _) => (K::DotDot, 2),
            (b'-', b'>', _) => (K::Arrow, 2),
            (b'=', b'>', _) => (K::FatArrow, 2),
            (b'=', b'=', _) => (K::EqualsEquals, 2),
            (b'!', b'=', _) => (K::NotEquals, 2),
            (b'<', b'=', _) => (K::LessEquals, 2),
            (b'>', b'=', _) => (K::GreaterEquals, 2),
            (b'(', ..) => (K::LParen, 1),
            (b')', ..) => (K::RParen, 1),
            (b'{', ..) => (K::LBrace, 1),
            (b'}', ..) => (K::RBrace, 1),
            (b'[', ..) => (K::LBracket, 1),
            (b']', ..) => (K::RBracket, 1),
            (b',', ..) => (K::Comma, 1),
            (b':', ..) => (K::Colon, 1),
            (b';', ..) => (K::Semicolon, 1),
            (b'=', ..) => (K::Equals, 1),
            (b'<', ..) => (K::Less, 1),
            (b'>', ..) => (K::Greater, 1),
            (b'+', ..) => (K::Plus, 1),
            (b'-', ..) => (K::Minus, 1),
            (b'*', ..) => (K::Star, 1),
            (b'/', b'/', _) => (K::Doc, self.line_rest()),
            (b'/', ..) => (K::Slash, 1),
            (b'?', ..) => (K::Question, 1),
            (b'!', ..) => (K::Bang, 1),
            (b'|', ..) => (K::Pipe, 1),
            (b'&', ..) => (K::Ampersand, 1),
            (b'~', ..) => (K::Tilde, 1),
            (b'^', ..) => (K::Caret, 1),
            (b'#', ..) => (K::Hash, 1),
            (b'.', ..) => (K::Dot, 1),
            _ => (K::BadChar, self.text[self.at..].chars().next().map_or(1, char::len_utf8)),
        };
        self.at += len;
        kind
    }
}

impl TokenKind {
    /// The kind in words, for messages: what was expected.
    pub fn describe(self) -> &'static str {
        match self {
            K::Ident => "a name",
            K::Underscore => "`_`",
            K::Int | K::HexInt => "a whole number",
            K::Float | K::HexFloat => "a number",
            K::Str => "a string",
            K::Bytes => "bytes",
            K::Value => "a value (`%name`)",
            K::Global => "a global (`@name`)",
            K::Var => "a variable (`$name`)",
            K::Doc => "a comment",
            K::LParen => "`(`",
            K::RParen => "`)`",
            K::LBrace => "`{`",
            K::RBrace => "`}`",
            K::LBracket => "`[`",
            K::RBracket => "`]`",
            K::Comma => "`,`",
            K::Colon => "`:`",
            K::Semicolon => "`;`",
            K::Equals => "`=`",
            K::EqualsEquals => "`==`",
            K::NotEquals => "`!=`",
            K::Less => "`<`",
            K::LessEquals => "`<=`",
            K::Greater => "`>`",
            K::GreaterEquals => "`>=`",
            K::Arrow => "`->`",
            K::FatArrow => "`=>`",
            K::BothArrow => "`<=>`",
            K::Plus => "`+`",
            K::Minus => "`-`",
            K::Star => "`*`",
            K::Slash => "`/`",
            K::Percent => "`%`",
            K::At => "`@`",
            K::Dollar => "`$`",
            K::Question => "`?`",
            K::Bang => "`!`",
            K::Pipe => "`|`",
            K::Ampersand => "`&`",
            K::Tilde => "`~`",
            K::Caret => "`^`",
            K::Hash => "`#`",
            K::Dot => "`.`",
            K::DotDot => "`..`",
            K::Ellipsis => "`...`",
            K::BadChar => "an unknown character",
            K::BadNumber => "a malformed number",
            K::BadString => "an unfinished string",
            K::Eof => "the end of the text",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(TokenKind, &str)> {
        let mut lexer = Lexer::new(text).with_docs();
        let mut out = Vec::new();
        loop {
            let t = lexer.next_token();
            if t.kind == K::Eof {
                return out;
            }
            out.push((t.kind, &text[t.start as usize..t.end as usize]));
        }
    }

    #[test]
    fn tokens_of_modules_and_rules() {
        assert_eq!(
            kinds("%0 = conv(%x.y, @\"a/b\", _) // rest\n$x... <=> ..$c -> ?3"),
            [
                (K::Value, "%0"),
                (K::Equals, "="),
                (K::Ident, "conv"),
                (K::LParen, "("),
                (K::Value, "%x.y"),
                (K::Comma, ","),
                (K::Global, "@\"a/b\""),
                (K::Comma, ","),
                (K::Underscore, "_"),
                (K::RParen, ")"),
                (K::Var, "$x"),
                (K::Ellipsis, "..."),
                (K::BothArrow, "<=>"),
                (K::DotDot, ".."),
                (K::Var, "$c"),
                (K::Arrow, "->"),
                (K::Question, "?"),
                (K::Int, "3"),
            ]
        );
    }

    #[test]
    fn numbers() {
        for (text, kind) in [
            ("12", K::Int),
            ("0x1F", K::HexInt),
            ("1.5", K::Float),
            ("1e-5", K::Float),
            ("2E+7", K::Float),
            ("0x1.8p-3", K::HexFloat),
            ("0x1p3", K::HexFloat),
            ("1e", K::BadNumber),
            ("0x", K::BadNumber),
            ("0x1.8", K::BadNumber),
            ("12ab", K::BadNumber),
        ] {
            assert_eq!(kinds(text), [(kind, text)]);
        }
        assert_eq!(kinds("1..2"), [(K::Int, "1"), (K::DotDot, ".."), (K::Int, "2")]);
    }

    #[test]
    fn strings_end_on_their_line() {
        assert_eq!(kinds(r#""a\"b" b"\x00""#), [(K::Str, r#""a\"b""#), (K::Bytes, r#"b"\x00""#)]);
        assert_eq!(kinds("\"ab\n2"), [(K::BadString, "\"ab"), (K::Int, "2")]);
        assert_eq!(kinds("\"ab\\"), [(K::BadString, "\"ab\\")]);
        assert_eq!(kinds("%\"ab"), [(K::BadString, "%\"ab")]);
        assert_eq!(kinds("ü"), [(K::BadChar, "ü")]);
    }

    #[test]
    fn doc_lines_and_line_starts() {
        assert_eq!(kinds("/// doc\n//// no\n// no\nx"), [(K::Doc, "/// doc"), (K::Ident, "x")]);
        let mut lexer = Lexer::new("a b\n  c");
        let firsts: Vec<bool> = (0..3).map(|_| lexer.next_token().first_on_line).collect();
        assert_eq!(firsts, [true, false, true]);
    }
}
