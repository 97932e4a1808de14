"""The `dasan` command of the wheel: what Python adds, and the library's own command for the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = {
    "serve": ("dasan.server.__main__", "an OpenAI-compatible server over HTTP"),
    "batch": ("dasan.batch", "one prompt per line of a file, resumable"),
    "audit": ("dasan.server.audit", "check an audit log's chain"),
}


def main() -> None:
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in HERE:
        from importlib import import_module

        sys.argv = [f"dasan {verb}", *sys.argv[2:]]
        sys.exit(import_module(HERE[verb][0]).main())
    native = Path(__file__).with_name("bin") / "dasan"
    if verb in ("-h", "--help"):
        print("In Python:\n" + "".join(f"  {name:<28}{what}\n" for name, (_, what) in HERE.items()), flush=True)
    os.execv(native, [str(native), *(sys.argv[1:] or ["--help"])])
