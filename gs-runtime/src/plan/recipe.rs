//! Which kernel runs an operation: its constants and shapes are read here, once, when a plan is made. What no
//! kernel runs is left to the reference evaluator.

use super::grids::Grids;
use super::moves::Trace;
use super::plain::Plain;
use super::slot::{Code, Slot};
use gs_eval::Tensor;
use gs_ir::{AttrSet, Module, OpId};
use gs_kernels::{
    Clip, CodeType, ConvShape, Grid, LinearShape, NO_CLIP, OutGrid, QOutput, RELU, WeightOrder, code_table,
};

/// A kernel with its constants, before buffers are laid out.
#[derive(Clone, Debug)]
pub(crate) enum Recipe {
    /// Float convolution; a residual is added where a second operand is read.
    Conv { shape: ConvShape, weights: Tensor, bias: Option<Vec<f32>>, clip: Clip },
    /// Integer convolution.
    ConvQ {
        shape: ConvShape,
        x: Grid,
        weights: Vec<i8>,
        scales: Vec<f32>,
        bias: Option<Vec<i32>>,
        out: QOutput,
    },
    /// Float matrix product with a constant.
    Linear { shape: LinearShape, weights: Tensor, bias: Option<Vec<f32>>, clip: Clip },
    /// Integer matrix product with a constant.
    LinearQ {
        shape: LinearShape,
        x: Grid,
        weights: Vec<i8>,
        scales: Vec<f32>,
        bias: Option<Vec<i32>>,
        out: QOutput,
    },
    /// Pooling over windows.
    Pool { window: Window, kind: PoolKind },
    /// Data movement.
    Moves(Trace),
    /// What neither packs weights nor looks at layouts.
    Plain(Plain),
}

/// A pooling window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) pads: [usize; 4],
    pub(crate) dilation: [usize; 2],
    pub(crate) ceil_mode: bool,
}

/// What a pooling window computes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PoolKind {
    Max,
    MaxCodes(CodeType),
    Average { count_pads: bool },
    AverageCodes { count_pads: bool, x: Grid, out: OutGrid },
}

impl From<Plain> for Recipe {
    fn from(plain: Plain) -> Self {
        Recipe::Plain(plain)
    }
}

impl Recipe {
    /// The limits of a fused activation, where this recipe has them.
    pub(crate) fn clip_mut(&mut self) -> Option<&mut Clip> {
        match self {
            Recipe::Conv { clip, .. } | Recipe::Linear { clip, .. } => Some(clip),
            Recipe::Plain(plain) => plain.clip_mut(),
            _ => None,
        }
    }
}

/// An operation with what is known of its operands.
pub(crate) struct Site<'a> {
    pub(crate) module: &'a Module,
    pub(crate) op: OpId,
    /// Values of the segment that it reads; `None` for constants and absent ones.
    pub(crate) slots: Vec<Option<&'a Slot>>,
    /// Contents of constant operands.
    pub(crate) constants: Vec<Option<Tensor>>,
    /// Its result.
    pub(crate) result: &'a Slot,
}

/// The kernel for an operation, if there is one.
pub(crate) fn choose(site: &Site<'_>) -> Option<Recipe> {
    let recipe = by_name(site)?;
    let fits = match &recipe {
        Recipe::Plain(plain) => plain.fits(site.slots.iter().copied().flatten(), site.result),
        _ => true,
    };
    fits.then_some(recipe)
}

