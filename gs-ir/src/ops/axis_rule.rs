//! The little language of axis rules: how the axes of an operation's operands and results are tied. Pruning and
//! batching read it.
//!
//! ```text
//! rule    = clause { ";" clause }
//! clause  = ref { "=" ref } [ "parallel" ]     these axes are one: an index that is dropped on one is dropped on all
//!         | ref "~" ref { "~" ref } "sum"      the same, and the axis is summed away: it does not reach the result
//!         | ref "fixed"                        nothing may be dropped on these axes
//!         | "set" ATTR                         the attribute follows the extents, see below
//! ref     = NAME "." axes                      an operand or result of the declaration
//! axes    = NUMBER                             one axis, from the front
//!         | NUMBER ".."                        this axis and all behind it
//!         | ATTR                               the axis that this integer attribute names
//! ```
//!
//! * A reference says nothing where its operand is absent, where the tensor has no such axis (a scalar scale), where
//!   the attribute is absent, or where the axis has one element while the others of the clause have more (it is
//!   broadcast). The other references of the clause are tied all the same.
//! * Ranges (`x.2.. = y.2..`) tie axis by axis.
//! * `parallel` marks the batch: elements with different indices on it never meet, so that it may be split, doubled
//!   or stacked. It is no permission to drop anything.
//! * An axis that no clause mentions is fixed.
//! * `set group` belongs to convolutions. With group = 1 it says nothing. Otherwise axis 1 of `x` and the axis of `y`
//!   and its weight axis are rows of `group` blocks: the `sum` clause ties the weight's axis to each block of the data's
//!   axis, and what is dropped must leave equal blocks. With as many groups as channels (depthwise) the axes of `x`
//!   and `y` are one axis, and `group` is set to the number of channels kept.
//!
//! An operator whose axes are tied in a way that depends on shapes or attributes names a function instead,
//! one of [`FUNCTIONS`].

/// The functions that an [`crate::registry::AxisRule::Function`] may name, with what each says. `x` is the first
/// operand, `y` the result.
pub const FUNCTIONS: &[(&str, &str)] = &[
    ("concat", "Along `axis` the result is the operands' axes one after the other; the other axes are tied."),
    ("expand", "Axes that are widened from 1 are new; the others are tied, aligned at the end."),
    ("flatten", "The axes before `axis` merge into axis 0, the others into axis 1."),
    (
        "gather",
        "`axis` of `data` is fixed (picked from); the others are tied to the result's, around those of `indices`.",
    ),
    (
        "gemm",
        "`matmul` after `trans_a` and `trans_b`; `c` is tied to the result's axes where it is not broadcast.",
    ),
    (
        "layer_norm",
        "All axes are tied; those from `axis` on are normalised over, so that dropping changes statistics.",
    ),
    (
        "matmul",
        "Last axis of `a` and last but one of `b` are tied and summed away; rows, columns and batch axes pass.",
    ),
    ("pad", "Every axis is the old one between new elements, each its own; only without mirroring."),
    ("qpool", "Batch axis and channel axis (last with `channels_last`) pass; spatial axes are fixed."),
    (
        "quantize",
        "All axes of `x` and `y` are tied; `scale` and `zero_point` along `axis`, in blocks of `block`.",
    ),
    (
        "reduce",
        "Axes that are reduced are summed or compared away; the others pass, moved if `keepdims` is off.",
    ),
    (
        "reshape",
        "Both shapes are cut into least runs of equal products: runs pass, merge or split, row-major.",
    ),
    ("shape", "The axes of `x` from `start` to `end` are read as numbers."),
    ("slice", "Along `axes` the result is the part or the steps taken; the other axes are tied."),
    ("softmax", "All axes are tied; `axis` (with `legacy` all from it on) is fixed."),
    ("split", "The results' axes one after the other are `axis` of `x`; the other axes are tied."),
    ("squeeze", "Axes of one element are dropped; the others pass."),
    ("tile", "An axis that is repeated holds each index as many times; the others pass."),
    ("transpose", "Axis i of the result is axis `perm[i]` of `x`."),
    ("unsqueeze", "Axes of one element are inserted; the others pass."),
];

/// One clause of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Clause<'a> {
    /// These axes are one; `parallel` if it is the batch.
    Tie {
        /// The axes.
        refs: Vec<AxisRef<'a>>,
        /// Whether elements with different indices never meet.
        parallel: bool,
    },
    /// These axes are one and are summed away.
    Sum(Vec<AxisRef<'a>>),
    /// Nothing may be dropped here.
    Fixed(AxisRef<'a>),
    /// The attribute follows the extents.
    Set(&'a str),
}

/// Axes of one operand or result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AxisRef<'a> {
    /// Name of the operand or result.
    pub name: &'a str,
    /// Which of its axes.
    pub axes: Axes<'a>,
}

/// Which axes are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Axes<'a> {
    /// One, from the front.
    One(usize),
    /// This one and all behind it.
    From(usize),
    /// The one that an attribute names.
    Attr(&'a str),
}

/// Reads a rule. The error says which clause is wrong and what was expected.
pub fn parse(rule: &str) -> Result<Vec<Clause<'_>>, String> {
    rule.split(';').map(|c| clause(c.trim())).collect()
}

