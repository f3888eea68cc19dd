//! Prints globals: `param @w : f32[2] = dense(1.0, 2.0)`.

use super::options::Weights;
use super::print::Printer;
use super::print_attr::{push_attrs, push_contents};
use super::weights::TensorNames;
use crate::element::{push_element, push_f32, push_int, push_uint};
use crate::quote::{push_name, push_quoted};
use gs_ir::{
    Derived, Distribution, FloatBits, Global, Init, Module, OPAQUE_NAME, Role, TensorData, TensorType,
};
use std::fmt;

/// Whether the contents of a global are printed in the text, under these limits.
pub(super) fn is_inline(module: &Module, global: &Global, inline_limit: usize) -> bool {
    let Some(tensor) = module.ty(global.ty).as_tensor() else { return true };
    match &global.init {
        // What does not fit its type is no tensor that a file could hold: it appears as it is.
        Init::Data(data) => !fits(tensor, data) || tensor.count().is_none_or(|n| n <= inline_limit),
        _ => true,
    }
}

fn fits(tensor: &TensorType, data: &TensorData) -> bool {
    match (data, tensor.count()) {
        (TensorData::Bytes(b), Some(n)) => tensor.elem.bytes_for(n) == Some(b.len()),
        (TensorData::Strings(s), Some(n)) => tensor.elem == gs_ir::ElemType::Str && s.len() == n,
        (_, None) => false,
    }
}

impl Printer<'_, '_> {
    pub(super) fn globals(&mut self) -> fmt::Result {
        let m = self.m;
        let names = TensorNames::new(m, self.options.inline_limit);
        for (i, (id, global)) in m.globals().enumerate() {
            if i == 0 {
                self.buf.push('\n');
            }
            self.buf.push_str(global.role.name());
            self.buf.push_str(match (global.role == Role::Param, global.trainable) {
                (true, false) => " frozen",
                (false, true) => " trainable",
                _ => "",
            });
            self.buf.push_str(" @");
            push_name(&mut self.buf, m.str(global.name));
            self.buf.push_str(" : ");
            self.ty(global.ty);
            self.init(global, names.get(id));
            self.buf.push('\n');
            self.maybe_flush()?;
        }
        Ok(())
    }

    fn init(&mut self, global: &Global, tensor_name: Option<&str>) {
        let ty = self.m.ty(global.ty).as_tensor();
        match &global.init {
            Init::Absent => {}
            Init::Splat(one) => {
                self.buf.push_str(" = splat(");
                match ty {
                    Some(t) if t.elem.bytes_for(1) == Some(one.len()) => {
                        push_element(&mut self.buf, t.elem, one, 0)
                    }
                    _ => self.buf.push('?'), // contradicts its type; the parser will say so
                }
                self.buf.push(')');
            }
            Init::Seeded { seed, dist } => self.seeded(*seed, *dist),
            Init::Derived(derived) => self.derived(derived),
            Init::Data(data) => self.data(global, data, tensor_name),
        }
    }

    fn data(&mut self, global: &Global, data: &TensorData, tensor_name: Option<&str>) {
        match (&self.options.weights, tensor_name) {
            (Weights::File(file), Some(tensor)) => {
                self.buf.push_str(" = file(");
                push_quoted(&mut self.buf, file);
                self.buf.push_str(", ");
                push_quoted(&mut self.buf, tensor);
                self.buf.push(')');
            }
            (Weights::None, name) if name.is_some() || global.role == Role::Param => {}
            _ => {
                self.buf.push_str(" = ");
                let tensor = self.m.ty(global.ty).as_tensor();
                let elem = tensor.map_or(gs_ir::ElemType::U8, |t| t.elem);
                let dims = tensor.and_then(TensorType::const_dims).unwrap_or_else(|| vec![-1]);
                push_contents(&mut self.buf, elem, &dims, data);
            }
        }
    }

    fn seeded(&mut self, seed: u64, dist: Distribution) {
        let (name, FloatBits(a), FloatBits(b)) = match dist {
            Distribution::Uniform(low, high) => ("uniform", low, high),
            Distribution::Normal(mean, deviation) => ("normal", mean, deviation),
        };
        self.buf.push_str(&format!(" = {name}(seed "));
        push_uint(&mut self.buf, seed);
        for number in [a, b] {
            self.buf.push_str(", ");
            push_f32(&mut self.buf, number);
        }
        self.buf.push(')');
    }

    fn derived(&mut self, derived: &Derived) {
        let m = self.m;
        let decl = m.registry().decl(derived.kind);
        self.buf.push_str(" = ");
        self.op_name(decl, derived.attrs.str(OPAQUE_NAME));
        self.buf.push('(');
        for (i, operand) in derived.operands.iter().enumerate() {
            if i > 0 {
                self.buf.push_str(", ");
            }
            match operand {
                Some(global) => {
                    self.buf.push('@');
                    push_name(&mut self.buf, m.str(m.global(*global).name));
                }
                None => self.buf.push('_'),
            }
        }
        self.buf.push(')');
        push_attrs(&mut self.buf, &self.symbols, decl, &derived.attrs);
        if (derived.result, derived.results) != (0, 1) {
            self.buf.push_str(" #");
            push_int(&mut self.buf, i64::from(derived.result));
            self.buf.push('/');
            push_int(&mut self.buf, i64::from(derived.results));
        }
    }
}
