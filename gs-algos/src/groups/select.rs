//! The rewrite that a choice of atoms asks for: all weights are sliced at once, attributes and shapes that name extents
//! follow, types are inferred anew and compared with what was foreseen.
//!
//! A slice of a weight is a derived global: nothing is copied until it is written. Reordering atoms is the same rewrite
//! with another list of places; since it changes no shape and must not change what a network computes, it is how the
//! groups themselves are tested.

use super::axes::{Axis, Run, Slot};
use super::labels::{Atom, Atoms};
use super::members::Groups;
use super::rules::from_front;
use gs_ir::registry::{AxisFunction, AxisRule};
use gs_ir::{
    At, Attr, AttrSet, Derived, Dim, GlobalId, Init, Knowledge, Literal, Module, NewGlobal, OpId, Rewriter,
    Role, TensorData, Type, infer_module,
};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::{SmallVec, smallvec};
use thiserror::Error;

/// Why atoms cannot be dropped.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectError {
    /// An axis would be empty.
    #[error("nothing would be left of axis {axis} of `{tensor}`")]
    Empty {
        /// The tensor.
        tensor: String,
        /// Its axis.
        axis: usize,
    },
    /// What was inferred is not what was foreseen: a rule and an inference function say different things.
    #[error("axis {axis} of `{tensor}` should have {foreseen} elements and has {inferred}")]
    Foreseen {
        /// The tensor.
        tensor: String,
        /// Its axis.
        axis: usize,
        /// What should be left.
        foreseen: usize,
        /// What inference says.
        inferred: String,
    },
    /// An operator of the IR is missing, or does not take what it should.
    #[error("{0}")]
    Operator(#[from] gs_ir::InferError),
}

/// Which elements stay, and in which order, by the run of labels of an axis. Axes without an entry stay whole.
#[derive(Clone, Default, Debug)]
pub struct Selection {
    places: FxHashMap<Run, Vec<usize>>,
    drops: bool,
}