fn clause(text: &str) -> Result<Clause<'_>, String> {
    let (body, word) = match text.rsplit_once(' ') {
        Some((body, word @ ("parallel" | "sum" | "fixed"))) => (body.trim(), word),
        _ => (text, ""),
    };
    if let Some(attr) = body.strip_prefix("set ") {
        return match word {
            "" if is_name(attr.trim()) => Ok(Clause::Set(attr.trim())),
            _ => Err(format!("`{text}`: `set` is followed by the name of an attribute")),
        };
    }
    let sign = if word == "sum" { '~' } else { '=' };
    let refs: Vec<AxisRef<'_>> = body
        .split(sign)
        .map(|r| reference(r.trim()).ok_or_else(|| format!("`{text}`: `{}` is no axis", r.trim())))
        .collect::<Result<_, _>>()?;
    match (word, refs.as_slice()) {
        ("fixed", [one]) => Ok(Clause::Fixed(*one)),
        ("fixed", _) => Err(format!("`{text}`: `fixed` is said of one reference")),
        (_, [] | [_]) => Err(format!("`{text}`: at least two axes are tied")),
        ("sum", _) => Ok(Clause::Sum(refs)),
        (word, _) => Ok(Clause::Tie { refs, parallel: word == "parallel" }),
    }
}

fn reference(text: &str) -> Option<AxisRef<'_>> {
    let (name, axes) = text.split_once('.')?;
    let axes = match axes.strip_suffix("..") {
        Some(first) => Axes::From(first.parse().ok()?),
        None if is_name(axes) => Axes::Attr(axes),
        None => Axes::One(axes.parse().ok()?),
    };
    is_name(name).then_some(AxisRef { name, axes })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{AttrKind, AxisRule, OpDecl};

    fn check(decl: &OpDecl, text: &str) {
        let clauses = parse(text).unwrap_or_else(|e| panic!("{}: {e}", decl.name));
        let known = |r: &AxisRef<'_>| {
            let declared =
                decl.operand_index(r.name).is_some() || decl.results.iter().any(|d| d.name == r.name);
            assert!(declared, "{}: `{}` is no operand or result", decl.name, r.name);
            if let Axes::Attr(a) = r.axes {
                assert_eq!(decl.attr(a).map(|a| a.kind), Some(AttrKind::Int), "{}: `{a}`", decl.name);
            }
        };
        for clause in &clauses {
            match clause {
                Clause::Tie { refs, .. } | Clause::Sum(refs) => refs.iter().for_each(known),
                Clause::Fixed(r) => known(r),
                Clause::Set(a) => assert!(decl.attr(a).is_some(), "{}: `set {a}`", decl.name),
            }
        }
        let ties_result = |c: &Clause<'_>| match c {
            Clause::Tie { refs, .. } => refs.iter().any(|r| decl.results.iter().any(|d| d.name == r.name)),
            _ => false,
        };
        assert!(clauses.iter().any(ties_result), "{}: no axis of the result is tied to anything", decl.name);
    }

    #[test]
    fn every_rule_parses_and_names_what_is_declared() {
        for decl in crate::ops::all() {
            match decl.axes {
                AxisRule::Clauses(text) => check(decl, text),
                AxisRule::Function(name) => {
                    assert!(FUNCTIONS.iter().any(|f| f.0 == name), "{}: function `{name}`", decl.name);
                }
                AxisRule::Elementwise | AxisRule::Opaque => {}
            }
        }
    }

    #[test]
    fn every_function_is_used_and_they_are_sorted() {
        for (name, _) in FUNCTIONS {
            assert!(crate::ops::all().any(|d| d.axes == AxisRule::Function(name)), "{name}");
        }
        assert!(FUNCTIONS.is_sorted());
    }

    #[test]
    fn clauses() {
        let x = |axes| AxisRef { name: "x", axes };
        let y = |axes| AxisRef { name: "y", axes };
        assert_eq!(
            parse("x.0 = y.0 parallel; x.1 ~ y.axis sum; x.2.. fixed; set group").unwrap(),
            [
                Clause::Tie { refs: vec![x(Axes::One(0)), y(Axes::One(0))], parallel: true },
                Clause::Sum(vec![x(Axes::One(1)), y(Axes::Attr("axis"))]),
                Clause::Fixed(x(Axes::From(2))),
                Clause::Set("group"),
            ]
        );
        for wrong in [
            "",
            "x.0",
            "x.0 = ",
            "x.0 ~ y.0",
            "x = y",
            "x.0 = y.0 fixed",
            "set",
            "set group sum",
            "x.-1 = y.0",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
