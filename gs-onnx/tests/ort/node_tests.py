#!/usr/bin/env python3
"""ONNX's own operator cases through the importer and exporter, with ONNX Runtime as judge.

  node_tests.py --tool target/debug/examples/onnx_roundtrip [--archive ../shared/data/onnx_node_tests_1.19.1.tar.zst]

Each case's model is read and written again; what ONNX Runtime could run before, it must run after, with the same
outputs bit for bit, and a second round trip must give the same bytes. Needs numpy, onnx, onnxruntime, zstd.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper


def session(path):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def value(path, kind):
    data = path.read_bytes()
    if kind.startswith("seq("):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind.startswith("optional("):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def run(path, case):
    """Outputs, or None where the runtime cannot run the model."""
    try:
        s = session(path)
        feeds = {v.name: value(case / f"test_data_set_0/input_{i}.pb", v.type) for i, v in enumerate(s.get_inputs())}
        return s.run(None, feeds)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other run must meet it too
        return str(error)[:300]


def same(a, b, exact):
    """Bit for bit; another version of the operator set may run another kernel, which rounds elsewhere."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, exact) for x, y in zip(a, b))
    if a is None or b is None:
        return a is b
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.tobytes() == b.tobytes() or np.array_equal(a, b):
        return True
    tolerance = 2e-3 if a.dtype == np.float16 else 1e-5
    return not exact and a.dtype.kind == "f" and np.allclose(a, b, tolerance, tolerance, equal_nan=True)


def convert(tool, pairs, options):
    """Converts all; gives the messages of those that failed, by file."""
    failed = {}
    for start in range(0, len(pairs), 200):
        chunk = [str(p) for pair in pairs[start:start + 200] for p in pair]
        result = subprocess.run([tool, *options, *chunk], capture_output=True, text=True)
        for line in result.stderr.splitlines():
            name, _, message = line.partition(": ")
            failed[name] = message
        if result.returncode not in (0, 1):
            failed["the tool"] = f"ended with {result.returncode}: {result.stderr[-300:]}"
    return failed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", required=True)
    data = pathlib.Path(__file__).resolve().parents[4] / "shared/data"
    p.add_argument("--archive", default=str(data / "onnx_node_tests_1.19.1.tar.zst"))
    p.add_argument("--opset", help="write in this opset; cases that cannot be are not counted")
    p.add_argument("names", nargs="*")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        subprocess.run(["tar", "--zstd", "-xf", a.archive, "-C", folder], check=True)
        cases = sorted(c for c in (root / "node").iterdir() if not a.names or c.name in a.names)
        options = ["--opset", a.opset] if a.opset else []
        first = [(c / "model.onnx", c / "once.onnx") for c in cases]
        refused = convert(a.tool, first, options)
        done = [c for c in cases if (c / "once.onnx").exists() and str(c / "model.onnx") not in refused]
        again = convert(a.tool, [(c / "once.onnx", c / "twice.onnx") for c in done], options)
        wrong, ran = [], 0
        if a.opset is None:
            wrong += [(pathlib.Path(k).parent.name, m) for k, m in refused.items()]
        wrong += [(pathlib.Path(k).parent.name, f"second time: {m}") for k, m in again.items()]
        for case in done:
            twice = case / "twice.onnx"
            if twice.exists() and twice.read_bytes() != (case / "once.onnx").read_bytes():
                wrong.append((case.name, "the second round trip gives other bytes"))
            before = run(case / "model.onnx", case)
            if isinstance(before, str):
                continue
            ran += 1
            after = run(case / "once.onnx", case)
            if isinstance(after, str):
                if a.opset is None or "NOT_IMPLEMENTED" not in after:
                    wrong.append((case.name, after))
            elif not all(same(x, y, a.opset is None) for x, y in zip(before, after)):
                wrong.append((case.name, "other outputs"))
        for name, message in wrong:
            print(f"FAIL {name}: {message}")
        print(f"{len(cases)} cases, {len(refused)} not written, {ran} run by ONNX Runtime, {len(wrong)} wrong")
        return 1 if wrong or not ran else 0


sys.exit(main())
