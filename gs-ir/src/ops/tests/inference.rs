//! What inference says, family by family.

use super::*;

fn table(cases: &[(&str, &str, &str, &str)]) {
    for (name, operands, attrs, results) in cases {
        gives(name, operands, attrs, results);
    }
}

#[test]
fn convolutions() {
    table(&[
        ("conv", "f32[N,3,32,32] f32[16,3,3,3]", "pads=1,1,1,1", "f32[N,16,32,32]"),
        ("conv", "f32[N,3,32,32] f32[16,3,3,3] f32[16]", "", "f32[N,16,30,30]"),
        ("conv", "f32[1,3,224,224] f32[64,3,7,7]", "pads=3,3,3,3 strides=2,2", "f32[1,64,112,112]"),
        ("conv", "f32[N,8,H,W] f32[8,1,3,3]", "pads=1,1,1,1 group=8", "f32[N,8,H,W]"),
        ("conv", "f32[N,8,H,W] f32[4,8,3,3]", "strides=2,2", "f32[N,4,floor((H+1)/2)-1,floor((W+1)/2)-1]"),
        ("conv", "f32[N,8,2*H,9] f32[4,8,2,2]", "strides=2,2", "f32[N,4,H,4]"),
        ("conv", "f32[1,1,10] f32[1,1,3]", "dilations=2", "f32[1,1,6]"),
        ("conv", "f32[1,1,7,7] f32[1,1,3,3]", "auto_pad=SAME_UPPER strides=2,2", "f32[1,1,4,4]"),
        // With `auto_pad` the pads do not count.
        ("conv", "f32[1,1,7,7] f32[1,1,3,3]", "auto_pad=VALID pads=1,1,1,1", "f32[1,1,5,5]"),
        ("conv", "f32[1,1,4,4,4] f32[2,1,3,3,3]", "pads=0,0,0,1,1,1", "f32[1,2,3,3,3]"),
        ("conv", "f16[1,1,4] f16[M,1,2]", "", "f16[1,M,3]"),
        ("conv", "f32[1,1,4] f32[M,1,2] f32[5]", "", "f32[1,5,3]"),
        ("conv", "any f32[16,3,3,3]", "", "f32[?,16,?,?]"),
        ("conv", "f32 f32[16,3,3,3] any", "", "f32[?,16,?,?]"),
        ("conv", "f32[N,3,8,8] any", "", "f32[N,?,?,?]"),
        ("conv", "f32[N,3,8,8] f32 f32[16]", "", "f32[N,16,?,?]"),
        ("conv", "any any", "", "any"),
        ("conv", "f32 any", "", "f32"),
        ("conv_transpose", "f32[N,16,8,8] f32[16,4,2,2]", "strides=2,2", "f32[N,4,16,16]"),
        (
            "conv_transpose",
            "f32[N,16,H,8] f32[16,4,3,3]",
            "strides=2,2 pads=1,1,1,1 output_padding=1,1",
            "f32[N,4,2*H,16]",
        ),
        ("conv_transpose", "f32[N,16,8] f32[16,4,3] f32[8]", "group=2 dilations=2", "f32[N,8,12]"),
        ("conv_transpose", "f32[1,1,5] f32[1,1,3]", "auto_pad=SAME_LOWER strides=3", "f32[1,1,15]"),
    ]);
}

#[test]
fn matrix_products() {
    table(&[
        ("gemm", "f32[N,64] f32[64,10] f32[10]", "", "f32[N,10]"),
        ("gemm", "f32[N,64] f32[10,64]", "trans_b=true alpha=0.5", "f32[N,10]"),
        ("gemm", "f32[64,N] f32[64,10] f32", "trans_a=true", "f32[N,10]"),
        ("gemm", "any f32[64,10] f32[1,10]", "", "f32[?,10]"),
        ("gemm", "f32[N,64] f32 f32[10]", "", "f32[N,10]"),
        ("gemm", "f32[2,3] f32[3,4] f32[]", "", "f32[2,4]"),
        ("matmul", "f32[N,12,S,64] f32[N,12,64,S]", "", "f32[N,12,S,S]"),
        ("matmul", "f32[N,S,64] f32[64,10]", "", "f32[N,S,10]"),
        ("matmul", "f32[64] f32[N,64,10]", "", "f32[N,10]"),
        ("matmul", "f32[2,64] f32[64]", "", "f32[2]"),
        ("matmul", "f32[64] f32[64]", "", "f32[]"),
        ("matmul", "f32[2,64] any", "", "f32"),
        ("matmul", "any any", "", "any"),
    ]);
}

