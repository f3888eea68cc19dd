//! Integer operators against ONNX Runtime, bit for bit. The cases are made by `tests/data/qlinear.py`.

use crate::common::try_with;
use gs_eval::{Evaluator, Tensor};
use gs_ir::registry::AttrKind;
use gs_ir::{Attr, ElemType, Registry};
use std::collections::BTreeMap;

const CASES: &str = include_str!("../data/qlinear.txt");

struct Case {
    op: &'static str,
    line: usize,
    attrs: Vec<(&'static str, Attr)>,
    inputs: Vec<Option<Tensor>>,
    output: Tensor,
}

fn tensor(words: &[&str]) -> Option<Tensor> {
    let [elem, dims, hex] = words else { return None };
    let elem = ElemType::from_name(elem).unwrap();
    let dims: Vec<usize> = dims.trim_matches(['[', ']']).split(',').filter_map(|d| d.parse().ok()).collect();
    let digits = hex.trim_matches('-').as_bytes();
    let byte = |c: &[u8]| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    Some(Tensor::from_bytes(elem, dims, &bytes).unwrap())
}

fn attr(op: &str, name: &str, kind: &str, values: &[&str]) -> Attr {
    let registry = Registry::builtin();
    let declared = registry.decl(registry.kind(op).unwrap()).attr(name).unwrap().kind;
    match (kind, declared) {
        (_, AttrKind::Bool) => Attr::Bool(matches!(values[0], "1" | "true")),
        ("ints", _) => Attr::ints(&values.iter().map(|v| v.parse().unwrap()).collect::<Vec<_>>()),
        ("float", _) => Attr::float(values[0].parse().unwrap()),
        _ => Attr::Int(values[0].parse().unwrap()),
    }
}

fn cases(text: &'static str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (line, words) in text.lines().map(|l| l.split(' ').collect::<Vec<_>>()).enumerate() {
        match words.as_slice() {
            ["case", op] => {
                let output = Tensor::scalar(0.0);
                cases.push(Case { op, line: line + 1, attrs: Vec::new(), inputs: Vec::new(), output });
            }
            ["attr", name, kind, values @ ..] => {
                let case = cases.last_mut().unwrap();
                case.attrs.push((name, attr(case.op, name, kind, values)));
            }
            ["in", rest @ ..] => cases.last_mut().unwrap().inputs.push(tensor(rest)),
            ["out", rest @ ..] => cases.last_mut().unwrap().output = tensor(rest).unwrap(),
            other => panic!("line {}: {other:?}", line + 1),
        }
    }
    cases
}

#[test]
fn agrees_with_onnx_runtime_in_every_bit() {
    let evaluator = Evaluator::new();
    let mut checked: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases(CASES) {
        let operands: Vec<Option<&Tensor>> = case.inputs.iter().map(Option::as_ref).collect();
        let found = try_with(&evaluator, case.op, &operands, &case.attrs, 1).unwrap().remove(0);
        assert_eq!(
            (found.elem(), found.dims()),
            (case.output.elem(), case.output.dims()),
            "line {}",
            case.line
        );
        let differ = match (found.to_f64s(), case.output.to_f64s()) {
            (Some(a), Some(b)) => a.iter().zip(&b).filter(|(a, b)| a.to_bits() != b.to_bits()).count(),
            _ => found.len(),
        };
        let sum = checked.entry(case.op).or_default();
        *sum = (sum.0 + found.len(), sum.1 + differ);
        if differ > 0 {
            wrong.push(format!("{} (line {}): {differ} of {} differ", case.op, case.line, found.len()));
        }
    }
    assert_eq!(checked.len(), 13, "{checked:?}");
    assert!(wrong.is_empty(), "{checked:?}\n{}", wrong.join("\n"));
}