fn by_name(site: &Site<'_>) -> Option<Recipe> {
    let attrs = site.attrs();
    match site.module.op_name(site.op) {
        "conv" => conv(site),
        "gemm" => gemm(site),
        "matmul" => matmul(site),
        "relu" => site.float_map(Plain::Clip(RELU)).or_else(|| clip_codes(site, RELU)),
        "clip" => {
            let limits = (attrs.float("min", f32::NEG_INFINITY), attrs.float("max", f32::INFINITY));
            site.float_map(Plain::Clip(limits)).or_else(|| clip_codes(site, limits))
        }
        "add" => binary(site, Plain::Add(NO_CLIP), |c| (vec![1.0; c.len()], c.to_vec())),
        "mul" => binary(site, Plain::Mul(NO_CLIP), |c| (c.to_vec(), vec![0.0; c.len()])),
        "batch_norm" => batch_norm(site),
        "max_pool" => max_pool(site),
        "average_pool" => {
            let count_pads = attrs.bool("count_include_pad", false);
            site.float_map(Recipe::Pool { window: site.window()?, kind: PoolKind::Average { count_pads } })
        }
        "global_average_pool" => site.image(0).and_then(|_| site.float_map(Plain::GlobalAverage(None))),
        "softmax" => softmax_row(site).and_then(|row| site.float_map(Plain::Softmax(row))),
        "fake_quant" | "lsq" | "pact" => fake_quant(site),
        "quantize" => quantize(site),
        "dequantize" => dequantize(site),
        "qconv" => qconv(site),
        "qgemm" => qgemm(site),
        "qmatmul" => qmatmul(site),
        "qadd" => codes_binary(site).map(|(a, b, out)| Plain::AddQ { a, b, out }.into()),
        "qmul" => codes_binary(site).map(|(a, b, out)| Plain::MulQ { a, b, out }.into()),
        "qaverage_pool" => qaverage_pool(site),
        "qglobal_average_pool" => {
            site.image(0)?;
            let (x, out) = site.unary_grids()?;
            (attrs.int("channels_last", 0) == 0).then(|| Plain::GlobalAverage(Some((x, out))).into())
        }
        "qsoftmax" => {
            let (x, out) = site.unary_grids()?;
            Some(Plain::SoftmaxQ { row: softmax_row(site)?, x, out }.into())
        }
        "qsigmoid" => table(site, |v| 1.0 / (1.0 + (-v).exp())),
        "qleaky_relu" => {
            let alpha = attrs.float("alpha", 0.01);
            table(site, |v| if v >= 0.0 { v } else { v * alpha })
        }
        _ => None,
    }
}

