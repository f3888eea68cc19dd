//! Sliding windows over spatial axes, for convolutions and pools of any rank: the extents of the result, and which
//! input position stands under each kernel position of each window.

use super::ctx::{OpCtx, OpError};
use crate::tensor::HOLE;

/// One spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// Padding before the first element; what stands behind the last follows from the output.
    pub(super) pad: i64,
    /// Padding behind the last element, as stated or computed.
    pub(super) pad_end: i64,
}

/// A window over all spatial axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) axes: Vec<Axis>,
    /// The window of a transposed convolution: the input is spread by the stride, the kernel gathers from it.
    transposed: bool,
}

/// What the attributes `strides`, `pads`, `dilations`, `auto_pad` say for one axis.
struct Steps {
    stride: usize,
    dilation: usize,
    begin: i64,
    end: i64,
}

fn positive(v: i64, name: &'static str) -> Result<usize, OpError> {
    usize::try_from(v).ok().filter(|&v| v > 0).ok_or(OpError::Attr { name, reason: "must be positive" })
}

fn steps(ctx: &OpCtx<'_>, rank: usize) -> Result<Vec<Steps>, OpError> {
    let or_default = |name: &'static str| {
        // Pools of old opset versions declare no dilations.
        if ctx.attrs.get(name).is_none() && ctx.decl.attr(name).is_none() {
            Ok(vec![1; rank])
        } else {
            ctx.ints(name, rank)
        }
    };
    let (strides, dilations) = (or_default("strides")?, or_default("dilations")?);
    let pads = ctx.ints("pads", rank * 2)?;
    if pads.iter().any(|p| p.unsigned_abs() >= FAR) {
        return Err(OpError::Attr { name: "pads", reason: "are too large" });
    }
    let one = |i: usize| {
        Ok(Steps {
            stride: positive(strides[i], "strides")?,
            dilation: positive(dilations[i], "dilations")?,
            begin: pads[i],
            end: pads[i + rank],
        })
    };
    (0..rank).map(one).collect()
}

/// Extent that a dilated kernel covers.
fn span(kernel: usize, dilation: usize) -> Result<i64, OpError> {
    let far = kernel.checked_sub(1).and_then(|k| k.checked_mul(dilation)).and_then(|s| i64::try_from(s).ok());
    far.filter(|s| s.unsigned_abs() < FAR)
        .map(|s| s + 1)
        .ok_or(OpError::Attr { name: "kernel_shape", reason: "makes no window" })
}

/// Extents, steps and pads stay below this, so that sums and products of two of them with a step fit.
pub(super) const FAR: u64 = 1 << 40;

fn narrow(extent: usize) -> Result<i64, OpError> {
    i64::try_from(extent)
        .ok()
        .filter(|e| e.unsigned_abs() < FAR)
        .ok_or_else(|| OpError::TooLarge(vec![extent]))
}

impl Window {
    /// The window of a convolution or pool over these spatial input extents.
    pub(super) fn forward(
        ctx: &OpCtx<'_>,
        input: &[usize],
        kernel: &[usize],
        ceil: bool,
    ) -> Result<Self, OpError> {
        if input.len() != kernel.len() {
            return Err(OpError::Extents {
                what: "kernel and input",
                left: kernel.to_vec(),
                right: input.to_vec(),
            });
        }
        let auto = ctx.word("auto_pad").unwrap_or("NOTSET");
        let mut axes = Vec::with_capacity(input.len());
        for (i, s) in steps(ctx, input.len())?.into_iter().enumerate() {
            axes.push(forward_axis(input[i], kernel[i], &s, auto, ceil)?);
        }
        Ok(Self { axes, transposed: false })
    }

    /// The window of a transposed convolution.
    pub(super) fn backward(ctx: &OpCtx<'_>, input: &[usize], kernel: &[usize]) -> Result<Self, OpError> {
        if input.len() != kernel.len() {
            return Err(OpError::Extents {
                what: "kernel and input",
                left: kernel.to_vec(),
                right: input.to_vec(),
            });
        }
        let rank = input.len();
        let auto = ctx.word("auto_pad").unwrap_or("NOTSET");
        let extra = ctx.ints("output_padding", rank)?;
        let wanted = ctx.ints_if("output_shape");
        let mut axes = Vec::with_capacity(rank);
        for (i, s) in steps(ctx, rank)?.into_iter().enumerate() {
            // The shape may also be given with batch and channels in front.
            let wanted = wanted.and_then(|w| w.get((i + w.len()).checked_sub(rank)?).copied());
            axes.push(backward_axis(input[i], kernel[i], &s, auto, extra[i], wanted)?);
        }
        Ok(Self { axes, transposed: true })
    }

