//! The arithmetic of sliding windows, for convolutions and pools alike.

use super::support::{fail, list, show};
use crate::dim::Dim;
use crate::infer::{InferCtx, InferError};
use crate::registry::{AttrDecl, AttrKind, Default, OnnxAttr};

/// What `auto_pad` may be. With another word than `NOTSET` the attribute `pads` has no effect.
pub(crate) const AUTO_PAD: AttrDecl = AttrDecl::new(
    "auto_pad",
    AttrKind::Enum(&["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    Default::Word("NOTSET"),
);
/// Steps of the window, one per spatial axis.
pub(crate) const STRIDES: AttrDecl = AttrDecl::new("strides", AttrKind::Ints, Default::All(1));
/// Padding before all spatial axes, then after all.
pub(crate) const PADS: AttrDecl = AttrDecl::new("pads", AttrKind::Ints, Default::All(0));
/// Distances of the window's elements, one per spatial axis.
pub(crate) const DILATIONS: AttrDecl = AttrDecl::new("dilations", AttrKind::Ints, Default::All(1));
/// Whether a last window that reaches over the end counts.
pub(crate) const CEIL_MODE: AttrDecl = AttrDecl::new("ceil_mode", AttrKind::Bool, Default::Bool(false));

/// `strides` under ONNX's name.
pub(crate) const ONNX_STRIDES: OnnxAttr = OnnxAttr::Same("strides", "strides");
/// `pads` under ONNX's name.
pub(crate) const ONNX_PADS: OnnxAttr = OnnxAttr::Same("pads", "pads");
/// `dilations` under ONNX's name.
pub(crate) const ONNX_DILATIONS: OnnxAttr = OnnxAttr::Same("dilations", "dilations");
/// `auto_pad` under ONNX's name.
pub(crate) const ONNX_AUTO_PAD: OnnxAttr = OnnxAttr::Same("auto_pad", "auto_pad");
/// `ceil_mode` under ONNX's name.
pub(crate) const ONNX_CEIL_MODE: OnnxAttr = OnnxAttr::Same("ceil_mode", "ceil_mode");

/// The window attributes of one operation.
pub(crate) struct Window {
    axes: Vec<Step>,
    auto: Auto,
    ceil: bool,
}

/// How the window moves along one spatial axis.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) stride: i64,
    pub(crate) dilation: i64,
    before: i64,
    after: i64,
}

#[derive(Clone, Copy, PartialEq)]
enum Auto {
    None,
    Valid,
    Same,
}

impl Window {
    /// Reads and checks the attributes for this many spatial axes. An attribute that the operator lacks has its
    /// usual default.
    pub(crate) fn read(ctx: &InferCtx<'_>, count: usize) -> Result<Window, InferError> {
        let auto = match ctx.decl.word(ctx.attrs, "auto_pad") {
            Some("SAME_UPPER" | "SAME_LOWER") => Auto::Same,
            Some("VALID") => Auto::Valid,
            _ => Auto::None,
        };
        let pads = if auto == Auto::None { entries(ctx, "pads", 2 * count, 0)? } else { vec![0; 2 * count] };
        let (strides, dilations) = (entries(ctx, "strides", count, 1)?, entries(ctx, "dilations", count, 1)?);
        let (before, after) = pads.split_at(count);
        let axes = strides.iter().zip(&dilations).zip(before.iter().zip(after));
        let step = |((&stride, &dilation), (&before, &after))| Step { stride, dilation, before, after };
        Ok(Window { axes: axes.map(step).collect(), auto, ceil: ctx.decl.flag(ctx.attrs, "ceil_mode") })
    }

    /// How the window moves along each spatial axis.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.axes
    }

    /// The extents of the result: the numbers of places of the window along each spatial axis.
    pub(crate) fn places(&self, input: &[Dim], kernel: &[Dim]) -> Result<Vec<Dim>, InferError> {
        let along = self.axes.iter().zip(input.iter().zip(kernel)).enumerate();
        along.map(|(axis, (step, (input, kernel)))| self.places_along(axis, step, input, kernel)).collect()
    }

    fn places_along(&self, axis: usize, step: &Step, input: &Dim, kernel: &Dim) -> Result<Dim, InferError> {
        if self.auto == Auto::Same {
            return Ok(input.add(&(step.stride - 1).into()).floor_div(step.stride));
        }
        let reach = step.reach(kernel);
        let span = input.add(&step.before.into()).add(&step.after.into()).sub(&reach);
        let places = if self.ceil {
            step.ceil_places(input, &span, &reach)
        } else {
            span.floor_div(step.stride).add(&1.into())
        };
        // A window that does not fit at all has no place, also where a last one may reach over the end.
        let fits = !matches!(span, Dim::Const(n) if n < 0);
        match places {
            Dim::Const(n) if n < 1 || !fits => fail(format!(
                "a window that reaches over {} elements does not fit spatial axis {axis}: its extent is {}, padded by {} and {}",
                show(&reach),
                show(input),
                step.before,
                step.after
            )),
            places => Ok(places),
        }
    }

    /// The extents of a transposed convolution's result, which inverts [`Window::places`]; `extra` is added at the end.
    pub(crate) fn spread(
        &self,
        input: &[Dim],
        kernel: &[Dim],
        extra: &[i64],
    ) -> Result<Vec<Dim>, InferError> {
        let along = self.axes.iter().zip(input.iter().zip(kernel)).zip(extra).enumerate();
        along
            .map(|(axis, ((step, (input, kernel)), &extra))| {
                if self.auto == Auto::Same {
                    return Ok(input.mul(&step.stride.into()));
                }
                let first = input.sub(&1.into()).mul(&step.stride.into());
                let full = first.add(&step.reach(kernel)).add(&extra.into());
                match full.sub(&step.before.into()).sub(&step.after.into()) {
                    Dim::Const(n) if n < 1 => fail(format!(
                        "nothing is left of spatial axis {axis}: the result has {} elements, of which the padding takes {} and {}",
                        show(&full),
                        step.before,
                        step.after
                    )),
                    extent => Ok(extent),
                }
            })
            .collect()
    }
}

