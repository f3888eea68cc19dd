//! What is known of a class: type and known contents, by the same inference functions as in a module. Merging two
//! classes keeps what either knows better; what contradicts itself is noted for the driver to report.

use super::language::{Head, Node};
use crate::grid;
use egg::{DidMerge, EGraph};
use gs_ir::registry::Traits;
use gs_ir::{
    Dim, Fact, GlobalId, InferError, Knowledge, Module, Phase, Role, Shape, TensorType, Type, ValueId, infer,
};
use std::sync::Arc;

/// The e-graph of a network.
pub(super) type Net<'m> = EGraph<Node, Facts<'m>>;

/// What is known of a class.
#[derive(Clone, Debug)]
pub(super) struct Data {
    /// Type and contents; of a tuple: nothing.
    pub(super) fact: Fact,
    /// The results of a tuple.
    pub(super) tuple: Option<Arc<[Fact]>>,
    /// The global that it is.
    pub(super) global: Option<GlobalId>,
    /// Whether it depends on parameters and constants only.
    pub(super) weight_only: bool,
    /// Whether it can be computed before the network runs.
    pub(super) foldable: bool,
}

impl Data {
    pub(super) fn nothing() -> Self {
        Data { fact: Fact::of(Type::Any), tuple: None, global: None, weight_only: false, foldable: false }
    }
}

/// The analysis. It holds the module, which owns attribute sets, symbols and the constants that rules make.
pub(super) struct Facts<'m> {
    /// The module; its graphs do not change before the end.
    pub(super) module: &'m mut Module,
    /// Types of the results of the operation that is being loaded.
    pub(super) stored: Option<Vec<Fact>>,
    /// Classes that changed, for the search.
    pub(super) touched: Vec<egg::Id>,
    /// What contradicted itself when classes were merged.
    pub(super) contradictions: Vec<String>,
    /// While weights are learned, what is computed from them cannot be computed ahead.
    params_are_constant: bool,
}

impl<'m> Facts<'m> {
    pub(super) fn new(module: &'m mut Module) -> Self {
        let params_are_constant = Phase::of(module) != Phase::Instrumented;
        Facts { module, stored: None, touched: Vec::new(), contradictions: Vec::new(), params_are_constant }
    }

    fn leaf(&self, value: ValueId) -> Data {
        let global = self.module.as_global(value);
        let foldable = global.is_some_and(|g| match self.module.global(g).role {
            Role::Const => true,
            Role::Param => self.params_are_constant,
            Role::State | Role::Input => false,
        });
        Data {
            fact: Knowledge::new(self.module).fact(value),
            tuple: None,
            global,
            weight_only: grid::weight_only(self.module, value),
            foldable,
        }
    }

    /// What is known of an operation from what is known of its operands.
    ///
    /// # Errors
    /// Where they do not fit the operator.
    pub(super) fn operation(
        &self,
        head: Head,
        attrs: gs_ir::AttrsId,
        operands: &[Option<&Data>],
    ) -> Result<Data, InferError> {
        let (kind, count) = match head {
            Head::Op(kind, count) => (kind, count as usize),
            Head::Pinned(op) => (self.module.op(op).kind, self.module.op(op).results().len()),
            _ => return Ok(Data::nothing()),
        };
        let decl = self.module.registry().decl(kind);
        let facts: Vec<Option<Fact>> = operands.iter().map(|o| o.map(|d| d.fact.clone())).collect();
        let found = infer::infer_facts(decl, &facts, self.module.attr_set(attrs), &[], count)?;
        let pure = decl.traits.has(Traits::PURE) && !decl.traits.has(Traits::RANDOM);
        let mut present = operands.iter().flatten().peekable();
        let some = pure && present.peek().is_some();
        let (weight_only, foldable) =
            present.fold((some, some), |(w, f), d| (w && d.weight_only, f && d.foldable));
        let data = Data { weight_only, foldable, ..Data::nothing() };
        Ok(match (count, found.into_iter().collect::<Vec<_>>()) {
            (1, mut one) => Data { fact: one.pop().unwrap_or(Fact::of(Type::Any)), ..data },
            (_, many) => Data { tuple: Some(many.into()), ..data },
        })
    }

