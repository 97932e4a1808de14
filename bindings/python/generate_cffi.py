"""Writes the cffi declarations of the package from dasan.h: generate_cffi.py HEADER OUT.py

The header itself is the only source: what this reader takes out are preprocessor lines, which cffi
has no use for, and what it keeps is declared as it stands. tests/test_native.py compares the result
with tests/abi, so a declaration that was lost here is noticed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cffi


def declarations(header: str) -> str:
    """The C declarations and integer constants of `header`, as cffi reads them."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    constants = re.findall(r"^#define (DASAN_VERSION_\w+) (\d+)\s*$", text, flags=re.M)
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"^#ifdef __cplusplus\n.*?^#endif[^\n]*$", "", text, flags=re.S | re.M)
    text = re.sub(r"^#[^\n]*$", "", text, flags=re.M)
    text = re.sub(r"\bDASAN_API\b", "", text)
    return text + "".join(f"#define {name} {value}\n" for name, value in constants)


def main() -> None:
    header, out = Path(sys.argv[1]), Path(sys.argv[2])
    ffi = cffi.FFI()
    ffi.set_source("dasan._cffi", None)
    ffi.cdef(declarations(header.read_text(encoding="utf-8")))
    ffi.emit_python_code(str(out))


if __name__ == "__main__":
    main()
