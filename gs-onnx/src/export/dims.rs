//! Extents with symbols as operands: what computes them at run time.
//!
//! A symbol is read off a value in reach that has it as an extent (`Shape`, `Gather`); sums, products and floor
//! divisions follow. The importer recognises such a computation and makes it an attribute again.

use gs_ir::dim::{Expr, Factor};
use gs_ir::{Dim, Literal, Module, SymbolId, ValueId};
use rustc_hash::FxHashMap;

use super::graph::Body;
use super::{ExportError, Exporter};
use crate::proto::{AttributeProto, NodeProto, attribute_type as at};

/// Where symbols can be read, and where they were read already. Inner graphs see the outer ones' symbols.
#[derive(Default)]
pub(super) struct Symbols {
    sources: FxHashMap<SymbolId, (ValueId, usize)>,
    read: FxHashMap<SymbolId, String>,
    log: Vec<Entry>,
}

enum Entry {
    Source(SymbolId),
    Read(SymbolId),
}

impl Symbols {
    /// Notes the symbols that the type of a value shows.
    pub(super) fn learn(&mut self, module: &Module, value: ValueId) {
        for (axis, dim) in module.type_of(value).dims().unwrap_or_default().iter().enumerate() {
            if let Some(symbol) = dim.as_symbol().filter(|s| !self.sources.contains_key(s)) {
                self.sources.insert(symbol, (value, axis));
                self.log.push(Entry::Source(symbol));
            }
        }
    }

    /// A mark to go back to with [`Self::leave`] at the end of an inner graph.
    pub(super) fn enter(&self) -> usize {
        self.log.len()
    }

    pub(super) fn leave(&mut self, mark: usize) {
        while self.log.len() > mark {
            match self.log.pop() {
                Some(Entry::Source(s)) => drop(self.sources.remove(&s)),
                Some(Entry::Read(s)) => drop(self.read.remove(&s)),
                None => return,
            }
        }
    }
}

/// Divisions nested deeper than this are not written.
const DEPTH_LIMIT: usize = 64;

/// What is being computed, for names and messages.
struct Target<'a> {
    node: &'a str,
    attr: &'a str,
    depth: usize,
}

impl Target<'_> {
    fn name(&self) -> String {
        format!("{}.{}", self.node, self.attr)
    }

    fn fail(&self, module: &Module, dim: &Dim) -> ExportError {
        ExportError::Dimension {
            node: self.node.to_owned(),
            attr: self.attr.to_owned(),
            dim: describe(module, dim),
        }
    }
}

