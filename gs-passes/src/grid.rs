//! Grid classes: which tensors must share one quantisation grid, which values lie inside a fused region and
//! need none, and which operations can run in integers on a target. Computed from the quantisation roles of
//! the op registry and the target's table; quantiser placement and lowering both ask it, so that what is
//! quantised and what is lowered cannot disagree.

use crate::target::{OpSupport, Target};
use gs_ir::registry::{QRole, Traits};
use gs_ir::{Def, ElemType, GraphId, Handle, Module, OPAQUE_NAME, OpId, Role, Use, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// How an operation takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// It computes new values in integers: its data operands and its result have grids.
    Computes,
    /// It moves or selects values on one grid.
    Moves,
    /// It is a quantiser: what it returns lies on the grid that it states.
    Quantises,
    /// It became part of the operation before it (batch normalisation, an activation).
    Absorbed {
        /// The operation that it became part of.
        into: OpId,
    },
    /// It reads no activation: its operands are constants (weights being prepared).
    Weights,
    /// It stays in float.
    Float(Reason),
}

/// Why an operation stays in float: a stable code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable code, like `no-integer-form`.
    pub code: &'static str,
    /// What a person needs to know.
    pub text: String,
}

/// What a reason code means.
#[derive(Clone, Copy, Debug)]
pub struct ReasonDoc {
    /// The code.
    pub code: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What a person can do.
    pub advice: &'static str,
}

/// The code of operations that a target computes in float only.
pub const NO_INTEGER_FORM: &str = "no-integer-form";

/// The code of a batch normalisation that folding left.
pub const NOT_FOLDED: &str = "not-folded";

/// The code of layers whose sums can leave the accumulator.
pub const ACCUMULATOR: &str = "accumulator";

/// The code of operations that could run in integers, but read a value in float.
pub const FLOAT_INPUT: &str = "float-input";

/// Every code that the ledger gives with an operation.
pub const REASONS: &[ReasonDoc] = &[
    doc(
        NO_INTEGER_FORM,
        "the target has no integer form of the operator",
        "write it with operators that `gs-opt targets` lists, or accept that it runs in float",
    ),
    doc("excluded", "the configuration keeps the layer in float", "remove it from `exclude`"),
    doc(
        "float-layer",
        "the activation of a layer that stays in float stays there with it",
        "see why the layer before it stays in float",
    ),
    doc(
        "region",
        "the operation carries graphs of its own (If, Loop, Scan)",
        "nothing: branches and loops run in float",
    ),
    doc("element-type", "an operand is not f32", "convert the network to f32 before quantising"),
    doc("computed-bias", "the bias depends on the input of the network", "use a constant bias"),
    doc(
        "computed-weight",
        "the weight depends on the input of the network",
        "use a constant weight, or a matmul of two activations",
    ),
    doc(
        "constant-operand",
        "an operand of an element-wise operation is a constant",
        "fold the constant into a neighbouring layer, or accept that it runs in float",
    ),
    doc("axis", "the integer form exists for another axis only", "transpose so that the axis fits"),
    doc(
        "gemm-form",
        "gemm with alpha or beta other than 1, or transposed data",
        "fold the factors into the weight",
    ),
    doc(
        ACCUMULATOR,
        "the sums of products can leave the 32-bit accumulator of the integer operator",
        "give the weight fewer bits (`layers`), or split the layer",
    ),
    doc("pad-value", "padding with a value other than zero", "pad with zero"),
    doc("pool-form", "average pooling with dilations or ceil_mode", "use whole windows"),
    doc("softmax-form", "softmax of an old opset over several axes at once", "flatten before it"),
    doc(
        "not-lowered",
        "the operation could run in integers, but no lowering rule fitted",
        "see the condition that the ledger names",
    ),
    doc(
        NOT_FOLDED,
        "a batch normalisation could not be folded into the layer before it",
        "see the reason that the ledger gives; folding needs a constant weight that feeds nothing else",
    ),
    doc(
        "opaque",
        "the operator, or its version, is not declared: it is kept as it is",
        "nothing, or declare the operator (CONTRIBUTING)",
    ),
    doc("folded", "it was computed beforehand, from constants alone", "nothing"),
    doc("merged", "another operation computes the same and stands for it", "nothing"),
    doc("absorbed", "it became part of another operation", "nothing"),
    doc("removed", "its results are not used, or it did nothing", "nothing"),
    doc(
        "static",
        "it computed a shape that is known; the shape stands in the operation that reads it",
        "nothing",
    ),
    doc(
        FLOAT_INPUT,
        "nothing quantises what the operation reads",
        "let the algorithm quantise activations too (`act_bits`), or see why what comes before stays in float",
    ),
    doc("float", "the operation was not lowered and nothing more is known", "please report this"),
];

