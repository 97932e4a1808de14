"""dasan: open-weight language models on this machine.

    import dasan
    engine = dasan.Engine("model.gguf")
    for chunk in engine.chat_stream("Where can I get a passport?"):
        print(chunk.text, end="", flush=True)
"""

from typing import TYPE_CHECKING, Any

from ._native import build_info
from .answer import Answer, Chunk, Timeline, TokenLogprob
from .engine import Engine, Prompt
from .errors import (
    BufferTooSmallError,
    CancelledError,
    CapacityError,
    DasanError,
    DeadlineError,
    DeviceError,
    FormatError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfMemoryError,
    ReadError,
    StateError,
    UnsupportedError,
)
from .model import Encoding, Message, Model, ModelInfo
from .options import GenerateOptions
from .session import Session
from .stream import Stream

if TYPE_CHECKING:
    from .astream import AsyncStream as AsyncStream

__all__ = [
    "Answer", "AsyncStream", "BufferTooSmallError", "CancelledError", "CapacityError", "Chunk",
    "DasanError", "DeadlineError", "DeviceError", "Encoding", "Engine", "FormatError",
    "GenerateOptions", "InternalError", "InvalidArgumentError", "Message", "Model", "ModelInfo",
    "NotFoundError", "OutOfMemoryError", "Prompt", "ReadError", "Session", "StateError", "Stream",
    "Timeline", "TokenLogprob", "UnsupportedError", "build_info",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "AsyncStream":  # loads asyncio
        from .astream import AsyncStream

        return AsyncStream
    raise AttributeError(f"module 'dasan' has no attribute {name!r}")
