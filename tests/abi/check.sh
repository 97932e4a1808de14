#!/usr/bin/env bash
# The promises of the public headers and of the built library:
#   check.sh header_c99 SOURCE CC      strict C99 without padding or warnings
#   check.sh header_cxx SOURCE CXX     C++20 without warnings; dasan.h also as C++11
#   check.sh layout SOURCE CC          constants, sizes and offsets are those of layout.txt
#   check.sh symbols SOURCE LIBRARY    the library exports exactly symbols.txt
# With DASAN_UPDATE_GOLDEN=1, layout and symbols rewrite their file: the interface has changed.
set -euo pipefail
what=$1 source=$2 subject=$3
here="$source/tests/abi"
include="$source/engine/include"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compare() { # compare GOLDEN FOUND
  if [ -n "${DASAN_UPDATE_GOLDEN:-}" ]; then
    cp "$2" "$1"
  fi
  diff -u "$1" "$2" && echo "$(wc -l <"$1") lines agree with $(basename "$1")"
}

case "$what" in
  header_c99)
    flags=(-std=c99 -pedantic -pedantic-errors -Wall -Wextra -Wconversion -Wstrict-prototypes -Wpadded -Werror)
    "$subject" "${flags[@]}" -I "$include" -o "$work/header" "$here/header.c"
    "$work/header"
    ;;
  header_cxx)
    flags=(-pedantic -Wall -Wextra -Wconversion -Wshadow -Werror -fsyntax-only)
    "$subject" -std=c++20 "${flags[@]}" -I "$include" "$here/header.cpp"
    "$subject" -std=c++11 "${flags[@]}" -I "$include" -x c++ "$here/header.c"
    ;;
  layout)
    python3 "$here/make_layout.py" "$include/dasan/dasan.h" >"$work/layout.c"
    "$subject" -std=c99 -I "$include" -o "$work/layout" "$work/layout.c"
    "$work/layout" >"$work/layout.txt"
    compare "$here/layout.txt" "$work/layout.txt"
    ;;
  symbols)
    # The version node is a symbol of its own, of type A.
    nm -D --defined-only "$subject" | awk '$2 != "A" { sub(/@.*/, "", $3); print $2, $3 }' | sort -k2 >"$work/symbols.txt"
    if grep -v '^T dasan_' "$work/symbols.txt"; then
      echo "the symbols above are exported and are not functions of dasan.h"
      exit 1
    fi
    grep -oE 'DASAN_API [^;(]*\b(dasan_[a-z_]+)\(' "$include/dasan/dasan.h" | grep -oE 'dasan_[a-z_]+\($' | tr -d '(' |
      sort | sed 's/^/T /' >"$work/declared.txt"
    diff -u "$work/declared.txt" "$work/symbols.txt" || { echo "dasan.h (-) and the library (+) differ"; exit 1; }
    compare "$here/symbols.txt" "$work/symbols.txt"
    ;;
  *)
    echo "check.sh: unknown check '$what'"
    exit 2
    ;;
esac
