//! What does not fit is refused, in words that name the operand and both sides.

use super::*;

fn table(cases: &[(&str, &str, &str, &str)]) {
    for (name, operands, attrs, words) in cases {
        refused(name, operands, attrs, words);
    }
}

#[test]
fn convolutions() {
    table(&[
        ("conv", "f32[N,3,8,8]", "", "operand `w` is missing"),
        ("conv", "f32[N,3,8,8] f32[4,2,3,3]", "", "`x` has 3 channels (axis 1), but `w` reads 2"),
        ("conv", "f32[N,3,8,8] f32[4,3,3]", "", "must have the same rank"),
        ("conv", "f32[N,3] f32[4,3]", "", "at least one spatial axis"),
        (
            "conv",
            "f32[N,4,8,8] f32[3,2,3,3]",
            "group=2",
            "(axis 0 of `w`) is 3, which group = 2 does not divide",
        ),
        ("conv", "f32[N,4,8,8] f32[3,2,3,3]", "group=0", "`group` must be at least 1"),
        ("conv", "f32[N,3,8,8] f32[4,3,3,3] f32[5]", "", "the length of `b` is 5 but"),
        (
            "conv",
            "f32[N,3,8,8] f32[4,3,3,3] f32[4,1]",
            "",
            "operand `b` must have rank 1, its shape is [4, 1]",
        ),
        (
            "conv",
            "f32[N,3,8,8] f16[4,3,3,3]",
            "",
            "operands `x` and `w` must have the same elements, they have f32 and f16",
        ),
        ("conv", "f32[N,3,8,8] f32[4,3,3,3]", "strides=0,1", "`strides` has an entry 0; the least is 1"),
        ("conv", "f32[N,3,8,8] f32[4,3,3,3]", "strides=2", "`strides` has 1 entries, 2 are needed"),
        ("conv", "f32[N,3,8,8] f32[4,3,3,3]", "pads=2,2", "`pads` has 2 entries, 4 are needed"),
        ("conv", "f32[N,3,8,8] f32[4,3,3,3]", "pads=-1,0,0,0", "`pads` has an entry -1"),
        (
            "conv",
            "f32[N,3,2,8] f32[4,3,3,3]",
            "",
            "reaches over 3 elements does not fit spatial axis 0: its extent is 2",
        ),
        ("conv", "f32[N,3,4,8] f32[4,3,3,3]", "dilations=2,1", "reaches over 5 elements"),
        ("conv_transpose", "f32[N,3,8,8] f32[4,2,3,3]", "", "(axis 1 of `x`) is 3 but axis 0 of `w` is 4"),
        ("conv_transpose", "f32[N,3,8] f32[3,2,3]", "group=2", "which group = 2 does not divide"),
        ("conv_transpose", "f32[N,4,8] f32[4,2,3] f32[2]", "group=2", "the length of `b` is 2"),
        (
            "conv_transpose",
            "f32[N,4,8] f32[4,2,3]",
            "strides=2 output_padding=2",
            "`output_padding` has an entry 2",
        ),
        ("conv_transpose", "f32[N,4,1] f32[4,2,1]", "pads=1,1", "nothing is left of spatial axis 0"),
    ]);
}

