"""The library and the few helpers every call goes through.

Calls through `lib` release the GIL. The library has a C interface only, so that this package needs
no compiler and one wheel serves every Python 3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ._cffi import ffi as ffi
from .errors import InvalidArgumentError, StateError, error_of

LIBRARY = Path(__file__).with_name("libdasan.so")
lib: Any = ffi.dlopen(str(LIBRARY))

if lib.dasan_version_number() != lib.DASAN_VERSION_NUMBER:
    raise ImportError(
        f"{LIBRARY}: version {lib.dasan_version_number()}, "
        f"expected {lib.DASAN_VERSION_NUMBER}, which this package was made for"
    )


def check(status: int) -> None:
    """Raises the exception of a status that is not DASAN_OK."""
    if status != 0:
        raise error_of(status, ffi.string(lib.dasan_error_message()).decode("utf-8", "replace"))


def build_info() -> str:
    return str(ffi.string(lib.dasan_build_info()).decode())


def own(pointer: Any, release: Callable[[Any], None]) -> Any:
    """A handle that is released with its last reference, in the process that made it: a forked
    child has none of the engine's threads and must not wait for them."""
    maker = os.getpid()

    def finish(p: Any) -> None:
        if os.getpid() == maker:
            release(p)

    return ffi.gc(pointer, finish)


def new_struct(name: str) -> Any:
    """A zeroed struct of dasan.h with its size set: every field has its default."""
    struct = ffi.new(f"{name} *")
    struct.struct_size = ffi.sizeof(name)
    return struct


def string(keep: list[Any], text: str, what: str = "text") -> Any:
    """A dasan_str over the UTF-8 of `text`, whose bytes `keep` keeps alive."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{what}: a lone surrogate at character {error.start}, expected text that UTF-8 can hold"
        ) from None
    buffer = ffi.from_buffer(data)
    keep.append(buffer)
    keep.append(data)
    return {"data": buffer, "size": len(data)}


def text_of(value: Any) -> str:
    """The str of a dasan_str."""
    return bytes_of(value).decode("utf-8", "replace")


def bytes_of(value: Any) -> bytes:
    return bytes(ffi.unpack(value.data, value.size)) if value.size else b""


def name_of(chars: Any) -> str:
    """The str of a char array that may be cut in the middle of a character."""
    return bytes(ffi.string(chars)).decode("utf-8", "ignore")


def filled(kind: str, guess: int, call: Callable[[Any, int, Any], int]) -> tuple[Any, int]:
    """A buffer filled by call(buffer, capacity, length), asked again where the guess was short."""
    length = ffi.new("size_t *")
    while True:
        buffer = ffi.new(f"{kind}[]", max(guess, 1))
        status = call(buffer, guess, length)
        if status == lib.DASAN_E_BUFFER_TOO_SMALL and length[0] > guess:
            guess = length[0]
            continue
        check(status)
        return buffer, length[0]


def filled_bytes(guess: int, call: Callable[[Any, int, Any], int]) -> bytes:
    buffer, length = filled("char", guess, call)
    return bytes(ffi.buffer(buffer, length))


_LIMITS = {"uint32_t": (0, 2**32 - 1), "int32_t": (-(2**31), 2**31 - 1), "uint64_t": (0, 2**64 - 1)}


def integer(what: str, value: object, kind: str = "uint32_t") -> int:
    """`value` as a C integer, or InvalidArgumentError that says what was expected."""
    low, high = _LIMITS[kind]
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidArgumentError(f"{what}: {value!r}, expected an integer")
    number = int(value.__index__())
    if not low <= number <= high:
        raise InvalidArgumentError(f"{what}: {number}, expected from {low} to {high}")
    return number


def number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgumentError(f"{what}: {value!r}, expected a number")
    return float(value)


def token_array(what: str, tokens: Sequence[int]) -> Any:
    """A C array of token ids."""
    try:
        return ffi.new("int32_t[]", list(tokens))
    except (TypeError, OverflowError) as error:
        raise InvalidArgumentError(f"{what}: {error}, expected token ids") from None


class Handle:
    """A pointer of the library that can be closed. In-flight calls hold the pointer themselves, so
    that closing from another thread never takes it from under them."""

    def __init__(self, what: str, pointer: Any, release: Callable[[Any], None]) -> None:
        self._what = what
        self._pid = os.getpid()
        self._pointer: Any = own(pointer, release)

    def get(self) -> Any:
        pointer = self._pointer
        if pointer is None:
            raise StateError(f"the {self._what} is closed")
        if self._pid != os.getpid():
            raise StateError(
                f"the {self._what} was made in process {self._pid} and this is {os.getpid()}, "
                "expected one made after the fork"
            )
        return pointer

    @property
    def closed(self) -> bool:
        return self._pointer is None

    def close(self) -> None:
        self._pointer = None
