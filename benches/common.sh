# What the measuring scripts share: where the data lies, a Python environment with ONNX Runtime, a release build.
# GS_ORT_VENV names a Python environment to use (made when it is not there), GS_OPT a tool that is built already.
root=$(cd "$(dirname "$0")/.." && pwd)
data=$root/../shared/data
judges=$root/../shared/tools
work=${GS_BENCH_DIR:-${TMPDIR:-/tmp}/gs-bench}
venv=${GS_ORT_VENV:-${TMPDIR:-/tmp}/gs-ort-venv}
python=$venv/bin/python
mkdir -p "$work"
if [ ! -d "$data/cifar10" ]; then
    echo "there is no $data/cifar10: the folder of test data belongs beside the workspace" >&2
    exit 1
fi
if ! "$python" -c 'import onnxruntime, onnx, sympy, PIL' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet numpy pillow sympy onnx==1.23.2 onnxruntime==1.32.0
fi
target=${CARGO_TARGET_DIR:-$root/target}
tool=${GS_OPT:-$target/release/gs-opt}
if [ -z "${GS_OPT:-}" ]; then
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p gs-opt --bin gs-opt
fi

# Images as numpy archives in $work: images SPLIT COUNT NAME [OPTIONS OF THE DECODER...]
images() {
    split=$1 count=$2 file=$work/$3.npz
    shift 3
    if [ ! -f "$file" ]; then
        "$python" "$judges/cifar10_npz.py" --split "$split" --limit "$count" "$@" -o "$file.part.npz"
        mv "$file.part.npz" "$file"
    fi
}
resnet="--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