#[test]
fn matrix_products() {
    table(&[
        ("gemm", "f32[N,64] f32[10,64]", "", "axis 1 of `a` is 64 but axis 0 of `b` is 10"),
        ("gemm", "f32[N,64] f32[64,10]", "trans_b=true", "axis 1 of `a` is 64 but axis 1 of `b` is 10"),
        ("gemm", "f32[N,2,64] f32[64,10]", "", "operand `a` must have rank 2"),
        ("gemm", "f32[N,64] f32[64,10] f32[11]", "", "operand `c` [11] do not broadcast"),
        (
            "gemm",
            "f32[1,64] f32[64,10] f32[2,10]",
            "",
            "operand `c` [2, 10] does not broadcast to the product [1, 10]",
        ),
        ("gemm", "f32[N,64] f32[64,10] f32[1,1,10]", "", "does not broadcast to the product"),
        ("matmul", "f32[] f32[64,10]", "", "operand `a` is a scalar"),
        (
            "matmul",
            "f32[N,64] f32[63,10]",
            "",
            "the last axis of `a` is 64 but the last but one axis of `b` is 63",
        ),
        ("matmul", "f32[N,64] f32[63]", "", "the only axis of `b` is 63"),
        (
            "matmul",
            "f32[2,4,64] f32[3,64,5]",
            "",
            "the leading axes of `a` [2] and those of `b` [3] do not broadcast",
        ),
        ("matmul", "f32[N,64] f64[64,10]", "", "f32 and f64"),
    ]);
}

#[test]
fn normalisations() {
    table(&[
        ("batch_norm", "f32[N,16] f32[8] f32[16] f32[16] f32[16]", "", "the length of `scale` is 8"),
        ("batch_norm", "f32[N,16] f32[16] f32[16] f32[16] f32[16,1]", "", "operand `var` must have rank 1"),
        ("batch_norm", "f32[N] f32[16] f32[16] f32[16] f32[16]", "", "has no channel axis"),
        (
            "batch_norm",
            "u8[N,4] f32[4] f32[4] f32[4] f32[4]",
            "",
            "`x` must have floating-point elements, it has u8",
        ),
        (
            "layer_norm",
            "f32[N,64] f32[32]",
            "",
            "operand `scale` [32] does not broadcast to the normalised axes [64]",
        ),
        ("layer_norm", "f32[N,64] f32[64]", "axis=2", "axis 2 is outside a tensor of rank 2"),
        ("softmax", "f32[N,64]", "axis=-3", "axis -3 is outside"),
        ("softmax", "i64[N,64]", "", "floating-point"),
    ]);
}

#[test]
fn elementwise() {
    table(&[
        ("exp", "i64[N]", "", "operand `x` must have floating-point elements, it has i64"),
        ("relu", "bool[N]", "", "numeric"),
        ("cast", "f32[N]", "", "`to` is missing"),
        ("add", "f32[N,3] f32[N,4]", "", "operand `a` [s13, 3] and operand `b` [s13, 4] do not broadcast"),
        ("add", "f32[N] i64[N]", "", "they have f32 and i64"),
        ("add", "bool[N] bool[N]", "", "numeric"),
        ("max", "", "", "at least one operand"),
        ("max", "f32[3] f32[4]", "", "do not broadcast"),
        ("max", "f32[3] f16[3]", "", "operand 1 has f16 elements, the ones before have f32"),
        ("sum", "i64[3]", "", "operand 0 must have floating-point elements"),
        ("prelu", "f32[N,8,4] f32[2,N,8,4]", "", "operand `slope`"),
        ("prelu", "f32[N,8,4] f32[3]", "", "does not broadcast to `x`"),
        ("and", "f32[N] f32[N]", "", "bool"),
        ("less", "f32[N] i64[N]", "", "f32 and i64"),
        ("where", "f32[N] f32[N] f32[N]", "", "operand `cond` must have bool elements"),
        ("where", "bool[3] f32[4] f32[4]", "", "operand `cond` [3] and operands `a` and `b`, together, [4]"),
    ]);
}

#[test]
fn pools_and_reductions() {
    table(&[
        ("max_pool", "f32[N,3,8,8]", "kernel_shape=2", "`kernel_shape` has 1 entries, but `x`"),
        ("max_pool", "f32[N,3,8,8]", "kernel_shape=0,2", "`kernel_shape` has an entry 0"),
        ("max_pool", "f32[N,3,8,8]", "", "`kernel_shape` is missing"),
        ("max_pool", "f32[N,3]", "kernel_shape=2", "at least one spatial axis"),
        ("max_pool", "f32[N,3,2,2]", "kernel_shape=3,3", "does not fit spatial axis 0"),
        ("average_pool", "u8[N,3,8,8]", "kernel_shape=2,2", "floating-point"),
        ("global_average_pool", "f32[N,3]", "", "at least one spatial axis"),
        ("reduce_sum", "f32[N,3]", "axes=2", "axis 2 is outside a tensor of rank 2"),
        ("reduce_sum", "f32[N,3]", "axes=1,-1", "axis -1 is listed twice"),
        ("reduce_mean", "bool[N,3]", "", "numeric"),
    ]);
}

