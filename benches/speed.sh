#!/bin/sh
# Measures how fast networks run beside ONNX Runtime, in what memory, and how fast text is read and printed.
# Writes speed.md beside this script; fails where a limit is broken. Arguments go to speed.py (--rounds N).
# Run it on a quiet machine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p gs-text --example text_bench
float=$data/resnet_cifar10/resnet20_bn.onnx
int8=$work/resnet20.int8.onnx
# shellcheck disable=SC2086
images test 10000 test $resnet
"$tool" quantize "$float" --data "cifar10:$data/cifar10:train" --limit 512 -o "$int8" >"$work/quantize.log"
"$python" "$here/speed.py" --tool "$tool" --text "$target/release/examples/text_bench" --data "$work/test.npz" \
    --float "$float" --int8 "$int8" --out "$here/speed.md" "$@"
