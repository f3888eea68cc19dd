#!/bin/sh
# Makes a Python environment with ONNX Runtime (once), builds the tool and runs the judge. Arguments go to roundtrip.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${GS_ORT_VENV:-${TMPDIR:-/tmp}/gs-ort-venv}
if ! "$venv/bin/python" -c 'import onnxruntime, onnx' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet numpy onnx==1.23.2 onnxruntime==1.32.0
fi
cd "$here/../../.."
cargo build --quiet -p gs-onnx --example onnx_roundtrip
tool=${CARGO_TARGET_DIR:-target}/debug/examples/onnx_roundtrip
exec "$venv/bin/python" "$here/roundtrip.py" --tool "$tool" "$@"
