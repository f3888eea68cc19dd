"""Writes qlinear.txt: inputs and outputs of ONNX Runtime's integer operators on its CPU provider.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy
    python qlinear.py [SCALE] > qlinear.txt

SCALE multiplies the number of cases (1 for the committed file). Each case is a line `case OP`, lines `attr NAME KIND
VALUE`, `in` and `out` lines with element type, extents and the little-endian bytes in hexadecimal, or `none` for an
absent input.
"""

import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

rng = np.random.default_rng(20240607)
NAMES = {"float32": "f32", "uint8": "u8", "int8": "i8", "int32": "i32"}
PROTO = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "int32": TensorProto.INT32}
ONNX = {
    "qconv": ("QLinearConv", ""),
    "qmatmul": ("QLinearMatMul", ""),
    "qgemm": ("QGemm", "com.microsoft"),
    "qadd": ("QLinearAdd", "com.microsoft"),
    "qmul": ("QLinearMul", "com.microsoft"),
    "qconcat": ("QLinearConcat", "com.microsoft"),
    "qsigmoid": ("QLinearSigmoid", "com.microsoft"),
    "qleaky_relu": ("QLinearLeakyRelu", "com.microsoft"),
    "qsoftmax": ("QLinearSoftmax", "com.microsoft"),
    "qaverage_pool": ("QLinearAveragePool", "com.microsoft"),
    "qglobal_average_pool": ("QLinearGlobalAveragePool", "com.microsoft"),
    "quantize": ("QuantizeLinear", ""),
    "dequantize": ("DequantizeLinear", ""),
}
RENAME = {"trans_a": "transA", "trans_b": "transB"}
F = np.float32


def emit(op, inputs, attrs=None, out_type=None):
    attrs = attrs or {}
    name, domain = ONNX[op]
    values = []
    names = []
    feeds = {}
    constants = []
    for i, x in enumerate(inputs):
        names.append("" if x is None else f"i{i}")
        if x is None:
            continue
        # Data is fed, grids and weights are constants, as in a real network.
        fed = i == 0 and op != "qconcat" or op == "qconcat" and i >= 2 and i % 3 == 2 or op in ("qadd", "qmul") and i == 3
        if fed:
            feeds[f"i{i}"] = x
            values.append(helper.make_tensor_value_info(f"i{i}", PROTO[str(x.dtype)], x.shape))
        else:
            constants.append(onnx.numpy_helper.from_array(x, f"i{i}"))
    onnx_attrs = {RENAME.get(k, k): (int(v) if isinstance(v, bool) else v) for k, v in attrs.items()}
    node = helper.make_node(name, names, ["y"], domain=domain, **onnx_attrs)
    y = helper.make_tensor_value_info("y", PROTO[out_type], None)
    graph = helper.make_graph([node], "g", values, [y], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    out = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    print("case", op)
    for k, v in attrs.items():
        kind = {bool: "bool", int: "int", float: "float"}.get(type(v), "ints")
        text = " ".join(map(str, v)) if kind == "ints" else str(v).lower()
        print("attr", k, kind, text)
    for x in inputs:
        print("in", tensor(x))
    print("out", tensor(out))


def tensor(x):
    if x is None:
        return "none"
    x = np.asarray(x)
    return f"{NAMES[str(x.dtype)]} [{','.join(map(str, x.shape))}] {x.tobytes().hex() or '-'}"


def codes(kind, shape):
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, shape).astype(kind)


def zero(kind):
    info = np.iinfo(kind)
    return np.array(rng.choice([info.min, info.max, 0 if kind == "int8" else 128, rng.integers(info.min, info.max + 1)]), kind)


def scale(ties):
    if ties:
        return np.array(2.0 ** rng.integers(-6, -1), F)
    return np.array(rng.uniform(0.002, 0.2), F)


