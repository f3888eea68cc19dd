//! Use lists, names and types stay right.

use super::{At, Rewriter};
use crate::attr::{Attr, AttrSet};
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::entity::{GlobalId, OpId, Sym};
use crate::global::{Init, Role};
use crate::infer::Knowledge;
use crate::module::Module;
use crate::phase::Phase;
use crate::rewriter::Event;
use crate::rewriter::NewGlobal;
use crate::types::Type;

fn f32s() -> Type {
    Type::fixed(ElemType::F32, &[4])
}

#[test]
fn an_operation_that_uses_a_value_twice_can_be_erased() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let g = r.add_graph("main");
    let x = r.add_param(g, "x", f32s());
    let y = r.emit("add", &[x, x], AttrSet::new(), At::End(g)).unwrap();
    let z = r.emit("add", &[x, x], AttrSet::new(), At::End(g)).unwrap();
    r.add_result(g, "a", x, None);
    r.add_result(g, "b", x, None);
    r.add_result(g, "c", z, None);
    let op = r.producer(y).unwrap();
    r.erase(op);
    crate::verify(&module).unwrap();
    assert_eq!(module.value(x).uses().len(), 4);
    Rewriter::new(&mut module).erase_graph(g);
    assert!(module.value(x).uses().is_empty());
}

#[test]
fn replacing_uses_keeps_interface_names_and_use_lists() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let g = r.add_graph("main");
    let x = r.add_param(g, "x", f32s());
    let y = r.emit("relu", &[x], AttrSet::new(), At::End(g)).unwrap();
    let z = r.emit("add", &[y, y], AttrSet::new(), At::End(g)).unwrap();
    r.add_result(g, "out", y, None);
    r.add_result(g, "sum", z, None);
    let op = r.producer(y).unwrap();
    let entry = r.entry("removed", "test", None, None);
    r.replace(op, &[x], None, entry);
    crate::verify(&module).unwrap();
    assert_eq!(module.value(x).uses().len(), 3);
    let names: Vec<&str> = module.graph(g).result_names().map(|n| module.str(n)).collect();
    assert_eq!(names, ["out", "sum"]);
}

#[test]
fn a_changed_type_reaches_the_users() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let g = r.add_graph("main");
    let x = r.add_param(g, "x", f32s());
    let wide = r.add_param(g, "wide", Type::fixed(ElemType::F32, &[8]));
    let y = r.emit("relu", &[x], AttrSet::new(), At::End(g)).unwrap();
    let z = r.emit("relu", &[y], AttrSet::new(), At::End(g)).unwrap();
    let op = r.producer(y).unwrap();
    r.set_operand(op, 0, Some(wide));
    assert_eq!(module.type_of(z), &Type::fixed(ElemType::F32, &[8]));
}

/// A chain of `relu`, each from a source node of its own; the operations and the names.
fn chain(r: &mut Rewriter<'_>, length: usize) -> (Vec<OpId>, Vec<Sym>) {
    let g = r.add_graph("main");
    let mut value = r.add_param(g, "x", f32s());
    let (mut ops, mut names) = (Vec::new(), Vec::new());
    for i in 0..length {
        value = r.emit("relu", &[value], AttrSet::new(), At::End(g)).unwrap();
        let op = r.producer(value).unwrap();
        names.push(r.intern(&format!("r{i}")));
        r.set_source(op, &names[i..=i]);
        ops.push(op);
    }
    r.add_result(g, "y", value, None);
    (ops, names)
}

fn gone(module: &Module) -> Vec<&str> {
    module.gone.keys().map(|&s| module.str(s)).collect()
}

