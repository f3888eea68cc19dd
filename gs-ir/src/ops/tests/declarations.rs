//! Declarations are complete and tolerate operands of which nothing is known.

use super::*;
use crate::registry::{Arity, Default, Traits};

#[test]
fn every_operator_is_described_and_inferred() {
    for decl in crate::ops::all() {
        assert!(decl.doc.ends_with('.'), "{}: the description is no sentence", decl.name);
        assert!(!decl.results.is_empty(), "{}", decl.name);
        let unknown = std::ptr::fn_addr_eq(
            decl.infer,
            crate::infer::unknown as fn(&mut crate::infer::InferCtx<'_>) -> Result<(), InferError>,
        );
        assert_eq!(unknown, decl.name == "opaque", "{} has no inference function", decl.name);
    }
}

#[test]
fn names_are_words_and_unique() {
    for decl in crate::ops::all() {
        let named = decl.operands.iter().map(|o| o.name).chain(decl.results.iter().map(|r| r.name));
        let mut names: Vec<&str> = named.collect();
        for name in names.iter().chain([&decl.name]) {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(count, names.len(), "{}: a name occurs twice", decl.name);
        let mut attrs: Vec<&str> = decl.attrs.iter().map(|a| a.name).collect();
        attrs.sort_unstable();
        attrs.dedup();
        assert_eq!(attrs.len(), decl.attrs.len(), "{}: an attribute occurs twice", decl.name);
    }
}

#[test]
fn defaults_are_of_their_kind() {
    for decl in crate::ops::all() {
        for attr in decl.attrs {
            let fits = match attr.default {
                Default::Required | Default::Absent => true,
                Default::Int(_) => attr.kind == AttrKind::Int,
                Default::Float(_) => attr.kind == AttrKind::Float,
                Default::Bool(_) => attr.kind == AttrKind::Bool,
                Default::Word(w) => attr.kind.accepts(&Attr::str(w)),
                Default::All(_) => attr.kind == AttrKind::Ints,
                Default::Elem(_) => attr.kind == AttrKind::Elem,
            };
            assert!(fits, "{}: `{}`", decl.name, attr.name);
        }
    }
}

#[test]
fn traits_agree_with_operands() {
    for decl in crate::ops::all() {
        if decl.traits.has(Traits::COMMUTATIVE) {
            let [a, b] = decl.operands else { panic!("{}", decl.name) };
            assert_eq!((a.arity, a.role), (b.arity, b.role), "{}", decl.name);
        }
        assert!(decl.traits.has(Traits::PURE) != decl.traits.has(Traits::RANDOM), "{}", decl.name);
    }
}

/// Attributes that an operator needs, whatever its operands.
fn required(decl: &OpDecl) -> &'static str {
    match decl.name {
        "cast" => "to=i64",
        "concat" | "qconcat" => "axis=0",
        "constant" => "value=1",
        "max_pool" | "average_pool" | "qaverage_pool" | "max_pool_grad" => "kernel_shape=2",
        "average_pool_grad" => "kernel_shape=2 shape=1,1,2,2",
        "broadcast" | "unbroadcast" | "conv_input_grad" | "conv_weight_grad" => "shape=1,1,2,2",
        "slice_grad" => "shape=1,1,2,2 starts=0 ends=1",
        "schedule" => "base=1.0",
        "pad" => "pads=0,0",
        "qsoftmax" => "opset=13",
        "reshape" => "shape=-1",
        "scan" => "num_scan_inputs=1",
        "slice" => "starts=0 ends=1",
        "tile" => "repeats=1",
        "unsqueeze" => "axes=0",
        _ => "",
    }
}

/// Operands that are all alike; three for a variadic one.
fn alike(decl: &OpDecl, fact: &str) -> String {
    let times = |o: &crate::registry::OperandDecl| if o.arity == Arity::Variadic { 3 } else { 1 };
    decl.operands.iter().flat_map(|o| std::iter::repeat_n(fact, times(o))).collect::<Vec<_>>().join(" ")
}

#[test]
fn unknown_operands_are_let_through() {
    for decl in crate::ops::all() {
        let count = if decl.results[0].arity == Arity::Variadic { 2 } else { 1 };
        let found = infer(decl.name, &alike(decl, "any"), required(decl), &[], count);
        let found = found.unwrap_or_else(|e| panic!("{}: {e}", decl.name));
        assert_eq!(found.split(' ').count(), count, "{}: {found}", decl.name);
    }
}

#[test]
fn operands_of_unknown_rank_are_let_through() {
    for decl in crate::ops::all() {
        let count = if decl.results[0].arity == Arity::Variadic { 2 } else { 1 };
        // Each operand has a type that it may have; which one, the checks know better than this test.
        let accepted = ["f32", "u8", "i64", "bool"].iter().any(|elem| {
            let mixed = decl
                .operands
                .iter()
                .map(|o| match (o.name, o.arity) {
                    ("step" | "tau", _)
                        if decl.traits.has(Traits::QUANTISER) || decl.name.ends_with("_grad") =>
                    {
                        "f32"
                    }
                    ("indices" | "shape" | "trip_count" | "labels" | "step", _) => "i64",
                    ("cond" | "hard" | "frozen", _) => "bool",
                    ("range", _) => "f32",
                    (n, _) if n.ends_with("scale") && decl.name != "batch_norm" => "f32",
                    (n, _) if n.ends_with("zp") || n == "zero_point" => "u8",
                    ("b" | "c", Arity::Optional) if decl.name.starts_with('q') => "i32",
                    (_, Arity::Variadic) => "any any any",
                    _ => elem,
                })
                .collect::<Vec<_>>()
                .join(" ");
            infer(decl.name, &mixed, required(decl), &[], count).is_ok()
        });
        assert!(accepted, "{}", decl.name);
    }
}