impl Selection {
    /// The places that stay of an axis; `None` where all do, in order.
    pub fn of(&self, axis: Axis) -> Option<&[usize]> {
        match axis {
            Axis::Run(run) => self.places.get(&run).map(Vec::as_slice),
            Axis::Kept(_) => None,
        }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl Groups {
    /// What stays when these atoms go.
    pub fn dropping(&self, dropped: &FxHashSet<Atom>) -> Selection {
        let mut places = FxHashMap::default();
        for (&run, atoms) in self.written_out() {
            let kept: Vec<usize> =
                (0..atoms.len()).filter(|&i| !atoms[i].iter().any(|a| dropped.contains(a))).collect();
            if kept.len() < atoms.len() {
                places.insert(run, kept);
            }
        }
        Selection { places, drops: true }
    }

    /// The elements with each atom put where `to` says it goes. What `to` does not name stays.
    pub fn reordering(&self, to: &FxHashMap<Atom, Atom>) -> Selection {
        let mut places = FxHashMap::default();
        for (&run, atoms) in self.written_out() {
            if !atoms.iter().flatten().any(|a| to.contains_key(a)) {
                continue;
            }
            let mut by_atoms: FxHashMap<&Atoms, Vec<usize>> = FxHashMap::default();
            for (i, of) in atoms.iter().enumerate() {
                by_atoms.entry(of).or_default().push(i);
            }
            let mut seen: FxHashMap<&Atoms, usize> = FxHashMap::default();
            let order = atoms.iter().enumerate().map(|(i, of)| {
                let mut wanted: Atoms = of.iter().map(|a| to.get(a).copied().unwrap_or(*a)).collect();
                wanted.sort_unstable();
                let nth = seen.entry(of).or_default();
                *nth += 1;
                by_atoms.get(&wanted).and_then(|l| l.get(*nth - 1)).copied().unwrap_or(i)
            });
            places.insert(run, order.collect());
        }
        Selection { places, drops: false }
    }

    /// Rewrites the module so that it has what the selection says.
    ///
    /// # Errors
    /// Where nothing would be left of an axis: then nothing was changed. Where rules and inference disagree the module is
    /// of no more use.
    pub fn select(&self, module: &mut Module, selection: &Selection) -> Result<(), SelectError> {
        if selection.is_empty() {
            return Ok(());
        }
        self.check_not_empty(module, selection)?;
        let foreseen = self.foreseen(module, selection);
        let mut rewriter = Rewriter::new(module);
        self.slice_weights(&mut rewriter, selection)?;
        if selection.drops {
            let Some(graph) = rewriter.main() else { return Ok(()) };
            let ops: Vec<OpId> = rewriter.ops_in(graph).collect();
            for op in ops {
                self.follow(&mut rewriter, op, selection);
            }
            for count in &self.counts {
                if let Some(kept) = selection.of(count.axis).filter(|_| rewriter.op(count.op).is_live()) {
                    let attrs =
                        rewriter.attrs_of(count.op).clone().with(count.attr, Attr::Int(kept.len() as i64));
                    rewriter.set_attrs(count.op, attrs);
                }
            }
        }
        infer_module(module);
        check_foreseen(module, &foreseen)
    }

    fn check_not_empty(&self, module: &Module, selection: &Selection) -> Result<(), SelectError> {
        for (value, axes) in self.value_axes().filter(|(v, _)| is_live(module, *v)) {
            let empty = axes.iter().position(|&a| selection.of(a).is_some_and(<[usize]>::is_empty));
            if let Some(axis) = empty {
                return Err(SelectError::Empty { tensor: name_of(module, value), axis });
            }
        }
        Ok(())
    }

    /// The extents that values will have.
    fn foreseen(&self, module: &Module, selection: &Selection) -> Vec<(gs_ir::ValueId, usize, usize)> {
        let mut list = Vec::new();
        for (value, axes) in self.value_axes().filter(|(v, _)| is_live(module, *v)) {
            // A constant that has several readings is sliced where it is read.
            if module.as_global(value).is_some_and(|g| self.is_read_apart(g)) {
                continue;
            }
            for (i, &axis) in axes.iter().enumerate() {
                if let Some(kept) = selection.of(axis) {
                    list.push((value, i, kept.len()));
                }
            }
        }
        list
    }

    fn slice_weights(&self, rewriter: &mut Rewriter<'_>, selection: &Selection) -> Result<(), SelectError> {
        let mut readings: Vec<((OpId, usize), Slot)> = self.readings.iter().map(|(k, v)| (*k, *v)).collect();
        readings.sort_unstable();
        for ((op, place), slot) in readings {
            if !rewriter.op(op).is_live() {
                continue;
            }
            let Some(global) = rewriter.op(op).operand(place).and_then(|v| rewriter.as_global(v)) else {
                continue;
            };
            let axes = self.selected(slot, selection);
            if axes.is_empty() {
                continue;
            }
            let data = rewriter.global(global);
            let (name, ty) = (rewriter.str(data.name).to_owned(), rewriter.ty(data.ty).clone());
            let init = slice(rewriter, global, &axes)?;
            let derived = match init {
                Init::Derived(d) => rewriter.derive_global(&name, d.kind, d.attrs, &d.operands)?,
                init => rewriter.add_global(NewGlobal {
                    name: &name,
                    role: Role::Const,
                    trainable: false,
                    ty: with_extents(ty, &axes),
                    init,
                }),
            };
            let value = rewriter.global(derived).value;
            rewriter.set_operand(op, place, Some(value));
        }
        let readers = derived_from(rewriter);
        let globals: Vec<GlobalId> = rewriter.globals().map(|(id, _)| id).collect();
        for id in globals {
            let axes = self.selected(self.tensor(rewriter.global(id).value), selection);
            if axes.is_empty() || self.is_read_apart(id) {
                continue;
            }
            let source = match readers.get(&id) {
                // What is derived from it is derived from the whole of it, now and when it is sliced itself.
                Some(readers) => {
                    let whole = copy_whole(rewriter, id);
                    readers.iter().for_each(|&reader| derive_from(rewriter, reader, id, whole));
                    whole
                }
                None => id,
            };
            let ty = rewriter.ty(rewriter.global(id).ty).clone();
            let init = slice(rewriter, source, &axes)?;
            rewriter.set_global(id, with_extents(ty, &axes), init);
        }
        Ok(())
    }

    /// The axes of a tensor of which a part is selected, with their places.
    fn selected<'s>(&self, slot: Slot, selection: &'s Selection) -> Vec<(usize, &'s [usize])> {
        let axes = self.axes_of(slot).unwrap_or(&[]);
        axes.iter().enumerate().filter_map(|(i, &a)| Some((i, selection.of(a)?))).collect()
    }

    /// Attributes and shapes that name extents of an operation follow what is left of its axes.
    fn follow(&self, rewriter: &mut Rewriter<'_>, op: OpId, selection: &Selection) {
        let AxisRule::Function(function) = rewriter.decl(op).axes else { return };
        let y = self.tensor(rewriter.op(op).result());
        let Some(x) = self.operand(rewriter, op, 0) else { return };
        let attrs = match function {
            AxisFunction::Reshape | AxisFunction::Expand => {
                return self.follow_shape(rewriter, op, y, selection);
            }
            AxisFunction::Slice => self.sliced(rewriter, op, x, selection),
            AxisFunction::Split => self.parted(rewriter, op, selection),
            AxisFunction::Pad => self.padded(rewriter, op, (x, y), selection),
            _ => None,
        };
        if let Some(attrs) = attrs {
            rewriter.set_attrs(op, attrs);
        }
    }

    /// The target of a reshape or an expansion, as an attribute or a constant.
    fn follow_shape(&self, rewriter: &mut Rewriter<'_>, op: OpId, y: Slot, selection: &Selection) {
        let changed = self.selected(y, selection);
        if changed.is_empty() {
            return;
        }
        if let Some(shape) = rewriter.attrs_of(op).dims("shape") {
            let mut shape: Vec<Dim> = shape.to_vec();
            for (i, kept) in &changed {
                if shape.get(*i).and_then(Dim::as_const) != Some(-1) {
                    shape[*i] = Dim::Const(kept.len() as i64);
                }
            }
            let attrs = rewriter.attrs_of(op).clone().with("shape", Attr::dims(shape));
            return rewriter.set_attrs(op, attrs);
        }
        let Some(place) = rewriter.decl(op).operand_index("shape") else { return };
        let Some(operand) = rewriter.op(op).operand(place) else { return };
        let Some(mut shape) = contents(rewriter, operand) else { return };
        let rank = self.axes_of(y).map_or(0, <[Axis]>::len);
        for (i, kept) in changed {
            let Some(at) = (i + shape.len()).checked_sub(rank) else { continue };
            if shape[at] > 1 {
                shape[at] = kept.len() as i64;
            }
        }
        let name =
            rewriter.as_global(operand).map_or("shape", |g| rewriter.str(rewriter.global(g).name)).to_owned();
        let value = constant_i64(rewriter, &name, &shape);
        rewriter.set_operand(op, place, Some(value));
    }

    fn sliced(&self, m: &Module, op: OpId, x: Slot, selection: &Selection) -> Option<AttrSet> {
        let attrs = m.attrs_of(op);
        let axes = self.axes_of(x)?;
        let mut starts = attrs.ints("starts")?.to_vec();
        let mut ends = attrs.ints("ends")?.to_vec();
        for i in 0..starts.len() {
            let at = attrs.ints("axes").map_or(i, |a| from_front(a.get(i).copied().unwrap_or(0), axes.len()));
            let Some(kept) = axes.get(at).and_then(|&a| selection.of(a)) else { continue };
            let n = self.atoms_of(axes[at])?.len() as i64;
            let position = |p: i64| (if p < 0 { p.saturating_add(n) } else { p }).clamp(0, n) as usize;
            let before = |p: i64| kept.partition_point(|&k| k < position(p)) as i64;
            (starts[i], ends[i]) = (before(starts[i]), before(ends[i]));
        }
        Some(attrs.clone().with("starts", Attr::ints(&starts)).with("ends", Attr::ints(&ends)))
    }

    fn parted(&self, m: &Module, op: OpId, selection: &Selection) -> Option<AttrSet> {
        let rank = self.axes_of(self.tensor(m.op(op).result()))?.len();
        let along = from_front(m.decl(op).int(m.attrs_of(op), "axis").unwrap_or(0), rank);
        let mut sizes = Vec::new();
        let mut is_changed = false;
        for &y in m.op(op).results() {
            let axis = *self.axes_of(self.tensor(y))?.get(along)?;
            let before = m.type_of(y).dims()?.get(along)?.as_const();
            let kept = selection.of(axis).map(|k| k.len() as i64);
            is_changed |= kept.is_some();
            // The type may be the new one already.
            let whole = self.atoms_of(axis).map(|a| a.len() as i64).or(before);
            sizes.push(kept.or(whole)?);
        }
        is_changed.then(|| m.attrs_of(op).clone().with("split", Attr::ints(&sizes)))
    }

    fn padded(&self, m: &Module, op: OpId, (x, y): (Slot, Slot), selection: &Selection) -> Option<AttrSet> {
        let attrs = m.attrs_of(op);
        let (old, new) = (self.axes_of(x)?, self.axes_of(y)?);
        let mut pads = attrs.ints("pads")?.to_vec();
        let rank = new.len();
        for i in 0..rank {
            let (before, after) = (pads[i], pads[rank + i]);
            let kept_in = |axis: Axis, from: usize, to: usize| match selection.of(axis) {
                Some(kept) => kept.iter().filter(|&&k| (from..to).contains(&k)).count() as i64,
                None => (to - from) as i64,
            };
            let n = |axis: Axis| self.atoms_of(axis).map_or(0, <[Atoms]>::len);
            let count = |pad: i64, at_end: bool| {
                let (axis, size) = (if pad > 0 { new[i] } else { old[i] }, pad.unsigned_abs() as usize);
                let (from, to) = if at_end { (n(axis).saturating_sub(size), n(axis)) } else { (0, size) };
                pad.signum() * kept_in(axis, from, to)
            };
            if selection.of(new[i]).is_some() || selection.of(old[i]).is_some() {
                (pads[i], pads[rank + i]) = (count(before, false), count(after, true));
            }
        }
        Some(attrs.clone().with("pads", Attr::ints(&pads)))
    }

    /// Puts a product with 0 and 1 on every edge where dropped elements are summed away: the network that pruning must
    /// equal, in its old shapes.
    ///
    /// # Errors
    /// Where the product does not fit, which no sound module comes to.
    pub fn mask(&self, module: &mut Module, dropped: &FxHashSet<Atom>) -> Result<(), SelectError> {
        let selection = self.dropping(dropped);
        let mut rewriter = Rewriter::new(module);
        for edge in &self.edges {
            let Some(slot) = self.operand(&rewriter, edge.op, edge.operand) else { continue };
            let Some(&axis) = self.axes_of(slot).and_then(|a| a.get(edge.axis)) else { continue };
            let (Some(kept), Some(atoms)) = (selection.of(axis), self.atoms_of(axis)) else { continue };
            let Some(x) = rewriter.op(edge.op).operand(edge.operand) else { continue };
            let (Some(elem), Some(rank)) =
                (rewriter.type_of(x).elem(), rewriter.type_of(x).dims().map(<[Dim]>::len))
            else {
                continue;
            };
            let mut values = vec![0f32; atoms.len()];
            kept.iter().for_each(|&k| values[k] = 1.0);
            let mut dims = vec![1i64; rank];
            dims[edge.axis] = atoms.len() as i64;
            let literal = Literal::f32s(dims.clone(), &values);
            let name = format!("{}.keep", rewriter.label(edge.op));
            let mask = rewriter.add_global(NewGlobal {
                name: &name,
                role: Role::Const,
                trainable: false,
                ty: Type::fixed(gs_ir::ElemType::F32, &dims),
                init: Init::Data(literal.data),
            });
            let mask = rewriter.global(mask).value;
            let at = At::Before(edge.op);
            let mask = match elem {
                gs_ir::ElemType::F32 => mask,
                _ => rewriter.emit("cast", &[mask], AttrSet::new().with("to", Attr::Elem(elem)), at)?,
            };
            let masked = rewriter.emit("mul", &[x, mask], AttrSet::new(), at)?;
            rewriter.set_operand(edge.op, edge.operand, Some(masked));
        }
        Ok(())
    }
}

/// The contents of a global with parts of these axes. What is the same everywhere stays so, and short vectors are cut at
/// once: rules look into them. All else is taken piece by piece when it is written.
fn slice(rewriter: &mut Rewriter<'_>, of: GlobalId, axes: &[(usize, &[usize])]) -> Result<Init, SelectError> {
    let global = rewriter.global(of);
    match (&global.init, rewriter.ty(global.ty).as_tensor(), axes) {
        (Init::Splat(_), ..) => return Ok(global.init.clone()),
        (init @ (Init::Data(_) | Init::Derived(_)), Some(t), [(0, places)]) if t.rank() == Some(1) => {
            let bytes = match init {
                Init::Data(TensorData::Bytes(bytes)) => bytes.clone(),
                Init::Derived(_) => match gs_eval::materialize(rewriter, of) {
                    Ok(TensorData::Bytes(bytes)) => bytes,
                    _ => Default::default(),
                },
                _ => Default::default(),
            };
            if let Some(cut) = cut(&bytes, whole_bytes(t.elem), places) {
                return Ok(Init::Data(TensorData::Bytes(cut.into())));
            }
        }
        _ => {}
    }
    let name = rewriter.str(global.name).to_owned();
    let source = copy_whole(rewriter, of);
    gathers(rewriter, source, &name, axes).map(Init::Derived)
}

/// A global with the contents of another, which is about to be cut.
fn copy_whole(rewriter: &mut Rewriter<'_>, of: GlobalId) -> GlobalId {
    let global = rewriter.global(of);
    let (ty, init) = (rewriter.ty(global.ty).clone(), global.init.clone());
    let name = format!("{}.whole", rewriter.str(global.name).trim_end_matches(".whole"));
    rewriter.add_global(NewGlobal { name: &name, role: Role::Const, trainable: false, ty, init })
}

/// The globals that are derived from each, directly.
fn derived_from(module: &Module) -> FxHashMap<GlobalId, Vec<GlobalId>> {
    let mut readers: FxHashMap<GlobalId, Vec<GlobalId>> = FxHashMap::default();
    for (id, global) in module.globals() {
        if let Init::Derived(derived) = &global.init {
            derived.operands.iter().flatten().for_each(|of| readers.entry(*of).or_default().push(id));
        }
    }
    readers
}

/// Lets a derived global read another one of the same type.
fn derive_from(rewriter: &mut Rewriter<'_>, reader: GlobalId, old: GlobalId, new: GlobalId) {
    let global = rewriter.global(reader);
    let Init::Derived(derived) = &global.init else { return };
    let (mut derived, ty) = (derived.clone(), rewriter.ty(global.ty).clone());
    derived.operands.iter_mut().flatten().filter(|of| **of == old).for_each(|of| *of = new);
    rewriter.set_global(reader, ty, Init::Derived(derived));
}

/// The size of an element, where it has whole bytes.
fn whole_bytes(elem: gs_ir::ElemType) -> Option<usize> {
    elem.bytes_for(1).filter(|b| elem.bytes_for(2) == Some(2 * b))
}

/// Elements of a vector, of whole bytes each.
fn cut(bytes: &[u8], size: Option<usize>, places: &[usize]) -> Option<Vec<u8>> {
    let size = size.filter(|&s| s > 0)?;
    let parts: Option<Vec<&[u8]>> = places.iter().map(|&p| bytes.get(p * size..(p + 1) * size)).collect();
    Some(parts?.concat())
}

/// `gather`s of a global along axes.
fn gathers(
    rewriter: &mut Rewriter<'_>,
    mut source: GlobalId,
    name: &str,
    axes: &[(usize, &[usize])],
) -> Result<Derived, SelectError> {
    let missing = || gs_ir::InferError::new("no operator is named `gather`");
    let kind = rewriter.registry().kind("gather").ok_or_else(missing)?;
    for (i, (axis, places)) in axes.iter().enumerate() {
        let places: Vec<i64> = places.iter().map(|&p| p as i64).collect();
        let indices = constant_i64(rewriter, &format!("{name}.kept{axis}"), &places);
        let indices = rewriter.as_global(indices);
        let attrs = gs_ir::normal_attrs(
            &{ *rewriter.registry().decl(kind) },
            AttrSet::new().with("axis", Attr::Int(*axis as i64)),
        );
        let operands: SmallVec<[Option<GlobalId>; 4]> = smallvec![Some(source), indices];
        if i + 1 == axes.len() {
            return Ok(Derived { kind, attrs, operands, result: 0, results: 1 });
        }
        source = rewriter.derive_global(&format!("{name}.part"), kind, attrs, &operands)?;
    }
    Err(gs_ir::InferError::new("no axis is sliced").into())
}

/// The numbers of a constant, computed where it is derived.
fn contents(module: &Module, value: gs_ir::ValueId) -> Option<Vec<i64>> {
    if let Some(known) = Knowledge::new(module).of(value) {
        return known.ints();
    }
    let tensor = gs_eval::Materializer::new(module).tensor(module.as_global(value)?).ok()?;
    Some(tensor.to_f64s()?.into_iter().map(|x| x as i64).collect())
}

fn constant_i64(rewriter: &mut Rewriter<'_>, name: &str, values: &[i64]) -> gs_ir::ValueId {
    let literal = Literal::i64s([values.len() as i64], values);
    let global = rewriter.add_global(NewGlobal {
        name,
        role: Role::Const,
        trainable: false,
        ty: Type::fixed(gs_ir::ElemType::I64, &literal.dims),
        init: Init::Data(literal.data),
    });
    rewriter.global(global).value
}

fn with_extents(mut ty: Type, axes: &[(usize, &[usize])]) -> Type {
    if let Type::Tensor(t) = &mut ty
        && let Some(shape) = &mut t.shape
    {
        for (axis, places) in axes {
            shape[*axis] = Dim::Const(places.len() as i64);
        }
    }
    ty
}

/// Whether a value still is of the module: what a branch that went was made of is not.
fn is_live(module: &Module, value: gs_ir::ValueId) -> bool {
    module.value(value).def != gs_ir::Def::Erased
}

fn check_foreseen(module: &Module, foreseen: &[(gs_ir::ValueId, usize, usize)]) -> Result<(), SelectError> {
    for &(value, axis, extent) in foreseen {
        let found = module.type_of(value).dims().and_then(|d| d.get(axis));
        if found.and_then(Dim::as_const) != Some(extent as i64) {
            let inferred = found.map_or("nothing".to_owned(), |d| format!("{d:?}"));
            return Err(SelectError::Foreseen {
                tensor: name_of(module, value),
                axis,
                foreseen: extent,
                inferred,
            });
        }
    }
    Ok(())
}

/// A name for a value in messages.
fn name_of(module: &Module, value: gs_ir::ValueId) -> String {
    if let Some(global) = module.as_global(value) {
        return module.str(module.global(global).name).to_owned();
    }
    match (module.str(module.value(value).name), module.producer(value)) {
        ("", Some(op)) => module.label(op).to_owned(),
        (name, _) => name.to_owned(),
    }
}
