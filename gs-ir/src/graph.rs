//! What a module is made of: operations, values, graphs, and the ledger's entries.

use crate::entity::{AttrsId, GlobalId, GraphId, OpId, OpKind, SourceId, Sym, TypeId, ValueId};
use smallvec::SmallVec;

/// A place that reads a value. It knows its position in the value's use list, so that a use is removed in
/// constant time however many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) value: ValueId,
    pub(crate) at: u32,
}

impl Slot {
    pub(crate) const EMPTY: Slot = Slot { value: ValueId::NONE, at: u32::MAX };
}

/// An operation. Read it through [`crate::Module`]; change it through [`crate::Rewriter`].
#[derive(Clone, Debug)]
pub struct Op {
    /// What it is.
    pub kind: OpKind,
    /// Its attributes.
    pub attrs: AttrsId,
    /// The graph it stands in; none once it was erased.
    pub graph: GraphId,
    /// The source nodes that it stands for.
    pub source: SourceId,
    pub(crate) prev: OpId,
    pub(crate) next: OpId,
    pub(crate) operands: SmallVec<[Slot; 3]>,
    pub(crate) results: SmallVec<[ValueId; 2]>,
    pub(crate) regions: Option<Box<SmallVec<[GraphId; 2]>>>,
}

impl Op {
    /// Whether it still stands in a graph.
    pub fn is_live(&self) -> bool {
        !self.graph.is_none()
    }

    /// Number of operand places, absent optional ones included.
    pub fn operand_count(&self) -> usize {
        self.operands.len()
    }

    /// The operand at a place; `None` where it is absent.
    pub fn operand(&self, index: usize) -> Option<ValueId> {
        self.operands.get(index).and_then(|s| s.value.some())
    }

    /// All operand places in order.
    pub fn operands(&self) -> impl DoubleEndedIterator<Item = Option<ValueId>> + ExactSizeIterator {
        self.operands.iter().map(|s| s.value.some())
    }

    /// The operands that are present.
    pub fn present_operands(&self) -> impl Iterator<Item = ValueId> {
        self.operands().flatten()
    }

    /// The results in order; [`ValueId::NONE`] stands where an optional one is absent.
    pub fn results(&self) -> &[ValueId] {
        &self.results
    }

    /// The first result.
    pub fn result(&self) -> ValueId {
        self.results.first().copied().unwrap_or(ValueId::NONE)
    }

    /// The graphs that it carries.
    pub fn regions(&self) -> &[GraphId] {
        self.regions.as_deref().map_or(&[], |r| r)
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Def {
    /// A result of an operation.
    Result(OpId, u32),
    /// A parameter of a graph.
    Param(GraphId, u32),
    /// A global, read at entry.
    Global(GlobalId),
    /// The definition was erased; nothing may use the value.
    Erased,
}

/// Who uses a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Use {
    /// An operation, at an operand place.
    Operand(OpId, u32),
    /// A graph returns it, as result number.
    Return(GraphId, u32),
    /// A graph stores it to a global, as update number.
    Update(GraphId, u32),
}

/// An SSA value.
#[derive(Clone, Debug)]
pub struct Value {
    /// Its type.
    pub ty: TypeId,
    /// Where it comes from.
    pub def: Def,
    /// The name it has in the source network, if any.
    pub name: Sym,
    pub(crate) uses: SmallVec<[Use; 2]>,
}

impl Value {
    /// Everything that uses it, in no particular (but reproducible) order.
    pub fn uses(&self) -> &[Use] {
        &self.uses
    }
}

/// A pure graph: an entry point of the module, or a region of an operation.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Its name; unique among entry points.
    pub name: Sym,
    /// The operation that carries it, if it is a region.
    pub parent: OpId,
    pub(crate) params: Vec<ValueId>,
    pub(crate) first: OpId,
    pub(crate) last: OpId,
    pub(crate) results: Vec<GraphResult>,
    pub(crate) updates: Vec<GraphUpdate>,
    /// False once it was removed.
    pub live: bool,
}

/// A result of a graph: its name is interface and never changes, whatever value stands behind it.
#[derive(Clone, Debug)]
pub(crate) struct GraphResult {
    pub(crate) name: Sym,
    pub(crate) slot: Slot,
    pub(crate) ty: TypeId,
}

/// One assignment of `return ... updates { @global = %value }`.
#[derive(Clone, Debug)]
pub(crate) struct GraphUpdate {
    pub(crate) global: GlobalId,
    pub(crate) slot: Slot,
}

impl Graph {
    /// Its parameters in order.
    pub fn params(&self) -> &[ValueId] {
        &self.params
    }

    /// The values it returns, in order.
    pub fn results(&self) -> impl ExactSizeIterator<Item = ValueId> {
        self.results.iter().map(|r| r.slot.value)
    }

    /// The names of its results, in order.
    pub fn result_names(&self) -> impl ExactSizeIterator<Item = Sym> {
        self.results.iter().map(|r| r.name)
    }

    /// The declared types of its results, in order: interface, like their names.
    pub fn result_types(&self) -> impl ExactSizeIterator<Item = TypeId> {
        self.results.iter().map(|r| r.ty)
    }

    /// The globals that it writes at its end, with their new values.
    pub fn updates(&self) -> impl ExactSizeIterator<Item = (GlobalId, ValueId)> {
        self.updates.iter().map(|u| (u.global, u.slot.value))
    }
}

/// A symbolic dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Its name in the source; anonymous ones are equal to nothing but themselves.
    pub name: Option<Sym>,
    /// Smallest value it takes, if stated.
    pub min: Option<i64>,
    /// Largest value it takes, if stated.
    pub max: Option<i64>,
}

/// Why a source node is no longer there, or was not changed: one line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// What happened or did not: `folded`, `absorbed`, `removed`, `kept`, ... A stable code.
    pub code: Sym,
    /// The rule or pass that decided it.
    pub rule: Sym,
    /// The source node that took it over, if one did.
    pub into: Option<Sym>,
    /// A sentence for people, if the code does not say it all.
    pub reason: Option<Sym>,
}
