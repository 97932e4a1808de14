"""Exceptions: one class per status of dasan.h, each also the built-in that Python programs expect.

The message is the library's own. `status` is the number, `name` its spelling in dasan.h.
"""

from __future__ import annotations


class DasanError(Exception):
    """A call of the library failed, or a request ended in an error."""

    status: int = -13
    name: str = "DASAN_E_INTERNAL"


class InvalidArgumentError(DasanError, ValueError):
    status, name = -1, "DASAN_E_INVALID_ARGUMENT"


class OutOfMemoryError(DasanError, MemoryError):
    status, name = -2, "DASAN_E_OUT_OF_MEMORY"


class NotFoundError(DasanError, FileNotFoundError):
    status, name = -3, "DASAN_E_NOT_FOUND"


class ReadError(DasanError, OSError):
    status, name = -4, "DASAN_E_IO"


class FormatError(DasanError, ValueError):
    status, name = -5, "DASAN_E_FORMAT"


class UnsupportedError(DasanError, NotImplementedError):
    status, name = -6, "DASAN_E_UNSUPPORTED"


class BufferTooSmallError(DasanError):
    status, name = -7, "DASAN_E_BUFFER_TOO_SMALL"


class CapacityError(DasanError):
    """The queue or the KV cache is full: later, or with a larger engine."""

    status, name = -8, "DASAN_E_CAPACITY"


class DeadlineError(DasanError, TimeoutError):
    status, name = -9, "DASAN_E_TIMEOUT"


class CancelledError(DasanError):
    status, name = -10, "DASAN_E_CANCELLED"


class StateError(DasanError, RuntimeError):
    """The call is not allowed now: a closed object, a busy session."""

    status, name = -11, "DASAN_E_STATE"


class DeviceError(DasanError):
    """The engine is lost; the process is not."""

    status, name = -12, "DASAN_E_DEVICE"


class InternalError(DasanError):
    """A bug in dasan; please report it."""


_BY_STATUS: dict[int, type[DasanError]] = {
    cls.status: cls
    for cls in (
        InvalidArgumentError, OutOfMemoryError, NotFoundError, ReadError, FormatError,
        UnsupportedError, BufferTooSmallError, CapacityError, DeadlineError, CancelledError,
        StateError, DeviceError, InternalError,
    )
}  # fmt: skip


def error_of(status: int, message: str) -> DasanError:
    """The exception of a status, with the library's message."""
    return _BY_STATUS.get(status, InternalError)(message)
