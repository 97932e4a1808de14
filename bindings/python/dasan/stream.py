"""Stream: one generation as an iterator. It takes its chunks from the engine's scheduler, with the GIL
released; a consumer that lags gets fewer, larger chunks and slows nobody down.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._native import check, ffi, lib, new_struct, own
from .answer import Answer, Chunk, Collector, read_event
from .errors import StateError

if TYPE_CHECKING:
    from .engine import Engine
    from .options import Submission

_SLICE_MS = 200  # how long a pull is deaf to Ctrl-C


class BaseStream:
    """What both kinds of stream are."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self._engine = engine  # a stream keeps its engine going
        self._collector = Collector(seed)
        self._request: Any = None

    @property
    def answer(self) -> Answer:
        """The whole answer; StateError before the stream has ended."""
        answer = self._collector.answer
        if answer is None:
            raise StateError("the stream has not ended, expected its last chunk to have been taken")
        return answer

    @property
    def seed(self) -> int:
        return self._collector.seed

    def cancel(self) -> None:
        """Asks the engine to end this; the stream still gives what it has and then ends, with
        finish == 'cancelled'. From any thread."""
        request = self._request
        if request is not None:
            lib.dasan_request_cancel(request)

    def _take(self, chunk: Chunk) -> Chunk:
        self._collector.add(chunk)
        if chunk.finish is not None:
            self._request = None
            if chunk.error is not None:
                raise chunk.error
        return chunk


class Stream(BaseStream, Iterator[Chunk]):
    """An iterator of chunks. Closing it, or dropping it, cancels what is left."""

    def __init__(self, engine: Engine, submission: Submission) -> None:
        super().__init__(engine, submission.seed)
        self._event = new_struct("dasan_event")
        self._request = submit(engine, [submission])[0]

    def __next__(self) -> Chunk:
        request = self._request
        if request is None:
            raise StopIteration
        while True:
            status = lib.dasan_request_next(request, self._event, _SLICE_MS)
            if status != lib.DASAN_E_TIMEOUT:
                check(status)
                return self._take(read_event(self._event))

    def read(self) -> Answer:
        """Takes what is left and returns the whole."""
        for _ in self:
            pass
        return self.answer

    def close(self) -> None:
        self._request = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def submit(engine: Engine, submissions: list[Submission]) -> list[Any]:
    """Queues all or none; returns owned handles."""
    params = ffi.new("dasan_request_params *[]", [s.params for s in submissions])
    out = ffi.new("dasan_request *[]", len(submissions))
    check(lib.dasan_submit(engine.pointer(), params, len(submissions), out))
    return [own(out[i], lib.dasan_request_release) for i in range(len(submissions))]
