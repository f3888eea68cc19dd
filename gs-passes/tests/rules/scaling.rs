//! Work grows in proportion to the module.

use crate::support::{inserts, rules};
use gs_ir::{At, AttrSet, ElemType, Module, Rewriter, Type, ValueId};
use gs_passes::rules::{GreedyOptions, NoEnv, RuleSet, Stats, greedy, insert};
use std::time::{Duration, Instant};

/// Blocks of a relu, a pair that cancels, a doubled relu, and a sum: seven operations each, of which four stay.
fn chain(ops: usize) -> Module {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let mut v = rw.add_param(graph, "x", Type::fixed(ElemType::F32, &[8, 8]));
    let op = |rw: &mut Rewriter<'_>, name: &str, operands: &[ValueId]| {
        rw.emit(name, operands, AttrSet::new(), At::End(graph)).unwrap()
    };
    for _ in 0..ops / 7 {
        let skip = v;
        v = op(&mut rw, "transpose", &[v]);
        v = op(&mut rw, "transpose", &[v]);
        v = op(&mut rw, "neg", &[v]);
        v = op(&mut rw, "relu", &[v]);
        v = op(&mut rw, "relu", &[v]);
        v = op(&mut rw, "exp", &[v]);
        v = op(&mut rw, "add", &[v, skip]);
        rw.take_events();
    }
    rw.add_result(graph, "y", v, None);
    module
}

/// One value with many users, each of which is rewritten.
fn star(ops: usize) -> Module {
    let mut module = Module::new();
    let mut rw = Rewriter::new(&mut module);
    let graph = rw.add_graph("main");
    let x = rw.add_param(graph, "x", Type::fixed(ElemType::F32, &[8]));
    let hub = rw.emit("exp", &[x], AttrSet::new(), At::End(graph)).unwrap();
    let mut all = Vec::new();
    for _ in 0..ops / 2 {
        let a = rw.emit("relu", &[hub], AttrSet::new(), At::End(graph)).unwrap();
        all.push(rw.emit("relu", &[a], AttrSet::new(), At::End(graph)).unwrap());
        rw.take_events();
    }
    let attrs = AttrSet::new().with("axis", gs_ir::Attr::Int(0));
    let y = rw.emit("concat", &all, attrs, At::End(graph)).unwrap();
    rw.add_result(graph, "y", y, None);
    module
}

fn set() -> RuleSet {
    rules(
        "rule exact transposes transpose(transpose($x) {perm = none}) {perm = none} => $x
         rule exact relus relu(relu($x)) => relu($x)
         rule exact all concat@c(each $q: relu($q)) => relu(concat($q...) {..$c})",
    )
}

fn timed(make: fn(usize) -> Module, ops: usize) -> (Stats, Duration) {
    let set = set();
    let mut best = None;
    for _ in 0..3 {
        let mut module = make(ops);
        let start = Instant::now();
        let stats = greedy(&mut module, &set, &GreedyOptions::default(), &NoEnv);
        let time = start.elapsed();
        if best.as_ref().is_none_or(|(_, t)| time < *t) {
            best = Some((stats, time));
        }
    }
    best.unwrap_or_default()
}

/// Ten times the operations may take so many times the time: the larger module leaves the caches, and the machine may
/// be busy. Quadratic work would take a hundred times as long.
const ROOM: u32 = 50;

/// Ten times the operations take about ten times the work: in visits exactly, in time with room.
fn grows_in_proportion(make: fn(usize) -> Module) {
    let (small, fast) = timed(make, 10_000);
    let (large, slow) = timed(make, 100_000);
    assert_eq!((small.limit, large.limit), (None, None));
    assert!(
        small.rewrites > 1000 && large.rewrites > 9 * small.rewrites && large.rewrites < 11 * small.rewrites
    );
    assert!(large.visits < 11 * small.visits, "{} visits, then {}", small.visits, large.visits);
    assert!(slow < ROOM * fast, "{fast:?}, then {slow:?}");
}

#[test]
fn a_chain() {
    grows_in_proportion(chain);
}

#[test]
fn a_star() {
    grows_in_proportion(star);
}

#[test]
fn insertions() {
    let set = inserts("insert probe match relu($x) at value $x emit identity($x)");
    let time = |ops: usize| {
        let once = || {
            let mut module = chain(ops);
            let start = Instant::now();
            let placed = insert(&mut module, &set, &NoEnv).unwrap().placed.len();
            assert_eq!(placed, 2 * (ops / 7));
            start.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap_or_default()
    };
    let (fast, slow) = (time(10_000), time(100_000));
    assert!(slow < ROOM * fast, "{fast:?}, then {slow:?}");
}
