#!/usr/bin/env python3
"""Makes the rows of accuracy.md; see accuracy.sh, which calls this."""
import argparse, datetime, hashlib, json, os, pathlib, subprocess, sys

# The network as the baseline calls it: its file, options of the tool, its test images.
NETWORKS = {
    "resnet20": ("ResNet-20", "resnet_cifar10/resnet20_bn.onnx", [], "test.npz"),
    "resnet56": ("ResNet-56", "resnet_cifar10/resnet56_bn.onnx", [], "test.npz"),
    "resnet8": ("ResNet-8 (MLPerf Tiny)", "mlperf_tiny/resnet8_bn.onnx", ["--raw255"], "test-raw.npz"),
}
OBSERVERS = ["minmax", "percentile", "entropy", "mse"]
# With its default of 128 bins the search of ONNX Runtime's entropy method has a single candidate.
BASELINES = {"MinMax": "minmax", "Percentile": "percentile", "Entropy2048": "entropy, 2048 bins"}
CALIBRATION = 512


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def judge(a, model, images):
    """Top-1 by ONNX Runtime on the written file."""
    printed = run(sys.executable, f"{a.judges}/ort_judge.py", model, "--data", f"{a.work}/{images}", "--limit", 10000,
                  "--threads", 2, "--repeat", 3, "--json")
    return 100 * json.loads(printed)["top1"]


def float_row(a, key):
    _, file, _, images = NETWORKS[key]
    model = f"{a.data}/{file}"
    return {"top1": judge(a, model, images), "bytes": os.path.getsize(model)}


def our_row(a, key, observer):
    _, file, options, images = NETWORKS[key]
    model, outputs = f"{a.work}/{key}-{observer}.onnx", f"{a.work}/outputs.npz"
    printed = run(a.tool, "quantize", f"{a.data}/{file}", "--data", f"cifar10:{a.data}/cifar10:train", "--limit",
                  CALIBRATION, "--observer", observer, *options, "-o", model)
    run(a.tool, "eval", model, "--data", f"npz:{a.work}/{images}", "--outputs", outputs)
    compared = json.loads(run(sys.executable, f"{a.judges}/compare_outputs.py", model, outputs, "--data",
                              f"{a.work}/{images}", "--json", "--max-differ", 10**9))
    noise = next(line for line in printed.splitlines() if "dB" in line).split(": ")[1].split(" dB")[0]
    return {"top1": judge(a, model, images), "bytes": os.path.getsize(model), "db": float(noise),
            "differ": sum(o["differ"] for o in compared.values()), "values": sum(o["values"] for o in compared.values())}


def baseline_row(a, key, method):
    folder = a.work / "baseline"
    printed = run(sys.executable, f"{a.judges}/ort_baseline.py", a.data, folder, key, method)
    row = json.loads(printed.strip().splitlines()[-1])
    return {"top1": row["top1"], "bytes": row["file_bytes"]}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name in ("tool", "data", "judges", "work", "out"):
        p.add_argument(f"--{name}", required=True)
    a = p.parse_args()
    a.work = pathlib.Path(a.work)
    # Rows of another build of the tool are not taken over.
    build = hashlib.sha256(pathlib.Path(a.tool).read_bytes()).hexdigest()[:12]

    def row(name, make, *args):
        path = a.work / "rows" / f"{name}.json"
        if not path.exists():
            print(name, flush=True)
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(make(a, *args)))
            part.rename(path)
        return json.loads(path.read_text())

    version = run(a.tool, "--version").strip()
    ort = run(sys.executable, "-c", "import onnxruntime; print(onnxruntime.__version__)").strip()
    lines = [
        "# Accuracy",
        "",
        f"Written by `benches/accuracy.sh` on {datetime.date.today()} with {version} and ONNX Runtime {ort}. Top-1 in percent on",
        f"the 10,000 test images of CIFAR-10, as ONNX Runtime computes it on the written file; ranges from the first {CALIBRATION}",
        "training images; 8-bit weights per channel, 8-bit unsigned activations. The last column compares the outputs that",
        "`gs-opt eval --outputs` writes with those of ONNX Runtime, bit for bit.",
        "",
        "| network | quantised by | top-1 | against float | file | signal to noise | values that differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, (title, *_) in NETWORKS.items():
        whole = row(f"{key}-float", float_row, key)
        lines.append(f"| {title} | (float) | {whole['top1']:.2f} | | 1 | | |")

        def line(by, r, *more):
            change, size = r["top1"] - whole["top1"], r["bytes"] / whole["bytes"]
            cells = [title, by, f"{r['top1']:.2f}", f"{change:+.2f}", f"{size:.3f}", *more]
            lines.append(f"| {' | '.join(cells)} |")

        for observer in OBSERVERS:
            r = row(f"{key}-{observer}-{build}", our_row, key, observer)
            line(f"gs-opt, {observer}", r, f"{r['db']:.1f} dB", f"{r['differ']} of {r['values']:,}")
        for method, words in BASELINES.items():
            line(f"ONNX Runtime, {words}", row(f"{key}-ort-{method}", baseline_row, key, method), "", "")
    report = "\n".join(lines) + "\n"
    print(report)
    part = pathlib.Path(a.out + ".part")
    part.write_text(report)
    part.rename(a.out)


if __name__ == "__main__":
    main()
