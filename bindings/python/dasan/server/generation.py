"""A request for text on its way through the engine: prompts in, deltas and choices out. Knows no HTTP.

A job has one stream per choice. Its deltas come merged, in the order in which they arise.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import errors as engine_errors
from ..answer import Chunk, Timeline
from ..astream import AsyncStream
from ..engine import Engine, nth_sample
from ..formats import OutputFormat, OutputReader, ToolCall
from ..options import GenerateOptions
from .errors import ApiError
from .keys import Caller
from .schemas import ChatMessage, ChatRequest, CompletionRequest, NamedTool, Sampling


@dataclass(slots=True)
class Delta:
    """What one choice gained."""

    index: int
    content: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    chunk: Chunk = field(default_factory=Chunk)
    finish: str | None = None


@dataclass(slots=True)
class Prompt:
    tokens: list[int]
    text: str = ""  # as given, for echo
    reader: OutputReader | None = None
    must_call: list[str] | None = None  # names, one of which has to be called


class Job:
    """Starts at once: what is wrong with the parameters is raised here, before any answer began."""

    def __init__(
        self, kind: str, request: Sampling, prompts: Sequence[Prompt], n: int, options: GenerateOptions,
        engine: Engine, caller: Caller,
    ) -> None:  # fmt: skip
        self.kind, self.request, self.caller, self.engine = kind, request, caller, engine
        self.id = f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.started = time.monotonic()
        self.options = options
        self.prompts = prompts
        self.n = n
        self.streams: list[AsyncStream] = []
        self.timelines: list[Timeline | None] = [None] * (n * len(prompts))
        self.finishes: list[str | None] = [None] * (n * len(prompts))
        self.first_token: float | None = None
        try:
            for prompt in prompts:
                for i in range(n):
                    self.streams.append(engine.astream(prompt.tokens, **nth_sample(options, i)))
        except BaseException:
            self.cancel()
            raise
        self.seeds = [stream.seed for stream in self.streams]

    @property
    def prompt_tokens(self) -> int:
        return sum(len(p.tokens) for p in self.prompts)

    @property
    def completion_tokens(self) -> int:
        return sum(t.generated_tokens for t in self.timelines if t is not None)

    def usage(self) -> dict[str, Any]:
        prompt, made = self.prompt_tokens, self.completion_tokens
        cached = sum(t.cached_tokens for t in self.timelines if t is not None)
        return {
            "prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made,
            "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
        }  # fmt: skip

    def cancel(self) -> None:
        for stream in self.streams:
            stream.cancel()
        self.streams = []

    async def deltas(self) -> AsyncIterator[Delta]:
        """Every choice's deltas until all have ended. Closing it cancels what is left."""
        try:
            if len(self.streams) == 1:
                async for delta in self._one(0):
                    yield delta
            else:
                async for delta in self._merged():
                    yield delta
        finally:
            self.cancel()

    async def _merged(self) -> AsyncIterator[Delta]:
        queue: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue(maxsize=64)

        async def pump(index: int) -> None:
            try:
                async for delta in self._one(index):
                    await queue.put(delta)
                await queue.put(None)
            except Exception as error:
                await queue.put(error)

        tasks = [asyncio.create_task(pump(i)) for i in range(len(self.streams))]
        try:
            left = len(tasks)
            while left:
                item = await queue.get()
                if item is None:
                    left -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, index: int) -> AsyncIterator[Delta]:
        prompt = self.prompts[index // self.n]
        stream = self.streams[index]
        reader = prompt.reader
        if reader is not None and self.n > 1:
            reader = reader.copy()
        async for chunk in stream:
            if self.first_token is None:
                self.first_token = time.monotonic()
            delta = Delta(index, chunk=chunk)
            if reader is None:
                delta.content = chunk.text
            else:
                piece = reader.feed(chunk.text)
                if chunk.finish is not None:
                    piece.add(reader.end())
                delta.content, delta.reasoning, delta.calls = piece.content, piece.reasoning, piece.calls
            if chunk.finish is not None:
                self.timelines[index] = chunk.timeline
                delta.finish = chunk.finish
                if chunk.finish == "cancelled":
                    raise ApiError(503, "the server is closing and ended the request", code="unavailable")
                if reader is not None and reader.n_calls:
                    delta.finish = "tool_calls"
                elif prompt.must_call is not None:
                    raise ApiError(
                        422, "tool_choice: the model's answer is not a call that could be read "
                        f"({chunk.finish} after {len(stream.answer.tokens)} tokens)", code="tool_call_invalid",
                    )  # fmt: skip
                self.finishes[index] = delta.finish
            if prompt.must_call is not None:
                for call in delta.calls:
                    if call.name not in prompt.must_call:
                        raise ApiError(
                            422, f"tool_choice: the model called {call.name!r}, expected one of "
                            f"{prompt.must_call}", code="tool_call_invalid",
                        )  # fmt: skip
            if delta.content or delta.reasoning or delta.calls or chunk.tokens or delta.finish:
                yield delta


def options_of(request: Sampling, caller: Caller, seconds: float) -> GenerateOptions:
    """Sampling parameters as the engine's. Left out, temperature and top_p are 1, as OpenAI's are."""
    options = GenerateOptions(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=request.top_k or 0,
        min_p=request.min_p or 0.0,
        repetition_penalty=request.repetition_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        priority=caller.priority,
        client=caller.client,
        cache_salt=caller.cache_salt,
    )
    if request.max_tokens is not None:
        options["max_tokens"] = request.max_tokens
    if request.seed is not None:
        options["seed"] = request.seed % 2**64
    if request.stop:
        options["stop"] = request.stop
    if request.ignore_eos:
        options["ignore_eos"] = True
    if seconds > 0:
        options["timeout"] = seconds
    if request.logit_bias:
        options["logit_bias"] = _bias(request.logit_bias)
    return options


def _bias(given: dict[str, float]) -> dict[int, float]:
    result: dict[int, float] = {}
    for token, bias in given.items():
        if not token.isascii() or not token.isdigit() or len(token) > 9:
            raise ApiError(400, f"logit_bias: {token[:40]!r}, expected a token id", param="logit_bias")
        # OpenAI's -100 bans a token.
        result[int(token)] = float("-inf") if bias <= -100 else bias
    return result


def check_length(engine: Engine, tokens: Sequence[int], max_tokens: int) -> None:
    limit = engine.max_context
    if len(tokens) + max(max_tokens, 1) > limit:
        raise ApiError(
            400, f"the prompt has {len(tokens)} tokens and max_tokens is {max_tokens or 'not given'}, "
            f"expected at most {limit} together", param="messages", code="context_length_exceeded",
        )  # fmt: skip


def _content(message: ChatMessage, place: str) -> str | None:
    if message.content is None or isinstance(message.content, str):
        return message.content
    texts = []
    for i, part in enumerate(message.content):
        if part.type != "text" or part.text is None:
            raise ApiError(
                400, f"{place}.content[{i}]: type {part.type!r}, expected 'text': this model reads text only",
                param=f"{place}.content", code="unsupported",
            )  # fmt: skip
        texts.append(part.text)
    return "".join(texts)


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat templates expect them: arguments as objects, 'developer' as 'system'."""
    result: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        entry: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role}
        entry["content"] = _content(message, f"messages[{i}]") or ""
        for name in ("name", "tool_call_id", "reasoning_content"):
            value = getattr(message, name)
            if value is not None:
                entry[name] = value
        if message.tool_calls:
            calls = []
            for call in message.tool_calls:
                try:
                    arguments = json.loads(call.function.arguments or "{}")
                except (ValueError, RecursionError):
                    arguments = call.function.arguments
                function = {"name": call.function.name, "arguments": arguments}
                calls.append({"id": call.id, "type": "function", "function": function})
            entry["tool_calls"] = calls
        result.append(entry)
    return result


def chat_job(
    request: ChatRequest, engine: Engine, form: OutputFormat, caller: Caller, seconds: float
) -> Job:
    if request.response_format is not None and request.response_format.type != "text":
        raise ApiError(
            400, f"response_format: {request.response_format.type!r}, expected 'text': this engine has no "
            "constrained decoding yet", param="response_format", code="unsupported",
        )  # fmt: skip
    choice = request.tool_choice
    tools = [t.model_dump(exclude_none=True) for t in request.tools or []] if choice != "none" else []
    if tools and form.tools is None:
        raise ApiError(
            400, "tools: the model's chat template has no form for tools that dasan reads",
            param="tools", code="unsupported",
        )  # fmt: skip
    variables: dict[str, Any] = {}
    if request.reasoning_effort is not None:
        variables["reasoning_effort"] = request.reasoning_effort
        variables["enable_thinking"] = request.reasoning_effort not in ("none", "minimal")
    variables.update(request.chat_template_kwargs or {})
    text = engine.model.apply_chat_template(
        template_messages(request.messages), tools=tools or None, variables=variables or None
    )
    forced, must_call = "", None
    if tools and (choice == "required" or isinstance(choice, NamedTool)):
        assert form.tools is not None
        named = choice.function.name if isinstance(choice, NamedTool) else None
        must_call = [named] if named else [t["function"]["name"] for t in tools]
        forced = form.tools.forced(named)
        if form.thinks and text.rstrip().endswith("<think>"):
            text = text.rstrip() + "\n\n</think>\n\n"
    tokens = engine.model.token_ids(text + forced, add_special=False, parse_special=True)
    options = options_of(request, caller, seconds)
    limit = request.max_completion_tokens or request.max_tokens
    if limit is not None:
        options["max_tokens"] = limit
    check_length(engine, tokens, limit or 0)
    if request.logprobs:
        options["logprobs"] = True
        options["top_logprobs"] = request.top_logprobs or 0
    reader = None
    if tools or form.thinks:
        reader = OutputReader(form, tools=bool(tools), prompt_tail=text[-64:], forced=forced)
        if tools and form.render_special:
            options["render_special"] = True
    prompt = Prompt(tokens, reader=reader, must_call=must_call)
    return Job("chat", request, [prompt], request.n or 1, options, engine, caller)


def inputs_of(given: Any) -> list[str | list[int]]:
    """OpenAI's four ways to write one or many inputs."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]
    return list(given)


def completion_job(
    request: CompletionRequest, engine: Engine, caller: Caller, seconds: float, max_choices: int
) -> Job:
    options = options_of(request, caller, seconds)
    options["max_tokens"] = limit = request.max_tokens or 16  # OpenAI's default
    if request.logprobs is not None:
        options["logprobs"] = True
        options["top_logprobs"] = request.logprobs
    inputs = inputs_of(request.prompt)
    n = request.n or 1
    if not inputs or n * len(inputs) > max_choices:
        raise ApiError(
            400, f"prompt and n: {n * len(inputs)} choices, expected from 1 to {max_choices}", param="prompt"
        )
    if request.echo and request.logprobs is not None:
        raise ApiError(
            400, "echo with logprobs: log-probabilities of a prompt are not built yet; "
            "Engine.score in Python has them", param="echo", code="unsupported",
        )  # fmt: skip
    prompts = []
    for item in inputs:
        tokens = engine.model.token_ids(item) if isinstance(item, str) else item
        check_length(engine, tokens, limit)
        text = ""
        if request.echo:
            text = item if isinstance(item, str) else engine.model.detokenize(item)
        prompts.append(Prompt(tokens, text=text))
    return Job("completion", request, prompts, n, options, engine, caller)

