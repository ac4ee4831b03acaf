"""Operators by what they do to values: the vocabulary of the pattern search."""

from __future__ import annotations

VIEWS = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Same elements in the same order: no work at all."""

TRANSPARENT = VIEWS | {"Transpose", "Cast", "CastLike", "Dropout"}
"""Same elements, perhaps in another order or type: folded into what reads or writes them."""

PARTS = frozenset({"Split", "Slice", "SplitToSequence", "SequenceAt", "Gather"})
"""A part of the elements."""

REPEATS = frozenset({"Expand", "Tile"})

QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})

INTEGER_FORM = ("QLinear", "QGemm")
"""The beginnings of ONNX Runtime's operators over integers (`QuantFormat.QOperator`)."""

WRITE_PAIRS = (
    "operators of ONNX Runtime over integers (QuantFormat.QOperator): quantize the model with "
    "QuantFormat.QDQ, which is the same model in pairs of QuantizeLinear and DequantizeLinear"
)
"""The advice about those of them that are unknown here."""

LAYOUT = TRANSPARENT | PARTS | REPEATS | QUANTIZING
"""Operators that may stand between two operators without changing the pattern."""

ACTIVATIONS = frozenset({
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "FastGelu", "QuickGelu",
    "BiasGelu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Mish", "Softplus", "Softsign",
    "ThresholdedRelu", "Tanh", "Erf", "Clip",
})  # fmt: skip

ARITHMETIC = frozenset({
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Neg", "Abs", "Exp", "Log", "Min",
    "Max", "Where", "Not", "And", "Or", "Xor", "IsNaN", "IsInf", "Equal", "Less", "LessOrEqual",
    "Greater", "GreaterOrEqual", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Sum", "Mean",
    "Mod", "Trilu",
})  # fmt: skip

ELEMENTWISE = ARITHMETIC | ACTIVATIONS

REDUCTIONS = frozenset({
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin", "TopK", "CumSum",
})  # fmt: skip

POOLS = frozenset({
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool",
})  # fmt: skip

SOFTMAXES = frozenset({"Softmax", "LogSoftmax", "Hardmax"})

COPIES = frozenset({
    "Concat", "Pad", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "ScatterND",
    "ScatterElements", "Scatter", "GatherND", "GatherElements", "ConcatFromSequence",
    "TensorScatter", "ReverseSequence", "Compress", "Expand", "Tile",
})  # fmt: skip
"""Move elements without computing."""

ORDERLY = TRANSPARENT | PARTS | frozenset({
    "Relu", "Clip", "MaxPool", "GlobalMaxPool", "Pad", "Concat",
})  # fmt: skip
"""Commute with rounding: they move values, or take the larger ones."""

MERGES = frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Mean"})
"""Combine several tensors element by element."""

MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
"""Combine elements of one tensor."""

NORMS = {
    "LayerNormalization": "layernorm",
    "SkipLayerNormalization": "layernorm",
    "EmbedLayerNormalization": "layernorm",
    "GroupNormalization": "layernorm",
    "GroupNorm": "layernorm",
    "InstanceNormalization": "layernorm",
    "MeanVarianceNormalization": "layernorm",
    "LRN": "layernorm",
    "RMSNormalization": "rmsnorm",
    "SimplifiedLayerNormalization": "rmsnorm",
    "SkipSimplifiedLayerNormalization": "rmsnorm",
    "LpNormalization": "rmsnorm",
}
"""Norms that are one operator, and the kind of kernel that they are."""

FUSED_ATTENTION = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention"})

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
"""Recurrences of ONNX's own domain: two weights, (directions, gates, depth), of the input and of
the hidden state."""

CONVOLUTIONS = frozenset({
    "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "FusedConv",
})  # fmt: skip

MATMULS = frozenset({
    "MatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "FusedGemm",
    "LSTM", "GRU", "RNN", "DynamicQuantizeLSTM",
})  # fmt: skip
