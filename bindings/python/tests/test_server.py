"""The server through the official client, whose types validate every answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import scripted
from conftest import DEMO, ask
from serving import Server, serve

import dasan

NAME = "dasan demonstration"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(DEMO, "--threads", "2", "--kv-mib", "32") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def valid(answer: Any) -> Any:
    """The client builds its types without checking; this checks."""
    type(answer).model_validate(answer.model_dump(), strict=False)
    return answer


def test_chat_and_stream(client: openai.OpenAI, expected: list[dict[str, Any]]) -> None:
    for case in expected:
        messages: Any = ask(case["question"])
        answer = valid(client.chat.completions.create(model=NAME, messages=messages, temperature=0))
        assert answer.choices[0].message.content == case["text"]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.prompt_tokens == len(case["prompt_ids"])
        stream = client.chat.completions.create(
            model=NAME, messages=messages, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = [valid(chunk) for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == case["text"] and chunks[-1].usage == answer.usage
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[0].choices[0].delta.role == "assistant"


def test_content_parts_and_system(client: openai.OpenAI, expected: list[dict[str, Any]]) -> None:
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": expected[0]["question"]}]}]
    answer = client.chat.completions.create(model=NAME, messages=parts, temperature=0, max_tokens=5)
    assert expected[0]["text"].startswith(answer.choices[0].message.content or "x")
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match="image_url"):
        image: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        client.chat.completions.create(model=NAME, messages=image)


def test_n_seed_stop_bias(client: openai.OpenAI, expected: list[dict[str, Any]]) -> None:
    messages: Any = ask(expected[1]["question"])

    def texts(**options: Any) -> list[str | None]:
        answer = valid(client.chat.completions.create(model=NAME, messages=messages, max_tokens=20, **options))
        return [c.message.content for c in sorted(answer.choices, key=lambda c: c.index)]

    assert texts(n=3, seed=5, temperature=1.5) == texts(n=3, seed=5, temperature=1.5)
    assert len(set(texts(n=4, seed=5, temperature=2))) > 1
    stream = client.chat.completions.create(
        model=NAME, messages=messages, n=3, seed=5, temperature=1.5, max_tokens=20, stream=True
    )
    streamed = ["", "", ""]
    for chunk in stream:
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts(n=3, seed=5, temperature=1.5)
    word = expected[1]["text"].split()[1]
    assert texts(temperature=0, stop=[word]) == [expected[1]["text"].split(word)[0]]
    first = expected[1]["ids"][0]
    assert texts(temperature=0, logit_bias={str(first): -100}) != texts(temperature=0)


def test_logprobs(client: openai.OpenAI, engine: dasan.Engine, expected: list[dict[str, Any]]) -> None:
    case = expected[0]
    options: Any = {"messages": ask(case["question"]), "temperature": 0, "max_tokens": 8, "top_logprobs": 2}
    answer = valid(client.chat.completions.create(model=NAME, logprobs=True, **options))
    content = answer.choices[0].logprobs.content
    scored = engine.score(case["prompt_ids"], case["ids"][:8])
    assert [c.logprob for c in content] == pytest.approx(scored, abs=1e-4)
    assert b"".join(bytes(c.bytes) for c in content).decode("utf-8", "ignore").startswith(case["text"][:3])
    assert all(len(c.top_logprobs) == 2 for c in content)
    streamed: list[float] = []
    for chunk in client.chat.completions.create(model=NAME, logprobs=True, stream=True, **options):
        if chunk.choices[0].logprobs and chunk.choices[0].logprobs.content:
            streamed += [c.logprob for c in chunk.choices[0].logprobs.content]
    assert streamed == [c.logprob for c in content]


def test_completions(client: openai.OpenAI, engine: dasan.Engine) -> None:
    prompts = ["여권은", "Where can"]
    want = [engine.generate(p, max_tokens=10).text for p in prompts]
    answer = valid(client.completions.create(model=NAME, prompt=prompts, temperature=0, max_tokens=10))
    assert [c.text for c in answer.choices] == want
    ids = engine.model.token_ids(prompts[0])
    answer = client.completions.create(model=NAME, prompt=ids, temperature=0, max_tokens=10, echo=True, n=2)
    assert [c.text for c in answer.choices] == [prompts[0] + want[0]] * 2
    answer = valid(client.completions.create(model=NAME, prompt=prompts[0], temperature=0, max_tokens=5, logprobs=2))
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 5
    stream = client.completions.create(model=NAME, prompt=prompts, temperature=0, max_tokens=10, stream=True)
    streamed = ["", ""]
    for chunk in stream:
        # Not validated: the client's type has no null finish_reason, which OpenAI's own streams have.
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == want


def test_embeddings_rerank_tokenize_models(client: openai.OpenAI, server: Server, engine: dasan.Engine) -> None:
    texts = ["여권은 어디서 만드나요?", "여권을 만들고 싶어요", "Where can I pay tax?"]
    want = engine.embed(texts)
    for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = client.embeddings.create(model=NAME, input=texts, **encoding)  # type: ignore[call-overload]
        if not encoding or encoding["encoding_format"] == "float":
            assert np.array_equal(np.array([d.embedding for d in answer.data], np.float32), want)
    body = {"model": NAME, "query": texts[0], "documents": texts[1:], "return_documents": True}
    status, ranked = server.request("POST", "/v1/rerank", body)
    assert status == 200 and [r["index"] for r in ranked["results"]] == [0, 1]
    assert ranked["results"][0]["document"]["text"] == texts[1]
    encoding = engine.model.tokenize(texts[0])
    status, tokens = server.request("POST", "/v1/tokenize", {"model": NAME, "text": texts[0]})
    assert tokens["tokens"] == encoding.ids and [tuple(o) for o in tokens["offsets"]] == encoding.offsets
    status, text = server.request("POST", "/v1/detokenize", {"model": NAME, "tokens": encoding.ids})
    assert text == {"text": texts[0]}
    assert [m.id for m in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_errors_are_the_clients_errors(client: openai.OpenAI) -> None:
    messages: Any = ask("a")
    bad: list[tuple[dict[str, Any], type[openai.APIStatusError], str]] = [
        ({"model": "gpt-4"}, openai.NotFoundError, "gpt-4"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"n": 1000}, openai.BadRequestError, "n:"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 10**7}, openai.BadRequestError, "256"),
        ({"messages": ask("가나다라 " * 300)}, openai.BadRequestError, "256 together"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"logit_bias": {"99999999": 1}}, openai.BadRequestError, "99999999"),
        ({"logit_bias": {"x": 1}}, openai.BadRequestError, "'x'"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools"),
        ({"messages": [{"role": "robot", "content": "x"}]}, openai.BadRequestError, "role"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature"),
    ]
    for change, kind, words in bad:
        with pytest.raises(kind, match=words) as failure:
            client.chat.completions.create(**{"model": NAME, "messages": messages, **change})
        assert failure.value.body and {"message", "type", "param", "code"} <= set(failure.value.body)  # type: ignore[arg-type]
    assert client.chat.completions.create(model=NAME, messages=messages, max_tokens=2).choices


TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "description": "날씨", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}},
]  # fmt: skip
SCRIPT = [
    "<think>\n", "도시를 ", "찾는다", "\n</think>\n\n", "알아보겠", "습니다.", "<tool_", "call>\n", '{"name": "get_weather", ',
    '"arguments": {"city": "서울"}}', "\n</tool_call>",
]  # fmt: skip
# After a forced call the prompt ends with the byte before the arguments or before the name.
AFTER = {" ": ['{"city": ', '"부산"}}', "\n</tool_call>\n"], '"': ['get_weather", "arguments": {"city": ', '"대구"}}\n</tool_call>']}


def test_tools_and_reasoning(tmp_path: Path) -> None:
    with serve(scripted.write(tmp_path / "tools.gguf", SCRIPT, AFTER)) as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)

        def call(**options: Any) -> Any:
            return client.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "날씨?"}], temperature=0, **options
            )

        message = valid(call(tools=TOOLS)).choices[0]
        assert message.finish_reason == "tool_calls" and message.message.content == "알아보겠습니다."
        assert message.message.reasoning_content == "도시를 찾는다"
        made = message.message.tool_calls[0]
        assert (made.function.name, json.loads(made.function.arguments)) == ("get_weather", {"city": "서울"})

        deltas = [valid(c).choices[0] for c in call(tools=TOOLS, stream=True)]
        assert "".join(d.delta.content or "" for d in deltas) == "알아보겠습니다."
        assert "".join(getattr(d.delta, "reasoning_content", None) or "" for d in deltas) == "도시를 찾는다"
        calls = [c for d in deltas for c in d.delta.tool_calls or []]
        assert [(c.index, c.function.name) for c in calls] == [(0, "get_weather")]
        assert deltas[-1].finish_reason == "tool_calls"

        named: Any = {"type": "function", "function": {"name": "get_weather"}}
        made = call(tools=TOOLS, tool_choice=named).choices[0].message.tool_calls[0]
        assert json.loads(made.function.arguments) == {"city": "부산"}
        made = call(tools=TOOLS, tool_choice="required").choices[0].message.tool_calls[0]
        assert (made.function.name, json.loads(made.function.arguments)) == ("get_weather", {"city": "대구"})
        none = call(tools=TOOLS, tool_choice="none").choices[0]
        assert none.message.tool_calls is None and "<tool_call>" in none.message.content

        # The conversation goes on with the result, through the model's own template.
        turn = client.chat.completions.create(
            model="scripted", temperature=0, tools=TOOLS,
            messages=[
                {"role": "user", "content": "날씨?"},
                {"role": "assistant", "content": None, "tool_calls": [{**made.model_dump(), "index": 0}]},
                {"role": "tool", "tool_call_id": made.id, "content": "맑음"},
            ],
        )  # fmt: skip
        assert turn.choices[0].message.tool_calls
        with pytest.raises(openai.BadRequestError, match="tool_choice"):
            call(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "none_such"}})

    with serve(scripted.write(tmp_path / "plain.gguf", ["안녕", "하세요"], {" ": ["no call"]})) as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)
        with pytest.raises(openai.UnprocessableEntityError, match="not a call"):
            call(tools=TOOLS, tool_choice=named)
        with pytest.raises(openai.APIError, match="not a call"):
            list(call(tools=TOOLS, tool_choice=named, stream=True))


def test_many_clients_at_once(client: openai.OpenAI, expected: list[dict[str, Any]]) -> None:
    got: dict[int, str] = {}

    def one(i: int) -> None:
        stream = client.chat.completions.create(
            model=NAME, messages=ask(expected[i % len(expected)]["question"]), temperature=0, stream=True  # type: ignore[arg-type]
        )
        got[i] = "".join(c.choices[0].delta.content or "" for c in stream)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == {i: expected[i % len(expected)]["text"] for i in range(32)}