#[test]
fn shapes() {
    table(&[
        ("reshape", "f32[4,6]", "shape=5,5", "the elements of `x` [4, 6] do not fill the target [5, 5]"),
        ("reshape", "f32[4,6]", "shape=5,-1", "do not fill the target"),
        ("reshape", "f32[N,6]", "shape=N,7", "do not fill the target [s13, 7]"),
        ("reshape", "f32[4,6]", "shape=-1,-1", "more than one -1"),
        ("reshape", "f32[4,6]", "shape=-2,12", "has an extent -2"),
        ("reshape", "f32[4]", "shape=4,0", "copies axis 1 (0), but `x` has the shape [4]"),
        ("reshape", "f32[4]", "", "`shape` is missing"),
        ("reshape_to", "f32[4] f32[1]", "", "operand `shape` must have i64 elements"),
        ("reshape_to", "f32[4] i64[1,1]", "", "operand `shape` must have rank 1"),
        ("flatten", "f32[4]", "axis=2", "axis 2 is outside `x`"),
        ("transpose", "f32[4,5]", "perm=0,0", "`perm` [0, 0] is no permutation"),
        ("transpose", "f32[4,5]", "perm=1", "is no permutation of the axes of `x` [4, 5]"),
        ("squeeze", "f32[4,1]", "axes=0", "axis 0 of `x` cannot be dropped: its extent is 4"),
        ("squeeze", "f32[4,1]", "axes=1,-1", "listed twice"),
        ("unsqueeze", "f32[4]", "axes=2", "axis 2 is outside a tensor of rank 2"),
        ("unsqueeze", "f32[4]", "", "`axes` is missing"),
        ("expand", "f32[3] i64[1]{4}", "", "operand `x` [3] and the shape [4] do not broadcast"),
        ("expand", "f32[3] i64[1]{-1}", "", "has an extent -1"),
        ("constant_of_shape", "i64[1]{-2}", "", "has an extent -2"),
        ("constant_of_shape", "i64[1]{2}", "value=1,2", "`value` must have one element"),
        ("range", "i64[] i64[] i64[]{0}", "", "`delta` is 0"),
        ("range", "i64[1] i64[] i64[]", "", "operand `start` must have rank 0"),
    ]);
}

