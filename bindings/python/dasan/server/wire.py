"""Jobs as OpenAI's objects: whole answers and server-sent events."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from ..answer import Chunk
from ..errors import DasanError
from ..formats import ToolCall
from ..model import Model
from .errors import ApiError, of_engine
from .generation import Delta, Job


def _token_entry(model: Model, token: int, logprob: float) -> dict[str, Any]:
    data = model.token_bytes(token)
    # JSON has no infinity; OpenAI's floor is the same number.
    return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}


def _chat_logprobs(model: Model, chunk: Chunk) -> dict[str, Any] | None:
    if chunk.logprobs is None:
        return None
    content = []
    for i, (token, logprob) in enumerate(zip(chunk.tokens, chunk.logprobs, strict=True)):
        entry = _token_entry(model, token, logprob)
        entry["top_logprobs"] = [_token_entry(model, *t) for t in chunk.top[i]] if chunk.top else []
        content.append(entry)
    return {"content": content, "refusal": None}


def _text_logprobs(model: Model, chunk: Chunk, offset: int) -> dict[str, Any] | None:
    if chunk.logprobs is None:
        return None
    texts, offsets, tops = [], [], []
    for i, token in enumerate(chunk.tokens):
        text = model.token_bytes(token).decode("utf-8", "replace")
        texts.append(text)
        offsets.append(offset)
        offset += len(text)
        top = chunk.top[i] if chunk.top else []
        tops.append({model.token_bytes(t).decode("utf-8", "replace"): max(p, -9999.0) for t, p in top})
    return {
        "tokens": texts, "token_logprobs": [max(p, -9999.0) for p in chunk.logprobs],
        "top_logprobs": tops, "text_offset": offsets,
    }  # fmt: skip


def _call(call: ToolCall, index: int | None = None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }  # fmt: skip
    if index is not None:
        value["index"] = index
    return value


class _Sum:
    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCall] = []
        self.chunk = Chunk()
        self.finish: str | None = None

    def add(self, delta: Delta) -> None:
        self.content.append(delta.content)
        self.reasoning.append(delta.reasoning)
        self.calls += delta.calls
        self.chunk.add(delta.chunk)
        self.finish = delta.finish


async def whole(job: Job, model_name: str, fingerprint: str) -> dict[str, Any]:
    """The answer as one object."""
    sums = [_Sum() for _ in job.timelines]
    async for delta in job.deltas():
        sums[delta.index].add(delta)
    choices = []
    for i, s in enumerate(sums):
        text = "".join(s.content)
        choice: dict[str, Any] = {"index": i, "finish_reason": s.finish}
        if job.kind == "chat":
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
            reasoning = "".join(s.reasoning)
            if reasoning:
                message["reasoning_content"] = reasoning
            if s.calls:
                message["content"] = text or None
                message["tool_calls"] = [_call(call) for call in s.calls]
            choice["message"] = message
            choice["logprobs"] = _chat_logprobs(job.engine.model, s.chunk)
        else:
            before = job.prompts[i // job.n].text
            choice["text"] = before + text
            choice["logprobs"] = _text_logprobs(job.engine.model, s.chunk, len(before))
        choices.append(choice)
    return {
        "id": job.id, "object": "chat.completion" if job.kind == "chat" else "text_completion",
        "created": job.created, "model": model_name, "system_fingerprint": fingerprint,
        "choices": choices, "usage": job.usage(),
    }  # fmt: skip


async def events(job: Job, model_name: str, fingerprint: str) -> AsyncIterator[bytes]:
    """The answer as server-sent events. A failure after the first byte is an event of its own."""
    chat = job.kind == "chat"
    model = job.engine.model
    head = json.dumps(
        {
            "id": job.id, "object": "chat.completion.chunk" if chat else "text_completion",
            "created": job.created, "model": model_name, "system_fingerprint": fingerprint,
        }
    )[:-1]  # fmt: skip
    stream_options = job.request.stream_options
    with_usage = bool(stream_options and stream_options.include_usage)
    tail = ', "usage": null}\n\n' if with_usage else "}\n\n"

    def event(choice: dict[str, Any]) -> bytes:
        return f"data: {head}, \"choices\": [{json.dumps(choice)}]{tail}".encode()

    n_calls = [0] * len(job.timelines)
    offsets = [len(job.prompts[i // job.n].text) for i in range(len(job.timelines))]
    try:
        for i in range(len(job.timelines)):
            if chat:
                start = {"role": "assistant", "content": "", "refusal": None}
                yield event({"index": i, "delta": start, "logprobs": None, "finish_reason": None})
            elif job.prompts[i // job.n].text:
                text = job.prompts[i // job.n].text
                yield event({"index": i, "text": text, "logprobs": None, "finish_reason": None})
        async for delta in job.deltas():
            i = delta.index
            if chat:
                change: dict[str, Any] = {}
                if delta.content:
                    change["content"] = delta.content
                if delta.reasoning:
                    change["reasoning_content"] = delta.reasoning
                if delta.calls:
                    change["tool_calls"] = [_call(c, n_calls[i] + k) for k, c in enumerate(delta.calls)]
                    n_calls[i] += len(delta.calls)
                logprobs = _chat_logprobs(model, delta.chunk)
                if change or logprobs:
                    yield event({"index": i, "delta": change, "logprobs": logprobs, "finish_reason": None})
                if delta.finish:
                    yield event({"index": i, "delta": {}, "logprobs": None, "finish_reason": delta.finish})
            elif delta.content or delta.finish or delta.chunk.logprobs:
                logprobs = _text_logprobs(model, delta.chunk, offsets[i])
                if logprobs:
                    offsets[i] += sum(len(t) for t in logprobs["tokens"])
                yield event(
                    {"index": i, "text": delta.content, "logprobs": logprobs, "finish_reason": delta.finish}
                )
        if with_usage:
            yield f"data: {head}, \"choices\": [], \"usage\": {json.dumps(job.usage())}}}\n\n".encode()
    except (ApiError, DasanError) as error:
        failure = error if isinstance(error, ApiError) else of_engine(error)
        yield f"data: {json.dumps(failure.body())}\n\n".encode()
    yield b"data: [DONE]\n\n"
