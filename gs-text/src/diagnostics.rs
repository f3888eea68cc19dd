//! Diagnostics: errors and warnings with a stable code, spans and help, kept as data and rendered at the edge.
//! Several come out of one run.

use crate::span::{SourceMap, Span};
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// The text is refused.
    Error,
    /// The text is accepted, but probably not what was meant.
    Warning,
}

/// A place with a remark. The first label of a diagnostic is its main one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// The remark; may be empty.
    pub text: String,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// A stable code, like `GS0101`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where; the first is the main place.
    pub labels: Vec<Label>,
    /// What one may do about it.
    pub help: Option<String>,
    /// Facts that explain it.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error without a place yet.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        let (labels, notes) = (Vec::new(), Vec::new());
        Self { code, severity: Severity::Error, message: message.into(), labels, help: None, notes }
    }

    /// A warning without a place yet.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Adds a place; the first one is the main one.
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Says what one may do about it.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds a fact.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// How to render.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Without colours: for files, pipes and tests.
    Plain,
    /// With the colours of a terminal.
    Coloured,
}

/// Renders one diagnostic with the source lines it speaks of.
pub fn render(diagnostic: &Diagnostic, sources: &SourceMap, style: Style) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let excerpts = excerpts(&diagnostic.labels, sources);
    let mut group = Group::with_title(level.primary_title(&*diagnostic.message).id(diagnostic.code));
    for excerpt in &excerpts {
        group = group.element(excerpt.snippet());
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(&**note));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(&**help));
    }
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    renderer.render(&[group])
}

/// Renders several diagnostics, one under the other with an empty line between.
pub fn render_all(diagnostics: &[Diagnostic], sources: &SourceMap, style: Style) -> String {
    let mut out = String::new();
    for d in diagnostics {
        out.push_str(&render(d, sources, style));
        out.push_str("\n\n");
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The lines around labels that lie close together: rendering must not read a whole file of many megabytes.
struct Excerpt<'a> {
    name: &'a str,
    text: &'a str,
    first_line: usize,
    /// Byte ranges within `text`, whether each is the main place, and the remarks.
    marks: Vec<(std::ops::Range<usize>, bool, &'a str)>,
}

impl<'a> Excerpt<'a> {
    fn snippet(&self) -> Snippet<'a, Annotation<'a>> {
        let mut snippet = Snippet::source(self.text).path(self.name).line_start(self.first_line);
        for (range, primary, text) in &self.marks {
            let kind = if *primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            let annotation = kind.span(range.clone());
            snippet = snippet.annotation(if text.is_empty() { annotation } else { annotation.label(*text) });
        }
        snippet
    }
}

/// Labels at most so many bytes apart share an excerpt.
const NEAR: usize = 4096;
/// A line is shown at most this far to either side of a label.
const LINE: usize = 2048;

fn excerpts<'a>(labels: &'a [Label], sources: &'a SourceMap) -> Vec<Excerpt<'a>> {
    let mut excerpts = Vec::new();
    let mut pending: Vec<(usize, &Label)> = labels.iter().enumerate().collect();
    // The first group is that of the main label; the others follow in their order.
    while let Some(&(_, head)) = pending.first() {
        let near = |l: &Label| {
            l.span.file == head.span.file && (l.span.start.abs_diff(head.span.start) as usize) < NEAR
        };
        let group: Vec<(usize, &Label)> = pending.iter().copied().filter(|(_, l)| near(l)).collect();
        pending.retain(|(_, l)| !near(l));
        excerpts.push(excerpt(&group, sources));
    }
    excerpts
}

fn excerpt<'a>(group: &[(usize, &'a Label)], sources: &'a SourceMap) -> Excerpt<'a> {
    let file = group.first().map_or_else(Default::default, |(_, l)| l.span.file);
    let text = sources.text(file);
    let low = group.iter().map(|(_, l)| l.span.start as usize).min().unwrap_or(0).min(text.len());
    let high = group.iter().map(|(_, l)| (l.span.end as usize).min(l.span.start as usize + NEAR)).max();
    let high = high.unwrap_or(0).clamp(low, text.len());
    let from = line_start(text, low);
    let to = line_end(text, high);
    let first_line = text.as_bytes()[..from].iter().filter(|&&b| b == b'\n').count() + 1;
    let inside = |at: u32| char_floor(text, (at as usize).clamp(from, to)) - from;
    let marks =
        group.iter().map(|(i, l)| (inside(l.span.start)..inside(l.span.end), *i == 0, l.text.as_str()));
    Excerpt { name: sources.name(file), text: &text[from..to], first_line, marks: marks.collect() }
}

fn line_start(text: &str, at: usize) -> usize {
    let least = at.saturating_sub(LINE);
    let start = text.as_bytes()[least..at].iter().rposition(|&b| b == b'\n').map_or(least, |i| least + i + 1);
    char_floor(text, start)
}

fn line_end(text: &str, at: usize) -> usize {
    let most = (at + LINE).min(text.len());
    let end = text.as_bytes()[at..most].iter().position(|&b| b == b'\n').map_or(most, |i| at + i);
    char_floor(text, end)
}

/// The last boundary between characters at or before a position.
fn char_floor(text: &str, mut at: usize) -> usize {
    while at > 0 && !text.is_char_boundary(at) {
        at -= 1;
    }
    at.min(text.len())
}

/// Diagnostics together with the texts they speak of: an error that can be shown.
#[derive(Clone, Debug)]
pub struct TextError {
    /// The texts.
    pub sources: SourceMap,
    /// What was found.
    pub diagnostics: Vec<Diagnostic>,
}

impl TextError {
    /// All findings as text.
    pub fn render(&self, style: Style) -> String {
        render_all(&self.diagnostics, &self.sources, style)
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Style::Plain).trim_end())
    }
}

impl std::error::Error for TextError {}
