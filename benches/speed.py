#!/usr/bin/env python3
"""Times `gs-opt eval` beside ONNX Runtime; see speed.sh, which calls this.

Every round runs each network with each program once, each in a fresh process, so that drift of the machine hits all
alike. Time is what the network's runs take, without loading it and the images; memory is the most that the whole
process held. Exit 0: all limits hold; 1: one is broken.
"""
import argparse, datetime, json, os, platform, re, statistics, subprocess, sys, time

SLOWEST = 2.0      # times ONNX Runtime
MOST_MEMORY = 150  # MB of the whole process


def run_ort(model, data, batch, threads):
    """The other side, in a process of its own: seconds, right answers and samples as one JSON line."""
    import numpy as np
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    arrays = np.load(data)
    x, y = arrays["x"], arrays["y"]
    name, seconds, right = session.get_inputs()[0].name, 0.0, 0
    for i in range(0, len(x), batch):
        part = x[i:i + batch]
        start = time.perf_counter()
        scores = session.run(None, {name: part})[0]
        seconds += time.perf_counter() - start
        right += int((scores.argmax(1) == y[i:i + batch]).sum())
    print(json.dumps({"seconds": seconds, "top1": right / len(x), "n": len(x), "version": ort.__version__}))


def measured(command):
    """Runs a command: what it printed, and the most memory it held in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return printed, usage.ru_maxrss * 1024 / 1e6


def machine():
    cpu = platform.processor() or platform.machine()
    flags = ""
    if os.path.exists("/proc/cpuinfo"):
        text = open("/proc/cpuinfo").read()
        cpu = re.search(r"model name\s*: (.*)", text)[1] if "model name" in text else cpu
        known = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if re.search(rf"\b{f}\b", text)]
        flags = f" ({', '.join(known)})" if known else ""
    return f"{cpu}{flags}, {os.cpu_count()} logical processors, {platform.system()}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("tool", "text", "data", "float", "int8", "out"):
        p.add_argument(f"--{name}", required=True)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    models = {"ResNet-20 float": a.float, "ResNet-20 int8": a.int8}
    common = ["--batch", str(a.batch), "--threads", str(a.threads)]
    times, memory, load, version = {}, {}, [], ""
    for _ in range(a.rounds):
        for label, model in models.items():
            ours, peak = measured([a.tool, "eval", model, "--data", f"npz:{a.data}", "--json", *common])
            other, _ = measured([sys.executable, __file__, "--ort", model, a.data, str(a.batch), str(a.threads)])
            ours, other = json.loads(ours), json.loads(other)
            if ours["n"] != other["n"] or abs(ours["top1"] - other["top1"]) > 0.001:
                sys.exit(f"{label}: the two programs do not compute the same: {ours} {other}")
            version = other["version"]
            times.setdefault(label, []).append((ours["seconds"], other["seconds"]))
            memory[label] = max(memory.get(label, 0), peak)
            load.append(os.getloadavg()[0])
    text = [measured([a.text])[0] for _ in range(3)]
    rate = {k: statistics.median(int(re.search(rf"{k} .* (\d+) thousand", t)[1]) for t in text) for k in ("parse", "print")}

    tool_version = subprocess.run([a.tool, "--version"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# Speed",
        "",
        f"Written by `benches/speed.sh` on {datetime.date.today()}. {machine()}.",
        f"{tool_version}; ONNX Runtime {version}. 10,000 CIFAR-10 test images, batches of {a.batch}, {a.threads} threads,",
        f"{a.rounds} rounds that alternate between the programs. Seconds in the network: median (least to most). The ratio",
        f"is the median of the rounds' ratios; at most {SLOWEST:g} is asked for, and at most {MOST_MEMORY} MB.",
        "",
        "| network | gs-opt eval | ONNX Runtime | ratio | images/s | peak memory of gs-opt |",
        "|---|---|---|---|---|---|",
    ]
    broken = []
    spread = lambda v: f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})"
    for label, pairs in times.items():
        ratio = statistics.median(o / r for o, r in pairs)
        ours, other = zip(*pairs)
        lines.append(f"| {label} | {spread(ours)} | {spread(other)} | {ratio:.2f} | {10000 / statistics.median(ours):.0f} "
                     f"| {memory[label]:.0f} MB |")
        if ratio > SLOWEST:
            broken.append(f"{label}: {ratio:.2f} times ONNX Runtime's time")
        if memory[label] > MOST_MEMORY:
            broken.append(f"{label}: {memory[label]:.0f} MB")
    size = re.match(r"(\d+) ops, (\d+) bytes", text[0])
    per_op = int(size[2]) / int(size[1])
    lines += [
        "",
        f"Text, one thread, a chain of {int(size[1]):,} operations ({int(size[2]) / 1e6:.1f} MB of `.gsir`), "
        "`gs-text/examples/text_bench.rs`:",
        "",
        "| | operations/s | MB/s |",
        "|---|---|---|",
        *(f"| {k} | {v:,} thousand | {v * per_op / 1e3:.0f} |" for k, v in rate.items()),
        "",
        f"Load of the machine during the runs, which use {a.threads} threads themselves: "
        f"{min(load):.1f} to {max(load):.1f} (average over a minute).",
    ]
    if max(load) > a.threads + 1:
        lines += ["", "**The machine was not quiet**: other work took processor time from both programs, and hurts threads that wait by",
                  "spinning, as ONNX Runtime's do, more than others. Take the seconds and the ratio as rough figures."]
    report = "\n".join(lines) + "\n"
    print(report)
    with open(a.out + ".part", "w") as f:
        f.write(report)
    os.replace(a.out + ".part", a.out)
    if broken:
        sys.exit("limits broken: " + "; ".join(broken))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ort"]:
        run_ort(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