    /// A window that covers each whole spatial axis at once.
    pub(super) fn whole(input: &[usize]) -> Self {
        let one =
            |&d: &usize| Axis { input: d, output: 1, kernel: d, stride: 1, dilation: 1, pad: 0, pad_end: 0 };
        Self { axes: input.iter().map(one).collect(), transposed: false }
    }

    /// Spatial extents of the result.
    pub(super) fn output(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.output).collect()
    }

    /// Number of spatial positions of input, kernel and output, where these fit.
    pub(super) fn counts(&self) -> Result<(usize, usize, usize), OpError> {
        let product = |f: fn(&Axis) -> usize| {
            let dims: Vec<usize> = self.axes.iter().map(f).collect();
            crate::tensor::count(&dims).ok_or(OpError::TooLarge(dims))
        };
        Ok((product(|a| a.input)?, product(|a| a.kernel)?, product(|a| a.output)?))
    }

    /// The input position under kernel position `k` of the window at output position `o` of one axis.
    fn source(&self, axis: &Axis, o: usize, k: usize) -> Option<usize> {
        let (o, k) = (o as i64, (k * axis.dilation) as i64);
        let at = if self.transposed {
            let spread = o + axis.pad - k;
            if spread < 0 || spread % axis.stride as i64 != 0 {
                return None;
            }
            spread / axis.stride as i64
        } else {
            o * axis.stride as i64 - axis.pad + k
        };
        usize::try_from(at).ok().filter(|&at| at < axis.input)
    }

    /// For kernel position `k` (row-major over all axes), the input position under it for each output position
    /// `range` (row-major, images one behind the other), [`HOLE`] in the padding. Images lie `image` elements apart
    /// in the input.
    pub(super) fn sources(&self, k: usize, range: std::ops::Range<usize>, image: usize) -> Vec<usize> {
        // Per axis, the input offset of each output coordinate, so that a position is a sum of table entries.
        let mut tables: Vec<Vec<usize>> = vec![Vec::new(); self.axes.len()];
        let (mut k, mut size) = (k, 1usize);
        for (axis, table) in self.axes.iter().zip(&mut tables).rev() {
            let at = k.checked_rem(axis.kernel).unwrap_or(0);
            k = k.checked_div(axis.kernel).unwrap_or(0);
            *table = (0..axis.output).map(|o| self.source(axis, o, at).map_or(HOLE, |s| s * size)).collect();
            size *= axis.input;
        }
        range.map(|o| offset(&tables, o, image)).collect()
    }
}

/// The sum of the table entries of a row-major position; what is left of it counts images.
fn offset(tables: &[Vec<usize>], mut o: usize, image: usize) -> usize {
    let mut sum = 0;
    for table in tables.iter().rev() {
        let extent = table.len().max(1);
        match table.get(o % extent) {
            Some(&t) if t != HOLE => sum += t,
            _ => return HOLE,
        }
        o /= extent;
    }
    sum + o * image
}

fn forward_axis(input: usize, kernel: usize, s: &Steps, auto: &str, ceil: bool) -> Result<Axis, OpError> {
    let (extent, covered, stride) = (narrow(input)?, span(kernel, s.dilation)?, narrow(s.stride)?);
    let (output, begin, end) = match auto {
        "SAME_UPPER" | "SAME_LOWER" => {
            let output = extent.div_ceil_of(stride);
            let total = ((output - 1) * stride + covered - extent).max(0);
            let less = total / 2;
            let begin = if auto == "SAME_UPPER" { less } else { total - less };
            (output, begin, total - begin)
        }
        _ => {
            let (begin, end) = if auto == "VALID" { (0, 0) } else { (s.begin, s.end) };
            let room = begin + end + extent - covered;
            if room < 0 {
                let right = vec![usize::try_from(covered).unwrap_or(usize::MAX)];
                return Err(OpError::Extents { what: "padded input and kernel", left: vec![input], right });
            }
            let mut output = if ceil { room.div_ceil_of(stride) } else { room / stride } + 1;
            // A window must start on the input or on the padding before it.
            if ceil && (output - 1) * stride >= extent + begin {
                output -= 1;
            }
            (output, begin, end)
        }
    };
    let output = usize::try_from(output).map_err(|_| OpError::TooLarge(vec![input]))?;
    Ok(Axis { input, output, kernel, stride: s.stride, dilation: s.dilation, pad: begin, pad_end: end })
}