    /// Names extents that inference could not say, as a module does.
    pub(super) fn settle(&mut self, data: &mut Data) {
        self.settle_fact(&mut data.fact);
        if let Some(tuple) = &mut data.tuple {
            let mut facts = tuple.to_vec();
            facts.iter_mut().for_each(|f| self.settle_fact(f));
            *tuple = facts.into();
        }
    }

    fn settle_fact(&mut self, fact: &mut Fact) {
        if let Type::Tensor(TensorType { shape: Some(shape), .. }) = &mut fact.ty {
            for d in shape.iter_mut().filter(|d| d.is_unknown()) {
                *d = Dim::symbol(self.module.fresh_symbol());
            }
        }
    }
}

/// The data of a node from its children's.
fn made(net: &Net<'_>, node: &Node) -> Result<Data, InferError> {
    match node.head {
        Head::Absent | Head::Attrs(_) => Ok(Data::nothing()),
        Head::Leaf(value) => Ok(net.analysis.leaf(value)),
        Head::Proj(i) => {
            let Some(op) = node.children.first().map(|&c| &net[c].data) else { return Ok(Data::nothing()) };
            let fact = op.tuple.as_ref().and_then(|t| t.get(i as usize)).cloned();
            Ok(Data { fact: fact.unwrap_or(Fact::of(Type::Any)), tuple: None, global: None, ..op.clone() })
        }
        Head::Op(..) | Head::Pinned(_) => {
            let attrs = node.attrs().and_then(|a| attrs_of(net, a)).unwrap_or(gs_ir::Handle::from_index(0));
            let operands: Vec<Option<&Data>> =
                operand_places(net, node).map(|c| (!is_absent(net, c)).then(|| &net[c].data)).collect();
            // The types of what carries graphs are those that it was loaded with.
            if let Head::Pinned(op) = node.head
                && !net.analysis.module.op(op).regions().is_empty()
            {
                return Ok(Data { tuple: None, ..Data::nothing() });
            }
            net.analysis.operation(node.head, attrs, &operands)
        }
    }
}

/// The attribute set that a class is.
pub(super) fn attrs_of(net: &Net<'_>, class: egg::Id) -> Option<gs_ir::AttrsId> {
    net[class].nodes.iter().find_map(|n| match n.head {
        Head::Attrs(a) => Some(a),
        _ => None,
    })
}

/// Whether a class is the absent operand.
pub(super) fn is_absent(net: &Net<'_>, class: egg::Id) -> bool {
    net[class].nodes.iter().any(|n| n.head == Head::Absent)
}

/// The operand places of an operation's node.
pub(super) fn operand_places<'n>(
    net: &Net<'_>,
    node: &'n Node,
) -> impl DoubleEndedIterator<Item = egg::Id> + 'n {
    let count = match node.head {
        Head::Op(..) => node.children.len().saturating_sub(1),
        Head::Pinned(op) => net.analysis.module.op(op).operand_count(),
        _ => 0,
    };
    node.children.iter().copied().skip(1).take(count)
}

