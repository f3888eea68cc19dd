"""Gradients of whole float networks against PyTorch.

GS_TORCH names a Python with torch, onnx and numpy; without it nothing is run.
    $GS_TORCH tests/long/gradients.py GRADIENTS_BINARY
The binary is `cargo build --release -p gs-opt --example gradients`. Each network is computed by PyTorch operator by
operator from the same file, in training form, and the gradient of the cross entropy by each parameter is compared with
ours: the largest difference, as a part of the parameter's largest one. Where PyTorch's is less than a part in 100,000 of the
network's largest (a bias before batch normalisation has no gradient but what rounding makes of it), ours must be so too.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

DATA = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
# Networks, and the batch: two pictures would leave batch normalisation with too few numbers.
NETWORKS = [
    ("resnet_cifar10/resnet20_bn.onnx", 16),
    ("resnet_cifar10/resnet56_bn.onnx", 16),
    ("mlperf_tiny/resnet8_bn.onnx", 16),
    ("mlperf_tiny/vww_mobilenetv1_bn.onnx", 8),
    ("mlperf_tiny/ad_autoencoder_bn.onnx", 64),
]
# What float32 leaves of a gradient through so many layers.
ALLOWED = 1e-4
# Gradients below this part of the network's largest are rounding.
NOTHING = 1e-5


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def pads(x, a, rank, fill=0.0):
    p = a.get("pads", [0] * (2 * rank))
    if a.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
        k, s, d = a["kernel_shape"], a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
        begin, end = [], []
        for i in range(rank):
            n = x.shape[2 + i]
            total = max((-(-n // s[i]) - 1) * s[i] + (k[i] - 1) * d[i] + 1 - n, 0)
            low = total // 2 if a["auto_pad"] == b"SAME_UPPER" else total - total // 2
            begin.append(low)
            end.append(total - low)
        p = begin + end
    if not any(p):
        return x
    spec = [v for i in reversed(range(rank)) for v in (p[i], p[rank + i])]
    return F.pad(x, spec, value=fill)


def compute(graph, values, x):
    """The graph's first output; `values` holds its initializers."""
    values = dict(values)
    values[[i.name for i in graph.input if i.name not in values][0]] = x
    for node in graph.node:
        a = attributes(node)
        v = [values[n] if n else None for n in node.input]
        op = node.op_type
        if op == "Conv":
            rank = v[1].dim() - 2
            a.setdefault("kernel_shape", list(v[1].shape[2:]))
            conv = [F.conv1d, F.conv2d, F.conv3d][rank - 1]
            y = conv(pads(v[0], a, rank), v[1], v[2] if len(v) > 2 else None, a.get("strides", [1] * rank), 0,
                     a.get("dilations", [1] * rank), a.get("group", 1))
        elif op == "BatchNormalization":
            y = F.batch_norm(v[0], v[3].detach(), v[4].detach(), v[1], v[2], True, 0.1,
                             a.get("epsilon", 1e-5))
        elif op == "Relu":
            y = F.relu(v[0])
        elif op == "Clip":
            y = torch.clamp(v[0], v[1] if len(v) > 1 else a.get("min"), v[2] if len(v) > 2 else a.get("max"))
        elif op in ("Add", "Sub", "Mul"):
            y = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul}[op](v[0], v[1])
        elif op == "GlobalAveragePool":
            y = v[0].mean(dim=tuple(range(2, v[0].dim())), keepdim=True)
        elif op == "ReduceMean":
            axes = a.get("axes") or v[1].tolist()
            y = v[0].mean(dim=tuple(axes), keepdim=bool(a.get("keepdims", 1)))
        elif op == "AveragePool":
            assert not any(a.get("pads", [])) and a.get("auto_pad", b"") in (b"", b"NOTSET", b"VALID")
            y = F.avg_pool2d(v[0], a["kernel_shape"], a.get("strides", [1, 1]))
        elif op == "MaxPool":
            y = F.max_pool2d(pads(v[0], a, 2, float("-inf")), a["kernel_shape"], a.get("strides", [1, 1]))
        elif op == "Flatten":
            y = v[0].flatten(a.get("axis", 1))
        elif op == "Reshape":
            y = v[0].reshape([n if n else v[0].shape[i] for i, n in enumerate(v[1].tolist())])
        elif op == "Transpose":
            y = v[0].permute(a["perm"])
        elif op == "Squeeze":
            y = v[0]
            for axis in sorted(a.get("axes") or v[1].tolist(), reverse=True):
                y = y.squeeze(axis)
        elif op == "Gemm":
            b = v[1].T if a.get("transB") else v[1]
            y = a.get("alpha", 1.0) * (v[0] @ b)
            y = y + a.get("beta", 1.0) * v[2] if len(v) > 2 else y
        elif op == "MatMul":
            y = v[0] @ v[1]
        elif op == "Slice":
            starts, ends = v[1].tolist(), v[2].tolist()
            axes = v[3].tolist() if len(v) > 3 else range(len(starts))
            steps = v[4].tolist() if len(v) > 4 else [1] * len(starts)
            picked = [slice(None)] * v[0].dim()
            for axis, start, end, step in zip(axes, starts, ends, steps):
                picked[axis] = slice(start, end, step)
            y = v[0][tuple(picked)]
        elif op == "Pad":
            p = v[1].tolist() if len(v) > 1 else a["pads"]
            rank = len(p) // 2
            y = F.pad(v[0], [n for i in reversed(range(rank)) for n in (p[i], p[rank + i])])
        elif op == "Concat":
            y = torch.cat(v, a["axis"])
        elif op == "Constant":
            y = torch.from_numpy(numpy_helper.to_array(a["value"]).copy())
        elif op in ("Identity", "Dropout"):
            y = v[0]
        elif op == "Softmax":
            y = torch.softmax(v[0], a.get("axis", -1))
        else:
            raise SystemExit(f"no {op} here")
        values[node.output[0]] = y
    return values[graph.output[0].name]


