#!/usr/bin/env bash
# Objects compiled for one instruction set: check_isa_symbols.sh OBJECT...
# Such an object may define one global symbol, its table. A weak one (an inline function, a template)
# could replace the copy of an object compiled for every machine, which then dies on an old one.
set -euo pipefail
[ $# -gt 0 ] || { echo "check_isa_symbols.sh: no object given"; exit 2; }
status=0
for object in "$@"; do
  found=$(nm --defined-only --extern-only -C "$object" | sed 's/^[0-9a-f]* //')
  if ! printf '%s\n' "$found" | grep -qE '^[DR] dasan::kernels::cpu::k[A-Za-z0-9]+Table$'; then
    echo "$object: defines no table"
    status=1
  fi
  if printf '%s\n' "$found" | grep -vE '^[DR] dasan::kernels::cpu::k[A-Za-z0-9]+Table$' | sed "s|^|$object: |"; then
    echo "the symbols above are visible to other objects"
    status=1
  fi
done
exit "$status"
