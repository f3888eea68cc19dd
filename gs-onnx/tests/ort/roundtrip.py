#!/usr/bin/env python3
"""ONNX Runtime judges the importer and exporter: each model is read and written again, must load, must give the
golden outputs, and a second round trip must give the same bytes.

  roundtrip.py --tool target/debug/examples/onnx_roundtrip [--data ../shared/data] [--opset N] [NAME...]

Goldens and inputs are described in shared/data/onnx/README.md. Needs numpy, onnx, onnxruntime. Exit 0: all as it
should be; 1: something is not.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

# Measured differences between runs of ONNX Runtime itself (see the README of the data); everything else: 1e-5.
TOLERANCE = {"ocr_det_tiny": 1e-3, "basic_pitch_nmp": 1e-2, "resnet8_ort_qdq_s8s8": 5e-3}


def formula(spec):
    n = int(np.prod(spec["shape"], dtype=np.int64))
    u = (((np.arange(n, dtype=np.uint64) * 2654435761) % 2**32).astype(np.float64) / 2**32).astype(np.float32)
    if spec["how"] == "formula*255":
        u = u * np.float32(255)
    elif spec["how"] == "floor(formula*256)":
        u = np.floor(u * np.float32(256))
    return u.reshape(spec["shape"]).astype(spec["dtype"])


def feeds(entry, golden):
    made = {}
    for i, spec in enumerate(entry["inputs"]):
        stored = golden[f"in_{i}"] if f"in_{i}" in golden else None
        made[spec["name"]] = formula(spec) if stored is None else stored
    return made


def invented(run):
    """Inputs for a model without goldens: seeded, every symbol 2."""
    rng, made = np.random.default_rng(0), {}
    for i in run.get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else 2 for d in i.shape]
        kind = i.type.removeprefix("tensor(").removesuffix(")")
        if kind in ("float", "float16", "double"):
            made[i.name] = rng.random(shape).astype({"float": "float32", "double": "float64"}.get(kind, kind))
        else:
            made[i.name] = rng.integers(0, 2, shape).astype(kind)
    return made


def session(path):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def difference(want, got):
    if isinstance(want, (list, dict)) or want.dtype.kind in "US" or want.dtype == object:
        return 0.0 if np.array_equal(np.asarray(want), np.asarray(got)) else np.inf
    if want.shape != got.shape or want.dtype != got.dtype:
        return np.inf
    if want.size == 0:
        return 0.0
    w, g = want.astype(np.float64), got.astype(np.float64)
    same = (w == g) | (np.isnan(w) & np.isnan(g))
    scale = np.max(np.abs(w), initial=0.0, where=np.isfinite(w))
    return float(np.max(np.where(same, 0.0, np.abs(w - g)), initial=0.0)) / (scale or 1.0)


def interface(path):
    graph = onnx.load(str(path), load_external_data=False).graph
    stored = {t.name for t in graph.initializer}
    return [v.name for v in graph.input if v.name not in stored], [v.name for v in graph.output]


def judge(name, source, once, twice, entry, golden):
    """What is wrong with a round trip, as a list of sentences."""
    wrong = []
    if once.read_bytes() != twice.read_bytes():
        wrong.append("the second round trip gives other bytes")
    if interface(source) != interface(once):
        wrong.append(f"names of inputs or outputs changed: {interface(source)} -> {interface(once)}")
    try:
        before = session(source)
    except Exception:  # noqa: BLE001 - the runtime has no kernels for some old or foreign models
        return wrong, "not run by ONNX Runtime"
    try:
        given = feeds(entry, golden) if golden is not None else invented(before)
        after = session(once)
        got = after.run(None, given)
    except Exception as error:  # noqa: BLE001 - whatever the runtime says belongs in the report
        return wrong + [f"ONNX Runtime: {str(error)[:400]}"], ""
    want = before.run(None, given)
    worst = max((difference(np.asarray(w) if not isinstance(w, list) else w, g) for w, g in zip(want, got)), default=0.0)
    if worst > TOLERANCE.get(name, 1e-5):
        wrong.append(f"outputs differ from the source's by {worst:.2e}")
    stored = [golden[f"out_{i}"] for i in range(len(got)) if golden is not None and f"out_{i}" in golden]
    plain = [(w, g) for w, g in zip(stored, got) if not isinstance(g, list)]
    gap = max((difference(w, g) for w, g in plain), default=0.0)
    if gap > TOLERANCE.get(name, 1e-5):
        wrong.append(f"outputs differ from the goldens by {gap:.2e}")
    return wrong, f"differs by {worst:.1e} from the source's run, {gap:.1e} from the golden"


def models(data):
    for folder in ["onnx", "mlperf_tiny", "prune_groups", "resnet_cifar10"]:
        yield from sorted((data / folder).glob("*.onnx"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", required=True)
    p.add_argument("--data", default=str(pathlib.Path(__file__).resolve().parents[4] / "shared/data"))
    p.add_argument("--opset", help="write in this opset (then only ONNX Runtime's word counts)")
    p.add_argument("--verbose", action="store_true")
    p.add_argument("names", nargs="*", help="only these models")
    a = p.parse_args()
    data = pathlib.Path(a.data)
    manifest = json.loads((data / "onnx/manifest.json").read_text())
    failed, count = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for source in models(data):
            name = source.stem
            if a.names and name not in a.names:
                continue
            count += 1
            once, twice = pathlib.Path(folder) / "once.onnx", pathlib.Path(folder) / "twice.onnx"
            options = ["--opset", a.opset] if a.opset else []
            runs = [subprocess.run([a.tool, *options, str(x), str(y)], capture_output=True, text=True)
                    for x, y in [(source, once), (once, twice)]]
            if any(r.returncode for r in runs):
                wrong, note = [r.stderr.strip() for r in runs if r.returncode], ""
            else:
                entry = manifest.get(name) if source.parent.name == "onnx" else None
                golden = np.load(data / f"onnx/golden/{name}.npz", allow_pickle=False) if entry else None
                wrong, note = judge(name, source, once, twice, entry, golden)
            failed += bool(wrong)
            if wrong or a.verbose:
                print(f"{'FAIL' if wrong else 'ok  '} {name}: {'; '.join(wrong) or note}")
    print(f"{count - failed} of {count} models survive a round trip")
    return 1 if failed or not count else 0


sys.exit(main())
