#!/usr/bin/env bash
# The layers of the source, as include directions: check_includes.sh SOURCE
#   kernels/                      never includes engine/ or the public headers
#   engine/ but engine/api        never includes the public headers or engine/api
#   engine/ but session and api   never includes engine/session
#   engine/{io,text,model}        never include engine/{exec,sched,kv,sample}; io and text not model
#   engine/                       sees kernels through backend.h, ops.h, core/ and quant/ only
#   fmt, Eigen, simdjson          appear in no header but simd_generic.h, the lanes of one .cc
#   bindings/, examples/          include dasan.h and dasan.hpp only
#   all of them                   name a file from the root, never through ../
set -euo pipefail
cd "$1"
failures=0

# forbid WHY PATTERN FILE...: no #include line of the files may match.
forbid() {
  local why=$1 pattern=$2
  shift 2
  local hits
  hits=$(grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]+[<\"]($pattern)" "$@" /dev/null || true)
  [ -z "$hits" ] && return
  printf '%s:\n%s\n' "$why" "$hits"
  failures=1
}
sources() { find "$@" -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.c' -o -name '*.cpp'; }

mapfile -t kernels < <(sources kernels)
mapfile -t engine < <(sources engine)
mapfile -t below_api < <(printf '%s\n' "${engine[@]}" | grep -vE '^engine/(api|include)/')
mapfile -t below_session < <(printf '%s\n' "${below_api[@]}" | grep -v '^engine/session/')
mapfile -t below_exec < <(printf '%s\n' "${engine[@]}" | grep -E '^engine/(io|text|model)/')
mapfile -t io_and_text < <(printf '%s\n' "${engine[@]}" | grep -E '^engine/(io|text)/')
mapfile -t headers < <(find kernels engine -name '*.h' -o -name '*.cuh' | grep -v '^kernels/cpu/simd_generic.h$')
mapfile -t not_generic < <(printf '%s\n' "${kernels[@]}" "${engine[@]}" | grep -v '^kernels/cpu/generic/table.cc$')
mapfile -t clients < <(sources bindings examples)
for layer in kernels engine below_api below_session below_exec io_and_text headers not_generic clients; do
  declare -n files=$layer
  [ ${#files[@]} -gt 0 ] || { echo "$layer: no file found under $1"; exit 1; }
done

forbid "kernels must not know the engine" 'engine/|dasan/' "${kernels[@]}"
forbid "only engine/api knows the public headers" 'dasan/|engine/include/|engine/api/' "${below_api[@]}"
forbid "sessions are not known below engine/session" 'engine/session/' "${below_session[@]}"
forbid "files, texts and models are not executed where they are read" 'engine/(exec|sched|kv|sample)/' "${below_exec[@]}"
forbid "files and texts know no model" 'engine/model/' "${io_and_text[@]}"
forbid "an include names its file from the root" '\.\./' "${kernels[@]}" "${engine[@]}" "${clients[@]}"
forbid "the engine knows kernels through their interface" 'kernels/(cpu|reference|cuda)/' "${engine[@]}"
forbid "third-party types stay in .cc files" 'fmt/|Eigen/|simdjson|pcre2|utf8proc' "${headers[@]}"
forbid "simd_generic.h includes Eigen and belongs to generic/table.cc" 'kernels/cpu/simd_generic' "${not_generic[@]}"
forbid "clients see the public headers only" 'engine/|kernels/' "${clients[@]}"
[ "$failures" -eq 0 ] && echo "${#kernels[@]} files of kernels, ${#engine[@]} of the engine, ${#clients[@]} of its clients"
exit "$failures"
