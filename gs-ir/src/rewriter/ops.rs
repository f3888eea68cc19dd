//! Changes of operations and of the values between them.

use super::{At, Event, Rewriter, check_attrs, normal_attrs};
use crate::attr::AttrSet;
use crate::dim::Dim;
use crate::entity::{GraphId, OpId, OpKind, SourceId, Sym, ValueId};
use crate::graph::{Def, LedgerEntry, Op, Slot, Use};
use crate::infer::{self, Fact, InferError};
use crate::source::Sources;
use crate::types::Type;
use smallvec::SmallVec;

/// Source names of an operation that is to be erased: they wait for [`Rewriter::give_source`].
#[must_use]
#[derive(Debug)]
pub struct TakenSource(SourceId);

type Inferred = Result<SmallVec<[Fact; 2]>, InferError>;

impl Rewriter<'_> {
    /// Makes an operation, infers the types of its results and brings its attributes into normal form.
    ///
    /// # Errors
    /// Where operands and attributes do not fit the operator; nothing is changed then.
    pub fn create(
        &mut self,
        kind: OpKind,
        operands: &[Option<ValueId>],
        attrs: AttrSet,
        result_count: usize,
        at: At,
    ) -> Result<OpId, InferError> {
        let decl = *self.module.registry.decl(kind);
        let attrs = normal_attrs(&decl, attrs);
        check_attrs(&decl, &attrs)?;
        let mut knowledge = infer::Knowledge::new(self.module);
        let facts: Vec<_> = operands.iter().map(|v| v.map(|v| knowledge.fact(v))).collect();
        let results = infer::infer_facts(&decl, &facts, &attrs, &[], result_count)?;
        let types = results.into_iter().map(|f| self.module.settle(f.ty)).collect::<Vec<_>>();
        Ok(self.create_typed(kind, operands, attrs, &types, at))
    }

    /// [`Self::create`] by operator name with one result, which is returned.
    pub fn emit(
        &mut self,
        name: &str,
        operands: &[ValueId],
        attrs: AttrSet,
        at: At,
    ) -> Result<ValueId, InferError> {
        let kind = self
            .module
            .registry
            .kind(name)
            .ok_or_else(|| InferError(format!("no operator is named `{name}`")))?;
        let operands: SmallVec<[Option<ValueId>; 4]> = operands.iter().map(|&v| v.some()).collect();
        let op = self.create(kind, &operands, attrs, 1, at)?;
        Ok(self.module.ops[op].result())
    }

    /// Makes an operation whose result types are given (parsers and importers), with attributes in normal form.
    pub fn create_typed(
        &mut self,
        kind: OpKind,
        operands: &[Option<ValueId>],
        attrs: AttrSet,
        types: &[Type],
        at: At,
    ) -> OpId {
        let attrs = self.module.intern_attrs(attrs);
        let op = self.module.ops.push(Op {
            kind,
            attrs,
            graph: GraphId::NONE,
            source: Sources::empty(),
            prev: OpId::NONE,
            next: OpId::NONE,
            operands: SmallVec::new(),
            results: SmallVec::new(),
            regions: None,
        });
        for (i, operand) in operands.iter().enumerate() {
            let slot = match operand {
                Some(value) => Slot { value: *value, at: self.add_use(*value, Use::Operand(op, i as u32)) },
                None => Slot::EMPTY,
            };
            self.module.ops[op].operands.push(slot);
        }
        for (i, ty) in types.iter().enumerate() {
            let value = self.new_value(ty.clone(), Def::Result(op, i as u32), "");
            self.module.ops[op].results.push(value);
        }
        self.link(op, at);
        self.events.push(Event::Created(op));
        op
    }

    /// Drops a result that nothing uses: the place stays, the value is gone (ONNX's omitted outputs).
    pub fn omit_result(&mut self, op: OpId, index: usize) {
        let value = self.module.ops[op].results[index];
        debug_assert!(self.module.values[value].uses.is_empty());
        self.module.values[value].def = Def::Erased;
        self.module.ops[op].results[index] = ValueId::NONE;
    }

    /// Replaces an operand.
    pub fn set_operand(&mut self, op: OpId, index: usize, value: Option<ValueId>) {
        let old = self.module.ops[op].operands[index];
        if old.value.some() == value {
            return;
        }
        let before = self.facts_if(op, !self.surely_alike(old.value.some(), value));
        self.drop_use(old);
        let slot = match value {
            Some(value) => Slot { value, at: self.add_use(value, Use::Operand(op, index as u32)) },
            None => Slot::EMPTY,
        };
        self.module.ops[op].operands[index] = slot;
        self.events.push(Event::Changed(op));
        self.reinfer_unless(op, before);
    }

    /// Replaces the attributes, brought into normal form.
    pub fn set_attrs(&mut self, op: OpId, attrs: AttrSet) {
        let decl = *self.module.decl(op);
        let attrs = self.module.intern_attrs(normal_attrs(&decl, attrs));
        if self.module.ops[op].attrs != attrs {
            let before = self.facts_if(op, true);
            self.module.ops[op].attrs = attrs;
            self.events.push(Event::Changed(op));
            self.reinfer_unless(op, before);
        }
    }

    /// Whether two values say the same to inference, as far as their types tell.
    fn surely_alike(&self, a: Option<ValueId>, b: Option<ValueId>) -> bool {
        let (Some(a), Some(b)) = (a, b) else { return false };
        self.module.values[a].ty == self.module.values[b].ty && !infer::may_be_shape(self.module.type_of(a))
    }

    /// What inference says of an operation before a change that may matter to it.
    fn facts_if(&self, op: OpId, matters: bool) -> Option<Inferred> {
        matters.then(|| infer::infer_op(self.module, op))
    }

    /// Infers an operation again after a change, unless inference says of it what it said before and leaves nothing open:
    /// then what the source states of its results holds still.
    fn reinfer_unless(&mut self, op: OpId, before: Option<Inferred>) {
        let Some(before) = before else { return };
        let is_open = |f: &Fact| f.ty.dims().is_some_and(|d| d.iter().any(Dim::is_unknown));
        let open = before.as_ref().is_ok_and(|facts| facts.iter().any(is_open));
        if open || infer::infer_op(self.module, op) != before {
            self.reinfer(op);
        }
    }

    /// States the source nodes that an operation stands for.
    pub fn set_source(&mut self, op: OpId, names: &[Sym]) {
        let source = self.module.intern_source(names);
        self.hold_source(op, source);
    }

    /// Adds source nodes to those that an operation stands for.
    pub fn add_source(&mut self, op: OpId, names: &[Sym]) {
        let source = self.module.intern_source(names);
        self.join_source(op, source);
    }

    /// As [`Self::add_source`], in constant time: the list was taken from another operation.
    pub fn join_source(&mut self, op: OpId, source: SourceId) {
        let source = self.module.join_sources(self.module.ops[op].source, source);
        self.hold_source(op, source);
    }

    /// An operation that was erased stands for nothing.
    fn hold_source(&mut self, op: OpId, source: SourceId) {
        let old = self.module.ops[op].source;
        if old != source && self.module.ops[op].is_live() {
            self.module.sources.hold(source);
            self.module.sources.release(old, &mut Vec::new());
            self.module.ops[op].source = source;
        }
    }

    /// Names a value as the source network does.
    pub fn set_name(&mut self, value: ValueId, name: &str) {
        self.module.values[value].name = if name.is_empty() { Sym::NONE } else { self.module.intern(name) };
    }

    /// States the type of a value (importers: what the file declares).
    pub fn set_type(&mut self, value: ValueId, ty: Type) {
        self.module.values[value].ty = self.module.intern_type(ty);
    }

    /// Lets every user of `old` use `new` instead. The name goes along where `new` has none.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        let uses = std::mem::take(&mut self.module.values[old].uses);
        let retype = self.module.values[old].ty != self.module.values[new].ty;
        let mut readers = Vec::new();
        for u in &uses {
            let at = self.add_use(new, *u);
            *self.slot_mut(*u) = Slot { value: new, at };
            if retype {
                readers.extend(self.tell_reader(*u));
            }
            if let Use::Operand(op, _) = u {
                self.events.push(Event::Changed(*op));
            }
        }
        if self.module.values[new].name.is_none() && !matches!(self.module.values[new].def, Def::Global(_)) {
            self.module.values[new].name = self.module.values[old].name;
        }
        self.events.push(Event::LostUse(old));
        self.retype(readers);
    }

    /// Removes an operation whose results are not used, with everything in its regions. Returns the source names that
    /// no live operation stands for now: whoever erases accounts for them, see [`Self::retire`].
    pub fn erase(&mut self, op: OpId) -> Vec<Sym> {
        let mut vanished = Vec::new();
        let mut all = vec![op];
        for region in self.module.ops[op].regions() {
            all.extend(self.module.ops_nested(*region));
        }
        for &op in &all {
            let source = std::mem::replace(&mut self.module.ops[op].source, Sources::empty());
            self.module.sources.release(source, &mut vanished);
        }
        for op in all {
            for g in self.module.ops[op].regions().to_vec() {
                self.clear_graph(g);
            }
            // One at a time: dropping a use can move another use of the same operation.
            for i in 0..self.module.ops[op].operands.len() {
                let slot = std::mem::replace(&mut self.module.ops[op].operands[i], Slot::EMPTY);
                self.drop_use(slot);
            }
            self.module.ops[op].operands.clear();
            for v in std::mem::take(&mut self.module.ops[op].results) {
                if let Some(v) = v.some() {
                    self.module.values[v].def = Def::Erased;
                }
            }
            self.unlink(op);
            self.events.push(Event::Erased(op));
        }
        vanished
    }

    /// Removes an entry graph with all it holds. Returns the source names that no live operation stands for now.
    pub fn erase_graph(&mut self, graph: GraphId) -> Vec<Sym> {
        let ops: Vec<OpId> = self.module.ops_in(graph).collect();
        self.clear_graph(graph);
        let vanished = ops.iter().flat_map(|&op| self.erase(op)).collect();
        self.module.entries.retain(|&g| g != graph);
        vanished
    }

    fn clear_graph(&mut self, graph: GraphId) {
        self.module.graphs[graph].live = false;
        for i in 0..self.module.graphs[graph].results.len() {
            let slot = std::mem::replace(&mut self.module.graphs[graph].results[i].slot, Slot::EMPTY);
            self.drop_use(slot);
        }
        for i in 0..self.module.graphs[graph].updates.len() {
            let update = &mut self.module.graphs[graph].updates[i];
            let slot = std::mem::replace(&mut update.slot, Slot::EMPTY);
            self.module.globals[update.global].writers -= 1;
            self.drop_use(slot);
        }
        self.module.graphs[graph].results.clear();
        self.module.graphs[graph].updates.clear();
    }

    /// Replaces the results of an operation by other values and [retires](Self::retire) it.
    pub fn replace(&mut self, op: OpId, values: &[ValueId], into: Option<OpId>, entry: LedgerEntry) {
        let results: SmallVec<[ValueId; 2]> = self.module.ops[op].results.clone();
        for (old, new) in results.iter().zip(values) {
            if let (Some(old), Some(new)) = (old.some(), new.some()) {
                self.replace_uses(old, new);
            }
        }
        self.retire(op, into, entry);
    }

    /// Erases an operation and accounts for the source nodes that it and everything in its regions stood for: `into`
    /// takes them over where that is given, else those are noted as gone for which no other operation stands.
    pub fn retire(&mut self, op: OpId, into: Option<OpId>, entry: LedgerEntry) {
        let taken = self.take_source(op);
        self.erase(op);
        self.give_source(taken, into.filter(|&o| o != op), &entry);
    }

    /// Takes hold of the source names that an operation and everything in its regions stand for, before it is erased.
    pub fn take_source(&mut self, op: OpId) -> TakenSource {
        let source = self.module.nested_source(op);
        self.module.sources.hold(source);
        TakenSource(source)
    }

    /// Accounts for source names as [`Self::retire`] does. In constant time where a live operation takes them over.
    pub fn give_source(&mut self, taken: TakenSource, into: Option<OpId>, entry: &LedgerEntry) {
        if let Some(heir) = into {
            self.join_source(heir, taken.0);
        }
        let mut vanished = Vec::new();
        self.module.sources.release(taken.0, &mut vanished);
        self.note_gone(&vanished, entry);
    }

    /// Notes those source names as gone for which no live operation stands.
    pub fn note_gone(&mut self, names: &[Sym], entry: &LedgerEntry) {
        for &name in names {
            if !self.module.is_live_source(name) {
                self.module.gone.insert(name, entry.clone());
            }
        }
    }

    /// A ledger entry with interned words.
    pub fn entry(&mut self, code: &str, rule: &str, into: Option<Sym>, reason: Option<&str>) -> LedgerEntry {
        let reason = reason.map(|r| self.module.intern(r));
        LedgerEntry { code: self.module.intern(code), rule: self.module.intern(rule), into, reason }
    }

    /// Moves an operation just before another one of the same graph.
    pub fn move_before(&mut self, op: OpId, other: OpId) {
        if op != other {
            self.unlink(op);
            self.link(op, At::Before(other));
        }
    }
}
