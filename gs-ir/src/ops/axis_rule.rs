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
//! an [`AxisFunction`]. Registration parses and checks the rules; [`crate::Registry::axis_clauses`] has what was read.

use crate::infer::InferCtx;
use crate::registry::{AttrKind, AxisRule, OpDecl};

/// How axes are tied where that depends on shapes or attributes. `x` is the first operand, `y` the result. An operator of
/// a user's own dialect may name one of these, or bring a function of its own.
#[derive(Clone, Copy, Debug)]
pub enum AxisFunction {
    /// Along `axis` the result is the operands' axes one after the other; the other axes are tied.
    Concat,
    /// Axes that are widened from 1 are new; the others are tied, aligned at the end.
    Expand,
    /// The axes before `axis` merge into axis 0, the others into axis 1.
    Flatten,
    /// `axis` of `data` is fixed (picked from); the others are tied to the result's, around those of `indices`.
    Gather,
    /// `matmul` after `trans_a` and `trans_b`; `c` is tied to the result's axes where it is not broadcast.
    Gemm,
    /// All axes are tied; those from `axis` on are normalised over, so that dropping changes statistics.
    LayerNorm,
    /// Last axis of `a` and last but one of `b` are tied and summed away; rows, columns and batch axes pass.
    Matmul,
    /// Every axis is the old one between new elements, each its own; only without mirroring.
    Pad,
    /// Batch axis and channel axis (last with `channels_last`) pass; spatial axes are fixed.
    Qpool,
    /// All axes of `x` and `y` are tied; `scale` and `zero_point` along `axis`, in blocks of `block`.
    Quantize,
    /// Axes that are reduced are summed or compared away; the others pass, moved if `keepdims` is off.
    Reduce,
    /// Both shapes are cut into least runs of equal products: runs pass, merge or split, row-major.
    Reshape,
    /// The axes of `x` from `start` to `end` are read as numbers.
    Shape,
    /// Along `axes` the result is the part or the steps taken; the other axes are tied.
    Slice,
    /// All axes are tied; `axis` (with `legacy` all from it on) is fixed.
    Softmax,
    /// The results' axes one after the other are `axis` of `x`; the other axes are tied.
    Split,
    /// Axes of one element are dropped; the others pass.
    Squeeze,
    /// An axis that is repeated holds each index as many times; the others pass.
    Tile,
    /// Axis i of the result is axis `perm[i]` of `x`.
    Transpose,
    /// Axes of one element are inserted; the others pass.
    Unsqueeze,
    /// The clauses for given operands and attributes, for an operator that none of the others describes.
    Own(fn(&InferCtx<'_>) -> Vec<Clause<'static>>),
}

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

/// Reads the clauses of a declaration and checks them against it; none where its rule is no list of clauses.
///
/// # Errors
/// What is wrong with a clause.
pub(crate) fn checked(decl: &OpDecl) -> Result<Vec<Clause<'static>>, String> {
    let AxisRule::Clauses(text) = decl.axes else { return Ok(Vec::new()) };
    let clauses = parse(text)?;
    let is_result = |r: &AxisRef<'_>| decl.results.iter().any(|d| d.name == r.name);
    let known = |r: &AxisRef<'_>| match r.axes {
        _ if decl.operand_index(r.name).is_none() && !is_result(r) => {
            Err(format!("`{}` is no operand or result", r.name))
        }
        Axes::Attr(a) if decl.attr(a).is_none_or(|a| a.kind != AttrKind::Int) => {
            Err(format!("`{}.{a}` names no integer attribute", r.name))
        }
        _ => Ok(()),
    };
    for clause in &clauses {
        match clause {
            Clause::Tie { refs, .. } | Clause::Sum(refs) => refs.iter().try_for_each(known)?,
            Clause::Fixed(r) => known(r)?,
            Clause::Set(a) if decl.attr(a).is_none() => return Err(format!("`set {a}` names no attribute")),
            Clause::Set(_) => {}
        }
    }
    let ties_result = |c: &Clause<'_>| matches!(c, Clause::Tie { refs, .. } if refs.iter().any(is_result));
    match clauses.iter().any(ties_result) {
        true => Ok(clauses),
        false => Err("no axis of a result is tied to anything".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{AttrDecl, Default, OperandDecl, QRole, RegisterError, Registry, ResultDecl};

    /// What registration says of this rule.
    fn registered(text: &'static str) -> Result<(), String> {
        const BASE: OpDecl = OpDecl {
            name: "my.op",
            operands: &[OperandDecl::one("x", QRole::Data), OperandDecl::optional("b", QRole::Bias)],
            results: &[ResultDecl::one("y", QRole::Own)],
            attrs: &[AttrDecl::new("axis", AttrKind::Int, Default::Int(1))],
            ..OpDecl::BASE
        };
        let decl = OpDecl { axes: AxisRule::Clauses(text), ..BASE };
        match Registry::default().register(decl) {
            Ok(_) => Ok(()),
            Err(RegisterError::Malformed { reason, .. }) => Err(reason),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn registration_checks_rules() {
        assert_eq!(registered("x.0 = y.0 parallel; x.axis = y.axis = b.0; set axis"), Ok(()));
        for (text, wrong) in [
            ("x.0 = y.0; x.1", "axis rule: `x.1`: at least two axes are tied"),
            ("x.0 = y.0; w.1 fixed", "axis rule: `w` is no operand or result"),
            ("x.perm = y.0", "axis rule: `x.perm` names no integer attribute"),
            ("x.0 = y.0; set group", "axis rule: `set group` names no attribute"),
            ("x.0 = b.0; y.0 fixed", "axis rule: no axis of a result is tied to anything"),
        ] {
            assert_eq!(registered(text), Err(wrong.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_registry_has_the_clauses() {
        let registry = Registry::builtin();
        for (kind, decl) in registry.iter() {
            let is_list = matches!(decl.axes, AxisRule::Clauses(_));
            assert_eq!(registry.axis_clauses(kind).is_empty(), !is_list, "{}", decl.name);
        }
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
