"""What can be asked of a generation, and its translation to the structs of dasan.h."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from ._native import ffi, integer, lib, new_struct, number, string, token_array
from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from .session import Session


class GenerateOptions(TypedDict, total=False):
    """Keyword arguments of every generating call; what is left out has its default."""

    max_tokens: int  # 0: until the context is full
    temperature: float  # 0: greedy, the default
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_window: int
    seed: int  # None: drawn, and kept in Answer.seed
    logit_bias: Mapping[int, float]  # -inf bans a token
    stop: str | Sequence[str]
    logprobs: bool
    top_logprobs: int  # alternatives per token, at most 20; implies logprobs
    timeout: float  # seconds from submission; late: DeadlineError
    priority: int  # higher first
    client: int  # who asks: of one priority, the client that was served least goes first
    cache_salt: int  # KV of prompts is shared among requests of one salt only
    ignore_eos: bool
    render_special: bool  # control tokens appear in the text
    session: Session  # continues its history


_NAMES = frozenset(GenerateOptions.__annotations__)
_FLOATS = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")


class Submission:
    """The C parameters of one request and the memory they point to."""

    def __init__(self, prompt: Sequence[int], options: GenerateOptions) -> None:
        unknown = options.keys() - _NAMES
        if unknown:
            raise TypeError(f"unexpected option {sorted(unknown)[0]!r}, expected one of {sorted(_NAMES)}")
        self.keep: list[Any] = []
        self.params = params = new_struct("dasan_request_params")
        self.prompt = token_array("prompt", prompt)
        params.prompt, params.n_prompt = self.prompt, len(self.prompt)
        params.max_tokens = integer("max_tokens", options.get("max_tokens") or 0)
        params.priority = integer("priority", options.get("priority", 0), "int32_t")
        params.client = integer("client", options.get("client", 0), "uint64_t")
        params.cache_salt = integer("cache_salt", options.get("cache_salt", 0), "uint64_t")
        params.deadline_ms = _milliseconds(options.get("timeout"))
        flags = 0
        n_top = integer("top_logprobs", options.get("top_logprobs") or 0)
        if options.get("logprobs") or n_top:
            flags |= lib.DASAN_REQ_LOGPROBS
            params.n_top = n_top
        if options.get("ignore_eos"):
            flags |= lib.DASAN_REQ_IGNORE_EOS
        if options.get("render_special"):
            flags |= lib.DASAN_REQ_RENDER_SPECIAL
        params.flags = flags
        self._stop(options.get("stop"))
        self.seed = self._sampling(options)
        session = options.get("session")
        if session is not None:
            params.session = session.pointer()
            self.keep.append(params.session)

    def _stop(self, stop: str | Sequence[str] | None) -> None:
        stops = [stop] if isinstance(stop, str) else list(stop or [])
        for text in stops:
            if not isinstance(text, str):
                raise InvalidArgumentError(f"stop: {text!r}, expected text")
        if stops:
            self.keep.append(ffi.new("dasan_str[]", [string(self.keep, s, "stop") for s in stops]))
            self.params.stop, self.params.n_stop = self.keep[-1], len(stops)

    def _sampling(self, options: GenerateOptions) -> int:
        sampling = new_struct("dasan_sampling")
        for name in _FLOATS:
            value = options.get(name)
            if value is not None:
                setattr(sampling, name, number(name, value))
        sampling.top_k = integer("top_k", options.get("top_k") or 0, "int32_t")
        sampling.penalty_window = integer("penalty_window", options.get("penalty_window") or 0)
        seed = options.get("seed")
        if seed is None:
            seed = random.getrandbits(63) if sampling.temperature > 0 else 0
        sampling.seed = integer("seed", seed, "uint64_t")
        bias = options.get("logit_bias")
        if bias:
            pairs = [
                (integer("logit_bias", token, "int32_t"), number(f"logit_bias of {token}", value))
                for token, value in bias.items()
            ]
            self.keep.append(ffi.new("dasan_logit_bias[]", pairs))
            sampling.logit_bias, sampling.n_logit_bias = self.keep[-1], len(pairs)
        self.keep.append(sampling)
        self.params.sampling = sampling
        return int(sampling.seed)


def _milliseconds(timeout: float | None) -> int:
    if timeout is None:
        return 0
    seconds = number("timeout", timeout)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise InvalidArgumentError(f"timeout: {seconds}, expected seconds greater than 0")
    return integer("timeout in ms", max(1, math.ceil(seconds * 1000)))
