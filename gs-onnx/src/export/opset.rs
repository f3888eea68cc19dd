//! Which version of the operator sets a module is written in.

use gs_ir::registry::MAX_OPSET;
use gs_ir::{ElemType, GraphId, Module, OpId, Type};

use super::changes::means_the_same;
use super::op::can_write;
use super::storage::Storage;
use super::{ExportError, ExportOptions};
use crate::import::domain;

/// Version for modules that do not come from ONNX: the first with 4-bit types, which every current runtime reads.
const DEFAULT_OPSET: i64 = 21;

/// The versions that were chosen.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Version of `ai.onnx`.
    pub(super) main: i64,
    /// Version of the source, where there is one.
    pub(super) source: Option<i64>,
    others: Vec<(String, i64)>,
}

impl Choice {
    /// The version of a domain, `""` for `ai.onnx`; other domains keep that of the source.
    pub(super) fn version(&self, domain: &str) -> i64 {
        if domain.is_empty() {
            return self.main;
        }
        self.others.iter().find(|(d, _)| d == domain).map_or(1, |(_, v)| *v)
    }
}

/// Chooses versions: the one that is asked for; else the first from the wanted one on in which every operation can be
/// written; else the first from that of the source on. Gives also what stood in the way of the wanted one.
///
/// What is derived from narrower elements asks for a version that has those, so that it is stored narrow. Where the
/// version is given, or none has them, it is stored wide.
pub(super) fn choose(
    module: &Module,
    main: GraphId,
    options: &ExportOptions,
) -> Result<(Choice, Option<ExportError>), ExportError> {
    let others = module.meta.onnx.as_ref().map(|m| m.opsets.clone()).unwrap_or_default();
    let source = others.iter().find(|(d, _)| domain(d).is_empty()).map(|(_, v)| *v);
    let highest = options.at_most.unwrap_or(MAX_OPSET);
    let start = source.unwrap_or(DEFAULT_OPSET).min(highest);
    let ops = module.ops_nested(main);
    let choice = |main| Choice { main, source, others: others.clone() };
    let fits = |main| {
        let choice = choice(main);
        check(module, &ops, &choice).map(|()| choice)
    };
    if let Some(asked) = options.opset {
        return Ok((fits(asked)?, None));
    }
    let last = highest.min(MAX_OPSET);
    let narrow = narrow_since(module, main, &choice(last)).filter(|n| *n <= last).unwrap_or(1);
    // The most telling reason is why not even the last version will do.
    let first_of = |start: i64| {
        let later = (start + 1..=last).map(fits);
        later.fold(fits(start), |found, next| if found.is_ok() { found } else { next })
    };
    let first_from = |start: i64| match first_of(start.max(narrow)) {
        Err(_) if narrow > start => first_of(start),
        found => found,
    };
    let mut blocked = None;
    if let Some(wanted) = options.at_least.filter(|w| *w > start) {
        match first_from(wanted) {
            Ok(choice) => return Ok((choice, None)),
            Err(_) => blocked = fits(wanted).err(),
        }
    }
    Ok((first_from(start)?, blocked))
}

fn check(module: &Module, ops: &[OpId], choice: &Choice) -> Result<(), ExportError> {
    for &op in ops {
        let label = || module.label(op).to_owned();
        match module.opaque_name(op) {
            Some(name) => check_opaque(module, op, name, choice)?,
            None => can_write(module, op, choice)?,
        }
        for elem in
            module.op(op).results().iter().filter_map(|r| r.some()).filter_map(|r| module.type_of(r).elem())
        {
            if first_opset(elem) > choice.main {
                let reason = format!("element type {elem} came with opset {}", first_opset(elem));
                let op = module.op_name(op).to_owned();
                return Err(ExportError::Version { node: label(), op, version: choice.main, reason });
            }
        }
    }
    Ok(())
}

/// The first version that has the element types of everything that would be stored if all types were there.
fn narrow_since(module: &Module, main: GraphId, choice: &Choice) -> Option<i64> {
    let storage = Storage::plan(module, main, choice, true);
    let elems = storage.written().filter_map(|id| module.ty(module.global(id).ty).elem());
    elems.map(first_opset).max()
}

/// An operation that was kept as it was may stand in another version only where its operator did not change between.
fn check_opaque(module: &Module, op: OpId, name: &str, choice: &Choice) -> Result<(), ExportError> {
    let (of, op_type) = name.split_once("::").unwrap_or(("", name));
    let from = choice.source.unwrap_or(choice.main);
    if !domain(of).is_empty() || from == choice.main || may_move(op_type, from, choice.main) {
        return Ok(());
    }
    Err(ExportError::Opaque { node: module.label(op).to_owned(), op: name.to_owned(), from, to: choice.main })
}

fn may_move(op_type: &str, from: i64, to: i64) -> bool {
    to <= MAX_OPSET && means_the_same(op_type, from, to)
}

/// The first version of `ai.onnx` that has an element type.
pub(super) fn first_opset(elem: ElemType) -> i64 {
    use ElemType::*;
    match elem {
        Bf16 => 13,
        F8E4M3Fn | F8E4M3Fnuz | F8E5M2 | F8E5M2Fnuz => 19,
        I4 | U4 => 21,
        F4E2M1 => 23,
        F8E8M0 => 24,
        I2 | U2 => 25,
        _ => 1,
    }
}

/// The first file format version that belongs to a version of `ai.onnx`, where a file states none that is higher.
pub(super) fn ir_version(opset: i64) -> i64 {
    const SINCE: [(i64, i64); 10] =
        [(9, 4), (10, 5), (11, 6), (12, 7), (15, 8), (19, 9), (21, 10), (23, 11), (24, 12), (25, 13)];
    SINCE.iter().rev().find(|(since, _)| *since <= opset).map_or(3, |(_, ir)| *ir)
}

/// The element type by which numbers beside an operand are written: its own.
pub(super) fn number_of(ty: Option<&Type>) -> ElemType {
    let fits = |e: &ElemType| e.is_float() || (e.is_int() && e.bits() >= 8);
    ty.and_then(Type::elem).filter(fits).unwrap_or(ElemType::F32)
}
