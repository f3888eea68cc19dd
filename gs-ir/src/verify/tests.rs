//! Modules that are wrong in one way each, built through the arena where the rewriter would not let it happen.

use super::{Place, verify};
use crate::attr::{AttrSet, TensorData};
use crate::dim::Dim;
use crate::elem::ElemType;
use crate::entity::{GraphId, ValueId};
use crate::global::{Init, Role};
use crate::module::Module;
use crate::rewriter::{At, NewGlobal, Rewriter};
use crate::types::Type;

fn f32s(n: i64) -> Type {
    Type::fixed(ElemType::F32, &[n])
}

/// `%y = relu(%x)`, returned as declared.
fn relu(declared: Option<Type>) -> (Module, GraphId, ValueId) {
    let mut module = Module::new();
    let mut r = Rewriter::new(&mut module);
    let g = r.add_graph("main");
    let x = r.add_param(g, "x", f32s(4));
    let y = r.emit("relu", &[x], AttrSet::new(), At::End(g)).unwrap();
    r.add_result(g, "y", y, declared);
    (module, g, y)
}

fn complaints(module: &Module) -> Vec<String> {
    verify(module).err().unwrap_or_default().iter().map(|e| e.describe(module)).collect()
}

#[test]
fn a_right_module_has_no_errors() {
    assert_eq!(complaints(&relu(None).0), [""; 0]);
    assert_eq!(complaints(&relu(Some(Type::unranked(ElemType::F32))).0), [""; 0]);
}

#[test]
fn a_declared_result_agrees_with_what_is_returned() {
    assert_eq!(
        complaints(&relu(Some(f32s(5))).0),
        ["graph @main: result 0 is declared as f32[5], but is f32[4]"]
    );
    let of_other_elements = Some(Type::fixed(ElemType::I8, &[4]));
    assert_eq!(
        complaints(&relu(of_other_elements).0),
        ["graph @main: result 0 is declared as i8[4], but is f32[4]"]
    );
}

#[test]
fn a_stated_type_agrees_with_the_inferred_one() {
    let (mut module, _, y) = relu(None);
    let wrong = Type::tensor(ElemType::F32, [Dim::symbol(module.symbol("N")), 7.into()]);
    Rewriter::new(&mut module).set_type(y, wrong);
    let said = complaints(&module);
    assert!(said.contains(&"relu: result 0 is stated as f32[N, 7], but is f32[4]".to_owned()), "{said:?}");
}

#[test]
fn a_value_is_defined_before_its_uses() {
    let (mut module, g, y) = relu(None);
    let mut r = Rewriter::new(&mut module);
    let z = r.emit("neg", &[y], AttrSet::new(), At::End(g)).unwrap();
    r.set_name(y, "y");
    let (first, last) = (r.producer(y).unwrap(), r.producer(z).unwrap());
    r.move_before(last, first);
    assert_eq!(complaints(&module), ["neg: it uses %y before or outside its definition"]);
}

#[test]
fn contents_fill_their_type_and_only_params_are_trainable() {
    let (mut module, _, _) = relu(None);
    let mut r = Rewriter::new(&mut module);
    let init = Init::Data(TensorData::Bytes(vec![0; 12].into()));
    r.add_global(NewGlobal { name: "c", role: Role::Const, trainable: true, ty: f32s(4), init });
    let errors = verify(&module).unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().all(|e| matches!(e.place, Place::Global(_))));
}

#[test]
fn a_const_is_never_stored_and_nothing_twice() {
    let (mut module, g, y) = relu(None);
    let mut r = Rewriter::new(&mut module);
    let init = Init::Data(TensorData::Bytes(vec![0; 16].into()));
    let c = r.add_global(NewGlobal { name: "c", role: Role::Const, trainable: false, ty: f32s(4), init });
    r.set_update(g, c, y);
    assert_eq!(complaints(&module), ["graph @main: @c is a const and cannot be stored"]);
}

#[test]
fn a_region_stores_nothing() {
    let (mut module, g, y) = relu(None);
    let mut r = Rewriter::new(&mut module);
    let yes = r.add_param(g, "c", Type::fixed(ElemType::Bool, &[]));
    let init = Init::Splat([0; 4].as_slice().into());
    let s = r.add_global(NewGlobal { name: "s", role: Role::State, trainable: false, ty: f32s(4), init });
    let kind = r.registry().kind("if").unwrap();
    let branch = r.create_typed(kind, &[Some(yes)], AttrSet::new(), &[f32s(4)], At::End(g));
    for name in ["then_branch", "else_branch"] {
        let region = r.add_region(branch, name);
        r.add_result(region, "", y, None);
        if name == "else_branch" {
            r.set_update(region, s, y);
        }
    }
    assert!(r.is_written(s));
    assert_eq!(
        complaints(&module),
        ["graph @else_branch: only an entry graph stores to globals, a region does not"]
    );
    Rewriter::new(&mut module).erase(branch);
    assert!(!module.is_written(s));
}

#[test]
fn a_derived_global_is_of_the_type_that_follows() {
    let (mut module, _, _) = relu(None);
    let mut r = Rewriter::new(&mut module);
    let init = Init::Splat([0; 4].as_slice().into());
    let base = r.add_global(NewGlobal { name: "b", role: Role::Const, trainable: false, ty: f32s(4), init });
    let kind = r.registry().kind("relu").unwrap();
    let made = r.derive_global("made", kind, AttrSet::new(), &[Some(base)]).unwrap();
    let init = r.global(made).init.clone();
    r.add_global(NewGlobal { name: "wrong", role: Role::Const, trainable: false, ty: f32s(5), init });
    let init = Init::Splat([0; 2].as_slice().into());
    r.add_global(NewGlobal { name: "half", role: Role::Const, trainable: false, ty: f32s(4), init });
    assert_eq!(
        complaints(&module),
        ["@wrong: it is stated as f32[5], but is f32[4]", "@half: an element has 4 bytes, the splat has 2"]
    );
}

#[test]
fn an_operation_has_the_results_that_it_must_have() {
    let (mut module, g, y) = relu(None);
    let mut r = Rewriter::new(&mut module);
    let kind = r.registry().kind("relu").unwrap();
    r.create_typed(kind, &[Some(y)], AttrSet::new(), &[], At::End(g));
    assert_eq!(complaints(&module), ["relu: it has 0 results, 1 are declared"]);
}

#[test]
fn names_of_the_interface_are_unique() {
    let (mut module, g, y) = relu(None);
    let mut r = Rewriter::new(&mut module);
    r.add_result(g, "y", y, None);
    r.add_result(g, "", y, None);
    r.add_result(g, "", y, None);
    r.add_param(g, "x", f32s(1));
    assert_eq!(
        complaints(&module),
        ["graph @main: two of its parameters are named `x`", "graph @main: two of its results are named `y`"]
    );
}
