//! The ONNX forms against ONNX's own schemas: every version that a form stands for has its inputs, attributes and
//! defaults.

use super::*;
use crate::registry::{Arity, Default, MAX_OPSET, OnnxAttr, OnnxForm, OnnxInput};

const SCHEMAS: &str = include_str!("../testdata/onnx_schemas.txt");

/// One version of an ONNX operator.
struct Schema {
    since: i64,
    inputs: Vec<&'static str>,
    attrs: Vec<&'static str>,
}

fn schemas(domain: &str, name: &str) -> Vec<Schema> {
    let mut current = "";
    let mut found = Vec::new();
    for line in SCHEMAS.lines().filter(|l| !l.starts_with('#')) {
        let Some((head, attrs)) = line.split_once('|') else {
            current = line;
            continue;
        };
        let mut words = head.split_whitespace();
        if current == domain && words.next() == Some(name) {
            let since = words.next().unwrap().parse().unwrap();
            found.push(Schema { since, inputs: words.collect(), attrs: attrs.split_whitespace().collect() });
        }
    }
    found
}

/// ONNX's default of an attribute, as a schema line writes ours.
fn written(default: Default) -> Option<String> {
    match default {
        Default::Int(v) => Some(v.to_string()),
        Default::Bool(v) => Some(i64::from(v).to_string()),
        Default::Float(v) => Some(format!("{v:?}")),
        Default::Word(v) => Some(v.to_string()),
        // Lists have no default in the schemas; what absence means is said in words there.
        Default::All(_) | Default::Absent | Default::Required | Default::Elem(_) => None,
    }
}

fn check_attrs(decl: &OpDecl, form: &OnnxForm, schema: &Schema) {
    let place = format!("{} (ONNX version {})", decl.name, schema.since);
    let named = |a: &OnnxAttr| match *a {
        OnnxAttr::Same(n, _)
        | OnnxAttr::Defaulting(n, ..)
        | OnnxAttr::Fixed(n, _)
        | OnnxAttr::Demanded(n, _)
        | OnnxAttr::SpatialOf(n, _)
        | OnnxAttr::ResultCount(n, _)
        | OnnxAttr::Ignored(n) => Some(n),
        OnnxAttr::Implied(..) => None,
    };
    let name_of = |text: &'static str| text.split(['=', '!']).next().unwrap();
    for attr in &schema.attrs {
        let name = name_of(attr);
        assert!(
            form.attrs.iter().any(|a| named(a) == Some(name)),
            "{place}: the form does not mention `{name}`"
        );
    }
    for attr in form.attrs {
        let Some(name) = named(attr) else { continue };
        let Some(text) = schema.attrs.iter().find(|t| name_of(t) == name) else {
            panic!("{place}: ONNX has no attribute `{name}`");
        };
        let theirs = text.split_once('=').map(|t| t.1.to_string());
        match *attr {
            OnnxAttr::Same(_, ours) => {
                let declared = decl.attr(ours).unwrap();
                // `to` of 0 is ONNX's way to say that nothing is said.
                let absent_elem = declared.kind == AttrKind::Elem && theirs.as_deref() == Some("0");
                // No limit is the limit of the element type.
                let limit = |t: &String| t.parse() == Ok(f32::MAX) || t.parse() == Ok(f32::MIN);
                let absent_limit = declared.default == Default::Absent && theirs.as_ref().is_some_and(limit);
                let ours = written(declared.default);
                assert!(
                    absent_elem || absent_limit || ours == theirs,
                    "{place}: default of `{name}`: {ours:?}, {theirs:?}"
                );
                if text.ends_with('!') {
                    assert!(
                        matches!(declared.default, Default::Required | Default::All(_)),
                        "{place}: `{name}`"
                    );
                }
            }
            OnnxAttr::Defaulting(_, _, d) | OnnxAttr::Fixed(_, d) => {
                assert!(
                    theirs.is_none() || theirs == written(d),
                    "{place}: default of `{name}` is {theirs:?}"
                );
            }
            OnnxAttr::Demanded(_, d) => {
                assert_ne!(theirs, written(d), "{place}: `{name}` need not be demanded")
            }
            _ => {}
        }
    }
}

fn check_inputs(decl: &OpDecl, form: &OnnxForm, schema: &Schema) {
    let place = format!("{} (ONNX version {})", decl.name, schema.since);
    assert_eq!(form.inputs.len(), schema.inputs.len(), "{place}: {:?}", schema.inputs);
    for (ours, theirs) in form.inputs.iter().zip(&schema.inputs) {
        let needed = !theirs.ends_with('?');
        match *ours {
            OnnxInput::Operand(n) => {
                let arity = decl.operands[decl.operand_index(n).unwrap()].arity;
                assert_eq!(arity == Arity::Variadic, theirs.ends_with("..."), "{place}: `{n}`");
                // What we need ONNX must give. The reverse may be looser: an older version may demand more.
                assert!(arity != Arity::One || needed, "{place}: `{n}` may be absent in ONNX");
            }
            OnnxInput::Attr(n) | OnnxInput::ScalarAttr(n) | OnnxInput::Hint(n) => {
                let default = decl.attr(n).unwrap().default;
                assert_eq!(default == Default::Required, needed, "{place}: `{n}`");
            }
            OnnxInput::Fixed(_) | OnnxInput::Ignored => assert!(!needed, "{place}"),
        }
    }
}

#[test]
fn forms_agree_with_the_schemas() {
    for decl in crate::ops::all() {
        let Some(onnx) = &decl.onnx else { continue };
        let schemas = schemas(onnx.domain, onnx.name);
        assert!(!schemas.is_empty(), "{}: no schema of {}", decl.name, onnx.name);
        for form in onnx.forms {
            assert!(
                schemas.iter().any(|s| s.since == form.since),
                "{}: no version {}",
                decl.name,
                form.since
            );
        }
        for schema in &schemas {
            if let Some(form) = onnx.form(schema.since) {
                check_attrs(decl, form, schema);
                check_inputs(decl, form, schema);
            }
            assert!(
                schema.since <= MAX_OPSET || onnx.form(schema.since).is_none(),
                "{}: version {} is newer than what was checked",
                decl.name,
                schema.since
            );
        }
    }
}

#[test]
fn every_schema_is_used() {
    for line in SCHEMAS.lines().filter(|l| !l.starts_with('#') && l.contains('|')) {
        let name = line.split(' ').next().unwrap();
        assert!(crate::ops::all().any(|d| d.onnx.is_some_and(|o| o.name == name)), "{name}");
    }
}
