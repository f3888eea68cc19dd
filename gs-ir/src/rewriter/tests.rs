//! Use lists, names and types stay right.

use super::{At, Rewriter};
use crate::attr::AttrSet;
use crate::elem::ElemType;
use crate::module::Module;
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