fn backward_axis(
    input: usize,
    kernel: usize,
    s: &Steps,
    auto: &str,
    extra: i64,
    wanted: Option<i64>,
) -> Result<Axis, OpError> {
    let (extent, covered, stride) = (narrow(input)?, span(kernel, s.dilation)?, narrow(s.stride)?);
    let bad = OpError::Attr { name: "pads", reason: "leave no output" };
    let full = (extent - 1)
        .checked_mul(stride)
        .and_then(|f| f.checked_add(covered))
        .and_then(|f| f.checked_add(extra));
    let full = full.ok_or_else(|| bad.clone())?;
    let same = matches!(auto, "SAME_UPPER" | "SAME_LOWER");
    // Where the kernel is shorter than the stride, places at the end are reached by no element.
    let wanted = wanted.or_else(|| same.then(|| extent.saturating_mul(stride)));
    let (begin, end) = match wanted {
        Some(output) => {
            let total = full.checked_sub(output).ok_or_else(|| bad.clone())?.max(0);
            let less = total / 2;
            if auto == "SAME_UPPER" { (less, total - less) } else { (total - less, less) }
        }
        None if auto == "VALID" => (0, 0),
        None => (s.begin, s.end),
    };
    let output = match wanted {
        Some(w) => Some(w),
        None => full.checked_sub(begin).and_then(|o| o.checked_sub(end)).filter(|&o| o > 0),
    };
    let output = output.and_then(|o| usize::try_from(o).ok()).ok_or(bad)?;
    Ok(Axis { input, output, kernel, stride: s.stride, dilation: s.dilation, pad: begin, pad_end: end })
}

/// `i64::div_ceil` for non-negative numbers (the standard one is not stable for signed types).
trait DivCeil {
    fn div_ceil_of(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_of(self, by: i64) -> i64 {
        self / by + i64::from(self % by > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(stride: usize, dilation: usize, begin: i64, end: i64) -> Steps {
        Steps { stride, dilation, begin, end }
    }

    #[test]
    fn extents_of_results() {
        let of = |input, kernel, s: Steps, auto, ceil| forward_axis(input, kernel, &s, auto, ceil).unwrap();
        assert_eq!(of(5, 3, steps(1, 1, 1, 1), "NOTSET", false).output, 5);
        assert_eq!(of(5, 3, steps(2, 2, 0, 0), "NOTSET", false).output, 1);
        assert_eq!(of(4, 3, steps(2, 1, 0, 0), "NOTSET", true).output, 2);
        // The third window would start in the padding behind the input.
        assert_eq!(of(2, 1, steps(2, 1, 0, 1), "NOTSET", true).output, 1);
        let same = of(5, 2, steps(1, 1, 0, 0), "SAME_LOWER", false);
        assert_eq!((same.output, same.pad, same.pad_end), (5, 1, 0));
        let same = of(5, 2, steps(1, 1, 0, 0), "SAME_UPPER", false);
        assert_eq!((same.output, same.pad, same.pad_end), (5, 0, 1));
        assert!(forward_axis(2, 3, &steps(1, 1, 0, 0), "NOTSET", false).is_err());
        assert!(forward_axis(2, 0, &steps(1, 1, 0, 0), "NOTSET", false).is_err());
        assert!(forward_axis(2, 3, &steps(1, usize::MAX, 0, 0), "NOTSET", false).is_err());
    }

    #[test]
    fn extents_of_transposed_results() {
        let of = |wanted, auto, extra| backward_axis(3, 3, &steps(2, 1, 0, 0), auto, extra, wanted).unwrap();
        assert_eq!(of(None, "NOTSET", 0).output, 7);
        assert_eq!(of(None, "NOTSET", 1).output, 8);
        assert_eq!((of(None, "SAME_UPPER", 0).output, of(None, "SAME_UPPER", 0).pad), (6, 0));
        assert_eq!(of(Some(10), "NOTSET", 0).output, 10);
        for auto in ["SAME_UPPER", "SAME_LOWER"] {
            let short = backward_axis(3, 1, &steps(2, 1, 0, 0), auto, 0, None).unwrap();
            assert_eq!((short.output, short.pad), (6, 0));
        }
    }

    #[test]
    fn sources_of_two_axes() {
        let axis = |input, output, kernel, stride, pad| Axis {
            input,
            output,
            kernel,
            stride,
            dilation: 1,
            pad,
            pad_end: 0,
        };
        let w = Window { axes: vec![axis(3, 2, 2, 1, 0), axis(4, 2, 2, 2, 1)], transposed: false };
        assert_eq!(w.sources(0, 0..4, 0), [HOLE, 1, HOLE, 5]);
        assert_eq!(w.sources(3, 0..5, 100), [4, 6, 8, 10, 104]);
        let t = Window { axes: vec![axis(2, 3, 2, 2, 0)], transposed: true };
        assert_eq!(t.sources(0, 0..3, 0), [0, HOLE, 1]);
        assert_eq!(t.sources(1, 0..3, 0), [HOLE, 0, HOLE]);
    }
}