const fn doc(code: &'static str, doc: &'static str, advice: &'static str) -> ReasonDoc {
    ReasonDoc { code, doc, advice }
}

/// A set of values that share one grid.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// All members in order of definition.
    pub members: Vec<ValueId>,
    /// Members that are not merely moved from another member: where a quantiser changes something.
    pub entries: Arc<[ValueId]>,
    /// Whether some integer operation reads or makes it.
    pub needed: bool,
    /// The grid that its producer dictates: scale and zero point.
    pub fixed: Option<(f32, i64)>,
    /// Why it is needed, in words, for remarks.
    pub why: String,
}

/// The analysis of one graph.
#[derive(Clone, Debug, Default)]
pub struct Grids {
    parts: FxHashMap<OpId, Part>,
    class_of: FxHashMap<ValueId, usize>,
    entries: FxHashSet<ValueId>,
    classes: Vec<Class>,
}

impl Grids {
    /// Analyses a graph for a target. `selected` says which operations the user allows to be quantised.
    pub fn of(module: &Module, graph: GraphId, target: &Target, selected: &dyn Fn(OpId) -> bool) -> Self {
        let mut parts = FxHashMap::default();
        for op in module.ops_in(graph) {
            parts.insert(op, part_of(module, op, target, selected, &parts));
        }
        let mut a = Analysis { module, union: Union::default(), parts };
        a.unite(graph);
        a.classes(graph)
    }

    /// How an operation takes part; operations in regions are not analysed.
    pub fn part(&self, op: OpId) -> Option<&Part> {
        self.parts.get(&op)
    }

    /// The class of a value, if it has a grid.
    pub fn class_of(&self, value: ValueId) -> Option<(usize, &Class)> {
        let &i = self.class_of.get(&value)?;
        Some((i, &self.classes[i]))
    }

    /// All classes, in order of their first member.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Whether a quantiser at this value changes a deployed tensor: it enters a class that is needed.
    pub fn needs_grid(&self, value: ValueId) -> bool {
        self.entries.contains(&value) && self.class_of(value).is_some_and(|(_, c)| c.needed)
    }
}

/// Whether a value depends on globals only (learned or constant: not on state, nor on what a run may be given).
pub fn weight_only(module: &Module, value: ValueId) -> bool {
    let mut pending = vec![value];
    let mut seen = 0;
    while let Some(v) = pending.pop() {
        // Weights are prepared by short chains; a longer one is not looked through.
        seen += 1;
        if seen > 256 {
            return false;
        }
        match module.value(v).def {
            Def::Global(g) if matches!(module.global(g).role, Role::Param | Role::Const) => {}
            Def::Result(op, _) if is_function(module, op) => {
                pending.extend(module.op(op).present_operands());
            }
            _ => return false,
        }
    }
    true
}

/// Whether the results are a function of the operands and nothing else. What nobody declared is not known to be one.
fn is_function(module: &Module, op: OpId) -> bool {
    let decl = module.decl(op);
    module.op(op).regions().is_empty()
        && module.op(op).operand_count() > 0
        && !decl.traits.has(Traits::RANDOM)
        && decl.name != OPAQUE_NAME
}