def conv(kind, channels, groups, kernel, attrs, per_channel, ties):
    m = 2 * groups
    x, w = codes(kind, (2, channels, 6, 5)), codes("int8", (m, channels // groups, *kernel))
    s_x, s_w = scale(ties), np.array([scale(ties) for _ in range(m)], F) if per_channel else scale(ties)
    s_y = np.array(F(s_x * np.max(s_w)) * 2.0 ** rng.integers(5, 9), F) if ties else np.array(s_x * np.max(s_w) * rng.uniform(30, 300), F)
    z_w = np.zeros(m, np.int8) if per_channel else np.array(0, np.int8)
    b = rng.integers(-3000, 3000, m).astype(np.int32) if rng.random() < 0.7 else None
    inputs = [x, s_x, zero(kind), w, s_w, z_w, s_y, zero(kind), b]
    emit("qconv", inputs, {"group": groups, **attrs}, kind)


def main(times):
    for t in range(3 * times):
        ties = t % 3 == 2
        for kind in ["uint8", "int8"]:
            conv(kind, 4, 1, (3, 3), {"pads": [1, 1, 1, 1]}, True, ties)
            conv(kind, 3, 1, (1, 1), {"strides": [2, 2]}, False, ties)
            conv(kind, 4, 2, (3, 2), {"strides": [2, 1], "pads": [1, 0, 0, 1]}, True, ties)
            conv(kind, 3, 3, (3, 3), {"pads": [1, 1, 1, 1]}, False, ties)
            a, b = codes(kind, (5, 9)), codes("int8", (9, 7))
            s_a, s_b = scale(ties), scale(ties)
            s_y = np.array(s_a * s_b * (64.0 if ties else 71.3), F)
            emit("qmatmul", [a, s_a, zero(kind), b, s_b, np.array(0, np.int8), s_y, zero(kind)], {}, kind)
            c = rng.integers(-3000, 3000, (1, 7)).astype(np.int32)
            per = np.array([scale(ties) for _ in range(7)], F)
            flags = {"trans_a": bool(t % 2), "trans_b": bool(t // 2 % 2), "alpha": 1.0}
            ga, gb = (a.T.copy() if t % 2 else a), (b.T.copy() if t // 2 % 2 else b)
            emit("qgemm", [ga, s_a, zero(kind), gb, s_b, np.array(0, np.int8), c, s_y, zero(kind)], flags, kind)
            emit("qgemm", [ga, s_a, zero(kind), gb, per, np.zeros(7, np.int8), c, s_y, zero(kind)], flags, kind)
            emit("qgemm", [ga, s_a, zero(kind), gb, per, np.zeros(7, np.int8), c, None, None], flags, "float32")
            for op in ["qadd", "qmul"]:
                # Contiguous operands and broadcasting ones take different paths there.
                for shape in [(3, 37), (37,), ()]:
                    a, b = codes(kind, (3, 37)), codes(kind, shape)
                    s_a, s_b = scale(ties), scale(ties)
                    s_y = np.array(2 * s_a, F) if ties else scale(False)
                    if op == "qmul":
                        s_y = np.array(s_a * s_b * (128.0 if ties else 91.7), F)
                    emit(op, [a, s_a, zero(kind), b, s_b, zero(kind), s_y, zero(kind)], {}, kind)
            x = codes(kind, (2, 3, 5, 6))
            grid = [scale(ties), zero(kind)]
            out = [np.array(grid[0] * (1.0 if ties else 0.37), F), zero(kind)]
            emit("qglobal_average_pool", [x, *grid, *out], {"channels_last": 0}, kind)
            emit("qglobal_average_pool", [x, *grid, *out], {"channels_last": 1}, kind)
            pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
            emit("qaverage_pool", [x, *grid, *out], pool, kind)
            emit("qaverage_pool", [x, *grid, *out], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 0]}, kind)
            emit("qaverage_pool", [x, *grid, *out], {**pool, "pads": [1, 1, 1, 1], "count_include_pad": 1}, kind)
            emit("qaverage_pool", [x, *grid, *out], {**pool, "ceil_mode": 1}, kind)
            emit("qaverage_pool", [x, *grid, *out], {**pool, "channels_last": 1}, kind)
            emit("qconcat", [*out, codes(kind, (2, 9)), *grid, codes(kind, (2, 30)), *out, codes(kind, (2, 11)), scale(ties), zero(kind)], {"axis": 1}, kind)
            emit("qsigmoid", [x, *grid, np.array(1 / 256, F), np.array(np.iinfo(kind).min, kind)], {}, kind)
            emit("qleaky_relu", [x, *grid, *out], {"alpha": 0.1}, kind)
            last = np.array(1 / 256, F), np.array(np.iinfo(kind).min, kind)
            emit("qsoftmax", [codes(kind, (6, 10)), *grid, *last], {"axis": 1, "opset": 13}, kind)
            emit("qsoftmax", [codes(kind, (2, 3, 4)), *grid, *last], {"axis": 1, "opset": 12}, kind)
            emit("qsoftmax", [codes(kind, (2, 3, 4)), *grid, *last], {"axis": 1, "opset": 13}, kind)
            f = rng.normal(0, 1, (4, 25)).astype(F)
            step = rng.integers(-300, 300, (4, 25)).astype(F) * F(0.5) * grid[0]
            emit("quantize", [f, *grid], {}, kind)
            emit("quantize", [step.astype(F), *grid], {}, kind)
            emit("dequantize", [x, *grid], {}, "float32")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
