//! What of a module an ONNX file does not hold.

use std::fmt;

use gs_ir::{Global, GlobalId, GraphId, Module, ValueId};
use rustc_hash::FxHashSet;

/// What of a module is not in its ONNX file: that holds one graph, and a graph that writes nothing. All of it is
/// normal for a network that was trained (the graph of a training step, the states of an optimiser).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Graphs beside the main one.
    pub graphs: Vec<String>,
    /// Globals that the main graph writes at its end; that it reads them is in the file.
    pub updates: Vec<String>,
    /// Globals of which only the above make use.
    pub globals: Vec<String>,
}

impl LeftOut {
    /// Whether the file holds everything.
    pub fn is_empty(&self) -> bool {
        self.graphs.is_empty() && self.updates.is_empty() && self.globals.is_empty()
    }

    pub(super) fn of(module: &Module, main: GraphId, written: impl Fn(GlobalId) -> bool) -> Self {
        let name = |sym| module.str(sym).to_owned();
        let graphs = module.entries().iter().filter(|&&g| g != main).map(|&g| name(module.graph(g).name));
        let updates = module.graph(main).updates().map(|(global, _)| name(module.global(global).name));
        let unused = module.globals().filter(|&(id, g)| is_used(module, id, g) && !written(id));
        Self {
            graphs: graphs.collect(),
            updates: updates.collect(),
            globals: unused.map(|(_, g)| name(g.name)).collect(),
        }
    }
}

/// Whether some graph reads or writes a global.
pub(super) fn is_used(module: &Module, id: GlobalId, global: &Global) -> bool {
    module.is_written(id) || !module.value(global.value).uses().is_empty()
}

/// The values that a graph reads, itself and in its regions.
pub(super) fn read_within(module: &Module, main: GraphId) -> FxHashSet<ValueId> {
    let ops = module.ops_nested(main);
    let operands = ops.iter().flat_map(|&op| module.op(op).present_operands());
    let regions = ops.iter().flat_map(|&op| module.op(op).regions()).copied();
    let results = std::iter::once(main).chain(regions).flat_map(|g| module.graph(g).results());
    operands.chain(results).collect()
}

/// Names in a message.
const NAMED: usize = 3;

fn list(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    let named: Vec<String> = names.iter().take(NAMED).map(|n| format!("@{n}")).collect();
    write!(f, "{what} {}", named.join(", "))?;
    match names.len() - named.len() {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("the graph", "the graphs", &self.graphs),
            ("the update of", "the updates of", &self.updates),
            ("the global", "the globals", &self.globals),
        ];
        let mut before = "";
        for (one, several, names) in parts.into_iter().filter(|p| !p.2.is_empty()) {
            f.write_str(before)?;
            list(f, if names.len() == 1 { one } else { several }, names)?;
            before = "; ";
        }
        Ok(())
    }
}
