//! Symbolic dimensions in a run: each is bound where a tensor first shows its value, and must have it everywhere.

use crate::evaluator::Precision;
use crate::exec::{ExecError, TensorSpec, describe};
use gs_ir::{GraphId, Module, SymbolId, Type, ValueId};
use rustc_hash::FxHashMap;

/// Values of symbols.
pub type Bindings = FxHashMap<SymbolId, i64>;

/// How a tensor contradicts a declared type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// Element type, rank or a fixed extent.
    Type,
    /// A symbol: bound to the first number, seen as the second.
    Symbol(SymbolId, i64, i64),
}

/// Checks a tensor against its declared type and binds the symbols that stand alone in it. Expressions are checked where
/// all their symbols are bound.
pub(crate) fn bind(
    bindings: &mut Bindings,
    declared: &Type,
    found: &TensorSpec,
    precision: Precision,
) -> Result<(), Misfit> {
    let declared = match declared {
        Type::Any => return Ok(()),
        Type::Tensor(t) => t,
        _ => return Err(Misfit::Type),
    };
    if precision.elem(declared.elem) != precision.elem(found.elem) {
        return Err(Misfit::Type);
    }
    let Some(dims) = declared.dims() else { return Ok(()) };
    if dims.len() != found.dims.len() {
        return Err(Misfit::Type);
    }
    for (dim, &extent) in dims.iter().zip(&found.dims) {
        let extent = i64::try_from(extent).unwrap_or(i64::MAX);
        if let Some(symbol) = dim.as_symbol() {
            let first = *bindings.entry(symbol).or_insert(extent);
            if first != extent {
                return Err(Misfit::Symbol(symbol, first, extent));
            }
        }
    }
    for (dim, &extent) in dims.iter().zip(&found.dims) {
        let value = dim.eval(&|s| bindings.get(&s).copied());
        let matches = value.is_none_or(|v| usize::try_from(v) == Ok(extent));
        if !matches {
            return Err(Misfit::Type);
        }
    }
    Ok(())
}

/// Checks inputs against a graph's parameters and gives the values of the symbols that they determine.
///
/// # Errors
/// Where the graph is not live, or inputs do not fit it or each other.
pub fn bind_inputs(
    module: &Module,
    graph: GraphId,
    inputs: &[TensorSpec],
    precision: Precision,
) -> Result<Bindings, ExecError> {
    if !module.graph(graph).live {
        return Err(ExecError::Graph);
    }
    let params = module.graph(graph).params();
    if params.len() != inputs.len() {
        return Err(ExecError::InputCount { expected: params.len(), found: inputs.len() });
    }
    let mut bindings = Bindings::default();
    // Twice: an expression may stand before the symbol that it needs.
    for _ in 0..2 {
        for (i, (&param, found)) in params.iter().zip(inputs).enumerate() {
            let fits = bind(&mut bindings, module.type_of(param), found, precision);
            fits.map_err(|m| input_error(module, param, i, found, m))?;
        }
    }
    Ok(bindings)
}

fn input_error(module: &Module, param: ValueId, index: usize, found: &TensorSpec, m: Misfit) -> ExecError {
    let name = match module.str(module.value(param).name) {
        "" => index.to_string(),
        name => name.to_owned(),
    };
    match m {
        Misfit::Type => {
            ExecError::Input { name, expected: describe(module, module.type_of(param)), found: found.clone() }
        }
        Misfit::Symbol(s, first, second) => {
            let symbol = module.symbol_info(s).name.map_or("?", |n| module.str(n)).to_owned();
            ExecError::Symbol { symbol, first, second, value: name }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gs_ir::{Dim, ElemType, Handle};

    #[test]
    fn symbols_are_bound_once() {
        let n = Dim::symbol(SymbolId::from_index(0));
        let spec = |dims: &[usize]| TensorSpec { elem: ElemType::F32, dims: dims.to_vec() };
        let ty = Type::tensor(ElemType::F32, [n.clone(), n.mul(&2.into()), Dim::Const(3)]);
        let mut b = Bindings::default();
        assert_eq!(bind(&mut b, &ty, &spec(&[4, 8, 3]), Precision::Native), Ok(()));
        assert_eq!(b.get(&SymbolId::from_index(0)), Some(&4));
        let other = bind(&mut b, &ty, &spec(&[5, 10, 3]), Precision::Native);
        assert_eq!(other, Err(Misfit::Symbol(SymbolId::from_index(0), 4, 5)));
        assert_eq!(bind(&mut b, &ty, &spec(&[4, 7, 3]), Precision::Native), Err(Misfit::Type));
        assert_eq!(bind(&mut b, &ty, &spec(&[4, 8]), Precision::Native), Err(Misfit::Type));
        let wide = TensorSpec { elem: ElemType::F64, dims: vec![4, 8, 3] };
        assert_eq!(bind(&mut b, &ty, &wide, Precision::Native), Err(Misfit::Type));
        assert_eq!(bind(&mut b, &ty, &wide, Precision::F64), Ok(()));
    }
}
