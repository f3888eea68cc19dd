#!/usr/bin/env python3
"""Makes the rows of accuracy-trained.md; see accuracy-trained.sh, which calls this."""
import argparse, datetime, json, os, pathlib, subprocess, sys

NETWORK = "resnet_cifar10/resnet20_bn.onnx"
FLOAT = 91.73
# Every row: crop of 4 pixels, mirror, cosine to 0, batch 64, SGD with momentum 0.9.
COMMON = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --crop 4 --flip --batch 64 --schedule cosine --seed 1".split()
DISTILLED = ["--distill", "temperature=4"]
# Row: its title, the algorithm, epochs, what is special in the recipe, the figure asked for, the published one.
ROWS = {
    "simqat-w8a8": ("SimQAT W8A8", "simqat", 1, ["--lr", "0.001"], 91.67, "91.9"),
    "simqat-w4a8": ("SimQAT W4A8", "simqat{weight={bits=4}}", 3, ["--lr", "0.01"], 91.3, "91.9"),
    "lsq-w4a4": ("LSQ W4A4", "lsq{weight_bits=4, act_bits=4}", 13,
                 ["--lr", "0.01", "--weight-decay", "1e-4", *DISTILLED], 91.2, "91.7"),
    "lsq-w2a2": ("LSQ W2A2", "lsq{weight_bits=2, act_bits=2}", 21,
                 ["--lr", "0.01", "--weight-decay", "2.5e-5", *DISTILLED], 87.5, "90.0"),
    "pact-w4a4": ("PACT + DoReFa W4A4", "pact{weight_bits=4, act_bits=4}", 13,
                  ["--lr", "0.01", "--weight-decay", "1e-4", *DISTILLED], 90.7, "91.3"),
    "slb-w4": ("SLB W4", "slb{bits=4}", 6, ["--lr", "0.01", "--weight-decay", "1e-4", *DISTILLED], 91.2, "92.1"),
    "slb-w2": ("SLB W2", "slb{bits=2}", 16, ["--lr", "0.01", "--weight-decay", "1e-4", *DISTILLED], 90.0, "92.0"),
    "slb-w1": ("SLB W1", "slb{bits=1}", 21, ["--lr", "0.01", "--weight-decay", "1e-4", *DISTILLED], 86.0, "90.6"),
    "slb-w2a8": ("SLB W2 A8", "slb{bits=2, act_bits=8}", 16,
                 ["--lr", "0.01", "--weight-decay", "1e-4", *DISTILLED], 89.8, "91.7"),
}


def run(*command, quiet=True):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE if quiet else None, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout or ''}")
    return done.stdout


def minutes(log, batch=64):
    """What the steps took, over all the runs that a run was resumed in."""
    done, seconds = 0, 0.0
    for line in log.read_text().splitlines():
        row = json.loads(line)
        if row.get("images_per_second") and row["step"] > done:
            seconds += (row["step"] - done) * batch / row["images_per_second"]
            done = row["step"]
    return seconds / 60


def train(a, name):
    _, algorithm, epochs, recipe, _, _ = ROWS[name]
    folder = a.work / "trained" / name
    command = [a.tool, "train", f"{a.data}/{NETWORK}", "--algorithm", algorithm, "--data",
               f"cifar10:{a.data}/cifar10:train", "--epochs", epochs, *COMMON, *recipe, "-o", folder]
    if a.threads:
        command += ["--threads", a.threads]
    if (folder / "checkpoint.safetensors").exists():
        command.append("--resume")
    run(*command, quiet=False)
    model = folder / "deployed.onnx"
    run(a.tool, "convert", folder, "-o", model)
    images = a.work / "test.npz"
    judged = json.loads(run(sys.executable, f"{a.judges}/ort_judge.py", model, "--data", images, "--limit", 10000, "--threads", 2,
                            "--repeat", 3, "--json"))
    return {"date": str(datetime.date.today()), "algorithm": algorithm, "epochs": epochs, "recipe": recipe,
            "minutes": round(minutes(folder / "log.jsonl")), "top1": round(100 * judged["top1"], 2),
            "bytes": os.path.getsize(model), "version": run(a.tool, "--version").strip()}


def report(a, rows):
    whole = os.path.getsize(f"{a.data}/{NETWORK}")
    lines = [
        "# Accuracy after training",
        "",
        "Written by `benches/accuracy-trained.sh`. ResNet-20 on CIFAR-10, from the pretrained network (91.73 % in float, which saw",
        "all training images). Top-1 in percent on the 10,000 test images, as ONNX Runtime computes it on the written file; the",
        "weights of the last step, no selection. All rows: batch 64, SGD with momentum 0.9, cosine to 0, crop of 4 pixels and",
        "mirror, seed 1; first and last layer in 8 bits (SLB: in float). \"Published\" is what papers report after full training.",
        "",
        "| algorithm | epochs | top-1 | against float | asked for | published | file | minutes | recipe | date |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (title, algorithm, _, _, floor, goal) in ROWS.items():
        if name not in rows:
            continue
        r = rows[name]
        recipe = " ".join([r["algorithm"].replace("|", "/"), *r["recipe"]])
        cells = [title, r["epochs"], f"{r['top1']:.2f}", f"{r['top1'] - FLOAT:+.2f}", f"{floor:.2f}", goal,
                 f"{r['bytes'] / whole:.3f}", r["minutes"], f"`{recipe}`", r["date"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name in ("tool", "data", "judges", "work", "out"):
        p.add_argument(f"--{name}", required=True)
    p.add_argument("--threads")
    p.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}")
    a = p.parse_args()
    a.work = pathlib.Path(a.work)
    unknown = [r for r in a.rows if r not in ROWS]
    if unknown:
        sys.exit(f"no row is named {', '.join(unknown)}; there are {', '.join(ROWS)}")
    kept = pathlib.Path(a.out) / "accuracy-trained"
    kept.mkdir(exist_ok=True)
    for name in a.rows or ROWS:
        path = kept / f"{name}.json"
        if not path.exists():
            print(name, flush=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(train(a, name), indent=1) + "\n")
            part.rename(path)
        rows = {n: json.loads((kept / f"{n}.json").read_text()) for n in ROWS if (kept / f"{n}.json").exists()}
        page = pathlib.Path(a.out) / "accuracy-trained.md"
        page.with_suffix(".part").write_text(report(a, rows))
        page.with_suffix(".part").rename(page)


if __name__ == "__main__":
    main()
