"""What a generation gives: chunks while it runs, an answer when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ._native import bytes_of, ffi, lib
from .errors import DasanError, error_of

FINISH = {1: "stop", 2: "length", 3: "cancelled", 4: "error"}


class TokenLogprob(NamedTuple):
    """An alternative at one place, by the model's distribution before any filter."""

    token: int
    logprob: float


@dataclass(slots=True)
class Chunk:
    """What came since the last one. `text` holds whole characters; `finish` is set on the last
    chunk: stop, length or cancelled."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] | None = None
    top: list[list[TokenLogprob]] | None = None
    finish: str | None = None
    timeline: Timeline | None = None
    error: DasanError | None = None

    def add(self, other: Chunk) -> None:
        """Appends what came after this."""
        self.text += other.text
        self.tokens += other.tokens
        if other.logprobs is not None:
            self.logprobs = (self.logprobs or []) + other.logprobs
        if other.top is not None:
            self.top = (self.top or []) + other.top
        self.finish, self.timeline, self.error = other.finish, other.timeline, other.error


@dataclass(frozen=True, slots=True)
class Timeline:
    """Counts and seconds of one generation, as the engine measured them."""

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of the decode phase: the first token belongs to the prefill."""
        return (self.generated_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished generation."""

    text: str
    tokens: list[int]
    finish: str
    timeline: Timeline
    seed: int
    logprobs: list[float] | None = None
    top: list[list[TokenLogprob]] | None = None

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        from .notebook import answer_html

        return answer_html(self)


def read_event(event: Any) -> Chunk:
    """Copies a dasan_event, whose memory is the library's."""
    n = event.n_tokens
    chunk = Chunk(bytes_of(event.text).decode("utf-8"), ffi.unpack(event.tokens, n) if n else [])
    if event.logprobs:
        chunk.logprobs = ffi.unpack(event.logprobs, n)
    if event.top:
        k = event.n_top
        flat = [TokenLogprob(p.token, p.logprob) for p in ffi.unpack(event.top, n * k)]
        chunk.top = [flat[i * k : (i + 1) * k] for i in range(n)]
    if event.kind == lib.DASAN_EVENT_DONE:
        chunk.finish = FINISH.get(event.finish, "error")
        chunk.timeline = Timeline(
            event.prompt_tokens, event.cached_tokens, event.generated_tokens,
            event.queue_seconds, event.prefill_seconds, event.decode_seconds,
        )  # fmt: skip
        if chunk.finish == "error":
            message = bytes_of(event.error).decode("utf-8", "replace")
            chunk.error = error_of(event.status, message or "the request failed")
    return chunk


class Collector:
    """Adds chunks up to an answer."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.whole = Chunk()
        self._texts: list[str] = []

    def add(self, chunk: Chunk) -> None:
        self._texts.append(chunk.text)
        whole = self.whole
        whole.tokens += chunk.tokens
        if chunk.logprobs is not None:
            whole.logprobs = whole.logprobs or []
            whole.logprobs += chunk.logprobs
        if chunk.top is not None:
            whole.top = whole.top or []
            whole.top += chunk.top
        whole.finish, whole.timeline = chunk.finish, chunk.timeline

    @property
    def answer(self) -> Answer | None:
        whole = self.whole
        if whole.finish is None or whole.timeline is None:
            return None
        return Answer(
            "".join(self._texts), whole.tokens, whole.finish, whole.timeline, self.seed,
            whole.logprobs, whole.top,
        )  # fmt: skip