#[test]
fn what_stands_in_regions_is_accounted_for() {
    for heir in [false, true] {
        let mut module = Module::new();
        let mut r = Rewriter::new(&mut module);
        let g = r.add_graph("main");
        let x = r.add_param(g, "x", f32s());
        let yes = r.add_param(g, "c", Type::fixed(ElemType::Bool, &[]));
        let kind = r.registry().kind("if").unwrap();
        let branch = r.create_typed(kind, &[Some(yes)], AttrSet::new(), &[f32s()], At::End(g));
        let outer = r.intern("If1");
        r.set_source(branch, &[outer]);
        for (region, op) in [("then_branch", "relu"), ("else_branch", "neg")] {
            let graph = r.add_region(branch, region);
            let y = r.emit(op, &[x], AttrSet::new(), At::End(graph)).unwrap();
            let (inner, name) = (r.producer(y).unwrap(), r.intern(op));
            r.set_source(inner, &[name]);
            r.add_result(graph, "", y, None);
        }
        let last = r.emit("relu", &[x], AttrSet::new(), At::End(g)).unwrap();
        r.add_result(g, "y", last, None);
        let into = r.producer(last).filter(|_| heir);
        let entry = r.entry("removed", "test", None, None);
        r.retire(branch, into, entry);
        crate::verify(&module).unwrap();
        let last = module.producer(last).unwrap();
        let taken: Vec<&str> = module.source_of(last).iter().map(|&s| module.str(s)).collect();
        let names = ["If1", "relu", "neg"];
        assert_eq!(
            (gone(&module), taken),
            if heir { (vec![], names.into()) } else { (names.into(), vec![]) }
        );
    }
}

#[test]
fn a_name_is_gone_with_its_last_operation() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let (ops, names) = chain(&mut r, 2);
    r.set_source(ops[1], &names[..1]);
    let entry = r.entry("removed", "test", None, None);
    let input = r.op(ops[0]).operand(0).unwrap();
    r.replace(ops[0], &[input], None, entry.clone());
    assert!(r.gone.is_empty() && r.is_live_source(names[0]));
    r.replace(ops[1], &[input], None, entry);
    assert_eq!(gone(&module), ["r0"]);
}

#[test]
fn merging_a_long_chain_is_linear_in_memory_and_keeps_every_name() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let (ops, names) = chain(&mut r, 20_000);
    let entry = r.entry("merged", "test", None, None);
    for pair in ops.windows(2) {
        let input = r.op(pair[0]).operand(0).unwrap();
        r.replace(pair[0], &[input], Some(pair[1]), entry.clone());
    }
    let last = ops[ops.len() - 1];
    assert_eq!(module.source_of(last).len(), names.len());
    assert!(module.gone.is_empty());
    // Each name, and each step, is one list of constant size.
    assert!(module.sources.len() <= 2 * names.len() + 1);
}

#[test]
fn what_was_taken_goes_to_an_heir_that_is_made_later_or_is_gone() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let (ops, names) = chain(&mut r, 3);
    let entry = r.entry("removed", "test", None, None);
    let input = r.op(ops[0]).operand(0).unwrap();
    let (g, results) = (r.op(ops[0]).graph, [0, 1].map(|i| r.op(ops[i]).result()));
    results.iter().for_each(|&v| r.replace_uses(v, input));
    let taken = [0, 1].map(|i| r.take_source(ops[i]));
    ops[..2].iter().for_each(|&op| assert!(r.erase(op).is_empty()));
    let made = r.emit("neg", &[input], AttrSet::new(), At::End(g)).unwrap();
    let heir = r.producer(made);
    let [first, second] = taken;
    r.give_source(first, heir, &entry);
    r.give_source(second, Some(ops[0]), &entry); // erased: no heir
    assert_eq!(module.source_of(heir.unwrap()).as_slice(), &names[..1]);
    assert_eq!(gone(&module), ["r1"]);
}

#[test]
fn globals_of_one_base_name_get_the_first_free_suffix() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let add = |r: &mut Rewriter<'_>| {
        let init = Init::Splat([0; 4].as_slice().into());
        r.add_global(NewGlobal { name: "w", role: Role::Const, trainable: false, ty: f32s(), init })
    };
    let ids: Vec<_> = (0..20_000).map(|_| add(&mut r)).collect();
    assert_eq!(r.str(r.global(ids[19_999]).name), "w.19999");
    r.remove_global(ids[7]);
    let again = [add(&mut r), add(&mut r)];
    assert_eq!(again.map(|g| r.str(r.global(g).name)), ["w.7", "w.20000"]);
}

fn symbolic(module: &mut Module, rest: i64) -> Type {
    Type::tensor(ElemType::F32, [Dim::symbol(module.symbol("N")), rest.into()])
}