impl egg::Analysis<Node> for Facts<'_> {
    type Data = Data;

    fn make(net: &mut Net<'_>, node: &Node, id: egg::Id) -> Data {
        net.analysis.touched.push(id);
        // What does not fit was so before: the verifier reports it. Rules check before they add.
        let mut data = made(net, node).unwrap_or(Data::nothing());
        if let Some(stored) = net.analysis.stored.take() {
            match (&mut data.tuple, stored) {
                (None, stored) if stored.len() == 1 => {
                    data.fact.ty = stored.into_iter().next().map_or(Type::Any, |f| f.ty);
                }
                (tuple, stored) => *tuple = Some(stored.into()),
            }
        }
        net.analysis.settle(&mut data);
        data
    }

    fn remake(net: &mut Net<'_>, node: &Node, _: egg::Id) -> Data {
        // Unsayable extents stay so here: the class has names for them already.
        made(net, node).unwrap_or(Data::nothing())
    }

    fn merge(&mut self, a: &mut Data, b: Data) -> DidMerge {
        let before = a.clone();
        match merged_fact(&before.fact, &b.fact) {
            Ok(fact) => a.fact = fact,
            Err(reason) => self.contradictions.push(reason),
        }
        a.tuple = match (&before.tuple, &b.tuple) {
            (Some(x), Some(y)) if x.len() == y.len() => {
                let facts = x.iter().zip(y.iter()).map(|(x, y)| {
                    merged_fact(x, y).unwrap_or_else(|reason| {
                        self.contradictions.push(reason);
                        x.clone()
                    })
                });
                Some(facts.collect())
            }
            (x, y) => x.clone().or_else(|| y.clone()),
        };
        a.global = match (before.global, b.global) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        a.weight_only |= b.weight_only;
        a.foldable |= b.foldable;
        DidMerge(differs(a, &before), differs(a, &b))
    }

    fn modify(net: &mut Net<'_>, id: egg::Id) {
        net.analysis.touched.push(id);
    }
}

fn differs(a: &Data, b: &Data) -> bool {
    a.fact != b.fact
        || a.tuple != b.tuple
        || a.global != b.global
        || a.weight_only != b.weight_only
        || a.foldable != b.foldable
}

fn merged_fact(a: &Fact, b: &Fact) -> Result<Fact, String> {
    let known = match (&a.known, &b.known) {
        (Some(x), Some(y)) if x.elems.len() == y.elems.len() && x.scalar == y.scalar => {
            let elems = x.elems.iter().zip(&y.elems).map(|(x, y)| merged_dim(x, y)).collect::<Option<_>>();
            let elems = elems.ok_or("its known elements are others than those of what it replaces")?;
            Some(gs_ir::Known { elems, scalar: x.scalar })
        }
        (x, y) => x.clone().or_else(|| y.clone()),
    };
    Ok(Fact { ty: merged_type(&a.ty, &b.ty)?, known })
}

/// What is known of a value that is described by both types.
///
/// # Errors
/// Where no value has both.
pub(super) fn merged_type(a: &Type, b: &Type) -> Result<Type, String> {
    match (a, b) {
        (Type::Any, t) | (t, Type::Any) => Ok(t.clone()),
        (Type::Tensor(a), Type::Tensor(b)) => {
            if a.elem != b.elem {
                return Err(format!("elements of type {} cannot equal elements of type {}", b.elem, a.elem));
            }
            let shape = match (&a.shape, &b.shape) {
                (Some(x), Some(y)) => Some(merged_shape(x, y)?),
                (x, y) => x.clone().or_else(|| y.clone()),
            };
            Ok(Type::Tensor(TensorType { elem: a.elem, shape }))
        }
        (a, b) if a == b => Ok(a.clone()),
        _ => Err("a tensor cannot equal a container".into()),
    }
}

fn merged_shape(a: &Shape, b: &Shape) -> Result<Shape, String> {
    if a.len() != b.len() {
        return Err(format!("a tensor of rank {} cannot equal one of rank {}", b.len(), a.len()));
    }
    a.iter()
        .zip(b)
        .enumerate()
        .map(|(i, (x, y))| merged_dim(x, y).ok_or_else(|| format!("extent {i} is another on both sides")))
        .collect()
}

/// Numbers beat expressions, those beat what cannot be said; of two expressions the smaller one stays, so that the
/// order of merging does not matter.
fn merged_dim(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        _ if a.surely_differs(b) => None,
        (Dim::Unknown, d) | (d, Dim::Unknown) => Some(d.clone()),
        _ => Some(a.min(b).clone()),
    }
}

/// What both facts say, as [`merged_type`].
///
/// # Errors
/// As there.
pub(super) fn compatible(a: &Data, b: &Data) -> Result<(), String> {
    merged_fact(&a.fact, &b.fact).map(drop)
}