#[test]
fn normalisations() {
    table(&[
        ("batch_norm", "f32[N,16,8,8] f32[16] f32[16] f32[16] f32[16]", "", "f32[N,16,8,8]"),
        ("batch_norm", "f32[N,C,8] f32[16] any f32 any", "", "f32[N,16,8]"),
        ("batch_norm", "any f32[16] f32[16] f32[16] f32[16]", "", "any"),
        ("batch_norm", "f32[N,7] f32[7] f32[7] f32[7] f32[7]", "epsilon=0.1", "f32[N,7]"),
        ("layer_norm", "f32[N,S,64] f32[64] f32[64]", "", "f32[N,S,64]"),
        ("layer_norm", "f32[N,4,64] f32[4,64]", "axis=1", "f32[N,4,64]"),
        ("softmax", "f32[N,10]", "", "f32[N,10]"),
        ("softmax", "f32[N,10]", "axis=2 legacy=true", "f32[N,10]"),
        ("log_softmax", "f32", "axis=1", "f32"),
    ]);
}

#[test]
fn elementwise() {
    table(&[
        ("relu", "f32[N,3]", "", "f32[N,3]"),
        ("relu", "any", "", "any"),
        ("tanh", "f16", "", "f16"),
        ("clip", "u8[N,3]", "min=0 max=6", "u8[N,3]"),
        ("cast", "f32[N,3]", "to=i64", "i64[N,3]"),
        ("cast", "any", "to=i64", "i64"),
        ("cast", "i64[2]{N,3}", "to=i32", "i32[2]{N,3}"),
        ("cast", "i64[2]{N,5000000000}", "to=i32", "i32[2]{N,?}"),
        ("cast", "i64[2]{N,3}", "to=f32", "f32[2]"),
        ("identity", "i64[2]{N,3}", "", "i64[2]{N,3}"),
        ("dropout", "f32[N]", "", "f32[N]"),
        ("add", "f32[N,3,8,8] f32[3,1,1]", "", "f32[N,3,8,8]"),
        ("add", "f32[N,1] f32[4]", "", "f32[N,4]"),
        ("add", "f32[N] any", "", "f32"),
        ("mul", "i64{N} i64[]{2}", "", "i64{2*N}"),
        ("add", "i64[2]{N,3} i64[1]{1}", "", "i64[2]{N+1,4}"),
        ("sub", "i64[2]{N,3} i64[2]{N,N}", "", "i64[2]{0,-1*N+3}"),
        ("div", "i64[]{2*N+3} i64[]{2}", "", "i64[]{N+1}"),
        ("div", "i64[]{-7} i64[]{2}", "", "i64[]{-3}"),
        ("div", "i64[]{-1*N} i64[]{2}", "", "i64[]{?}"),
        ("div", "i64[]{7} i64[]{0}", "", "i64[]{?}"),
        ("mul", "i32[]{100000} i32[]{100000}", "", "i32[]{?}"),
        ("pow", "f32[N] i64[]", "", "f32[N]"),
        ("max", "f32[N,1] f32[4] f32[]", "", "f32[N,4]"),
        ("max", "i64[2]{3,N} i64[]{5}", "", "i64[2]{5,?}"),
        ("min", "i64[1]{3} i64[1]{5}", "", "i64[1]{3}"),
        ("sum", "f32[N,4] any", "", "f32"),
        ("mean", "f32[N,4]", "", "f32[N,4]"),
        ("prelu", "f32[N,8,4,4] f32[8,1,1]", "", "f32[N,8,4,4]"),
    ]);
}

#[test]
fn comparisons() {
    table(&[
        ("equal", "f32[N,1] f32[4]", "", "bool[N,4]"),
        ("equal", "i64[3]{N,3,-1} i64[1]{-1}", "", "bool[3]{0,0,1}"),
        ("less", "any f32[4]", "", "bool"),
        ("and", "bool[N] bool[]", "", "bool[N]"),
        ("not", "bool[N]", "", "bool[N]"),
        ("where", "bool[N,1] f32[4] f32[]", "", "f32[N,4]"),
        ("where", "bool[3]{0,0,1} i64[3]{1,1,1} i64[3]{N,3,-1}", "", "i64[3]{N,3,1}"),
        ("where", "any any any", "", "any"),
    ]);
}

