#!/usr/bin/env bash
# Installs a build into a temporary prefix, builds examples/consumer against it and nothing else of
# this tree, and runs the result: consumer.sh cmake|pkgconfig SOURCE BUILD
set -euo pipefail
way=$1 source=$2 build=$3
model="$source/examples/demo_model/dasan-demo.gguf"
question="여권은 어디서 만드나요?"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/installed" >/dev/null
# The installed tree must be movable, so it is moved before anything uses it.
mv "$work/installed" "$work/prefix"
cp -r "$source/examples/consumer" "$work/project"

case "$way" in
  cmake)
    {
      cmake -S "$work/project" -B "$work/out" -G Ninja "-DCMAKE_PREFIX_PATH=$work/prefix" -DCMAKE_BUILD_TYPE=Release &&
        cmake --build "$work/out"
    } >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    out="$work/out"
    # A version that the package cannot serve is refused.
    sed 's/dasan 0\.1 /dasan 0.2 /' -i "$work/project/CMakeLists.txt"
    if cmake -S "$work/project" -B "$work/other" -G Ninja "-DCMAKE_PREFIX_PATH=$work/prefix" >/dev/null 2>&1; then
      echo "find_package(dasan 0.2) was accepted by an installed 0.1"
      exit 1
    fi
    ;;
  pkgconfig)
    PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name dasan.pc)")
    export PKG_CONFIG_PATH
    make -C "$work/project" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    out="$work/project"
    ;;
  *)
    echo "consumer.sh: '$way' is not cmake or pkgconfig"
    exit 2
    ;;
esac

"$out/ask" "$model" "$question"
answer=$("$out/ask_cpp" "$model" "$question")
echo "$answer"
[ -n "$answer" ]
# The command of the installed tree runs from where it is.
if [ -x "$work/prefix/bin/dasan" ]; then
  "$work/prefix/bin/dasan" generate "$model" -p "안녕" -n 4 --temp 0 2>/dev/null >"$work/text"
  [ -s "$work/text" ]
fi
