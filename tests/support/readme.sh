#!/usr/bin/env bash
# The program that README shows is examples/c/complete.c to the letter, and it does what README says:
# readme.sh SOURCE PROGRAM
set -euo pipefail
source=$1 program=$2
model="$source/examples/demo_model/dasan-demo.gguf"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk '/^```c$/ { on = 1; next } /^```$/ { if (on) exit } on' "$source/README.md" >"$work/shown.c"
diff -u "$work/shown.c" "$source/examples/c/complete.c" || { echo "README (-) and examples/c/complete.c (+) differ"; exit 1; }

"$program" "$model" "여권은 어디서 만드나요?" >"$work/answer"
grep -q "여권" "$work/answer" || { echo "no answer about passports:"; cat "$work/answer"; exit 1; }
status=0
"$program" "$work/absent.gguf" "x" 2>"$work/error" || status=$?
[ "$status" -eq 1 ] && grep -q "absent.gguf" "$work/error" || { echo "an absent model: status $status"; cat "$work/error"; exit 1; }
status=0
"$program" 2>"$work/error" || status=$?
[ "$status" -eq 2 ] && grep -q usage "$work/error" || { echo "no arguments: status $status"; exit 1; }
cat "$work/answer"
