#!/bin/sh
# Builds the tools and lets ONNX Runtime and onnx judge them. Makes a Python environment once; where is said by
# GS_ORT_VENV. Arguments go to roundtrip.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${GS_ORT_VENV:-${TMPDIR:-/tmp}/gs-ort-venv}
if ! "$venv/bin/python" -c 'import onnxruntime, onnx' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet numpy onnx==1.23.2 onnxruntime==1.32.0
fi
cd "$here/../../.."
cargo build --quiet -p gs-onnx --examples
examples=${CARGO_TARGET_DIR:-target}/debug/examples
tool=$examples/onnx_roundtrip
python=$venv/bin/python
"$python" "$here/messages.py" --tool "$tool"
"$python" "$here/quantisers.py" --tool "$tool" --quantisers "$examples/onnx_quantisers"
"$python" "$here/roundtrip.py" --tool "$tool" "$@"
"$python" "$here/node_tests.py" --tool "$tool"
for opset in 21 25; do
    "$python" "$here/node_tests.py" --tool "$tool" --opset "$opset"
done
