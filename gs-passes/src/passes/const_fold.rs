//! `const-fold`: operations on globals alone become derived globals, evaluated when they are written out.
//! Shape computations whose elements are all numbers become constants.

use crate::manager::{Pass, PassContext, PassError, PassInfo, PassReport};
use gs_ir::registry::Traits;
use gs_ir::{
    Dim, ElemType, GlobalId, Handle, Init, Knowledge, Literal, Module, NewGlobal, OpId, Phase, Rewriter,
    Role, ValueId, is_learned,
};
use smallvec::{SmallVec, smallvec};

/// The pass `const-fold`.
pub struct ConstFold;

impl Pass for ConstFold {
    fn info(&self) -> &'static PassInfo {
        &PassInfo {
            name: "const-fold",
            doc: "turn operations on weights and constants into derived weights",
            options: &[],
            accepts: &Phase::ALL,
            produces: None,
        }
    }

    fn run(&self, module: &mut Module, _: &mut PassContext<'_>) -> Result<PassReport, PassError> {
        Ok(PassReport::counting([("operations folded", fold_constants(module))]))
    }
}

/// Largest constant that folding may make out of smaller ones, in bytes.
const GROWTH_LIMIT: usize = 64 << 20;

/// Folds what it can; returns how many operations went.
pub fn fold_constants(module: &mut Module) -> usize {
    // While quantisers still learn, weights change: what is computed from a `param` is then no constant.
    fold(module, Phase::of(module) != Phase::Instrumented)
}

/// Folds what is computed from constants and extents alone, and leaves what is computed from weights: these stay what
/// is learned.
pub fn fold_all_but_weights(module: &mut Module) -> usize {
    fold(module, false)
}

/// Makes floats of weights that are stored as integers, and parameters of these: what is trained or searched for lies
/// between codes. They begin as what the integers stand for. Returns how many; the ledger says so of each.
pub fn widen_weights(module: &mut Module) -> usize {
    let mut rewriter = Rewriter::new(module);
    let mut widened = 0;
    for op in rewriter.all_ops() {
        let stored = rewriter.op(op).is_live() && rewriter.is(op, "dequantize");
        let weight =
            |m: &Module| m.op(op).results().iter().all(|r| r.some().is_some_and(|v| is_learned(m, v)));
        if !stored || !weight(&rewriter) {
            continue;
        }
        let Some(operands) = constants(&rewriter, op, false) else { continue };
        let Some(made) = derive(&mut rewriter, op, &operands) else { continue };
        let values: SmallVec<[ValueId; 2]> = made.iter().map(|&g| rewriter.global(g).value).collect();
        let entry =
            rewriter.entry("folded", "widen-weights", None, Some("a weight stored as integers, made floats"));
        rewriter.replace(op, &values, None, entry);
        made.into_iter().for_each(|global| rewriter.set_role(global, Role::Param, true));
        widened += 1;
    }
    widened
}

fn fold(module: &mut Module, params_are_constant: bool) -> usize {
    let mut rewriter = Rewriter::new(module);
    let mut folded = 0;
    for op in rewriter.all_ops() {
        if !rewriter.op(op).is_live() {
            continue;
        }
        let made_before = rewriter.global_capacity();
        let constants = match operands(&rewriter, op, params_are_constant) {
            Some(operands) => derive(&mut rewriter, op, &operands),
            None => None,
        };
        let constants = constants.or_else(|| Some(smallvec![known(&mut rewriter, op)?]));
        let Some(constants) = constants else { continue };
        let values: SmallVec<[ValueId; 2]> = constants.iter().map(|&g| rewriter.global(g).value).collect();
        let entry = rewriter.entry("folded", "const-fold", None, Some("computed from constants alone"));
        rewriter.replace(op, &values, None, entry);
        for constant in constants {
            // A result that nothing reads needs no weight.
            let is_read = !rewriter.value(rewriter.global(constant).value).uses().is_empty();
            if constant.index() >= made_before && !is_read && rewriter.global(constant).live {
                rewriter.remove_global(constant);
            }
        }
        folded += 1;
    }
    folded
}

/// The operands of a foldable operation, if all are constant globals.
fn operands(m: &Module, op: OpId, params_are_constant: bool) -> Option<SmallVec<[Option<GlobalId>; 4]>> {
    let data = m.op(op);
    let traits = m.decl(op).traits;
    // A fake-quantiser is what training sees; a frozen one is folded by deployment, into integers. Integers that a
    // dequantize widens stay integers: folding it would store them as floats and hide them from lowering.
    let widens = matches!(m.op_name(op), "qdq" | "dequantize");
    let foldable = traits.has(Traits::PURE) && !traits.has(Traits::CUSTOM_GRAD) && !widens;
    if !foldable || !data.regions().is_empty() || data.results().is_empty() || data.operand_count() == 0 {
        return None;
    }
    constants(m, op, params_are_constant)
}

