"""AsyncStream: one generation for asyncio. The engine's callback thread tells it; all the streams of one
event loop share one wake-up, however many have something to say. A module of its own, because programs
without asyncio need not load that.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._native import ffi
from .answer import Answer, Chunk, read_event
from .stream import BaseStream, submit

if TYPE_CHECKING:
    from .engine import Engine
    from .options import Submission


class _Waker:
    """Wakes one event loop, once for all streams that have something."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._ready: deque[_Mailbox] = deque()
        self._scheduled = False

    def notify(self, mailbox: _Mailbox) -> None:
        """[any thread]"""
        self._ready.append(mailbox)
        if self._scheduled:
            return
        self._scheduled = True
        loop = self._loop()
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._run)
        except RuntimeError:
            pass  # the loop is closed and nobody waits any more

    def _run(self) -> None:
        self._scheduled = False  # before looking: a later notify schedules again
        while self._ready:
            self._ready.popleft().wake()


_wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waker] = weakref.WeakKeyDictionary()


class _Mailbox:
    """Where the callback thread leaves chunks for one stream. It does not know the stream, so that
    dropping the stream is noticed."""

    __slots__ = ("chunks", "handle", "queued", "waiter", "waker")

    def __init__(self, waker: _Waker) -> None:
        self.chunks: deque[Chunk] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.waker = waker
        self.queued = False
        self.handle: Any = ffi.new_handle(self)

    def put(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        if not self.queued:
            self.queued = True
            self.waker.notify(self)

    def wake(self) -> None:
        self.queued = False
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Pace(threading.local):
    """Bounds how often one callback thread takes the GIL. What waits meanwhile gathers in the library
    and comes as fewer, larger events; models slower than the bound never notice it."""

    n = 0
    since = 0.0

    def step(self) -> None:
        self.n += 1
        if self.n < _BURST:
            return
        now = time.monotonic()
        wait = _BURST_SECONDS - (now - self.since)
        if wait > 0:
            time.sleep(wait)
            now += wait
        self.n, self.since = 0, now


_BURST, _BURST_SECONDS = 64, 0.02  # 3,200 events a second
_pace = _Pace()


@ffi.callback("int32_t(void *, dasan_event *)", error=1)  # type: ignore[untyped-decorator]
def _on_event(user: Any, event: Any) -> int:
    mailbox: _Mailbox = ffi.from_handle(user)
    mailbox.put(read_event(event))
    _pace.step()
    return 0


class AsyncStream(BaseStream, AsyncIterator[Chunk]):
    """An asynchronous iterator of chunks. Cancelling the task that waits for it, closing it or
    dropping it cancels what is left."""

    def __init__(self, engine: Engine, submission: Submission) -> None:
        super().__init__(engine, submission.seed)
        loop = asyncio.get_running_loop()
        waker = _wakers.get(loop)
        if waker is None:
            waker = _wakers[loop] = _Waker(loop)
        self._mailbox: _Mailbox | None = _Mailbox(waker)
        submission.params.on_event = _on_event
        submission.params.user = self._mailbox.handle
        self._request = submit(engine, [submission])[0]

    async def __anext__(self) -> Chunk:
        mailbox = self._mailbox
        if mailbox is None or (self._request is None and not mailbox.chunks):
            raise StopAsyncIteration
        while not mailbox.chunks:
            mailbox.waiter = asyncio.get_running_loop().create_future()
            try:
                await mailbox.waiter
            except asyncio.CancelledError:
                self._drop()
                raise
            finally:
                mailbox.waiter = None
        chunk = mailbox.chunks.popleft()
        while mailbox.chunks:
            chunk.add(mailbox.chunks.popleft())
        if chunk.finish is not None:
            self._drop()
        return self._take(chunk)

    async def read(self) -> Answer:
        """Takes what is left and returns the whole."""
        async for _ in self:
            pass
        return self.answer

    def _drop(self) -> None:
        request, self._request = self._request, None
        del request  # its callback has returned for good, after which the mailbox may go
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            mailbox.handle = None  # the handle and the mailbox hold each other
            waiter = mailbox.waiter
            if waiter is not None and not waiter.done():
                mailbox.chunks.append(Chunk(finish="cancelled"))
                waiter.set_result(None)

    async def aclose(self) -> None:
        self._drop()

    def __del__(self) -> None:
        self._drop()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()