/// The value behind quantisers: what it was before they rounded it.
pub fn behind_quantisers(module: &Module, mut value: ValueId) -> ValueId {
    while let Some(op) = module.producer(value).filter(|&op| module.decl(op).traits.has(Traits::QUANTISER)) {
        match module.op(op).operand(0) {
            Some(input) => value = input,
            None => break,
        }
    }
    value
}

/// The axis of a weight operand along which output channels lie, if the operation has one.
pub fn channel_axis(module: &Module, op: OpId) -> Option<usize> {
    let attrs = module.attrs_of(op);
    match module.op_name(op) {
        "conv" | "qconv" => Some(0),
        "conv_transpose" => Some(1),
        "gemm" | "qgemm" => Some(if attrs.bool("trans_b", false) { 0 } else { 1 }),
        "matmul" | "qmatmul" => {
            let weight = module.operand_named(op, "b")?;
            module.type_of(weight).as_tensor()?.rank()?.checked_sub(1)
        }
        _ => None,
    }
}

fn part_of(
    m: &Module,
    op: OpId,
    target: &Target,
    selected: &dyn Fn(OpId) -> bool,
    before: &FxHashMap<OpId, Part>,
) -> Part {
    let float = |code, text: String| Part::Float(Reason { code, text });
    let name = m.opaque_name(op).unwrap_or(m.op_name(op));
    if m.op(op).operand_count() > 0
        && m.op(op).results().iter().filter_map(|v| v.some()).all(|v| weight_only(m, v))
    {
        return Part::Weights;
    }
    if m.decl(op).traits.has(Traits::QUANTISER) || m.is(op, "dequantize") {
        return Part::Quantises;
    }
    if !m.op(op).regions().is_empty() {
        return float("region", format!("{name} carries graphs of its own, which are not quantised"));
    }
    if let Some(into) = absorbed_into(m, op, target, selected, before) {
        return Part::Absorbed { into };
    }
    if let Some(reason) = left_norm(m, op, before) {
        return Part::Float(reason);
    }
    let Some(support) = target.support(m.op_name(op)) else {
        return float(NO_INTEGER_FORM, format!("{name} has no integer form on {}", target.name));
    };
    if !selected(op) {
        return float("excluded", "excluded by the configuration".to_owned());
    }
    if let Some(reason) = misfit(m, op, support, target) {
        return Part::Float(reason);
    }
    if let Some(layer) = float_layer_before(m, op, target, before) {
        let layer = m.label(layer);
        return float(
            "float-layer",
            format!("{name} belongs to the layer \"{layer}\", which stays in float"),
        );
    }
    if support.same_grid { Part::Moves } else { Part::Computes }
}

/// The layer in float that would take this activation in, if it ran in integers: a quantiser between the two would
/// round what the activation is about to cut off, and the value behind it is the one that others read.
fn float_layer_before(m: &Module, op: OpId, target: &Target, before: &FxHashMap<OpId, Part>) -> Option<OpId> {
    let mut producer = m.producer(m.op(op).operand(0)?)?;
    if m.is(producer, "batch_norm") {
        // It will be part of the layer before it, which takes in what follows.
        producer = m.producer(m.op(producer).operand(0)?)?;
    }
    let takes_in = target.support(m.op_name(producer))?.absorbs.iter().any(|a| a == m.op_name(op));
    (takes_in && matches!(before.get(&producer), Some(Part::Float(_)))).then_some(producer)
}

