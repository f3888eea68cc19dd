//! Reading the contents of constants as numbers, for conditions and number patterns.

use super::functions::{Refusal, View};
use gs_eval::Materializer;
use gs_ir::{ElemType, Global, GlobalId, Init, Module, Role, TensorData, Type, ValueId};

/// Derived constants of more elements than this are not evaluated for the sake of a rule.
pub(super) const DERIVED_LIMIT: usize = 1 << 16;

/// The elements of a constant value, as numbers, in order.
///
/// # Errors
/// As [`numbers`].
pub(super) fn of_value(view: &dyn View, value: ValueId, limit: usize) -> Result<Vec<f64>, Refusal> {
    let global = view.global(value).ok_or("it is not a constant")?;
    let ty = view.type_of(value);
    match derived(view, global, ty, value) {
        Some(data) => numbers(&holding(global, data), ty, limit),
        None => numbers(global, ty, limit),
    }
}

/// Whether every element of a constant value satisfies a test.
///
/// # Errors
/// As [`numbers`], without a limit.
pub(super) fn all_of_value(
    view: &dyn View,
    value: ValueId,
    test: impl Fn(f64) -> bool,
) -> Result<bool, Refusal> {
    let global = view.global(value).ok_or("it is not a constant")?;
    let ty = view.type_of(value);
    match derived(view, global, ty, value) {
        Some(data) => all(&holding(global, data), ty, test),
        None => all(global, ty, test),
    }
}

/// Bytes that the evaluation of a derived constant may take for the sake of a rule: a small one may be made from
/// large ones, and a short text can describe contents of any size.
const EVALUATED_BYTES: usize = 1 << 28;

/// The contents of a derived constant, computed; none where that takes too much memory or fails.
pub(crate) fn evaluate(module: &Module, global: GlobalId) -> Option<TensorData> {
    Materializer::new(module).with_byte_limit(EVALUATED_BYTES).data(global).ok()
}

/// The global with contents that were computed.
fn holding(global: &Global, data: TensorData) -> Global {
    let mut global = global.clone();
    global.init = Init::Data(data);
    global
}

/// The contents of a small constant that is made from others.
fn derived(view: &dyn View, global: &Global, ty: &Type, value: ValueId) -> Option<TensorData> {
    let small = ty.as_tensor().and_then(|t| t.count()).is_some_and(|n| n <= DERIVED_LIMIT);
    (matches!(global.init, Init::Derived(_)) && small).then(|| view.evaluated(value)).flatten()
}

/// The elements of a constant, as numbers, in order.
///
/// # Errors
/// Where it is no constant (a parameter may still be trained), its contents are not in memory, are no real
/// numbers, or are more than `limit`.
pub(super) fn numbers(global: &Global, ty: &Type, limit: usize) -> Result<Vec<f64>, Refusal> {
    let (elem, count) = layout(global, ty)?;
    if count > limit {
        return Err(format!("it has {count} elements, more than the {limit} that are looked at"));
    }
    match &global.init {
        Init::Splat(one) => Ok(vec![element(elem, one, 0).ok_or_else(|| unreadable(elem))?; count]),
        Init::Data(TensorData::Bytes(b)) => {
            (0..count).map(|i| element(elem, b, i).ok_or_else(|| unreadable(elem))).collect()
        }
        _ => Err("its contents are not in memory".to_owned()),
    }
}

/// Whether every element of a constant satisfies a test; stops at the first that does not.
///
/// # Errors
/// As [`numbers`], without a limit.
pub(super) fn all(global: &Global, ty: &Type, test: impl Fn(f64) -> bool) -> Result<bool, Refusal> {
    let (elem, count) = layout(global, ty)?;
    match &global.init {
        Init::Splat(one) => Ok(count == 0 || test(element(elem, one, 0).ok_or_else(|| unreadable(elem))?)),
        Init::Data(TensorData::Bytes(b)) => {
            for i in 0..count {
                if !test(element(elem, b, i).ok_or_else(|| unreadable(elem))?) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Err("its contents are not in memory".to_owned()),
    }
}

fn layout(global: &Global, ty: &Type) -> Result<(ElemType, usize), Refusal> {
    if global.role != Role::Const {
        return Err(format!("it is a {}, not a constant", global.role.name()));
    }
    let tensor = ty.as_tensor().ok_or("it is not a tensor")?;
    let count = tensor.count().ok_or("its extents are not numbers")?;
    Ok((tensor.elem, count))
}

fn unreadable(elem: ElemType) -> Refusal {
    format!("elements of type {elem} are not read here")
}

/// The element at a place of packed contents.
pub(super) fn element(elem: ElemType, bytes: &[u8], index: usize) -> Option<f64> {
    let bits = elem.bits() as usize;
    let raw = match bits {
        0 => return None,
        1..=7 => {
            let byte = *bytes.get(index.checked_mul(bits)? / 8)?;
            u64::from(byte >> (index * bits % 8)) & ((1 << bits) - 1)
        }
        8..=64 => {
            let width = bits / 8;
            let start = index.checked_mul(width)?;
            let chunk = bytes.get(start..start.checked_add(width)?)?;
            chunk.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b))
        }
        _ => return None,
    };
    match elem {
        ElemType::F64 => Some(f64::from_bits(raw)),
        ElemType::F32 => Some(f64::from(f32::from_bits(raw as u32))),
        ElemType::Bf16 => Some(f64::from(f32::from_bits((raw as u32) << 16))),
        ElemType::F16 => Some(half(raw as u16)),
        ElemType::Bool => Some(if raw == 0 { 0.0 } else { 1.0 }),
        _ if elem.is_signed_int() => Some((((raw << (64 - bits)) as i64) >> (64 - bits)) as f64),
        _ if elem.is_int() => Some(raw as f64),
        _ => None,
    }
}

