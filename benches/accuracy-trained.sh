#!/bin/sh
# Trains ResNet-20 on CIFAR-10 with each algorithm by a fixed recipe, converts what the last step left, and lets ONNX
# Runtime judge the written file on the 10,000 test images, which are used for nothing else. Every row that is done is
# kept in accuracy-trained/ROW.json beside this script, and accuracy-trained.md is written from all of them. A run that
# was stopped goes on where it was. Without arguments all rows that are not done yet; otherwise the rows that are named.
# All rows take about four hours on two cores.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
# shellcheck disable=SC2086
images test 10000 test $resnet
exec "$python" "$here/accuracy-trained.py" --tool "$tool" --data "$data" --judges "$judges" --work "$work" --out "$here" "$@"