/// The operands of an operation, if all are globals that stay as they are.
fn constants(m: &Module, op: OpId, params_are_constant: bool) -> Option<SmallVec<[Option<GlobalId>; 4]>> {
    let constant = |v: ValueId| {
        let g = m.as_global(v)?;
        let ok = match m.global(g).role {
            Role::Const => true,
            Role::Param => params_are_constant,
            Role::State | Role::Input => false,
        };
        // What some graph stores to is another number at the next step.
        (ok && !m.is_written(g)).then_some(g)
    };
    m.op(op)
        .operands()
        .map(|v| match v {
            None => Some(None),
            Some(v) => constant(v).map(Some),
        })
        .collect()
}

/// A derived global for each result.
fn derive(
    rewriter: &mut Rewriter<'_>,
    op: OpId,
    operands: &[Option<GlobalId>],
) -> Option<SmallVec<[GlobalId; 2]>> {
    let m: &Module = rewriter;
    let results: SmallVec<[ValueId; 2]> =
        m.op(op).results().iter().map(|r| r.some()).collect::<Option<_>>()?;
    let bytes = |v: ValueId| m.type_of(v).as_tensor().and_then(|t| t.bytes());
    let size = results.iter().try_fold(0usize, |n, &r| n.checked_add(bytes(r)?))?;
    let largest = operands.iter().flatten().filter_map(|&g| bytes(m.global(g).value)).max().unwrap_or(0);
    if size > largest.max(GROWTH_LIMIT) {
        return None;
    }
    let names: Vec<String> = results.iter().map(|&r| constant_name(m, op, r)).collect();
    let (kind, attrs, count) = (m.op(op).kind, m.attrs_of(op).clone(), results.len() as u32);
    let mut made = SmallVec::new();
    for (name, result) in names.iter().zip(0..) {
        // If one can be derived all can: they differ in nothing but their place.
        made.push(rewriter.derive_result(name, kind, attrs.clone(), operands, result, count).ok()?);
    }
    // Operands that are computed themselves may say less of the extents than the operation knew; contents without
    // extents could not be written.
    let sized = |g: &GlobalId| {
        rewriter.type_of(rewriter.global(*g).value).as_tensor().and_then(|t| t.bytes()).is_some()
    };
    if !made.iter().all(sized) {
        for global in made {
            if rewriter.value(rewriter.global(global).value).uses().is_empty() {
                rewriter.remove_global(global);
            }
        }
        return None;
    }
    Some(made)
}

/// The name of the value, else of the weight it is made from (made unique by a number), else of what it stands for.
fn constant_name(m: &Module, op: OpId, result: ValueId) -> String {
    let data = m.op(op);
    let name = m.str(m.value(result).name);
    if !name.is_empty() {
        return name.to_owned();
    }
    // What is taken from a table stands for the places in it.
    let of = usize::from(m.is(op, "gather"));
    let weight = data.operand(of).and_then(|v| m.as_global(v)).map(|g| m.str(m.global(g).name));
    let base = |w: &str| match w.rsplit_once('.') {
        Some((base, number)) if !base.is_empty() && number.chars().all(|c| c.is_ascii_digit()) => {
            base.to_owned()
        }
        _ => w.to_owned(),
    };
    weight.map_or_else(|| m.label(op).to_owned(), base)
}

/// A constant for a shape computation whose elements are all numbers.
fn known(rewriter: &mut Rewriter<'_>, op: OpId) -> Option<GlobalId> {
    let m: &Module = rewriter;
    if m.op(op).results().len() != 1 || !m.decl(op).traits.has(Traits::PURE) {
        return None;
    }
    let result = m.op(op).result();
    let tensor = m.type_of(result).as_tensor()?.clone();
    let known = Knowledge::new(m).of(result)?;
    let values: Vec<i64> = known.elems.iter().map(Dim::as_const).collect::<Option<_>>()?;
    let bytes: Vec<u8> = match tensor.elem {
        ElemType::I64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ElemType::I32 => values
            .iter()
            .map(|&v| i32::try_from(v).ok())
            .collect::<Option<Vec<_>>>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        _ => return None,
    };
    let dims: Vec<i64> = if known.scalar { vec![] } else { vec![values.len() as i64] };
    let literal = Literal::new(tensor.elem, dims.clone(), bytes);
    let name = constant_name(m, op, result);
    let new = NewGlobal {
        name: &name,
        role: Role::Const,
        trainable: false,
        ty: gs_ir::Type::fixed(tensor.elem, &dims),
        init: Init::Data(literal.data),
    };
    Some(rewriter.add_global(new))
}