#[test]
fn a_stated_extent_goes_when_the_operand_changes_and_stays_when_it_does_not() {
    let mut module = Module::new();
    let open = symbolic(&mut module, 2);
    let mut r = Rewriter::new(&mut module);
    let g = r.add_graph("main");
    let x = r.add_param(g, "x", open.clone());
    let like_x = r.add_param(g, "like_x", open.clone());
    let fixed = r.add_param(g, "fixed", Type::fixed(ElemType::F32, &[4, 2]));
    let y = r.emit("relu", &[x], AttrSet::new(), At::End(g)).unwrap();
    let z = r.emit("neg", &[y], AttrSet::new(), At::End(g)).unwrap();
    let stated = Type::fixed(ElemType::F32, &[4, 2]);
    r.set_type(y, stated.clone());
    r.set_type(z, stated.clone());
    let (relu, neg) = (r.producer(y).unwrap(), r.producer(z).unwrap());
    r.set_operand(relu, 0, Some(like_x));
    assert_eq!((r.type_of(y), r.type_of(z)), (&stated, &stated));
    r.set_operand(relu, 0, Some(fixed));
    r.take_events();
    r.set_operand(relu, 0, Some(x));
    assert_eq!((r.type_of(y), r.type_of(z)), (&open, &open));
    assert!(r.take_events().contains(&Event::Changed(neg)));
}

#[test]
fn an_extent_that_nobody_can_say_is_its_own_symbol_still() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let g = r.add_graph("main");
    let [a, b, c] = ["A", "B", "C"].map(|name| {
        let extent = Dim::symbol(r.symbol(name));
        r.add_param(g, name, Type::tensor(ElemType::F32, [extent]))
    });
    let y = r.emit("add", &[a, b], AttrSet::new(), At::End(g)).unwrap();
    let own = r.type_of(y).clone();
    let op = r.producer(y).unwrap();
    r.set_operand(op, 0, Some(c));
    assert_eq!(r.type_of(y), &own);
    r.set_type(y, Type::fixed(ElemType::F32, &[16]));
    r.set_operand(op, 1, Some(a));
    let fresh = r.type_of(y).dims().unwrap()[0].as_symbol().unwrap();
    assert_eq!(r.symbol_info(fresh).name, None);
}

#[test]
fn a_changed_type_leaves_a_region() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let g = r.add_graph("main");
    let x = r.add_param(g, "x", f32s());
    let wide = r.add_param(g, "wide", Type::fixed(ElemType::F32, &[8]));
    let yes = r.add_param(g, "c", Type::fixed(ElemType::Bool, &[]));
    let first = r.emit("relu", &[x], AttrSet::new(), At::End(g)).unwrap();
    let kind = r.registry().kind("if").unwrap();
    let branch = r.create_typed(kind, &[Some(yes)], AttrSet::new(), &[f32s()], At::End(g));
    for (name, op) in [("then_branch", "relu"), ("else_branch", "neg")] {
        let region = r.add_region(branch, name);
        let y = r.emit(op, &[first], AttrSet::new(), At::End(region)).unwrap();
        r.add_result(region, "", y, None);
    }
    let result = r.op(branch).result();
    let last = r.emit("relu", &[result], AttrSet::new(), At::End(g)).unwrap();
    r.add_result(g, "y", last, Some(Type::unranked(ElemType::F32)));
    let op = r.producer(first).unwrap();
    r.set_operand(op, 0, Some(wide));
    assert_eq!(r.type_of(last), &Type::fixed(ElemType::F32, &[8]));
    // Both branches return something else.
    for region in r.op(branch).regions().to_vec() {
        r.set_result(region, 0, x);
    }
    assert_eq!(r.type_of(last), &f32s());
    crate::verify(&module).unwrap();
}

#[test]
fn retyping_visits_an_operation_once_however_many_ways_lead_to_it() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let g = r.add_graph("main");
    let [narrow, wide] = [1, 2].map(|n| r.add_param(g, "", Type::fixed(ElemType::F32, &[n])));
    let first = r.emit("relu", &[narrow], AttrSet::new(), At::End(g)).unwrap();
    let mut value = first;
    for _ in 0..40 {
        let side = r.emit("relu", &[value], AttrSet::new(), At::End(g)).unwrap();
        let kind = r.registry().kind("concat").unwrap();
        let attrs = [("axis", Attr::Int(0))].into_iter().collect();
        let both = r.create(kind, &[Some(value), Some(side)], attrs, 1, At::End(g)).unwrap();
        value = r.op(both).result();
    }
    r.take_events();
    let op = r.producer(first).unwrap();
    r.set_operand(op, 0, Some(wide));
    assert_eq!(r.type_of(value), &Type::fixed(ElemType::F32, &[1 << 41]));
    let changed = r.take_events().iter().filter(|e| matches!(e, Event::Changed(_))).count();
    assert_eq!(changed, 81);
}