impl Exporter<'_> {
    /// The name of an i64 vector of extents.
    pub(super) fn extents(
        &mut self,
        node: &str,
        attr: &str,
        dims: &[Dim],
        body: &mut Body,
    ) -> Result<String, ExportError> {
        let target = Target { node, attr, depth: 0 };
        let mut parts = Vec::new();
        for run in dims.chunk_by(|a, b| a.as_const().is_some() && b.as_const().is_some()) {
            let numbers: Option<Vec<i64>> = run.iter().map(Dim::as_const).collect();
            parts.push(match (numbers, run) {
                (Some(numbers), _) => self.numbers(&target, &numbers)?,
                (None, [dim]) => self.extent(&target, dim, body)?,
                (None, _) => return Err(target.fail(self.module, &Dim::Unknown)),
            });
        }
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            _ => {
                let axis = AttributeProto {
                    name: Some("axis".to_owned()),
                    i: Some(0),
                    r#type: Some(at::INT),
                    ..Default::default()
                };
                Ok(self.compute(&target.name(), "Concat", parts, vec![axis], body))
            }
        }
    }

    fn numbers(&mut self, target: &Target<'_>, values: &[i64]) -> Result<String, ExportError> {
        self.constant_operand(&target.name(), &Literal::i64s([values.len() as i64], values))
    }

    /// One extent as a vector of one element.
    fn extent(&mut self, target: &Target<'_>, dim: &Dim, body: &mut Body) -> Result<String, ExportError> {
        match dim {
            Dim::Const(n) => self.numbers(target, &[*n]),
            Dim::Expr(e) if target.depth < DEPTH_LIMIT => self.sum(target, e, body),
            Dim::Expr(_) | Dim::Unknown => Err(target.fail(self.module, dim)),
        }
    }

    fn sum(&mut self, target: &Target<'_>, expr: &Expr, body: &mut Body) -> Result<String, ExportError> {
        let mut parts = Vec::new();
        for term in &expr.terms {
            let mut factors = Vec::new();
            for factor in &term.factors {
                factors.push(match factor {
                    Factor::Symbol(s) => self.symbol(target, *s, body)?,
                    Factor::FloorDiv(e, k) => self.floor_div(target, e, *k, body)?,
                });
            }
            if term.coeff != 1 {
                factors.push(self.numbers(target, &[term.coeff])?);
            }
            parts.extend(self.chain(target, "Mul", factors, body));
        }
        if expr.constant != 0 {
            parts.push(self.numbers(target, &[expr.constant])?);
        }
        let sum = self.chain(target, "Add", parts, body);
        sum.ok_or_else(|| target.fail(self.module, &Dim::Unknown))
    }

    /// Combines values from the left with one operator.
    fn chain(
        &mut self,
        target: &Target<'_>,
        op: &str,
        values: Vec<String>,
        body: &mut Body,
    ) -> Option<String> {
        values.into_iter().reduce(|a, b| self.compute(&target.name(), op, vec![a, b], Vec::new(), body))
    }

    fn floor_div(
        &mut self,
        target: &Target<'_>,
        expr: &Expr,
        k: i64,
        body: &mut Body,
    ) -> Result<String, ExportError> {
        let inner = Target { depth: target.depth + 1, ..*target };
        let mut value = self.extent(&inner, &Dim::Expr(expr.clone().into()), body)?;
        let divisor = self.numbers(target, &[k])?;
        let is_natural = expr.constant >= 0 && expr.terms.iter().all(|t| t.coeff >= 0);
        if !is_natural {
            // ONNX's division of integers rounds to zero; its remainder has the sign of the divisor.
            let pair = vec![value.clone(), divisor.clone()];
            let rest = self.compute(&target.name(), "Mod", pair, Vec::new(), body);
            value = self.compute(&target.name(), "Sub", vec![value, rest], Vec::new(), body);
        }
        Ok(self.compute(&target.name(), "Div", vec![value, divisor], Vec::new(), body))
    }

    fn symbol(
        &mut self,
        target: &Target<'_>,
        symbol: SymbolId,
        body: &mut Body,
    ) -> Result<String, ExportError> {
        if let Some(name) = self.symbols.read.get(&symbol) {
            return Ok(name.clone());
        }
        let source = self.symbols.sources.get(&symbol).copied();
        let (value, axis) = source.ok_or_else(|| target.fail(self.module, &Dim::symbol(symbol)))?;
        let value = self.operand_name(Some(value));
        let shape = self.compute(&format!("{value}.shape"), "Shape", vec![value.clone()], Vec::new(), body);
        let index = Literal::i64s([1], &[axis as i64]);
        let index = self.constant_operand(&format!("{value}.axis{axis}"), &index)?;
        let name =
            self.compute(&format!("{value}.dim{axis}"), "Gather", vec![shape, index], Vec::new(), body);
        self.symbols.read.insert(symbol, name.clone());
        self.symbols.log.push(Entry::Read(symbol));
        Ok(name)
    }

    /// Adds a node of `ai.onnx` that is no operation of the module; gives the name of its result.
    pub(super) fn compute(
        &mut self,
        wanted: &str,
        op: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
        body: &mut Body,
    ) -> String {
        let name = self.names.extra(wanted);
        self.domains.insert("");
        body.nodes.push(NodeProto {
            name: Some(self.names.node(&name)),
            op_type: Some(op.to_owned()),
            input,
            output: vec![name.clone()],
            attribute,
            ..Default::default()
        });
        name
    }
}

/// A dimension in words.
fn describe(module: &Module, dim: &Dim) -> String {
    let mut names = Vec::new();
    dim.visit_symbols(&mut |s| {
        names.push(module.symbol_info(s).name.map_or("?", |n| module.str(n)).to_owned());
    });
    if names.is_empty() { "?".to_owned() } else { names.join(", ") }
}