/// The operation that this one becomes part of: its producer computes in integers, feeds nothing else, and
/// the target (or, for batch normalisation, folding) lets it take this one in.
fn absorbed_into(
    m: &Module,
    op: OpId,
    target: &Target,
    selected: &dyn Fn(OpId) -> bool,
    before: &FxHashMap<OpId, Part>,
) -> Option<OpId> {
    let input = m.op(op).operand(0)?;
    if m.only_use(input)? != Use::Operand(op, 0) || !selected(op) {
        return None;
    }
    let producer = m.producer(input)?;
    let anchor = match before.get(&producer)? {
        Part::Computes => producer,
        Part::Absorbed { into } => *into,
        _ => return None,
    };
    let follows = m.op_name(op);
    if follows == "batch_norm" {
        return (producer == anchor && folds(m, op, anchor) && !was_not_folded(m, op)).then_some(anchor);
    }
    let support = target.support(m.op_name(anchor))?;
    support.absorbs.iter().any(|a| a == follows).then_some(anchor)
}

/// Whether a layer is of a form that batch normalisation behind it can become part of.
fn folds(m: &Module, norm: OpId, layer: OpId) -> bool {
    // A product of matrices has no place for the bias that folding gives.
    let form = match m.op_name(layer) {
        "conv" | "gemm" => true,
        "conv_transpose" => m.attrs_of(layer).int("group", 1) == 1,
        _ => false,
    };
    form && m.op(norm).operands().skip(1).flatten().all(|v| m.as_global(v).is_some() || weight_only(m, v))
}

/// Why a batch normalisation behind a layer is not part of it.
fn left_norm(m: &Module, op: OpId, before: &FxHashMap<OpId, Part>) -> Option<Reason> {
    if !m.is(op, "batch_norm") {
        return None;
    }
    let layer = m.producer(m.op(op).operand(0)?)?;
    if !matches!(m.op_name(layer), "conv" | "conv_transpose" | "gemm" | "matmul") {
        return None;
    }
    let (code, text) = match before.get(&layer) {
        Some(Part::Float(_)) => {
            let layer = m.label(layer);
            ("float-layer", format!("batch_norm belongs to the layer \"{layer}\", which stays in float"))
        }
        _ => (NOT_FOLDED, format!("it was not folded: {}", crate::passes::why_not_folded(m, op))),
    };
    Some(Reason { code, text })
}

/// Whether folding has tried a batch normalisation and left it: it will not become part of the layer before it.
fn was_not_folded(m: &Module, op: OpId) -> bool {
    m.source_of(op).iter().filter_map(|name| m.kept.get(name)).any(|e| m.str(e.code) == NOT_FOLDED)
}