fn constant(r: &mut Rewriter<'_>, name: &str, count: i64) -> GlobalId {
    let init = Init::Splat([0; 4].as_slice().into());
    let ty = Type::fixed(ElemType::F32, &[count]);
    r.add_global(NewGlobal { name, role: Role::Const, trainable: false, ty, init })
}

#[test]
fn what_is_derived_follows_its_base() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let base = constant(&mut r, "base", 4);
    let [relu, add] = ["relu", "add"].map(|n| r.registry().kind(n).unwrap());
    let one = r.derive_global("one", relu, AttrSet::new(), &[Some(base)]).unwrap();
    let two = r.derive_global("two", add, AttrSet::new(), &[Some(one), Some(base)]).unwrap();
    let g = r.add_graph("main");
    let read = r.global(two).value;
    let y = r.emit("neg", &[read], AttrSet::new(), At::End(g)).unwrap();
    r.add_result(g, "y", y, Some(Type::unranked(ElemType::F32)));
    let init = r.global(base).init.clone();
    r.set_global(base, Type::fixed(ElemType::F32, &[8]), init);
    assert_eq!(r.type_of(y), &Type::fixed(ElemType::F32, &[8]));
    crate::verify(&module).unwrap();
}

#[test]
fn equal_derivations_are_shared_where_they_are_constant() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let (base, other) = (constant(&mut r, "base", 4), constant(&mut r, "other", 4));
    let relu = r.registry().kind("relu").unwrap();
    let one = r.derive_global("one", relu, AttrSet::new(), &[Some(base)]).unwrap();
    assert_eq!(r.derive_global("again", relu, AttrSet::new(), &[Some(base)]), Ok(one));
    // A parameter may be changed by training.
    r.set_role(one, Role::Param, true);
    let constant = r.derive_global("again", relu, AttrSet::new(), &[Some(base)]).unwrap();
    assert_ne!(constant, one);
    // Other contents are found under what they are now.
    let init = r.global(constant).init.clone();
    r.set_global(other, f32s(), init);
    r.remove_global(constant);
    r.set_global(other, f32s(), Init::Absent);
    let init = r.global(one).init.clone();
    r.set_global(other, f32s(), init);
    assert_eq!(r.derive_global("last", relu, AttrSet::new(), &[Some(base)]), Ok(other));
}

#[test]
fn what_a_graph_stores_to_is_no_constant() {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let main = r.add_graph("main");
    let x = r.add_param(main, "x", f32s());
    r.add_result(main, "x", x, None);
    let g = r.add_graph("observe");
    let init = Init::Splat([0; 8].as_slice().into());
    let ty = Type::fixed(ElemType::I64, &[1]);
    let c = r.add_global(NewGlobal { name: "c", role: Role::Const, trainable: false, ty, init });
    let value = r.global(c).value;
    assert!(Knowledge::new(&r).of(value).is_some());
    let scale = constant(&mut r, "scale", 1);
    let read = r.global(scale).value;
    let kind = r.registry().kind("qdq").unwrap();
    let zero = Init::Splat([0].as_slice().into());
    let ty = Type::fixed(ElemType::I8, &[1]);
    let zero = r.add_global(NewGlobal { name: "z", role: Role::Const, trainable: false, ty, init: zero });
    let zero = r.global(zero).value;
    let w = r.add_param(g, "w", f32s());
    r.create_typed(kind, &[Some(w), Some(read), Some(zero)], AttrSet::new(), &[f32s()], At::End(g));
    assert_eq!(Phase::of(&r), Phase::Frozen);
    r.set_update(g, c, value);
    r.set_update(g, scale, read);
    r.set_update(g, scale, read);
    assert_eq!(Knowledge::new(&r).of(value), None);
    assert_eq!(Phase::of(&r), Phase::Instrumented);
    r.erase_graph(g);
    assert!(!r.is_written(c) && !r.is_written(scale));
    assert_eq!(Phase::of(&r), Phase::Float);
}
