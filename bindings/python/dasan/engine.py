"""Engine: a scheduler and KV pages over one model. Any number of threads and tasks may generate at
once; their requests share the batch."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _native
from ._native import check, ffi, integer, lib, new_struct
from .answer import Answer
from .errors import InvalidArgumentError
from .model import Message, Model
from .options import GenerateOptions, Submission
from .session import Session
from .stream import Stream

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from .astream import AsyncStream

Prompt = str | Sequence[int] | Sequence[Message]

KV_TYPES = ("auto", "f16", "bf16", "f32")
POOLING = {"mean": 1, "cls": 2, "last": 3}
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """No engine thread may call into an interpreter that is being taken down."""
    for engine in list(_engines):
        engine.close()


def engine_params(given: Mapping[str, Any]) -> Any:
    """A dasan_engine_params; every name is a field of the struct, 0 the default."""
    params = new_struct("dasan_engine_params")
    for name, value in given.items():
        if name == "kv_type":
            if value not in KV_TYPES:
                raise InvalidArgumentError(f"kv_type: {value!r}, expected one of {', '.join(KV_TYPES)}")
            params.kv_type = KV_TYPES.index(value)
        else:
            kind = "uint64_t" if name == "kv_bytes" else "uint32_t"
            setattr(params, name, integer(name, value, kind))
    return params


class Engine:
    """Runs requests over a model, which may be given as a path. Parameters are those of
    dasan_engine_params; 0 is the default of each."""

    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        *,
        max_sequences: int = 0,
        max_batch_tokens: int = 0,
        max_context: int = 0,
        threads: int = 0,
        max_queued: int = 0,
        kv_bytes: int = 0,
        kv_type: str = "auto",
        prefix_cache: bool = True,
    ) -> None:
        self.model = model if isinstance(model, Model) else Model(model)
        params = engine_params(
            {
                "max_sequences": max_sequences, "max_batch_tokens": max_batch_tokens,
                "max_context": max_context, "n_threads": threads, "max_queued": max_queued,
                "kv_bytes": kv_bytes, "kv_type": kv_type,
                "flags": 0 if prefix_cache else lib.DASAN_ENGINE_NO_PREFIX_CACHE,
            }
        )  # fmt: skip
        out = ffi.new("dasan_engine **")
        check(lib.dasan_engine_create(out, self.model._handle.get(), params))
        self._handle = _native.Handle("engine", out[0], lib.dasan_engine_release)
        plan = new_struct("dasan_plan")
        check(lib.dasan_plan_memory(self.model._handle.get(), params, plan))
        self.max_context = int(plan.max_context)
        self.kv_tokens = int(plan.kv_tokens)
        _engines.add(self)

    # ---- life

    def pointer(self) -> Any:
        return self._handle.get()

    def close(self) -> None:
        """Cancels what is left, whose streams end with finish == 'cancelled', and frees the pages."""
        self._handle.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<dasan.Engine over {self.model!r}{' (closed)' if self._handle.closed else ''}>"

    @property
    def stats(self) -> dict[str, int]:
        """Counters since the engine was made, and what runs and waits now."""
        raw = new_struct("dasan_engine_stats")
        check(lib.dasan_engine_get_stats(self.pointer(), raw))
        names = [name for name, _ in ffi.typeof("dasan_engine_stats").fields]
        return {n: int(getattr(raw, n)) for n in names if n not in ("struct_size", "reserved")}

    # ---- generation

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        """Tokens of a text, of a conversation through the model's template, or as they are."""
        if isinstance(prompt, str):
            return self.model.token_ids(prompt)
        items = list(prompt)
        if items and isinstance(items[0], Mapping):
            return self.model.chat_tokens(items)  # type: ignore[arg-type]
        return items  # type: ignore[return-value]

    def stream(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Stream:
        """Starts a generation and returns its chunks as an iterator."""
        return Stream(self, Submission(self.prompt_tokens(prompt), options))

    def astream(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> AsyncStream:
        """Like stream, for the running event loop."""
        from .astream import AsyncStream

        return AsyncStream(self, Submission(self.prompt_tokens(prompt), options))

    def generate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Answer:
        """The whole answer to one prompt."""
        return self.stream(prompt, **options).read()

    async def agenerate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Answer:
        return await self.astream(prompt, **options).read()

    def generate_many(self, prompts: Iterable[Prompt], **options: Unpack[GenerateOptions]) -> list[Answer]:
        """Answers to several prompts, which run together; the first that fails raises and cancels
        the others."""
        streams = [self.stream(prompt, **options) for prompt in prompts]
        return [stream.read() for stream in streams]

    def samples(self, prompt: Prompt, n: int, **options: Unpack[GenerateOptions]) -> list[Answer]:
        """n answers to one prompt, which run together; the i-th has the seed seed + i."""
        tokens = self.prompt_tokens(prompt)
        streams = [self.stream(tokens, **nth_sample(options, i)) for i in range(integer("n", n))]
        return [stream.read() for stream in streams]

    def chat(
        self,
        messages: Sequence[Message] | str,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """The answer to a conversation, or to one message, through the model's own template."""
        return self.stream(self._chat_tokens(messages, tools, variables), **options).read()

    def chat_stream(
        self,
        messages: Sequence[Message] | str,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        return self.stream(self._chat_tokens(messages, tools, variables), **options)

    def chat_astream(
        self,
        messages: Sequence[Message] | str,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream:
        return self.astream(self._chat_tokens(messages, tools, variables), **options)

    def _chat_tokens(
        self,
        messages: Sequence[Message] | str,
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any] | None,
    ) -> list[int]:
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return self.model.chat_tokens(turns, tools=tools, variables=variables)

    # ---- sessions, embeddings, scores

    def session(self) -> Session:
        """A new conversation."""
        return Session(self)

    def restore(self, data: bytes | os.PathLike[str] | str) -> Session:
        """A session from Session.save: its bytes, or the path of a file that holds them."""
        return Session.restore(self, data)

    def embed(
        self, inputs: Sequence[str | Sequence[int]], *, pooling: str = "mean", normalize: bool = True
    ) -> NDArray[numpy.float32]:
        """Pooled final hidden states, (len(inputs), n_embd) in float32."""
        import numpy as np

        if isinstance(inputs, str):
            raise InvalidArgumentError(f"inputs: {inputs[:40]!r}, expected a list of texts")
        if pooling not in POOLING:
            raise InvalidArgumentError(f"pooling: {pooling!r}, expected one of {', '.join(POOLING)}")
        arrays = [
            _native.token_array(f"inputs[{i}]", self.model.token_ids(x) if isinstance(x, str) else x)
            for i, x in enumerate(inputs)
        ]
        tokens = ffi.new("dasan_tokens[]", [{"data": a, "size": len(a)} for a in arrays])
        out = np.zeros((len(arrays), self.model.info.n_embd), dtype=np.float32)
        buffer = ffi.from_buffer("float[]", out, require_writable=True)
        check(
            lib.dasan_embed(
                self.pointer(), tokens, len(arrays), POOLING[pooling], int(normalize), buffer, out.size
            )
        )
        return out

    async def aembed(
        self, inputs: Sequence[str | Sequence[int]], *, pooling: str = "mean", normalize: bool = True
    ) -> NDArray[numpy.float32]:
        import asyncio

        return await asyncio.to_thread(self.embed, inputs, pooling=pooling, normalize=normalize)

    def score(self, prompt: Prompt, continuation: str | Sequence[int]) -> list[float]:
        """The log-probability of each token of `continuation` after `prompt`."""
        before = self.prompt_tokens(prompt)
        text = continuation
        after = self.model.token_ids(text, add_special=False) if isinstance(text, str) else list(text)
        if not before:
            raise InvalidArgumentError("prompt: no tokens, expected at least one to score after")
        if not after:
            return []
        with self.session() as session:
            return session.score(before, after)


def nth_sample(options: GenerateOptions, i: int) -> GenerateOptions:
    """The options of the i-th of several samples: the seed given, plus i."""
    sample = GenerateOptions(**options)
    if options.get("seed") is not None:
        sample["seed"] = (options["seed"] + i) % 2**64
    return sample

