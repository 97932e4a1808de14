"""Session: a conversation's tokens and their KV pages. Pass it to a generating call as `session`;
the prompt is then what is new."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _native
from ._native import check, ffi, filled, integer, lib
from .errors import InvalidArgumentError
from .model import Message

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from .engine import Engine
    from .options import GenerateOptions
    from .stream import Stream

_BLOCK = 256  # positions whose logits are held at once while scoring


class Session:
    def __init__(self, engine: Engine, *, _pointer: Any = None) -> None:
        self._engine = engine
        if _pointer is None:
            out = ffi.new("dasan_session **")
            check(lib.dasan_session_create(out, engine.pointer()))
            _pointer = out[0]
        self._handle = _native.Handle("session", _pointer, lib.dasan_session_release)

    def pointer(self) -> Any:
        return self._handle.get()

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        length = ffi.new("size_t *")
        status = lib.dasan_session_tokens(self.pointer(), ffi.NULL, 0, length)
        if status != lib.DASAN_E_BUFFER_TOO_SMALL:
            check(status)
        return int(length[0])

    @property
    def tokens(self) -> list[int]:
        """The history."""
        session = self.pointer()
        ids, n = filled(
            "int32_t", 512, lambda b, cap, out: lib.dasan_session_tokens(session, b, cap, out)
        )
        return list(ffi.unpack(ids, n)) if n else []

    def rewind(self, n_tokens: int) -> None:
        """Keeps the first n tokens."""
        check(lib.dasan_session_rewind(self.pointer(), integer("n_tokens", n_tokens)))

    def fork(self) -> Session:
        """A second session with this history; pages are shared until one writes."""
        out = ffi.new("dasan_session **")
        check(lib.dasan_session_fork(out, self.pointer()))
        return Session(self._engine, _pointer=out[0])

    def chat_stream(self, messages: Sequence[Message], **options: Unpack[GenerateOptions]) -> Stream:
        """The answer to a whole conversation, of which only what the session does not hold yet is
        computed: keep the messages, call this each turn."""
        prompt = self._engine.model.chat_tokens(messages)
        held = self.tokens
        # At least one token is left to run, because the answer starts from its logits.
        limit = min(len(held), len(prompt) - 1)
        same = 0
        while same < limit and held[same] == prompt[same]:
            same += 1
        self.rewind(same)
        options["session"] = self
        return self._engine.stream(prompt[same:], **options)

    # ---- save and restore

    def save(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """Tokens and KV as bytes, also written to `path` if given."""
        parts: list[bytes] = []
        raised: list[BaseException] = []

        @ffi.callback("dasan_status(void *, void *, size_t)", error=-13)  # type: ignore[untyped-decorator]
        def write(_user: Any, data: Any, size: int) -> int:
            try:
                parts.append(bytes(ffi.buffer(data, size)))
                return 0
            except BaseException as error:
                raised.append(error)
                return int(lib.DASAN_E_OUT_OF_MEMORY)

        status = lib.dasan_session_save(self.pointer(), write, ffi.NULL)
        if raised:
            raise raised[0]
        check(status)
        snapshot = b"".join(parts)
        if path is not None:
            Path(path).write_bytes(snapshot)
        return snapshot

    @classmethod
    def restore(cls, engine: Engine, data: bytes | os.PathLike[str] | str) -> Session:
        """Continues bit for bit where save was called; computes nothing."""
        snapshot = memoryview(data if isinstance(data, (bytes, bytearray)) else Path(data).read_bytes())
        position = 0

        @ffi.callback("dasan_status(void *, void *, size_t)", error=-13)  # type: ignore[untyped-decorator]
        def read(_user: Any, target: Any, size: int) -> int:
            nonlocal position
            if position + size > len(snapshot):
                return int(lib.DASAN_E_FORMAT)
            ffi.buffer(target, size)[:] = snapshot[position : position + size]
            position += size
            return 0

        out = ffi.new("dasan_session **")
        check(lib.dasan_session_restore(out, engine.pointer(), read, ffi.NULL))
        return cls(engine, _pointer=out[0])

    # ---- direct evaluation

    def eval(self, tokens: Sequence[int], *, all_logits: bool = False) -> NDArray[numpy.float32]:
        """Appends tokens; logits of the last one (n_vocab), or of all (n, n_vocab)."""
        import numpy as np

        array = _native.token_array("tokens", tokens)
        n_vocab = self._engine.model.info.n_vocab
        out = np.zeros((len(array) if all_logits else 1, n_vocab), dtype=np.float32)
        buffer = ffi.from_buffer("float[]", out, require_writable=True)
        flags = lib.DASAN_EVAL_ALL_LOGITS if all_logits else 0
        check(lib.dasan_session_eval(self.pointer(), array, len(array), flags, buffer, out.size))
        return out if all_logits else out[0]

    def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Appends both and returns the log-probability of each token of the second. Only a few
        positions' logits are held at once, however long the text."""
        import numpy as np

        before, after = list(prompt), list(continuation)
        if not before:
            raise InvalidArgumentError("prompt: no tokens, expected at least one to score after")
        if not after:
            return []
        last = self.eval(before)[None, :]
        scores: list[float] = []
        for begin in range(0, len(after), _BLOCK):
            block = after[begin : begin + _BLOCK]
            logits = self.eval(block, all_logits=True)
            rows = np.concatenate([last, logits[:-1]]).astype(np.float64)
            peak = rows.max(axis=1)
            norm = peak + np.log(np.exp(rows - peak[:, None]).sum(axis=1))
            scores += [float(rows[i, token] - norm[i]) for i, token in enumerate(block)]
            last = logits[-1:]
        return scores