/// Why this instance of a supported operator has no integer form.
fn misfit(m: &Module, op: OpId, support: &OpSupport, target: &Target) -> Option<Reason> {
    let reason = |code, text: String| Some(Reason { code, text });
    let name = m.op_name(op);
    let decl = m.decl(op);
    let attrs = m.attrs_of(op);
    for (i, v) in m.op(op).operands().enumerate() {
        let (Some(v), Some(o)) = (v, decl.operand(i)) else { continue };
        let elem = m.type_of(v).elem();
        let moves_integers = support.same_grid && elem.is_some_and(ElemType::is_int);
        if !matches!(o.role, QRole::None | QRole::Float) && elem != Some(ElemType::F32) && !moves_integers {
            let found = elem.map_or("unknown", ElemType::name);
            return reason("element-type", format!("operand `{}` is {found}; only f32 is quantised", o.name));
        }
        if matches!(o.role, QRole::Bias) && !weight_only(m, behind_quantisers(m, v)) {
            return reason("computed-bias", format!("{name} has a bias that is computed, not a weight"));
        }
        let weight = matches!(o.role, QRole::Weight);
        if weight
            && matches!(name, "conv" | "conv_transpose" | "gemm")
            && !weight_only(m, behind_quantisers(m, v))
        {
            return reason("computed-weight", format!("{name} has a weight that is computed from its input"));
        }
        let constant_data = matches!(o.role, QRole::Data | QRole::Same) && weight_only(m, v);
        if constant_data && !support.same_grid {
            return reason("constant-operand", format!("operand `{}` of {name} is a constant", o.name));
        }
    }
    if let Some(axis) = support.needs_axis {
        let rank = m.op(op).operand(0).and_then(|v| m.type_of(v).as_tensor()?.rank());
        let found = attrs.int("axis", axis);
        let normal = |a: i64| rank.map(|r| if a < 0 { a + r as i64 } else { a });
        if normal(found) != normal(axis) || normal(axis).is_none() {
            return reason(
                "axis",
                format!(
                    "{name} runs in integers on {} only over axis {axis}; here it is {found}",
                    target.name
                ),
            );
        }
    }
    match name {
        "gemm"
            if attrs.float("alpha", 1.0) != 1.0
                || attrs.float("beta", 1.0) != 1.0
                || attrs.bool("trans_a", false) =>
        {
            reason(
                "gemm-form",
                "gemm runs in integers only with alpha = beta = 1 and no transposed data".to_owned(),
            )
        }
        "pad"
            if attrs.float("value", 0.0) != 0.0
                || attrs.str("mode").is_some_and(|s| s != "constant" && s != "reflect" && s != "edge") =>
        {
            reason("pad-value", "padding with another value than 0 leaves the grid of its input".to_owned())
        }
        "average_pool" if attrs.ints("dilations").is_some() || attrs.bool("ceil_mode", false) => {
            reason("pool-form", "average_pool with dilations or ceil_mode has no integer form".to_owned())
        }
        "softmax" if attrs.bool("legacy", false) => {
            let two = m.op(op).operand(0).and_then(|v| m.type_of(v).as_tensor()?.rank()) == Some(2);
            if two {
                None
            } else {
                reason("softmax-form", "softmax of an old opset over several axes at once".to_owned())
            }
        }
        _ => None,
    }
}

struct Analysis<'m> {
    module: &'m Module,
    union: Union,
    parts: FxHashMap<OpId, Part>,
}