#[test]
fn pools() {
    table(&[
        ("max_pool", "f32[N,64,112,112]", "kernel_shape=3,3 strides=2,2 pads=1,1,1,1", "f32[N,64,56,56]"),
        ("max_pool", "u8[N,4,H,W]", "kernel_shape=2,2 strides=2,2", "u8[N,4,floor(H/2),floor(W/2)]"),
        ("max_pool", "f32[1,1,6]", "kernel_shape=2 strides=3 ceil_mode=true", "f32[1,1,2]"),
        ("max_pool", "f32[1,1,7]", "kernel_shape=2 strides=3 ceil_mode=true", "f32[1,1,3]"),
        // The third window would begin in the padding behind the input.
        ("max_pool", "f32[1,1,6]", "kernel_shape=3 strides=3 pads=0,1 ceil_mode=true", "f32[1,1,2]"),
        ("max_pool", "f32[1,1,H]", "kernel_shape=2 strides=2 ceil_mode=true", "f32[1,1,floor((H+1)/2)]"),
        ("max_pool", "f32[1,1,H]", "kernel_shape=2 strides=2 pads=0,1 ceil_mode=true", "f32[1,1,?]"),
        ("max_pool", "f32[1,1,8]", "kernel_shape=3 dilations=2", "f32[1,1,4]"),
        ("average_pool", "f32[N,64,8,8]", "kernel_shape=8,8", "f32[N,64,1,1]"),
        ("average_pool", "f32", "kernel_shape=8,8", "f32"),
        ("global_average_pool", "f32[N,64,8,H]", "", "f32[N,64,1,1]"),
        ("global_max_pool", "any", "", "any"),
    ]);
}

#[test]
fn reductions() {
    table(&[
        ("reduce_mean", "f32[N,64,8,8]", "axes=2,3", "f32[N,64,1,1]"),
        ("reduce_mean", "f32[N,64,8,8]", "axes=-1,-2 keepdims=false", "f32[N,64]"),
        ("reduce_sum", "f32[N,64]", "", "f32[1,1]"),
        ("reduce_sum", "f32[N,64]", "keepdims=false", "f32[]"),
        ("reduce_sum", "f32[N,64]", "noop_with_empty_axes=true", "f32[N,64]"),
        ("reduce_max", "bool[N,64]", "axes=1", "bool[N,1]"),
        ("reduce_prod", "i64[2]{N,64}", "keepdims=false", "i64[]{64*N}"),
        ("reduce_prod", "i64[2]{N,64}", "", "i64[1]{64*N}"),
        ("reduce_min", "i64[2]{5,3}", "axes=0 keepdims=false", "i64[]{3}"),
        ("reduce_mean", "f32", "axes=1", "f32"),
    ]);
}

#[test]
fn reshapes() {
    table(&[
        ("reshape", "f32[N,64,8,8]", "shape=N,4096", "f32[N,4096]"),
        ("reshape", "f32[N,64,8,8]", "shape=-1,4096", "f32[N,4096]"),
        ("reshape", "f32[N,64,8,8]", "shape=0,-1", "f32[N,4096]"),
        ("reshape", "f32[N,64,8,8]", "shape=N,8,-1,64", "f32[N,8,8,64]"),
        ("reshape", "f32[N,6,H]", "shape=2,-1", "f32[2,3*H*N]"),
        ("reshape", "f32[N,H]", "shape=3,-1", "f32[3,floor((H*N)/3)]"),
        ("reshape", "f32[N,H]", "shape=K,-1", "f32[K,?]"),
        ("reshape", "f32[0,3]", "shape=3,0 allow_zero=true", "f32[3,0]"),
        ("reshape", "any", "shape=N,64", "any"),
        ("reshape", "f32", "shape=0,-1,3", "f32[?,?,3]"),
        ("reshape", "f32[1,1]", "shape=", "f32[]"),
        ("reshape", "i64[]{N}", "shape=1", "i64[1]{N}"),
        ("reshape", "i64[1]{N}", "shape=", "i64[]{N}"),
        ("reshape_to", "f32[N,64,8,8] i64[2]{N,-1}", "", "f32[N,4096]"),
        ("reshape_to", "f32[N,64,8,8] i64[3]", "", "f32[?,?,?]"),
        ("reshape_to", "f32[N,64,8,8] i64", "", "f32"),
        ("flatten", "f32[N,64,8,8]", "", "f32[N,4096]"),
        ("flatten", "f32[N,64,8,8]", "axis=0", "f32[1,4096*N]"),
        ("flatten", "f32[N,64]", "axis=-1", "f32[N,64]"),
        ("flatten", "f32", "", "f32[?,?]"),
        ("transpose", "f32[N,3,8]", "perm=2,0,1", "f32[8,N,3]"),
        ("transpose", "f32[N,3,8]", "", "f32[8,3,N]"),
        ("transpose", "f32", "perm=1,0", "f32[?,?]"),
        ("squeeze", "f32[N,64,1,1]", "axes=2,3", "f32[N,64]"),
        ("squeeze", "f32[2,64,1,1]", "", "f32[2,64]"),
        ("squeeze", "f32[N,64,1,1]", "", "f32"),
        ("squeeze", "i64[1]{N}", "axes=0", "i64[]{N}"),
        ("unsqueeze", "f32[N,64]", "axes=-1,1", "f32[N,1,64,1]"),
        ("unsqueeze", "i64[]{N}", "axes=0", "i64[1]{N}"),
        ("unsqueeze", "f32", "axes=0", "f32"),
    ]);
}

