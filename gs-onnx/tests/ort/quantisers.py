#!/usr/bin/env python3
"""Our own functions (fake_quant, qdq, lsq, pact, dorefa, slb) as ONNX Runtime runs them, against the formulas written down a second time.

  quantisers.py --quantisers target/debug/examples/onnx_quantisers --tool target/debug/examples/onnx_roundtrip

Also: the file read back and written again has the same bytes, so the calls were recognised. Needs numpy, onnx,
onnxruntime.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

F = np.float32


def cover(low, high, bits, flags):
    """Scale and zero point of one range (Jacob et al. 2018, section 3), and the codes."""
    qmin, qmax = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if "signed" in flags else (0, (1 << bits) - 1)
    qmin += "narrow" in flags
    low, high = min(F(0) if np.isnan(low) else low, F(0)), max(F(0) if np.isnan(high) else high, F(0))
    middle = 0 if "signed" in flags else 1 << (bits - 1)
    symmetric = "symmetric" in flags
    wide = 2.0 * max(float(high), -float(low)) if symmetric else float(high) - float(low)
    if wide == 0 or not np.isfinite(wide):
        return F(1), int(np.clip(middle if symmetric else 0, qmin, qmax)), qmin, qmax
    scale = max(F(wide / (qmax - qmin)), np.finfo(F).tiny)
    zero = middle if symmetric else int(np.rint(F(F(qmin) - F(low / scale))))
    return scale, int(np.clip(zero, qmin, qmax)), qmin, qmax


def to_grid(x, scale, zero, qmin, qmax, odd=False):
    q = np.divide(x, scale, dtype=F)
    code = 2 * np.rint((q - F(1)) / F(2)) + 1 if odd else np.rint(q) + zero
    return ((np.clip(code, qmin, qmax) - zero) * scale).astype(F)


def per_channel(x, grids, odd=False):
    return np.stack([to_grid(x[:, c], *g, odd) for c, g in enumerate(grids)], axis=1)


def on_levels(level, scale, top):
    """Levels times scale / top."""
    return (level * (F(scale) / F(top))).astype(F)


def dorefa(w, scale, bits):
    """Zhou et al. 2016, equations 7 to 9, times a scale."""
    top = (1 << bits) - 1
    if bits == 1:
        return on_levels(np.where(w < 0, F(-1), F(1)), scale, top)
    t = np.tanh(w.astype(np.float64))
    k = np.rint(top * (t / (2 * np.abs(t).max()) + 0.5))
    return on_levels((2 * k - top).astype(F), scale, top)


def learned(name, x):
    kind, rest = name.split("_")
    scales = [F(0.031), F(0.5), F(0.002)]

    def channels(of):
        return np.stack([of(x[:, c], s) for c, s in enumerate(scales)], axis=1)

    if kind == "lsq":
        plain = rest == "4"
        return to_grid(x, scales[0], 0, -8, 7) if plain else channels(lambda v, s: to_grid(v, s, 0, 0, 7))
    if kind == "pact":
        low, high = (0, 15) if rest == "4" else (-3, 3)
        return to_grid(x, F(1.3) / F(high), 0, low, high)
    if kind == "dorefa":
        return dorefa(x, 1.3, int(rest))
    if kind == "dorefac":
        return channels(lambda v, s: dorefa(v, s, int(rest)))
    x = (2 * np.argmax(x.reshape(-1, 3, 10, 4), axis=-1) - 3).astype(F)
    return on_levels(x, 1.3, 3) if rest == "2" else channels(lambda v, s: on_levels(v, s, 3))


def expected(name, x):
    kind, *rest = name.split("_", 2)
    if kind in ("lsq", "pact", "dorefa", "dorefac", "slb"):
        return learned(name, x)
    ranges = np.array([[-1, -0.5, np.nan], [3, -0.25, 0]], F)
    if kind in ("fq", "fqc"):
        bits, flags = int(rest[0]), (rest[1] if len(rest) > 1 else "").split("_")
        if kind == "fq":
            return to_grid(x, *cover(F(-1), F(3), bits, flags))
        return per_channel(x, [cover(ranges[0, c], ranges[1, c], bits, flags) for c in range(3)])
    scales, zeros = [F(0.031), F(0.5), F(0.002)], [0, 3, -5]
    return {
        "qdq_u8": lambda: to_grid(x, F(0.031), 37, 0, 255),
        "qdq_i8_axis": lambda: per_channel(x, [(s, z, -128, 127) for s, z in zip(scales, zeros)]),
        "qdq_i8_bits4": lambda: per_channel(x, [(s, z, -8, 7) for s, z in zip(scales, zeros)]),
        "qdq_u8_limits": lambda: to_grid(x, F(0.031), 37, 20, 90),
        "qdq_odd": lambda: to_grid(x, F(0.031), 0, -3, 3, odd=True),
    }[name]()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quantisers", required=True)
    p.add_argument("--tool", required=True)
    a = p.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        made, again = pathlib.Path(folder) / "made.onnx", pathlib.Path(folder) / "again.onnx"
        subprocess.run([a.quantisers, str(made)], check=True)
        subprocess.run([a.tool, str(made), str(again)], check=True)
        if made.read_bytes() != again.read_bytes():
            wrong.append("read back and written again it has other bytes")
        onnx.checker.check_model(onnx.load(str(made)))
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        run = ort.InferenceSession(str(made), options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(1)
        x = np.concatenate([rng.normal(0, 2, (5, 3, 40)), rng.integers(-300, 300, (2, 3, 40)) * 0.0155]).astype(F)
        names = [o.name for o in run.get_outputs()]
        for name, got in zip(names, run.run(None, {"x": x})):
            want = expected(name, x)
            if got.dtype != want.dtype or not np.array_equal(got, want):
                wrong.append(f"{name}: {int((got != want).sum())} of {want.size} values differ")
    print("\n".join(wrong) or f"{len(names)} quantisers agree bit for bit")
    return 1 if wrong else 0


sys.exit(main())
