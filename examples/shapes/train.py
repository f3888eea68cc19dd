#!/usr/bin/env python3
"""Trains the small network of this folder on the CPU and writes it as ONNX, node by node.

  cargo run --release -p gs-opt --example dump_data -- shapes:train:20000 train.npz --bytes
  cargo run --release -p gs-opt --example dump_data -- shapes:test:4000 test.npz --bytes
  python3 train.py train.npz test.npz shapes.onnx

One table, NET, is read twice: by PyTorch to train, and by the ONNX writer, so that the file has readable names
and keeps its BatchNormalization nodes. Needs torch, numpy, onnx and onnxruntime.
"""
import sys

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CLASSES = "disc ring square frame triangle diamond plus saltire stripes checker".split()
EPOCHS, BATCH, PEAK_RATE = 18, 100, 0.2


def conv_bn(name, source, cin, cout, kernel, group=1, relu=True):
    """Rows for a convolution with its batch norm and, unless asked otherwise, its relu; `name` is `conv` + a suffix."""
    tail = name.removeprefix("conv")
    rows = [(name, "conv", [source], (cin, cout, kernel, group)), ("bn" + tail, "bn", [name], cout)]
    return rows + ([("relu" + tail, "relu", ["bn" + tail], None)] if relu else [])


# (name, kind, sources, arguments) in order of execution
NET = [
    *conv_bn("conv1", "input", 3, 16, 3),
    ("pool1", "maxpool", ["relu1"], 2),
    # a residual block
    *conv_bn("conv2a", "pool1", 16, 16, 3),
    *conv_bn("conv2b", "relu2a", 16, 16, 3, relu=False),
    ("add2", "add", ["bn2b", "pool1"], None),
    ("relu2", "relu", ["add2"], None),
    # two kernel sizes side by side
    *conv_bn("conv3a", "relu2", 16, 16, 1),
    *conv_bn("conv3b", "relu2", 16, 32, 3),
    ("concat3", "concat", ["relu3a", "relu3b"], 1),
    # depthwise, then pointwise, with a shortcut
    *conv_bn("conv4dw", "concat3", 48, 48, 3, group=48),
    *conv_bn("conv4pw", "relu4dw", 48, 48, 1, relu=False),
    ("add4", "add", ["bn4pw", "concat3"], None),
    ("relu4", "relu", ["add4"], None),
    ("pool4", "maxpool", ["relu4"], 2),
    *conv_bn("conv5", "pool4", 48, 64, 3),
    *conv_bn("conv6dw", "relu5", 64, 64, 3, group=64),
    *conv_bn("conv6pw", "relu6dw", 64, 64, 1, relu=False),
    ("add6", "add", ["bn6pw", "relu5"], None),
    ("relu6", "relu", ["add6"], None),
    ("avgpool", "gap", ["relu6"], None),
    ("flatten", "flatten", ["avgpool"], None),
    ("fc", "gemm", ["flatten"], (64, len(CLASSES))),
]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        make = {
            "conv": lambda cin, cout, k, g: torch.nn.Conv2d(cin, cout, k, padding=k // 2, groups=g, bias=False),
            "bn": lambda channels: torch.nn.BatchNorm2d(channels),
            "gemm": lambda cin, cout: torch.nn.Linear(cin, cout),
        }
        self.layers = torch.nn.ModuleDict(
            {n: make[kind](*(a if isinstance(a, tuple) else (a,))) for n, kind, _, a in NET if kind in make}
        )

    def forward(self, x):
        values = {"input": x}
        for name, kind, sources, args in NET:
            s = [values[source] for source in sources]
            values[name] = {
                "relu": lambda: s[0].relu(),
                "add": lambda: s[0] + s[1],
                "concat": lambda: torch.cat(s, args),
                "maxpool": lambda: torch.nn.functional.max_pool2d(s[0], args),
                "gap": lambda: s[0].mean((2, 3), keepdim=True),
                "flatten": lambda: s[0].flatten(1),
            }.get(kind, lambda: self.layers[name](s[0]))()
        return values[NET[-1][0]]


def load(path):
    """Normalised pixels and labels of an .npz with bytes x [N, 3, 32, 32] and labels y [N]."""
    data = np.load(path)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (data["x"].astype(np.float32) / np.float32(255) - mean) / std, data["y"].astype(np.int64)


def train(x, y):
    # One thread and channels last: for maps this small it is the fastest, and the sums keep their order.
    torch.set_num_threads(1)
    torch.manual_seed(1)
    net = Net().to(memory_format=torch.channels_last)
    x, y = torch.from_numpy(x).contiguous(memory_format=torch.channels_last), torch.from_numpy(y)
    steps = len(x) // BATCH
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
    sgd = torch.optim.SGD(groups, lr=PEAK_RATE, momentum=0.9, nesterov=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(sgd, PEAK_RATE, epochs=EPOCHS, steps_per_epoch=steps, pct_start=0.2)
    for epoch in range(EPOCHS):
        net.train()
        total = 0.0
        for batch in torch.randperm(len(x))[: steps * BATCH].view(steps, BATCH):
            loss = torch.nn.functional.cross_entropy(net(x[batch]), y[batch], label_smoothing=0.05)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            rate.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / steps:.4f}", flush=True)
    return net.eval()


def export(net, path):
    nodes, weights = [], []

    def param(name, tensor):
        weights.append(numpy_helper.from_array(tensor.detach().contiguous().numpy(), name))
        return name

    for name, kind, sources, args in NET:
        inputs = [source if source == "input" else source + "_out" for source in sources]
        layer = net.layers[name] if name in net.layers else None
        op, attributes = {"relu": "Relu", "add": "Add", "gap": "GlobalAveragePool", "flatten": "Flatten"}.get(kind), {}
        if kind == "conv":
            _, _, k, group = args
            op, attributes = "Conv", dict(kernel_shape=[k, k], pads=[k // 2] * 4, strides=[1, 1], group=group)
            inputs += [param(f"{name}.weight", layer.weight)]
        elif kind == "bn":
            op, attributes = "BatchNormalization", dict(epsilon=layer.eps)
            inputs += [param(f"{name}.{p}", getattr(layer, p)) for p in ("weight", "bias", "running_mean", "running_var")]
        elif kind == "gemm":
            op, attributes = "Gemm", dict(transB=1)
            inputs += [param(f"{name}.weight", layer.weight), param(f"{name}.bias", layer.bias)]
        elif kind == "concat":
            op, attributes = "Concat", dict(axis=args)
        elif kind == "maxpool":
            op, attributes = "MaxPool", dict(kernel_shape=[args] * 2, strides=[args] * 2)
        output = "logits" if name == NET[-1][0] else name + "_out"
        nodes.append(helper.make_node(op, inputs, [output], name, **attributes))

    graph = helper.make_graph(
        nodes, "shapes",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(CLASSES)])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="golden-stick")
    helper.set_model_props(model, {
        "normalize_mean": ",".join(map(str, MEAN)),
        "normalize_std": ",".join(map(str, STD)),
        "input": "RGB /255, normalized, NCHW",
        "classes": ",".join(CLASSES),
    })
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def judge(path, x, y):
    """Top-1 of the written file in ONNX Runtime, not of the network in memory."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    guesses = np.concatenate([session.run(None, {"input": x[i : i + 500]})[0].argmax(1) for i in range(0, len(x), 500)])
    right = guesses == y
    print(f"{right.sum()} of {len(y)} right ({100 * right.mean():.2f} %); first 2000: {right[:2000].sum()}")
    for label, name in enumerate(CLASSES):
        print(f"  {name}: {100 * right[y == label].mean():.1f} %")


if __name__ == "__main__":
    train_file, test_file, onnx_file = sys.argv[1:]
    export(train(*load(train_file)), onnx_file)
    judge(onnx_file, *load(test_file))