#[test]
fn cutting_and_joining() {
    table(&[
        ("concat", "f32[N,8,4] f32[N,16,4]", "axis=1", "f32[N,24,4]"),
        ("concat", "f32[N,8] any", "axis=-1", "f32[N,?]"),
        ("concat", "f32[N,H] f32[2,H]", "axis=0", "f32[N+2,H]"),
        ("concat", "i64[1]{N} i64[2]", "axis=0", "i64[3]{N,?,?}"),
        ("concat", "i64[1]{N} i64[1]{64}", "axis=0", "i64[2]{N,64}"),
        ("split", "f32[N,24,4]", "axis=1 split=8,16", "f32[N,8,4] f32[N,16,4]"),
        ("split", "f32[N,24]", "axis=1", "f32[N,8] f32[N,8] f32[N,8]"),
        ("split", "f32[10]", "", "f32[4] f32[4] f32[2]"),
        ("split", "f32[2*N,3]", "", "f32[N,3] f32[N,3]"),
        ("split", "i64[3]{N,3,8}", "split=1,2", "i64[1]{N} i64[2]{3,8}"),
        ("split", "any", "", "any any"),
        ("slice", "f32[N,32,32]", "starts=0,0 ends=16,30 axes=1,2 steps=1,2", "f32[N,16,15]"),
        ("slice", "f32[10]", "starts=-3 ends=9223372036854775807", "f32[3]"),
        ("slice", "f32[10]", "starts=9 ends=-11 steps=-3", "f32[4]"),
        ("slice", "f32[10]", "starts=-1 ends=-9223372036854775808 steps=-1", "f32[10]"),
        ("slice", "f32[10]", "starts=8 ends=2", "f32[0]"),
        ("slice", "f32[10]", "starts=-100 ends=100", "f32[10]"),
        ("slice", "f32[N,3]", "starts=0 ends=1", "f32[1,3]"),
        ("slice", "f32[N,3]", "starts=1 ends=2147483647", "f32[N-1,3]"),
        ("slice", "f32[N,3]", "starts=0 ends=-1", "f32[N-1,3]"),
        ("slice", "f32[N,3]", "starts=0 ends=9223372036854775807 steps=2", "f32[floor((N+1)/2),3]"),
        // Nobody says that the axis has as many as five elements.
        ("slice", "f32[N,3]", "starts=5 ends=9223372036854775807", "f32[?,3]"),
        ("slice", "f32[N+5,3]", "starts=5 ends=9223372036854775807", "f32[N,3]"),
        ("slice", "f32[N,3]", "starts=-1 ends=-9223372036854775808 steps=-1", "f32[N,3]"),
        ("slice", "i64[4]{N,3,8,8}", "starts=2 ends=4", "i64[2]{8,8}"),
        ("slice", "i64[4]{N,3,8,8}", "starts=-1 ends=-9 steps=-1", "i64[4]{8,8,3,N}"),
        ("slice", "f32", "starts=0 ends=1", "f32"),
        ("pad", "f32[N,16,8,8]", "pads=0,4,0,0,0,4,0,0", "f32[N,24,8,8]"),
        ("pad", "f32[N,16]", "pads=0,-1,1,0", "f32[N+1,15]"),
        ("pad", "f32[4]", "pads=3,3 mode=reflect", "f32[10]"),
        ("pad", "any", "pads=1,1", "any"),
        ("pad", "f32", "pads=1,1,0,0", "f32[?,?]"),
        ("tile", "f32[N,3]", "repeats=2,4", "f32[2*N,12]"),
        ("gather", "f32[1000,64] i64[N,S]", "", "f32[N,S,64]"),
        ("gather", "f32[N,8,64] i64[]", "axis=1", "f32[N,64]"),
        ("gather", "i64[4]{N,3,8,8} i64[]{0}", "", "i64[]{N}"),
        ("gather", "i64[4]{N,3,8,8} i64[2]{-1,1}", "", "i64[2]{8,3}"),
        ("gather", "f32 i64[N]", "", "f32"),
        ("gather_elements", "f32[N,8] i64[N,2]", "axis=1", "f32[N,2]"),
    ]);
}