#[test]
fn cutting_and_joining() {
    table(&[
        ("concat", "", "axis=0", "at least one operand"),
        ("concat", "f32[2,3] f32[2]", "axis=0", "operands 0 [2, 3] and 1 [2] must have the same rank"),
        ("concat", "f32[2,3] f32[2,4]", "axis=0", "axis 1 of operand 0 is 3 but that of operand 1 is 4"),
        ("concat", "f32[2,3] i64[2,3]", "axis=0", "they have f32 and i64"),
        ("concat", "f32[2,3] f32[2,3]", "axis=2", "axis 2 is outside"),
        ("slice", "f32[9]", "starts=0 ends=1,2", "`starts` has 1 entries and `ends` has 2"),
        ("slice", "f32[9]", "starts=0 ends=1 steps=0", "`steps` has an entry 0"),
        ("slice", "f32[9]", "starts=0 ends=1 axes=0,1", "`axes` has 2"),
        ("slice", "f32[9]", "starts=0 ends=1 axes=1", "axis 1 is outside"),
        ("slice", "f32[9,9]", "starts=0,0 ends=1,1 axes=0,-2", "axis -2 is listed twice"),
        ("pad", "f32[9]", "pads=1", "an even number is needed"),
        ("pad", "f32[9]", "pads=1,1,1,1", "needs 2: one before and one after each axis"),
        ("pad", "f32[9]", "pads=-5,-5", "has 9 elements, from which -5 and -5 are cut"),
        ("pad", "f32[4]", "pads=4,0 mode=reflect", "cannot be mirrored into a padding of 4"),
        ("tile", "f32[4]", "repeats=1,2", "`repeats` has 2 entries"),
        ("tile", "f32[4]", "repeats=-1", "an entry -1"),
        ("gather", "f32[] i64[1]", "", "operand `data` is a scalar"),
        ("gather", "f32[4] f32[1]", "", "operand `indices` must have i32 or i64 elements"),
        ("gather", "f32[4] i64[1]{4}", "", "index 4 is outside axis 0 of `data`, whose extent is 4"),
        ("gather", "f32[4] i64[1]", "axis=1", "axis 1 is outside"),
        ("gather_elements", "f32[4,4] i64[4]", "", "must have the same rank"),
    ]);
    refused_for("split", "f32[10]", "split=4,5", 2, "the sum of `split` is 9 but axis 0 of `x` is 10");
    refused_for("split", "f32[10]", "split=4,6", 3, "`split` has 2 entries for 3 results");
    refused_for("split", "f32[10]", "split=11,-1", 2, "an entry -1");
    refused_for("split", "f32[2]", "", 4, "an extent of 2 cannot be cut into 4 parts of 1");
    refused_for("split", "f32[2]", "axis=1", 2, "axis 1 is outside");
}

#[test]
fn quantisers() {
    table(&[
        (
            "fake_quant",
            "f32[4,8] f32[3]",
            "",
            "operand `range` must be a minimum and a maximum, [2], it is [3]",
        ),
        ("fake_quant", "f32[4,8] f32[2,8]", "axis=0", "axis 1 of `range` is 8 but axis 0 of `x` is 4"),
        ("fake_quant", "f32[4,8] f32[2]", "axis=0", "for each element of axis 0, [2, 4], it is [2]"),
        ("fake_quant", "f32[4,8] f32[2]", "bits=0", "`bits` must be from 1 to 32, it is 0"),
        ("fake_quant", "u8[4,8] f32[2]", "", "floating-point"),
        ("qdq", "f32[4] f32[] u8[]", "bits=9", "`bits` is 9, but codes of type u8 have only 8"),
        (
            "qdq",
            "f32[4] f32[] u8[]",
            "qmin=-1",
            "`qmin` is -1, but the codes of `zero_point`'s type go from 0 to 255",
        ),
        ("qdq", "f32[4] f32[] u8[]", "qmin=7 qmax=7", "no step between"),
        ("qdq", "f32[4] f32[4] u8[4]", "", "`scale` must be a scalar without `axis`"),
        (
            "qdq",
            "f32[4] f32[4] u8[]",
            "axis=0",
            "operands `scale` [4] and `zero_point` [] must have the same shape",
        ),
        ("qdq", "f32[4] f32[] f32[]", "", "operand `zero_point` must have integer elements"),
        ("quantize", "f32[4,8] f32[4] u8[4]", "", "the length of `scale` is 4 but axis 1 of `x` is 8"),
        ("quantize", "f32[4,8] f32[4,8] u8[4,8]", "", "attribute `block` is not set"),
        ("quantize", "f32[4,8] f32[8] u8[8]", "block=4", "must have the rank of `x`"),
        (
            "quantize",
            "f32[4,8] f32[4,3] u8[4,3]",
            "block=4",
            "axis 1 of `scale` is 3 but the number of blocks of 4",
        ),
        (
            "quantize",
            "f32[4,8] f32[] u8[]",
            "to=i8",
            "`zero_point` has u8 elements, but attribute `to` says i8",
        ),
        ("quantize", "f32[4,8] f32[] u8[]", "block=-1", "`block` must be at least 0"),
        ("quantize", "f32[4] f32[4] u8[4]", "", "axis 1 is outside a tensor of rank 1"),
        ("dequantize", "u8[4] f32[] i8[]", "", "they have u8 and i8"),
        ("dequantize", "f32[4] f32[]", "", "integer or 8-bit float"),
        ("dequantize", "u8[4] i32[]", "", "operand `scale` must have floating-point elements"),
    ]);
}

