#!/usr/bin/env bash
# What ./dev gpu runs: gpu.sh SOURCE BINARIES OUT
# The CUDA suite, compute-sanitizer, tokens of a whole model and the kernel benchmark, on the first
# CUDA device of this machine. Asks the network for nothing. OUT gets suite.log, memcheck.log,
# tokens.txt, bench.jsonl, bench.txt and summary.json. Fails when a part fails or no device runs it.
set -uo pipefail
source_dir=$1 bin=$2 out=$3
mkdir -p "$out"
failures=0
results=()

# part NAME SECONDS COMMAND...: its output goes to OUT/NAME.log.
part() {
  local name=$1 limit=$2 status=passed
  shift 2
  printf '== %s\n' "$name" >&2
  local begin=$SECONDS
  if ! timeout "$limit" "$@" >"$out/$name.log" 2>&1; then
    status=failed
    failures=$((failures + 1))
    tail -20 "$out/$name.log" >&2
  fi
  results+=("\"$name\": {\"status\": \"$status\", \"seconds\": $((SECONDS - begin))}")
}

device=$("$bin/test_cuda_device" --count 2>&1 | head -1)
case $device in
  device:*) ;;
  *)
    printf 'no device to run on: %s\n' "$device" >&2
    exit 1
    ;;
esac
name=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader -i 0 2>/dev/null || echo "${device#device: }")
commit=$(git -C "$source_dir" rev-parse --short HEAD 2>/dev/null || cat "$bin/commit" 2>/dev/null || echo unknown)
printf '%s, commit %s\n' "$name" "$commit" >&2

part suite 150 "$bin/test_cuda_device"

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck synccheck; do
    part "$tool" 90 env DASAN_TEST_QUICK=1 "$sanitizer" --tool "$tool" --error-exitcode 1 \
      "$bin/test_cuda_device" -tc="rms_norm*,embed*"
  done
else
  printf 'compute-sanitizer is not installed here: skipped\n' >&2
  results+=('"memcheck": {"status": "skipped"}')
fi

# The same greedy tokens on the device as on the CPU, and the same again.
tokens() {
  local model=$source_dir/examples/demo_model/dasan-demo.gguf prompt="Where can I get a passport?"
  local on=() run
  for run in cpu cuda cuda; do
    on+=("$(LD_LIBRARY_PATH=$bin "$bin/dasan" generate "$model" --device "$run" -p "$prompt" -n 64 --quiet 2>&1)") || {
      printf '%s: %s\n' "$run" "${on[-1]}"
      return 1
    }
  done
  printf 'cpu:  %s\ncuda: %s\ncuda: %s\n' "${on[@]}"
  [ "${on[1]}" = "${on[2]}" ] || { echo "two runs on the device differ"; return 1; }
  [ "${on[0]}" = "${on[1]}" ] || echo "the device's greedy text leaves the CPU's (allowed: rounding may turn a near tie)"
}
export -f tokens
export source_dir bin
part tokens 60 bash -c tokens

part bench 150 bash -c '"$1/bench_cuda" >"$2/bench.jsonl"' - "$bin" "$out"
cp "$out/bench.log" "$out/bench.txt"
cat "$out/bench.txt"

IFS=,
printf '{"date": "%s", "device": "%s", "commit": "%s", %s}\n' "$(date -u +%F)" "$name" "$commit" \
  "${results[*]}" >"$out/summary.json"
cat "$out/summary.json"
[ "$failures" -eq 0 ]