#[test]
fn computing_with_shapes() {
    table(&[
        ("shape", "f32[N,3,8,8]", "", "i64[4]{N,3,8,8}"),
        ("shape", "f32[N,3,8,8]", "start=-2", "i64[2]{8,8}"),
        ("shape", "f32[N,3,8,8]", "start=1 end=-1", "i64[2]{3,8}"),
        ("shape", "any", "", "i64[?]"),
        ("size", "f32[N,3,8]", "", "i64[]{24*N}"),
        ("expand", "f32[1,64] i64[2]{N,1}", "", "f32[N,64]"),
        ("expand", "f32[64] i64[3]", "", "f32[?,?,64]"),
        ("expand", "i64[]{7} i64[1]{3}", "", "i64[3]{7,7,7}"),
        ("constant_of_shape", "i64[2]{N,3}", "", "f32[N,3]"),
        ("constant_of_shape", "i64[1]{2}", "value=1", "i64[2]{1,1}"),
        ("constant_of_shape", "i64[0]", "value=1", "i64[]{1}"),
        ("constant_of_shape", "i64", "value=1.5f", "f32"),
        ("range", "i64[]{0} i64[]{N} i64[]{1}", "", "i64[N]"),
        ("range", "i64[]{1} i64[]{8} i64[]{3}", "", "i64[3]{1,4,7}"),
        ("range", "i64[]{3} i64[]{0} i64[]{-1}", "", "i64[3]{3,2,1}"),
        ("range", "i64[]{3} i64[]{0} i64[]{1}", "", "i64[0]{}"),
        ("range", "f32[] f32[] f32[]", "", "f32[?]"),
        ("constant", "", "value=4,5", "i64[2]{4,5}"),
        ("constant", "", "value=0.5f", "f32[]"),
    ]);
}

#[test]
fn quantisers() {
    table(&[
        ("fake_quant", "f32[N,8,4,4] f32[2]", "", "f32[N,8,4,4]"),
        ("fake_quant", "f32[16,8,3,3] f32[2,16]", "axis=0 bits=4 symmetric=true", "f32[16,8,3,3]"),
        ("qdq", "f32[N,8] f32[] u8[]", "", "f32[N,8]"),
        ("qdq", "f32[16,8] f32[16] i8[16]", "axis=0 bits=4 qmin=-7 qmax=7", "f32[16,8]"),
        ("qdq", "f32[16,64] f32[16,2] i4[16,2]", "axis=1 block=32", "f32[16,64]"),
        ("quantize", "f32[N,8] f32[] i8[]", "", "i8[N,8]"),
        ("quantize", "f32[N,8] f32[] u8[1]", "", "u8[N,8]"),
        ("quantize", "f32[N,8] f32[]", "", "u8[N,8]"),
        ("quantize", "f32[N,8] f32[] -", "to=i16", "i16[N,8]"),
        ("quantize", "f32[N,8] f32[8] any", "", "any"),
        ("quantize", "any f32[8] i8[8]", "", "i8"),
        ("quantize", "f32[4,64] f32[4,2] u4[4,2]", "block=32", "u4[4,64]"),
        ("dequantize", "i8[16,8,3,3] f32[16] i8[16]", "axis=0", "f32[16,8,3,3]"),
        ("dequantize", "i32[16] f32[1]", "", "f32[16]"),
        ("dequantize", "u8[N] f32[]", "to=f16", "f16[N]"),
    ]);
}

