#!/usr/bin/env bash
# Runs the fuzz targets under libFuzzer, one after the other, each for SECONDS (an hour unless said):
#   tests/long/fuzz.sh [SECONDS] [TARGET...]
# Works with a stable toolchain: coverage is asked of LLVM by hand. Findings land in fuzz/found; a target with one
# ends the script with exit code 1. New inputs of interest are kept in fuzz/found/corpus-TARGET, so that a later run goes on.
set -euo pipefail
cd "$(dirname "$0")/../../fuzz"
seconds=${1:-3600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(text onnx)

host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=4"
RUSTFLAGS=${RUSTFLAGS//$'\n'/}
cargo build --release --target "$host" --bin text --bin onnx

status=0
for target in "${targets[@]}"; do
  mkdir -p "found/corpus-$target"
  echo "== $target, $seconds s"
  "${CARGO_TARGET_DIR:-target}/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len=8192 -artifact_prefix="found/$target-" -print_final_stats=1 \
    "found/corpus-$target" "corpus/$target" 2> "found/$target.log" || status=1
  grep -E "^stat::|^Done|SUMMARY|ERROR" "found/$target.log" || true
done
exit $status
