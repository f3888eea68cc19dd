//! No operands and attributes, however absurd, make inference panic. Arithmetic is checked in test builds.

use super::*;
use crate::registry::Arity;
use crate::types::Shape;

/// A small generator of numbers; the sequence is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn int(&mut self) -> i64 {
        self.pick(&[
            i64::MIN,
            i64::MIN + 1,
            i32::MIN as i64,
            -3,
            -2,
            -1,
            0,
            0,
            1,
            1,
            2,
            2,
            3,
            4,
            65,
            i32::MAX as i64,
            i64::MAX,
        ])
    }

    fn dim(&mut self) -> Dim {
        match self.below(8) {
            0 => Dim::Unknown,
            1 => dim("N"),
            2 => dim("2*H+N*W+-3"),
            3 => dim("H+3").floor_div(2),
            4 => dim("9223372036854775807*N"),
            _ => self.int().into(),
        }
    }

    fn shape(&mut self) -> Shape {
        (0..self.below(6)).map(|_| self.dim()).collect()
    }

    fn operand(&mut self) -> Option<Fact> {
        let elem = self.pick(&[
            ElemType::F32,
            ElemType::F32,
            ElemType::F32,
            ElemType::I64,
            ElemType::I64,
            ElemType::I32,
            ElemType::U8,
            ElemType::U8,
            ElemType::Bool,
            ElemType::Str,
        ]);
        let shape = if self.below(6) == 0 { None } else { Some(self.shape()) };
        let ty = match self.below(20) {
            0 => return None,
            1 => Type::Any,
            2 => Type::Sequence(Box::new(Type::Any)),
            _ => Type::Tensor(TensorType { elem, shape }),
        };
        // Now and then contents that do not even agree with the type.
        let known = match self.below(3) {
            0 => Some(Known { elems: self.shape(), scalar: self.below(2) == 0 }),
            _ => None,
        };
        Some(Fact { ty, known })
    }

    fn attr(&mut self, kind: AttrKind) -> Attr {
        let ints = |g: &mut Self| (0..g.below(7)).map(|_| g.int()).collect::<Vec<_>>();
        match kind {
            AttrKind::Int => Attr::Int(self.int()),
            AttrKind::Float => Attr::float(self.pick(&[0.0, -1.0, f32::NAN, f32::INFINITY])),
            AttrKind::Bool => Attr::Bool(self.below(2) == 0),
            AttrKind::Enum(words) => Attr::str(self.pick(words)),
            AttrKind::Ints => Attr::ints(&ints(self)),
            AttrKind::Dims => Attr::dims(self.shape()),
            AttrKind::Elem => {
                Attr::Elem(self.pick(&[ElemType::I64, ElemType::I32, ElemType::U4, ElemType::Str]))
            }
            AttrKind::Tensor => Attr::Tensor(std::sync::Arc::new(Literal::new(
                self.pick(&[ElemType::I64, ElemType::I32, ElemType::F32]),
                ints(self),
                vec![0u8; 8 * self.below(3)],
            ))),
            other => panic!("no values of kind {other:?}"),
        }
    }
}

#[test]
fn nothing_panics() {
    let mut numbers = Numbers(1);
    let mut accepted = 0;
    for decl in crate::ops::all() {
        for _ in 0..3000 {
            let variadic = numbers.below(6);
            let count = |a: Arity| if a == Arity::Variadic { variadic } else { 1 };
            let places: usize = decl.operands.iter().map(|o| count(o.arity)).sum();
            let operands: Vec<Option<Fact>> = (0..places).map(|_| numbers.operand()).collect();
            let mut set = AttrSet::new();
            for a in decl.attrs {
                if numbers.below(3) > 0 {
                    set.set(a.name, numbers.attr(a.kind));
                }
            }
            let regions: Vec<Vec<Type>> = (0..numbers.below(3))
                .map(|_| (0..numbers.below(4)).filter_map(|_| numbers.operand()).map(|f| f.ty).collect())
                .collect();
            let results = 1 + numbers.below(4);
            accepted += usize::from(infer_facts(decl, &operands, &set, &regions, results).is_ok());
        }
    }
    // Enough of them must fit that the paths behind the checks are reached.
    assert!(accepted > 10_000, "{accepted}");
}
