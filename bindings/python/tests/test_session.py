"""Sessions: history, rewind, fork, save and restore continue as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ask

import dasan


def test_a_conversation_computes_only_what_is_new(engine: dasan.Engine) -> None:
    messages = ask("여권은 어디서 만드나요?")
    with engine.session() as session:
        first = session.chat_stream(messages).read()
        messages += [{"role": "assistant", "content": first.text}, *ask("Where can I get a passport?")]
        second = session.chat_stream(messages)
        answer = second.read()
        assert answer.text == engine.chat(messages).text
        assert answer.timeline.cached_tokens >= len(first.tokens)
        assert len(session) == len(session.tokens)


def test_rewind_fork_save_restore(engine: dasan.Engine, tmp_path: Path) -> None:
    prompt = engine.prompt_tokens("여권은 시청이나")
    with engine.session() as session:
        whole = engine.generate(prompt, session=session, max_tokens=12).tokens
        session.rewind(len(prompt) + 4)
        fork = session.fork()
        snapshot = session.save(tmp_path / "s")
        restored = [engine.restore(snapshot), engine.restore(tmp_path / "s")]
        for branch in [session, fork, *restored]:
            assert branch.tokens == [*prompt, *whole[:4]]
            assert engine.generate([whole[4]], session=branch, max_tokens=7).tokens == whole[5:12]
    for damaged in (snapshot[:-9], snapshot[:40], b"", bytes([snapshot[0] ^ 1]) + snapshot[1:]):
        with pytest.raises(dasan.FormatError):
            engine.restore(damaged)


def test_a_busy_session_and_a_foreign_one(engine: dasan.Engine, model: dasan.Model) -> None:
    session = engine.session()
    stream = engine.stream("a", session=session, ignore_eos=True)
    with pytest.raises(dasan.StateError):
        session.rewind(0)
    stream.cancel()
    stream.read()
    with dasan.Engine(model, threads=1) as other, pytest.raises(dasan.InvalidArgumentError, match="another engine"):
        other.generate("a", session=session)
    session.close()
    with pytest.raises(dasan.StateError, match="closed"):
        session.tokens


def test_scores_in_blocks_are_the_scores(engine: dasan.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, text = "여권은", " 시청이나 구청, 도청의 여권 창구에서 신청합니다."
    whole = engine.score(prompt, text)
    assert len(whole) == len(engine.model.token_ids(text, add_special=False))
    monkeypatch.setattr("dasan.session._BLOCK", 3)
    assert engine.score(prompt, text) == pytest.approx(whole, abs=1e-5)
    assert sum(whole) > sum(engine.score(prompt, " xylophone quartz")) and all(s <= 0 for s in whole)
    assert engine.score(prompt, "") == []