def compare(binary, path, batch):
    graph = onnx.load(path).graph
    initializers = {}
    for i in graph.initializer:
        t = torch.from_numpy(numpy_helper.to_array(i).copy())
        initializers[i.name] = t.requires_grad_() if t.is_floating_point() and t.dim() > 0 else t
    given = [i for i in graph.input if i.name not in initializers][0]
    dims = [d.dim_value for d in given.type.tensor_type.shape.dim]
    rng = np.random.default_rng(7)
    x = rng.standard_normal([batch] + dims[1:]).astype(np.float32)
    logits = compute(graph, initializers, torch.from_numpy(x))
    y = rng.integers(0, logits.shape[1], batch)
    loss = F.cross_entropy(logits, torch.from_numpy(y))
    loss.backward()
    with tempfile.TemporaryDirectory() as folder:
        samples, out = f"{folder}/samples.npz", f"{folder}/out.npz"
        np.savez(samples, **{given.name: x, "labels": y})
        subprocess.run([binary, str(path), samples, out], check=True)
        ours = dict(np.load(out))
    worst, where, count, nothing = 0.0, "", 0, 0
    largest = max(i.grad.abs().max().item() for i in initializers.values() if i.grad is not None)
    for name, gradient in ours.items():
        if not name.startswith("grad."):
            continue
        wanted = initializers[name[5:]].grad.numpy()
        scale = np.abs(wanted).max()
        count += 1
        if scale < NOTHING * largest:
            nothing += 1
            difference = 0.0 if np.abs(gradient).max() < NOTHING * largest else np.inf
        else:
            difference = np.abs(gradient - wanted).max() / scale
        if difference > worst:
            worst, where = difference, name[5:]
    print(f"{path.parent.name}/{path.name}: loss {float(ours['loss']):.6f} (PyTorch {loss.item():.6f}), "
          f"{count} gradients ({nothing} of rounding alone), largest difference {worst:.1e} of the largest element, at {where}")
    return count > nothing and worst < ALLOWED and abs(float(ours["loss"]) - loss.item()) < 1e-4


if __name__ == "__main__":
    torch.set_num_threads(2)
    good = [compare(sys.argv[1], DATA / name, batch) for name, batch in NETWORKS]
    sys.exit(0 if all(good) else 1)