impl Site<'_> {
    fn attrs(&self) -> &AttrSet {
        self.module.attrs_of(self.op)
    }

    fn slot(&self, i: usize) -> Option<&Slot> {
        self.slots.get(i).copied().flatten()
    }

    fn constant(&self, i: usize) -> Option<&Tensor> {
        self.constants.get(i).and_then(Option::as_ref)
    }

    fn is_absent(&self, i: usize) -> bool {
        self.slot(i).is_none() && self.constant(i).is_none()
    }

    /// `[c, h, w]` of an image operand.
    fn image(&self, i: usize) -> Option<[usize; 3]> {
        self.slot(i).and_then(|s| s.dims.as_slice().try_into().ok())
    }

    /// The recipe, if operand 0 and the result are floats.
    fn float_map(&self, recipe: impl Into<Recipe>) -> Option<Recipe> {
        (self.slot(0)?.code == Code::F32 && self.result.code == Code::F32).then(|| recipe.into())
    }

    fn f32s(&self, i: usize) -> Option<Vec<f32>> {
        self.constant(i)?.as_f32().map(<[f32]>::to_vec)
    }

    fn scalar(&self, i: usize) -> Option<f32> {
        match self.constant(i)?.as_f32()? {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// A grid from a scale and a zero point, both constants with one element.
    fn grid(&self, scale: usize, zero_point: usize, code: Code) -> Option<Grid> {
        let scale = self.scalar(scale)?;
        let zero_point = match self.constant(zero_point) {
            Some(t) => match t.to_i32s()?.as_slice() {
                [one] => *one,
                _ => return None,
            },
            None => 0,
        };
        let grid = Grid { code: code_type(code)?, scale, zero_point };
        grid.check().is_ok().then_some(grid)
    }

    fn out_grid(&self, scale: usize, zero_point: usize) -> Option<OutGrid> {
        self.grid(scale, zero_point, self.result.code).map(OutGrid::full)
    }

    /// Grids of operators of the form (x, x_scale, x_zp, y_scale, y_zp).
    fn unary_grids(&self) -> Option<(Grid, OutGrid)> {
        Some((self.grid(1, 2, self.slot(0)?.code)?, self.out_grid(3, 4)?))
    }

    /// The window attributes of a two-dimensional pooling or convolution; automatic padding is resolved before.
    fn window(&self) -> Option<Window> {
        let attrs = self.attrs();
        self.image(0)?;
        let kernel = pair(attrs.ints("kernel_shape")?)?;
        Some(Window {
            kernel,
            stride: pair_or_one(attrs, "strides")?,
            pads: pads(attrs)?,
            dilation: pair_or_one(attrs, "dilations")?,
            ceil_mode: attrs.bool("ceil_mode", false),
        })
    }

    fn conv_shape(&self, weight: &Tensor) -> Option<ConvShape> {
        shape_of_conv(self.attrs(), &self.image(0)?, weight.dims(), &self.result.dims)
    }
}

/// The shape of a two-dimensional convolution of images `[c, h, w]`, if these extents fit each other.
pub(crate) fn shape_of_conv(
    attrs: &AttrSet,
    x: &[usize],
    weight: &[usize],
    y: &[usize],
) -> Option<ConvShape> {
    let &[c_in, h, w] = x else { return None };
    let &[c_out, per_group, kh, kw] = weight else { return None };
    let groups = usize::try_from(attrs.int("group", 1)).ok().filter(|&g| g > 0)?;
    let shape = ConvShape {
        h,
        w,
        c_in,
        c_out,
        kernel: [kh, kw],
        stride: pair_or_one(attrs, "strides")?,
        pads: pads(attrs)?,
        dilation: pair_or_one(attrs, "dilations")?,
        groups,
    };
    let sound = h > 0 && w > 0 && shape.stride.iter().chain(&shape.dilation).all(|&n| n > 0);
    let fits = sound
        && c_out % groups == 0
        && per_group.checked_mul(groups) == Some(c_in)
        && *y == [c_out, shape.out_h(), shape.out_w()];
    fits.then_some(shape)
}

fn code_type(code: Code) -> Option<CodeType> {
    match code {
        Code::U8 => Some(CodeType::U8),
        Code::I8 => Some(CodeType::I8),
        Code::F32 => None,
    }
}

pub(crate) fn pair(v: &[i64]) -> Option<[usize; 2]> {
    match v {
        &[a, b] => Some([usize::try_from(a).ok()?, usize::try_from(b).ok()?]),
        _ => None,
    }
}

pub(crate) fn pair_or_one(attrs: &AttrSet, name: &str) -> Option<[usize; 2]> {
    attrs.ints(name).map_or(Some([1, 1]), pair)
}

pub(crate) fn pads(attrs: &AttrSet) -> Option<[usize; 4]> {
    if attrs.str("auto_pad").is_some_and(|s| s != "VALID") {
        return None;
    }
    match attrs.ints("pads") {
        None => Some([0; 4]),
        Some(&[a, b, c, d]) => Some([
            usize::try_from(a).ok()?,
            usize::try_from(b).ok()?,
            usize::try_from(c).ok()?,
            usize::try_from(d).ok()?,
        ]),
        Some(_) => None,
    }
}

fn conv(s: &Site<'_>) -> Option<Recipe> {
    let weights = s.constant(1)?.clone();
    weights.as_f32()?;
    let bias = if s.is_absent(2) { None } else { Some(s.f32s(2)?) };
    s.float_map(Recipe::Conv { shape: s.conv_shape(&weights)?, weights, bias, clip: NO_CLIP })
}

fn gemm(s: &Site<'_>) -> Option<Recipe> {
    let attrs = s.attrs();
    let plain =
        attrs.float("alpha", 1.0) == 1.0 && attrs.float("beta", 1.0) == 1.0 && !attrs.bool("trans_a", false);
    let shape = linear_shape(s, 1, attrs.bool("trans_b", false)).filter(|_| plain)?;
    let weights = s.constant(1)?.clone();
    weights.as_f32()?;
    let bias = if s.is_absent(2) { None } else { Some(spread(s.f32s(2)?, shape.outputs)?) };
    s.float_map(Recipe::Linear { shape, weights, bias, clip: NO_CLIP })
}

fn matmul(s: &Site<'_>) -> Option<Recipe> {
    let weights = s.constant(1)?.clone();
    weights.as_f32()?;
    let shape = linear_shape(s, 1, false)?;
    s.float_map(Recipe::Linear { shape, weights, bias: None, clip: NO_CLIP })
}

/// A bias of one element for all outputs, or of one each.
fn spread(bias: Vec<f32>, outputs: usize) -> Option<Vec<f32>> {
    match bias.len() {
        1 => Some(vec![bias[0]; outputs]),
        n if n == outputs => Some(bias),
        _ => None,
    }
}

/// The product of the last axis of operand 0 with a constant matrix. Images lie otherwise and are left out.
fn linear_shape(s: &Site<'_>, weight: usize, transposed: bool) -> Option<LinearShape> {
    let &[rows, columns] = s.constant(weight)?.dims() else { return None };
    let (inputs, outputs) = if transposed { (columns, rows) } else { (rows, columns) };
    let x = s.slot(0).filter(|x| x.image().is_none() && x.dims.last() == Some(&inputs))?;
    let order = if transposed { WeightOrder::OutIn } else { WeightOrder::InOut };
    let fits = s.result.image().is_none() && s.result.count() / outputs.max(1) == x.count() / inputs.max(1);
    fits.then_some(LinearShape { inputs, outputs, order })
}

/// Two values of the same extents, or a value and one constant per channel (or for all).
fn binary(s: &Site<'_>, both: Plain, affine: impl Fn(&[f32]) -> (Vec<f32>, Vec<f32>)) -> Option<Recipe> {
    if let (Some(a), Some(b)) = (s.slot(0), s.slot(1)) {
        let same = a.dims == s.result.dims && b.dims == s.result.dims && b.code == Code::F32;
        return s.float_map(both).filter(|_| same);
    }
    let (x, constant) = match (s.slot(0), s.slot(1)) {
        (Some(x), None) => (x, s.constant(1)?),
        (None, Some(x)) => (x, s.constant(0)?),
        _ => return None,
    };
    let channels = channels(x);
    let per_channel = is_per_channel(constant, x, channels);
    let values = constant.as_f32()?;
    let values: Vec<f32> = match values {
        [one] => vec![*one; channels],
        v if per_channel => v.to_vec(),
        _ => return None,
    };
    let (scale, shift) = affine(&values);
    let fits = x.code == Code::F32 && s.result.dims == x.dims;
    fits.then(|| Plain::Affine { scale, shift, clip: NO_CLIP }.into())
}

/// Extent of the axis that lies innermost in the buffer.
fn channels(slot: &Slot) -> usize {
    match slot.image() {
        Some(i) => i.c,
        None => slot.dims.last().copied().unwrap_or(1),
    }
}

/// Whether a constant has one element per innermost channel: `[C, 1, 1]` beside an image, `[C]` beside rows.
fn is_per_channel(constant: &Tensor, x: &Slot, channels: usize) -> bool {
    let dims = constant.dims();
    let rank = x.dims.len() + 1;
    if constant.len() != channels || dims.len() > rank {
        return false;
    }
    let place = if x.image().is_some() { rank - 3 } else { rank - 1 };
    dims.iter().enumerate().all(|(i, &d)| d == 1 || i + rank - dims.len() == place)
}

fn batch_norm(s: &Site<'_>) -> Option<Recipe> {
    let x = s.slot(0).filter(|x| x.image().is_some() || x.dims.len() == 1)?;
    let (gamma, beta, mean, var) = (s.f32s(1)?, s.f32s(2)?, s.f32s(3)?, s.f32s(4)?);
    let n = channels(x);
    if [&gamma, &beta, &mean, &var].iter().any(|v| v.len() != n) {
        return None;
    }
    let epsilon = f64::from(s.attrs().float("epsilon", 1e-5));
    let (scale, shift) = norm_factors([&gamma, &beta, &mean, &var], epsilon);
    s.float_map(Plain::Affine { scale, shift, clip: NO_CLIP })
}

/// Scale and shift of each channel, from gamma, beta, mean and variance.
pub(crate) fn norm_factors([gamma, beta, mean, var]: [&[f32]; 4], epsilon: f64) -> (Vec<f32>, Vec<f32>) {
    let factor = |c: usize| f64::from(gamma[c]) / (f64::from(var[c]) + epsilon).sqrt();
    let shift = |c: usize| (f64::from(beta[c]) - f64::from(mean[c]) * factor(c)) as f32;
    (0..gamma.len()).map(|c| (factor(c) as f32, shift(c))).unzip()
}

fn max_pool(s: &Site<'_>) -> Option<Recipe> {
    let window = s.window()?;
    let kind = match s.slot(0)?.code {
        Code::F32 => PoolKind::Max,
        code => PoolKind::MaxCodes(code_type(code)?),
    };
    (s.slot(0)?.code == s.result.code).then_some(Recipe::Pool { window, kind })
}

fn softmax_row(s: &Site<'_>) -> Option<usize> {
    let x = s.slot(0).filter(|x| x.image().is_none())?;
    let rank = x.dims.len() as i64 + 1;
    let attrs = s.attrs();
    let legacy = attrs.bool("legacy", false);
    let axis = attrs.int("axis", if legacy { 1 } else { -1 });
    let axis = if axis < 0 { axis + rank } else { axis };
    (axis == rank - 1).then(|| x.dims.last().copied()).flatten()
}

fn quantize(s: &Site<'_>) -> Option<Recipe> {
    (s.slot(0)?.code == Code::F32).then_some(())?;
    Some(Plain::Quantize(s.out_grid(1, 2)?).into())
}

fn dequantize(s: &Site<'_>) -> Option<Recipe> {
    let grid = s.grid(1, 2, s.slot(0)?.code)?;
    (s.result.code == Code::F32).then(|| Plain::Dequantize(grid).into())
}

/// Signed weights with zero point 0; their scales.
fn code_weights(s: &Site<'_>, weight: usize, scale: usize, zero_point: usize) -> Option<(Vec<i8>, Vec<f32>)> {
    let zero = s.constant(zero_point).is_none_or(|z| z.to_i32s().is_some_and(|z| z.iter().all(|&z| z == 0)));
    let weights = s.constant(weight).filter(|t| zero && t.elem() == gs_ir::ElemType::I8)?;
    let codes = weights.to_i32s()?.into_iter().map(|v| v as i8).collect();
    Some((codes, s.f32s(scale)?))
}

fn codes_bias(s: &Site<'_>, i: usize) -> Option<Option<Vec<i32>>> {
    if s.is_absent(i) { Some(None) } else { Some(Some(s.constant(i)?.to_i32s()?)) }
}

fn qconv(s: &Site<'_>) -> Option<Recipe> {
    let (weights, scales) = code_weights(s, 3, 4, 5)?;
    Some(Recipe::ConvQ {
        shape: s.conv_shape(s.constant(3)?)?,
        x: s.grid(1, 2, s.slot(0)?.code)?,
        weights,
        scales,
        bias: codes_bias(s, 8)?,
        out: QOutput::Codes(s.out_grid(6, 7)?),
    })
}

fn qgemm(s: &Site<'_>) -> Option<Recipe> {
    let attrs = s.attrs();
    let plain = attrs.float("alpha", 1.0) == 1.0 && !attrs.bool("trans_a", false);
    let shape = linear_shape(s, 3, attrs.bool("trans_b", false)).filter(|_| plain)?;
    let (weights, scales) = code_weights(s, 3, 4, 5)?;
    let out = if s.is_absent(7) { QOutput::Float } else { QOutput::Codes(s.out_grid(7, 8)?) };
    Some(Recipe::LinearQ {
        shape,
        x: s.grid(1, 2, s.slot(0)?.code)?,
        weights,
        scales,
        bias: codes_bias(s, 6)?,
        out,
    })
}

fn qmatmul(s: &Site<'_>) -> Option<Recipe> {
    let shape = linear_shape(s, 3, false)?;
    let (weights, scales) = code_weights(s, 3, 4, 5)?;
    let out = QOutput::Codes(s.out_grid(6, 7)?);
    Some(Recipe::LinearQ { shape, x: s.grid(1, 2, s.slot(0)?.code)?, weights, scales, bias: None, out })
}

/// Grids of operators of the form (a, a_scale, a_zp, b, b_scale, b_zp, y_scale, y_zp), equal extents.
fn codes_binary(s: &Site<'_>) -> Option<(Grid, Grid, OutGrid)> {
    let (a, b) = (s.slot(0)?, s.slot(3)?);
    let same = a.dims == s.result.dims && b.dims == s.result.dims;
    let grids = (s.grid(1, 2, a.code)?, s.grid(4, 5, b.code)?, s.out_grid(6, 7)?);
    same.then_some(grids)
}

fn qaverage_pool(s: &Site<'_>) -> Option<Recipe> {
    let attrs = s.attrs();
    let (x, out) = s.unary_grids()?;
    let count_pads = attrs.bool("count_include_pad", false);
    let kind = PoolKind::AverageCodes { count_pads, x, out };
    (attrs.int("channels_last", 0) == 0).then_some(Recipe::Pool { window: s.window()?, kind })
}

fn table(s: &Site<'_>, f: impl Fn(f32) -> f32) -> Option<Recipe> {
    let (x, out) = s.unary_grids()?;
    Some(Plain::Table(Box::new(code_table(&x, &out, f).ok()?)).into())
}

/// A quantiser of training, with one grid for the whole value.
fn fake_quant(s: &Site<'_>) -> Option<Recipe> {
    let grids = Grids::of(s.module, s.op)?;
    let parameters = s.constant(1)?;
    let one = match grids {
        Grids::OfRange(_) => parameters.dims() == [2],
        Grids::Learned { .. } => parameters.dims().is_empty(),
    };
    let grid = grids.all(parameters.as_f32().filter(|_| one)?).next()?;
    s.float_map(Plain::FakeQuant(grid))
}

/// Limits of codes without a grid: activations of few bits are cut so, and relu is one.
fn clip_codes(s: &Site<'_>, (low, high): Clip) -> Option<Recipe> {
    let code = s.slot(0)?.code;
    if code != s.result.code {
        return None;
    }
    let (low, high) = (low.ceil() as i32, high.floor() as i32);
    // Where the limits contradict each other, the upper one holds, as it does for floats.
    let clipped = |byte: u8| {
        let number = match code {
            Code::U8 => i32::from(byte),
            Code::I8 => i32::from(byte as i8),
            Code::F32 => return None,
        };
        let number = number.max(low).min(high);
        match code {
            Code::U8 => u8::try_from(number).ok(),
            _ => i8::try_from(number).ok().map(|n| n as u8),
        }
    };
    let mut table = [0u8; 256];
    for (byte, place) in (0..=u8::MAX).zip(&mut table) {
        *place = clipped(byte)?;
    }
    Some(Plain::Table(Box::new(table)).into())
}