impl Step {
    /// Elements from the window's first to its last.
    fn reach(&self, kernel: &Dim) -> Dim {
        kernel.sub(&1.into()).mul(&self.dilation.into()).add(&1.into())
    }

    /// With `ceil_mode`: a last window that reaches over the end counts when it begins inside the input or its
    /// front padding.
    fn ceil_places(&self, input: &Dim, span: &Dim, reach: &Dim) -> Dim {
        let places = span.add(&(self.stride - 1).into()).floor_div(self.stride).add(&1.into());
        match (&places, &input.add(&self.before.into()), reach) {
            (Dim::Const(n), Dim::Const(end), _) => {
                let begin = n.saturating_sub(1).saturating_mul(self.stride);
                Dim::Const(if begin >= *end { n.saturating_sub(1) } else { *n })
            }
            // The last window can begin beyond the end only where the back padding makes up for what it reaches over.
            (_, _, Dim::Const(reach)) if *reach >= self.after.saturating_add(self.stride) => places,
            _ => Dim::Unknown,
        }
    }
}

/// A list attribute whose entries are at least `least`, which is also what stands for an attribute that is not declared.
fn entries(ctx: &InferCtx<'_>, name: &str, count: usize, least: i64) -> Result<Vec<i64>, InferError> {
    if ctx.decl.attr(name).is_none() {
        return Ok(vec![least; count]);
    }
    let values = list(ctx, name, count)?;
    match values.iter().find(|v| **v < least) {
        Some(v) => fail(format!("attribute `{name}` has an entry {v}; the least is {least}")),
        None => Ok(values),
    }
}
