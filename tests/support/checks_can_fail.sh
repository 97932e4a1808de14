#!/usr/bin/env bash
# The checks of this folder and of tests/abi, each on a copy of the tree with one planted fault: every
# fault must be found.  checks_can_fail.sh SOURCE CC CXX
set -euo pipefail
source=$1 cc=$2 cxx=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r --parents -t "$work" "$source"/{engine,kernels,bindings/cli,examples/c,examples/cpp,tests/abi,tests/support}
tree="$work/$source"
found=0 missed=0

# expect WHAT CHECK...: the check must fail now.
expect() {
  local what=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "missed: $what"
    missed=$((missed + 1))
  else
    found=$((found + 1))
  fi
}
passes() {
  "$@" >"$work/log" 2>&1 || { echo "fails without a fault: $*"; cat "$work/log"; exit 1; }
}

includes=("$tree/tests/support/check_includes.sh" "$tree")
passes "${includes[@]}"
while read -r file line; do
  cp "$tree/$file" "$work/saved"
  sed -i "1i $line" "$tree/$file"
  expect "$line in $file" "${includes[@]}"
  cp "$work/saved" "$tree/$file"
done <<'EOF'
kernels/core/log.cc #include "engine/io/gguf.h"
kernels/core/log.cc #include "../../engine/io/gguf.h"
kernels/ops.h #include <Eigen/Core>
kernels/cpu/cpu_backend.cc #include "kernels/cpu/simd_generic.h"
engine/io/gguf.cc #include "engine/model/model.h"
engine/text/utf8.cc #include "engine/model/model.h"
engine/model/arch.cc #include "engine/exec/graph.h"
engine/model/arch.cc #include <dasan/dasan.h>
engine/model/arch.cc #include "kernels/cpu/table.h"
engine/model/spec.h #  include <fmt/format.h>
engine/exec/graph.cc #include "engine/session/engine.h"
engine/session/engine.cc #include "engine/api/guard.h"
bindings/cli/chat.cc #include "engine/text/utf8.h"
examples/c/complete.c #include "kernels/core/half.h"
EOF

header="$tree/engine/include/dasan/dasan.h"
abi="$tree/tests/abi/check.sh"
passes "$abi" header_c99 "$tree" "$cc"
passes "$abi" header_cxx "$tree" "$cxx"
passes "$abi" layout "$tree" "$cc"
cp "$header" "$work/saved"
# plant WHAT SED CHECK COMPILER
plant() {
  sed -i "$2" "$header"
  ! cmp -s "$header" "$work/saved" || { echo "the fault was not planted: $1"; exit 1; }
  expect "$1" "$abi" "$3" "$tree" "$4"
  cp "$work/saved" "$header"
}
plant "padding in a struct" 's/^typedef struct dasan_str {/&\n  char first;/' header_c99 "$cc"
plant "a C++ word in the header" 's/^typedef struct dasan_str {/class anything;\n&/' header_c99 "$cc"
plant "a narrowing in the header" 's/^typedef struct dasan_str {/static inline int narrow(long x) { return x; }\n&/' header_cxx "$cxx"
plant "a field renamed" 's/  float temperature;/  float heat;/' layout "$cc"
plant "a field inserted" 's/^typedef struct dasan_str {/&\n  size_t first;/' layout "$cc"
plant "a constant changed" 's/DASAN_E_IO = -4/DASAN_E_IO = -40/' layout "$cc"

# What a library exports: one name too many, one too few, one that is not dasan's.
library() { # library LINE...
  sed 's/^T \(.*\)/int \1(void) { return 0; }/' "$tree/tests/abi/symbols.txt" >"$work/library.c"
  printf '%s\n' "$@" >>"$work/library.c"
  "$cc" -w -shared -fPIC -o "$work/library.so" "$work/library.c"
}
library
passes "$abi" symbols "$tree" "$work/library.so"
library 'int dasan_extra(void) { return 0; }'
expect "an undeclared export" "$abi" symbols "$tree" "$work/library.so"
library 'int inner(void) { return 0; }'
expect "an export that is not dasan's" "$abi" symbols "$tree" "$work/library.so"
library 'int dasan_counter;'
expect "an exported variable" "$abi" symbols "$tree" "$work/library.so"
library
sed -i '/dasan_embed/d' "$work/library.c"
"$cc" -w -shared -fPIC -o "$work/library.so" "$work/library.c"
expect "a function that is not exported" "$abi" symbols "$tree" "$work/library.so"

# Objects of one instruction set.
object() { # object SOURCE
  printf 'namespace dasan::kernels::cpu { extern const int kFaultTable; const int kFaultTable = 1; %s }\n' "$1" >"$work/object.cc"
  "$cxx" -std=c++20 -w -c -o "$work/object.o" "$work/object.cc"
}
isa=("$tree/tests/support/check_isa_symbols.sh" "$work/object.o")
object ''
passes "${isa[@]}"
object 'inline int weak(int x) { return x; } namespace { int (*use)(int) = weak; } int call() { return use(1); }'
expect "a function that others can see" "${isa[@]}"
printf 'namespace { const int nothing = 1; }\n' >"$work/object.cc"
"$cxx" -std=c++20 -w -c -o "$work/object.o" "$work/object.cc"
expect "an object without its table" "${isa[@]}"

echo "$found planted faults found, $missed missed"
[ "$missed" -eq 0 ]
