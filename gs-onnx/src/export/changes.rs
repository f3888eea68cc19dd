//! Which operators of `ai.onnx` changed between versions so that an old node means something else or is no longer
//! valid, for nodes that are written as they were read.
//!
//! From the operator schemas of onnx 1.23, versions 1 to 27: an input, output or attribute went, became required,
//! got another type or default, or lost element types. Two changes do not show in a schema and were added by hand:
//! RoiAlign 16 (the new attribute's default is another rounding) and GroupNormalization 21 (scale per channel). So
//! was Split 18, which demands a number of outputs where no sizes are given.

/// Operators no version of which broke an older one.
const UNCHANGED: &str = "\
    Acos Acosh AffineGrid ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool Bernoulli \
    BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow CastLike \
    CausalConvWithState Celu CenterCropPad Col2Im Compress ConcatFromSequence Constant \
    ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumProd CumSum DeformConv DepthToSpace \
    DequantizeLinear Det DynamicQuantizeLinear Einsum Erf Expand EyeLike Flatten Gather \
    GatherElements GatherND Gelu GlobalAveragePool GlobalMaxPool GreaterOrEqual HammingWindow \
    HannWindow HardSwish Identity If ImageDecoder IsInf IsNaN LRN LayerNormalization LessOrEqual \
    LinearAttention Loop LpNormalization MatMul MatMulInteger MaxPool MaxRoiPool MaxUnpool \
    MeanVarianceNormalization MelWeightMatrix Mish Mod Multinomial NegativeLogLikelihoodLoss \
    NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement OptionalHasElement QLinearConv \
    QLinearMatMul QuantizeLinear RMSNormalization RandomNormal RandomNormalLike RandomUniform \
    RandomUniformLike Range RegexFullMatch ReverseSequence RotaryEmbedding Round STFT \
    ScatterElements ScatterND SequenceAt SequenceConstruct SequenceEmpty SequenceErase \
    SequenceInsert SequenceLength SequenceMap Shape Shrink Sign Sin Sinh Size \
    SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth SplitToSequence StringConcat \
    StringNormalizer StringSplit Swish Tan TensorScatter TfIdfVectorizer ThresholdedRelu Transpose \
    Trilu Unique Where";

/// Operators with the versions that did.
const CHANGED: &[(&str, &[i64])] = &[
    ("Abs", &[6]),
    ("Add", &[6, 7]),
    ("And", &[7]),
    ("BatchNormalization", &[6, 7, 9, 14]),
    ("Cast", &[6]),
    ("Ceil", &[6]),
    ("Clip", &[6, 11]),
    ("Concat", &[4]),
    ("DFT", &[20]),
    ("Div", &[6, 7]),
    ("Dropout", &[6, 7, 10, 12]),
    ("Elu", &[6]),
    ("Equal", &[7]),
    ("Exp", &[6]),
    ("Floor", &[6]),
    ("GRU", &[3, 7]),
    ("Gemm", &[7]),
    ("GlobalLpPool", &[2]),
    ("Greater", &[7]),
    ("GridSample", &[20]),
    ("GroupNormalization", &[21]),
    ("HardSigmoid", &[6]),
    ("Hardmax", &[13]),
    ("InstanceNormalization", &[6]),
    ("LSTM", &[7]),
    ("LeakyRelu", &[6]),
    ("Less", &[7]),
    ("Log", &[6]),
    ("LogSoftmax", &[13]),
    ("LpPool", &[2]),
    ("Max", &[6]),
    ("Mean", &[6]),
    ("Min", &[6]),
    ("Mul", &[6, 7]),
    ("Neg", &[6]),
    ("Or", &[7]),
    ("PRelu", &[6, 7]),
    ("Pad", &[2, 11]),
    ("Pow", &[7]),
    ("RNN", &[7]),
    ("Reciprocal", &[6]),
    ("ReduceL1", &[18]),
    ("ReduceL2", &[18]),
    ("ReduceLogSum", &[18]),
    ("ReduceLogSumExp", &[18]),
    ("ReduceMax", &[18]),
    ("ReduceMean", &[18]),
    ("ReduceMin", &[18]),
    ("ReduceProd", &[18]),
    ("ReduceSum", &[13]),
    ("ReduceSumSquare", &[18]),
    ("Relu", &[6]),
    ("Reshape", &[5]),
    ("Resize", &[11]),
    ("RoiAlign", &[16]),
    ("Scan", &[9]),
    ("Scatter", &[11]),
    ("Selu", &[6]),
    ("Sigmoid", &[6]),
    ("Slice", &[10]),
    ("Softmax", &[13]),
    ("Split", &[2, 13, 18]),
    ("Sqrt", &[6]),
    ("Squeeze", &[13]),
    ("Sub", &[6, 7]),
    ("Sum", &[6]),
    ("Tanh", &[6]),
    ("Tile", &[6]),
    ("TopK", &[10]),
    ("Unsqueeze", &[13]),
    ("Upsample", &[7, 9, 10]),
    ("Xor", &[7]),
];

/// Whether a node that is valid in version `from` means the same in version `to`. False for an operator that is not
/// known here.
pub(super) fn means_the_same(op_type: &str, from: i64, to: i64) -> bool {
    match CHANGED.iter().find(|(name, _)| *name == op_type) {
        // A node of a later version may use what an earlier one does not have yet.
        _ if to < from => false,
        Some((_, versions)) => !versions.iter().any(|v| (from + 1..=to).contains(v)),
        None => UNCHANGED.split_ascii_whitespace().any(|name| name == op_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_between_versions_count_and_others_do_not() {
        assert!(means_the_same("LRN", 9, 21));
        assert!(means_the_same("LSTM", 7, 21) && !means_the_same("LSTM", 6, 21));
        assert!(means_the_same("Resize", 11, 27) && !means_the_same("Resize", 10, 11));
        assert!(!means_the_same("LRN", 13, 9), "an earlier version may lack something");
        assert!(!means_the_same("NoSuchOperator", 9, 10));
        assert!(CHANGED.is_sorted_by_key(|(name, _)| *name));
    }
}
