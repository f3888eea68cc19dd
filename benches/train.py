#!/usr/bin/env python3
"""Times a training step of ResNet-20 beside PyTorch; see train.sh, which calls this.

Every pair runs our steps and PyTorch's one after the other, each in a fresh process with two threads, so that drift of
the machine hits both alike; the figure is the median of the pairs' ratios. PyTorch runs the same network from the same
file, operator by operator, in channels_last, with SGD and momentum. Exit 0: all limits hold; 1: one is broken.
"""
import argparse, datetime, pathlib, re, resource, statistics, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "long"))

ALGORITHMS = ["float", "simqat", "lsq"]
SLOWEST_FLOAT = 1.0     # times PyTorch
SLOWEST_QUANTISED = 1.25  # times our float step
MOST_MEMORY = 250       # MB of a process that trains in float
WARM, STEPS = 3, 10


def torch_step(net, batch, threads):
    """The other side, in a process of its own: milliseconds of a step, and the most memory in MB."""
    import onnx
    import torch
    from gradients import compute
    from onnx import numpy_helper

    torch.set_num_threads(threads)
    graph = onnx.load(net).graph
    statistics_of = {n for node in graph.node if node.op_type == "BatchNormalization" for n in node.input[3:5]}
    values = {}
    for i in graph.initializer:
        t = torch.from_numpy(numpy_helper.to_array(i).copy())
        if t.dim() == 4:
            t = t.to(memory_format=torch.channels_last)
        learned = t.is_floating_point() and t.dim() > 0 and i.name not in statistics_of
        values[i.name] = t.requires_grad_() if learned else t
    given = [i for i in graph.input if i.name not in values][0]
    dims = [d.dim_value for d in given.type.tensor_type.shape.dim][1:]
    x = torch.randn(batch, *dims).to(memory_format=torch.channels_last)
    y = torch.arange(batch) % 10
    optimiser = torch.optim.SGD([v for v in values.values() if v.requires_grad], lr=1e-4, momentum=0.9)
    times = []
    for _ in range(WARM + STEPS):
        start = time.perf_counter()
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(compute(graph, values, x), y).backward()
        optimiser.step()
        times.append(time.perf_counter() - start)
    # As ours: on a machine with other work the least is what the step takes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(1e3 * min(times[WARM:]), peak, torch.__version__)


def printed(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return done.stdout


def our_step(a, algorithms):
    """Milliseconds of a step of each algorithm, and the most memory of the process in MB."""
    text = printed(a.binary, a.net, *algorithms, "--batch", a.batch, "--threads", a.threads, "--rounds", 3)
    times = {m[1]: float(m[2]) for m in re.finditer(r"^(\S+): step ([\d.]+) ms", text, re.M)}
    return times, float(re.search(r"peak resident (\d+) MB", text)[1])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--net", required=True)
    p.add_argument("--binary", help="the example train_step of gs-runtime")
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--out", type=pathlib.Path)
    p.add_argument("--torch", action="store_true", help="run PyTorch's side alone")
    a = p.parse_args()
    if a.torch:
        return torch_step(a.net, a.batch, a.threads)
    pairs, version, theirs_peak = [], "", 0.0
    for i in range(a.pairs):
        ours, _ = our_step(a, ALGORITHMS)
        theirs = printed(sys.executable, __file__, "--torch", "--net", a.net, "--batch", a.batch, "--threads", a.threads)
        milliseconds, theirs_peak, version = theirs.split()
        pairs.append((ours, float(milliseconds)))
        print(f"pair {i + 1}: PyTorch {float(milliseconds):.1f} ms, ours {ours}", flush=True)
    median = statistics.median
    to_torch = {n: median(o[n] / t for o, t in pairs) for n in ALGORITHMS}
    to_float = {n: median(o[n] / o["float"] for o, _ in pairs) for n in ALGORITHMS}
    peaks = {n: our_step(a, [n])[1] for n in ALGORITHMS}
    lines = [
        "# Speed of training",
        "",
        f"Written by `benches/train.sh` on {datetime.date.today()}. One step of ResNet-20 (forward, backward, SGD with momentum), batch {a.batch},",
        f"{a.threads} threads, in pairs with PyTorch {version} (channels_last); medians of {a.pairs} pairs. Memory is the most",
        "that the whole process held.",
        "",
        "| step | ms | times PyTorch in float | times our float | MB |",
        "|---|---|---|---|---|",
        f"| PyTorch, float | {median(t for _, t in pairs):.1f} | 1 | | {float(theirs_peak):.0f} |",
    ]
    for n in ALGORITHMS:
        lines.append(f"| {n} | {median(o[n] for o, _ in pairs):.1f} | {to_torch[n]:.2f} | {to_float[n]:.2f} | {peaks[n]:.0f} |")
    broken = []
    if to_torch["float"] > SLOWEST_FLOAT:
        broken.append(f"a step in float takes {to_torch['float']:.2f} times PyTorch's, more than {SLOWEST_FLOAT}")
    for n in ALGORITHMS[1:]:
        if to_float[n] > SLOWEST_QUANTISED:
            broken.append(f"a step with {n} takes {to_float[n]:.2f} times a step in float, more than {SLOWEST_QUANTISED}")
    if peaks["float"] > MOST_MEMORY:
        broken.append(f"training takes {peaks['float']:.0f} MB, more than {MOST_MEMORY}")
    lines += ["", *(f"Limit broken: {b}." for b in broken)] if broken else []
    text = "\n".join(lines) + "\n"
    print(text)
    if a.out:
        a.out.write_text(text)
    return 1 if broken else 0


sys.exit(main())
