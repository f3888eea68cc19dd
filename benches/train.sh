#!/bin/sh
# Measures how fast a training step is beside PyTorch's, and in what memory. Writes train.md beside this script; fails where
# a limit is broken. GS_TORCH names a Python with torch and onnx. Arguments go to train.py (--pairs N). Run it on a quiet
# machine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
python=${GS_TORCH:?GS_TORCH must name a Python with torch and onnx}
cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p gs-runtime --example train_step
"$python" "$here/train.py" --binary "${CARGO_TARGET_DIR:-$root/target}/release/examples/train_step" \
    --net "$root/../shared/data/resnet_cifar10/resnet20_bn.onnx" --out "$here/train.md" "$@"
