#!/usr/bin/env bash
# LeNet from nothing to integers: float training, training with quantisers, what is deployed.
# run.sh MNIST_DIR OUT_DIR; GS_OPT names a tool that is built already.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mnist=$1 out=$2
tool=${GS_OPT:-$here/../../target/release/gs-opt}
data="--data mnist:$mnist:train --val mnist:$mnist:test --mean 0.1307 --std 0.3081 --batch 64 --threads 2"
mkdir -p "$out"

say() { echo "\$ gs-opt $*"; "$tool" "$@"; }
say train "$here/lenet.gsir" $data --epochs 4 --lr 0.02 --weight-decay 1e-4 -o "$out/float"
say convert "$out/float" -o "$out/lenet.onnx"
say train "$out/lenet.onnx" --algorithm simqat $data --epochs 1 --lr 0.001 -o "$out/simqat"
say convert "$out/simqat" -o "$out/lenet.int8.onnx"
say eval "$out/lenet.int8.onnx" --data "mnist:$mnist:test" --mean 0.1307 --std 0.3081