impl Analysis<'_> {
    /// Operands of an operation that lie on grids, and its result.
    fn gridded(&self, op: OpId) -> impl Iterator<Item = (ValueId, QRole)> + '_ {
        let m = self.module;
        let moves = self.parts.get(&op) == Some(&Part::Moves);
        m.op(op).operands().enumerate().filter_map(move |(i, v)| {
            let (v, role) = (v?, m.decl(op).operand(i)?.role);
            let wanted = match role {
                QRole::Data | QRole::Same => true,
                // A matmul of two activations has its second one in the weight's place.
                QRole::Weight => !moves && !weight_only(m, behind_quantisers(m, v)),
                _ => false,
            };
            wanted.then_some((v, role))
        })
    }

    /// Whether results lie on the grid of the operands: moves, and quantisers of activations.
    fn keeps_grid(&self, op: OpId) -> bool {
        match self.parts.get(&op) {
            Some(Part::Moves) => true,
            Some(Part::Quantises) => {
                !self.module.op(op).operand(0).is_some_and(|v| weight_only(self.module, v))
            }
            _ => false,
        }
    }

    fn unite(&mut self, graph: GraphId) {
        let m = self.module;
        for op in m.ops_in(graph) {
            if !self.keeps_grid(op) {
                continue;
            }
            let results: Vec<ValueId> = m.op(op).results().iter().filter_map(|v| v.some()).collect();
            let values: Vec<ValueId> = self.gridded(op).map(|(v, _)| v).chain(results).collect();
            for pair in values.windows(2) {
                self.union.join(pair[0], pair[1]);
            }
        }
    }

    fn classes(mut self, graph: GraphId) -> Grids {
        let m = self.module;
        let mut out = Grids::default();
        let mut entries: Vec<Vec<ValueId>> = Vec::new();
        // Members in order of definition: constants first met as operands, parameters, results.
        let mut members: Vec<(ValueId, bool)> = m.graph(graph).params().iter().map(|&v| (v, true)).collect();
        for op in m.ops_in(graph) {
            if self.parts.get(&op) == Some(&Part::Moves) {
                members.extend(
                    self.gridded(op).filter(|&(v, _)| m.as_global(v).is_some()).map(|(v, _)| (v, true)),
                );
            }
            let keeps = self.keeps_grid(op);
            members.extend(m.op(op).results().iter().filter_map(|v| v.some()).map(|v| (v, !keeps)));
        }
        let float = |v: ValueId| m.type_of(v).elem() == Some(ElemType::F32);
        let mut by_root: FxHashMap<ValueId, usize> = FxHashMap::default();
        for (v, entry) in members {
            if !float(v) || out.class_of.contains_key(&v) {
                continue;
            }
            let root = self.union.find(v);
            let index = *by_root.entry(root).or_insert_with(|| {
                out.classes.push(Class::default());
                entries.push(Vec::new());
                out.classes.len() - 1
            });
            out.class_of.insert(v, index);
            out.classes[index].members.push(v);
            if entry && !self.is_inside(v) {
                out.entries.insert(v);
                entries[index].push(v);
            }
        }
        for (class, entries) in out.classes.iter_mut().zip(entries) {
            class.entries = entries.into();
        }
        self.mark_needed(graph, &mut out);
        out.parts = self.parts;
        out
    }

    /// Whether a value lies inside a fused region: its only user became part of its producer.
    fn is_inside(&self, v: ValueId) -> bool {
        match self.module.only_use(v) {
            Some(Use::Operand(user, 0)) => matches!(self.parts.get(&user), Some(Part::Absorbed { .. })),
            _ => false,
        }
    }

    fn mark_needed(&self, graph: GraphId, out: &mut Grids) {
        let m = self.module;
        for op in m.ops_in(graph) {
            let computes = match self.parts.get(&op) {
                Some(Part::Computes) => true,
                Some(Part::Absorbed { .. }) => false,
                _ => continue,
            };
            let label = m.label(op);
            let name = m.op_name(op);
            if computes {
                for (v, _) in self.gridded(op) {
                    need(out, v, || format!("{name} \"{label}\" reads it in integers"));
                }
            }
            for v in m.op(op).results().iter().filter_map(|v| v.some()) {
                if !self.is_inside(v) {
                    need(out, v, || format!("{name} \"{label}\" writes it in integers"));
                }
            }
        }
        for class in &mut out.classes {
            let mut grids = class.entries.iter().map(|&v| fixed_grid(m, v));
            let first = grids.next().flatten();
            class.fixed = first.filter(|f| grids.all(|g| g == Some(*f)));
        }
    }
}

fn need(grids: &mut Grids, v: ValueId, why: impl Fn() -> String) {
    if let Some(&i) = grids.class_of.get(&v) {
        let class = &mut grids.classes[i];
        class.needed = true;
        if class.why.is_empty() {
            class.why = why();
        }
    }
}

/// The grid that the producer of a value dictates.
fn fixed_grid(m: &Module, v: ValueId) -> Option<(f32, i64)> {
    let Def::Result(op, i) = m.value(v).def else { return None };
    match m.decl(op).result(i as usize)?.role {
        QRole::Fixed(scale, zero_point) => Some((scale, zero_point)),
        _ => None,
    }
}

/// Union-find over values.
#[derive(Default)]
struct Union {
    parent: FxHashMap<ValueId, ValueId>,
}

impl Union {
    fn find(&mut self, v: ValueId) -> ValueId {
        let mut root = v;
        while let Some(&p) = self.parent.get(&root) {
            root = p;
        }
        let mut at = v;
        while let Some(p) = self.parent.get_mut(&at) {
            at = std::mem::replace(p, root);
        }
        root
    }

    fn join(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.find(a), self.find(b));
        if a != b {
            // The smaller handle is the root, so that classes do not depend on the order of joins.
            let (low, high) = if a.index() < b.index() { (a, b) } else { (b, a) };
            self.parent.insert(high, low);
        }
    }
}
