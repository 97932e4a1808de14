"""Answers, streams, samples, cancellation: against the answers PyTorch gave, and against each other."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
from typing import Any

import pytest
from conftest import ask

import dasan

Cases = list[dict[str, Any]]


def test_answers_are_pytorchs(engine: dasan.Engine, expected: Cases) -> None:
    for case in expected:
        answer = engine.chat(case["question"])
        assert (answer.text, answer.finish) == (case["text"], "stop")
        assert answer.tokens[: len(case["ids"])] == case["ids"]
        assert answer.timeline.prompt_tokens == len(case["prompt_ids"])


def test_stream_gives_whole_characters_and_the_same_text(engine: dasan.Engine, expected: Cases) -> None:
    most = 0
    for case in expected * 10:
        with engine.chat_stream(case["question"]) as stream:
            texts = [chunk.text for chunk in stream]
        assert "".join(texts) == case["text"] == stream.answer.text
        most = max(most, len(texts))
        with pytest.raises(StopIteration):
            next(stream)
    # The model may be done before this thread looks; not forty times out of forty.
    assert most > 1


def test_threads_share_the_engine(engine: dasan.Engine, expected: Cases) -> None:
    got: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: got.update({i: engine.chat(expected[i % len(expected)]["question"]).text}))
        for i in range(24)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == {i: expected[i % len(expected)]["text"] for i in range(24)}


def test_async_streams_together(engine: dasan.Engine, expected: Cases) -> None:
    async def one(case: dict[str, Any]) -> str:
        return "".join([chunk.text async for chunk in engine.chat_astream(case["question"])])

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*[one(case) for case in expected * 4])

    assert asyncio.run(all_of_them()) == [case["text"] for case in expected * 4]


def test_samples_differ_and_repeat(engine: dasan.Engine) -> None:
    first = engine.samples("여권은", 4, seed=7, temperature=1.5, max_tokens=24)
    again = engine.samples("여권은", 4, seed=7, temperature=1.5, max_tokens=24)
    assert [a.tokens for a in first] == [a.tokens for a in again]
    assert len({tuple(a.tokens) for a in first}) > 1
    assert [a.seed for a in first] == [7, 8, 9, 10]
    drawn = engine.generate("여권은", temperature=1.5, max_tokens=24)
    assert engine.generate("여권은", temperature=1.5, max_tokens=24, seed=drawn.seed).tokens == drawn.tokens


def test_logprobs_agree_with_the_logits(engine: dasan.Engine, expected: Cases) -> None:
    case = expected[0]
    answer = engine.generate(case["prompt_ids"], logprobs=True, top_logprobs=3, max_tokens=12)
    assert answer.logprobs is not None and answer.top is not None
    assert len(answer.logprobs) == len(answer.tokens) == len(answer.top) == 12
    for token, logprob, top in zip(answer.tokens, answer.logprobs, answer.top, strict=True):
        assert top[0].token == token and math.isclose(top[0].logprob, logprob)
        assert [t.logprob for t in top] == sorted((t.logprob for t in top), reverse=True)
    # The softmax of the engine's logits, computed here in double precision.
    scored = engine.score(case["prompt_ids"], answer.tokens)
    assert scored == pytest.approx(answer.logprobs, abs=1e-4)


def test_stop_length_bias(engine: dasan.Engine, expected: Cases) -> None:
    case = expected[0]
    words = case["text"].split()
    stopped = engine.chat(case["question"], stop=words[1])
    assert stopped.finish == "stop" and stopped.text == case["text"].split(words[1])[0]
    cut = engine.chat(case["question"], max_tokens=3)
    assert cut.finish == "length" and cut.timeline.generated_tokens == 3
    first = case["ids"][0]
    banned = engine.chat(case["question"], logit_bias={first: -math.inf}, max_tokens=20)
    assert banned.tokens[0] != first


def _idle(engine: dasan.Engine) -> None:
    end = time.monotonic() + 10
    while engine.stats["running"] + engine.stats["waiting"] > 0:
        assert time.monotonic() < end, engine.stats
        time.sleep(0.01)


def test_closing_and_dropping_cancel(engine: dasan.Engine) -> None:
    before = engine.stats["requests_cancelled"]
    stream = engine.stream("a", ignore_eos=True)
    next(stream)
    stream.close()
    assert list(stream) == []
    dropped = engine.stream("a", ignore_eos=True)
    next(dropped)
    del dropped
    told = engine.stream("a", ignore_eos=True)
    next(told)
    told.cancel()
    assert told.read().finish in ("cancelled", "length")
    _idle(engine)
    assert engine.stats["requests_cancelled"] >= before + 2


def test_a_cancelled_task_cancels_its_request(engine: dasan.Engine) -> None:
    async def run() -> int:
        before = engine.stats["requests_cancelled"]
        streams = [engine.astream("a", ignore_eos=True) for _ in range(40)]  # more than run at once
        tasks = [asyncio.create_task(stream.read()) for stream in streams]
        await asyncio.sleep(0.002)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(r, asyncio.CancelledError) or isinstance(r, dasan.Answer) for r in results)
        assert sum(isinstance(r, asyncio.CancelledError) for r in results) > 0
        dropped = engine.astream("a", ignore_eos=True)
        del dropped
        closed = engine.astream("a", ignore_eos=True)
        await closed.aclose()
        assert [chunk async for chunk in closed] == []
        return before

    before = asyncio.run(run())
    gc.collect()
    _idle(engine)
    assert engine.stats["requests_cancelled"] > before


def test_closing_from_another_task_ends_the_waiting_one(engine: dasan.Engine) -> None:
    async def run() -> None:
        hold = [engine.astream("a", ignore_eos=True) for _ in range(32)]
        waiting = engine.astream("b", ignore_eos=True)
        task = asyncio.create_task(waiting.read())
        await asyncio.sleep(0)
        await waiting.aclose()
        await asyncio.wait([task], timeout=5)
        assert task.done()
        for stream in hold:
            await stream.aclose()
        task.exception() if not task.cancelled() else None

    asyncio.run(run())
    _idle(engine)


def test_failures_of_a_request(engine: dasan.Engine) -> None:
    with pytest.raises(TimeoutError, match="within 1 ms"):
        engine.generate_many(["a"] * 40, ignore_eos=True, timeout=0.001)
    with pytest.raises(dasan.InvalidArgumentError):
        engine.generate([10**6])
    with pytest.raises(dasan.DasanError, match="256"):
        engine.generate([5] * 300)
    _idle(engine)
    assert engine.chat("여권은 어디서 만드나요?").text  # and the engine goes on


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": -1}, "max_tokens: -1"),
        ({"max_tokens": 1.5}, "max_tokens: 1.5"),
        ({"max_tokens": 2**32}, "max_tokens: 4294967296"),
        ({"temperature": "hot"}, "temperature: 'hot'"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"seed": -1}, "seed: -1"),
        ({"top_logprobs": 21}, "21"),
        ({"stop": [1]}, "stop: 1"),
        ({"stop": ""}, "stop"),
        ({"timeout": 0}, "timeout: 0"),
        ({"logit_bias": {1: "x"}}, "logit_bias of 1: 'x'"),
        ({"logit_bias": {10**6: 1.0}}, "1000000"),
    ],
)
def test_bad_options_are_named(engine: dasan.Engine, options: Any, words: str) -> None:
    with pytest.raises(dasan.InvalidArgumentError, match=words.replace("(", r"\(")):
        engine.generate("a", **options)


def test_unknown_option(engine: dasan.Engine) -> None:
    with pytest.raises(TypeError, match="max_token"):
        engine.generate("a", max_token=1)  # type: ignore[call-arg]


def test_closing_an_engine_ends_its_streams(model: dasan.Model) -> None:
    engine = dasan.Engine(model, threads=1)
    stream = engine.stream("a", ignore_eos=True)
    engine.close()
    assert stream.read().finish in ("cancelled", "length")
    with pytest.raises(dasan.StateError, match="the engine is closed"):
        engine.generate("a")


def test_embeddings(engine: dasan.Engine) -> None:
    import numpy as np

    rows = engine.embed(["여권은 어디서 만드나요?", "여권을 만들고 싶어요", "Where can I pay tax?"])
    assert rows.shape == (3, 192) and rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    assert np.array_equal(engine.embed(["여권을 만들고 싶어요"])[0], rows[1])
    with pytest.raises(dasan.InvalidArgumentError, match="pooling"):
        engine.embed(["a"], pooling="max")
    with pytest.raises(dasan.InvalidArgumentError, match="list of texts"):
        engine.embed("a")


def test_answer_in_a_notebook(engine: dasan.Engine) -> None:
    answer = engine.chat("여권은 어디서 만드나요?")
    html = answer._repr_html_()
    assert "prefill" in html and "tokens/s" in html and str(answer)[:4] in html


def test_a_salt_keeps_prompts_apart(model: dasan.Model) -> None:
    prompt = list(range(5, 205))
    with dasan.Engine(model, threads=1, kv_bytes=4 << 20) as engine:

        def cached(salt: int) -> int:
            return engine.generate(prompt, max_tokens=1, cache_salt=salt, client=salt).timeline.cached_tokens

        assert cached(1) == 0 and cached(1) > 100  # its own is found again
        assert cached(2) == 0  # another's is not
        assert cached(0) == 0
    with dasan.Engine(model, threads=1, kv_bytes=4 << 20, prefix_cache=False) as engine:
        assert cached(1) == 0 and cached(1) == 0