/// An IEEE half as a number.
fn half(raw: u16) -> f64 {
    let sign = if raw >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(raw >> 10 & 31), f64::from(raw & 1023));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1.0 + fraction / 1024.0) * 2f64.powi(e - 15),
    }
}

/// The packed little-endian bytes of one element that holds a number exactly (floats: rounded to the type).
pub(crate) fn encode(elem: ElemType, value: f64) -> Option<Vec<u8>> {
    match elem {
        ElemType::F64 => Some(value.to_le_bytes().to_vec()),
        ElemType::F32 => Some((value as f32).to_le_bytes().to_vec()),
        _ if elem.is_float() => {
            let one = gs_eval::Tensor::from_f64s(elem, [], &[value]).ok()?;
            one.data().bytes().map(|b| b.to_vec())
        }
        ElemType::Bool if value == 0.0 || value == 1.0 => Some(vec![value as u8]),
        _ => {
            let (low, high) = elem.int_range()?;
            let whole = value as i64;
            if whole as f64 != value || !(low..=high).contains(&whole) {
                return None;
            }
            let bits = elem.bits();
            let masked = if bits >= 64 { whole as u64 } else { whole as u64 & ((1 << bits) - 1) };
            Some(masked.to_le_bytes()[..bits.div_ceil(8) as usize].to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_width() {
        assert_eq!(element(ElemType::I4, &[0xf1], 0), Some(1.0));
        assert_eq!(element(ElemType::I4, &[0xf1], 1), Some(-1.0));
        assert_eq!(element(ElemType::U2, &[0b1101_0010], 3), Some(3.0));
        assert_eq!(element(ElemType::I8, &[0x80], 0), Some(-128.0));
        assert_eq!(element(ElemType::U8, &[0x80], 0), Some(128.0));
        assert_eq!(element(ElemType::I32, &(-7i32).to_le_bytes(), 0), Some(-7.0));
        assert_eq!(element(ElemType::F16, &0x3c00u16.to_le_bytes(), 0), Some(1.0));
        assert_eq!(element(ElemType::F16, &0xc100u16.to_le_bytes(), 0), Some(-2.5));
        assert_eq!(element(ElemType::F16, &1u16.to_le_bytes(), 0), Some(2f64.powi(-24)));
        assert_eq!(element(ElemType::Bf16, &0x3f80u16.to_le_bytes(), 0), Some(1.0));
        assert_eq!(element(ElemType::F32, &[0, 0], 0), None);
    }

    /// No condition takes half a gigabyte to answer a question about one number.
    #[test]
    fn a_number_made_from_a_vast_tensor_is_not_computed() {
        let mut module = Module::new();
        let mut rw = gs_ir::Rewriter::new(&mut module);
        let kind = rw.registry().kind("reduce_sum").unwrap();
        let mut sum = |n: i64| {
            let ty = Type::fixed(ElemType::F32, &[n]);
            let init = Init::Splat(1.0f32.to_le_bytes().into_iter().collect());
            let (name, role) = (&*format!("w{n}"), Role::Const);
            let w = rw.add_global(gs_ir::NewGlobal { name, role, trainable: false, ty, init });
            let attrs = gs_ir::AttrSet::new()
                .with("axes", gs_ir::Attr::ints(&[0]))
                .with("keepdims", gs_ir::Attr::Bool(false));
            rw.derive_global("sum", kind, attrs, &[Some(w)]).unwrap()
        };
        let (small, vast) = (sum(8), sum(1 << 27));
        assert_eq!(evaluate(&module, small).unwrap().bytes().unwrap().as_ref(), 8.0f32.to_le_bytes());
        assert_eq!(evaluate(&module, vast), None);
    }

    #[test]
    fn encode_is_the_inverse_and_refuses_what_does_not_fit() {
        use ElemType::*;
        for elem in [I8, I4, I32, I64, F64, F32, F16, Bf16] {
            assert_eq!(element(elem, &encode(elem, -3.0).unwrap(), 0), Some(-3.0), "{elem}");
        }
        assert_eq!(encode(ElemType::U8, -1.0), None);
        assert_eq!(encode(ElemType::I8, 0.5), None);
    }
}