#[test]
fn integers() {
    table(&[
        (
            "qconv",
            "u8[N,3,8] f32[] u8[] i8[4,3,3] f32[3] i8[3] f32[] u8[]",
            "",
            "the length of `w_scale` is 3 but",
        ),
        ("qconv", "u8[N,3,8] f32[3] u8[] i8[4,3,3] f32[] i8[] f32[] u8[]", "", "`x_scale` must be a scalar"),
        (
            "qconv",
            "f32[N,3,8] f32[] u8[] i8[4,3,3] f32[] i8[] f32[] u8[]",
            "",
            "operand `x` must have integer elements",
        ),
        ("qconv", "u8[N,3,8] f32[] i8[] i8[4,3,3] f32[] i8[] f32[] u8[]", "", "operands `x` and `x_zp`"),
        (
            "qconv",
            "u8[N,3,8] f32[] u8[] i8[4,3,3] f32[] i8[] f32[] u8[] f32[4]",
            "",
            "operand `b` must have i32",
        ),
        (
            "qgemm",
            "u8[N,8] f32[] u8[] i8[8,4] f32[] i8[] i32[4] - u8[]",
            "",
            "`y_zp` is given without `y_scale`",
        ),
        ("qgemm", "u8[N,8] f32[] u8[] i8[9,4] f32[] i8[]", "", "axis 1 of `a` is 8 but axis 0 of `b` is 9"),
        ("qadd", "u8[3] f32[] u8[] u8[4] f32[] u8[] f32[] u8[]", "", "do not broadcast"),
        (
            "qadd",
            "u8[3] i32[] u8[] u8[3] f32[] u8[] f32[] u8[]",
            "",
            "operand `a_scale` must have floating-point",
        ),
        ("qconcat", "f32[] u8[] u8[4] f32[]", "axis=0", "triples of codes"),
        ("qconcat", "f32[] u8[] u8[4] f32[] i8[]", "axis=0", "a zero point of `inputs` has i8 elements"),
        ("qsoftmax", "u8[3] f32[] u8[] f32[] u8[]", "axis=1 opset=13", "axis 1 is outside"),
        ("matmul_integer", "u8[2,3] i8[4,5]", "", "is 3 but the last but one axis of `b` is 4"),
    ]);
}

#[test]
fn learned_quantisers() {
    table(&[
        ("lsq", "f32[N,3] f32[]", "bits=1", "`bits` must be from 2 to 16, it is 1"),
        ("lsq", "f32[N,3] f32[3]", "", "operand `step` must be one number without `axis`"),
        (
            "lsq",
            "f32[4,3] f32[3]",
            "axis=0",
            "the length of `step` is 3 but axis 0 of what is quantised is 4",
        ),
        ("lsq", "f32[4,3] f32[1,4]", "axis=0", "operand `step` must be a vector along axis 0"),
        ("pact", "f32[N,3] f32[2]", "", "operand `alpha` must be one number"),
        ("dorefa", "f32[4,3] f32[]", "bits=9", "`bits` must be from 1 to 8, it is 9"),
        ("slb", "f32[4,3,4] f32[]", "bits=5", "`bits` must be from 1 to 4, it is 5"),
        ("slb", "f32[4,3,8] f32[]", "", "the last axis of `logits` is 8 but the number of levels is 4"),
        ("slb_train", "f32[4,3,4] f32[] f32[2] bool[]", "", "operand `tau` must have one element"),
        ("schedule", "i64[]", "kind=geometric base=1.0", "needs `base` and `end` above 0"),
    ]);
}