#[test]
fn integers() {
    let grid = "f32[] u8[]";
    let conv = format!("u8[N,3,32,32] {grid} i8[16,3,3,3] f32[16] i8[16] {grid} i32[16]");
    gives("qconv", &conv, "pads=1,1,1,1", "u8[N,16,32,32]");
    gives(
        "qconv",
        &format!("u8[N,8,8,8] {grid} i8[8,1,3,3] f32[] i8[] f32[] i8[]"),
        "group=8",
        "i8[N,8,6,6]",
    );
    gives("qmatmul", &format!("u8[N,4,8] {grid} i8[8,16] f32[16] i8[16] {grid}"), "", "u8[N,4,16]");
    gives("matmul_integer", "u8[N,8] i8[8,16] u8[] i8[16]", "", "i32[N,16]");
    gives("conv_integer", "u8[N,3,8,8] i8[4,3,3,3] u8[]", "", "i32[N,4,6,6]");
    let gemm = format!("u8[N,64] {grid} i8[10,64] f32[10] i8[10] i32[10]");
    gives("qgemm", &format!("{gemm} {grid}"), "trans_b=true", "u8[N,10]");
    gives("qgemm", &gemm, "trans_b=true", "f32[N,10]");
    gives("qadd", &format!("u8[N,8,4,4] {grid} u8[8,1,1] {grid} {grid}"), "", "u8[N,8,4,4]");
    gives("qmul", "u8[N,8] f32[] - u8[8] f32[] - f32[]", "", "u8[N,8]");
    gives("qconcat", &format!("{grid} u8[N,8] {grid} u8[N,4] {grid}"), "axis=1", "u8[N,12]");
    gives(
        "qaverage_pool",
        &format!("u8[N,8,8,8] {grid} {grid}"),
        "kernel_shape=2,2 strides=2,2",
        "u8[N,8,4,4]",
    );
    gives(
        "qaverage_pool",
        &format!("u8[N,8,8,3] {grid} {grid}"),
        "kernel_shape=8,8 channels_last=true",
        "u8[N,1,1,3]",
    );
    gives("qglobal_average_pool", &format!("u8[N,64,8,8] {grid} {grid}"), "", "u8[N,64,1,1]");
    gives(
        "qglobal_average_pool",
        &format!("u8[N,8,8,64] {grid} {grid}"),
        "channels_last=true",
        "u8[N,1,1,64]",
    );
    gives("qsigmoid", &format!("u8[N] {grid} f32[] u8[]"), "", "u8[N]");
    gives("qleaky_relu", "i8[N] f32[] - f32[]", "alpha=0.1", "i8[N]");
    gives("qsoftmax", &format!("u8[N,10] {grid} {grid}"), "opset=13", "u8[N,10]");
}

#[test]
fn regions() {
    let types = |text: &str| -> Vec<Type> { text.split_whitespace().map(|t| fact(t).unwrap().ty).collect() };
    let run = |name: &str, operands: &str, text: &str, regions: &[&str], count: usize| {
        let regions: Vec<Vec<Type>> = regions.iter().map(|r| types(r)).collect();
        infer(name, operands, text, &regions, count)
    };
    let ok = |r: Result<String, InferError>| r.unwrap();
    assert_eq!(ok(run("if", "bool[]", "", &["f32[N,3] i64[2]", "f32[N,4] i64[2]"], 2)), "f32[N,?] i64[2]");
    assert_eq!(ok(run("if", "bool[]", "", &["f32[N,3]", "f32[N]"], 1)), "f32");
    assert_eq!(ok(run("if", "any", "", &[], 2)), "any any");
    assert!(run("if", "bool[]", "", &["f32[N]", "i64[N]"], 1).unwrap_err().0.contains("result 0"));
    assert!(run("if", "bool[]", "", &["f32[N]", ""], 1).unwrap_err().0.contains("`else_branch` returns 0"));

    let body = ["bool[] f32[N,H] f32[4]"];
    assert_eq!(ok(run("loop", "i64[] bool[] f32[N,W]", "", &body, 2)), "f32[N,?] f32[?,4]");
    assert_eq!(ok(run("loop", "- - f32[N,H]", "", &body, 2)), "f32[N,H] f32[?,4]");
    assert!(run("loop", "- - f32[N,H]", "", &body, 1).unwrap_err().0.contains("`body` returns 3"));

    let body = ["f32[8] f32[4]"];
    assert_eq!(ok(run("scan", "f32[8] f32[T,3]", "num_scan_inputs=1", &body, 2)), "f32[8] f32[T,4]");
    assert_eq!(
        ok(run(
            "scan",
            "f32[8] f32[3,T]",
            "num_scan_inputs=1 scan_input_axes=1 scan_output_axes=-1",
            &body,
            2
        )),
        "f32[8] f32[4,T]"
    );
    assert!(run("scan", "f32[8]", "num_scan_inputs=2", &body, 2).unwrap_err().0.contains("1 operands"));
}
