#!/bin/sh
# Quantises three networks with each observer and lets ONNX Runtime judge the written files on the 10,000 test images
# of CIFAR-10, beside ONNX Runtime's own static quantiser. Writes accuracy.md beside this script.
# Each row is kept in the working folder, so that a run that was stopped goes on where it was.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
# shellcheck disable=SC2086
images test 10000 test $resnet
images test 10000 test-raw --raw255
exec "$python" "$here/accuracy.py" --tool "$tool" --data "$data" --judges "$judges" --work "$work" \
    --out "$here/accuracy.md" "$@"
