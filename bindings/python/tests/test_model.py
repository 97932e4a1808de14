"""Loading, what a model says of itself, and text against tokens."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from conftest import ask

import dasan


def test_info_and_metadata(model: dasan.Model) -> None:
    assert model.info.architecture == "llama"
    assert model.info.n_vocab == 2048 and model.info.n_embd == 192
    assert model.metadata["general.architecture"] == "llama"
    assert model.eos_tokens and "<|" in (model.chat_template or "")
    assert model.plan(max_context=128)["kv_tokens"] >= 128


@pytest.mark.parametrize("text", ["Where is the office?", "주민등록등본은 어디에서?", "a\U0001f600b 가나", ""])
def test_offsets_tile_the_text(model: dasan.Model, text: str) -> None:
    encoding = model.tokenize(text, add_special=False)
    data = text.encode()
    assert b"".join(data[b:e] for b, e in encoding.byte_offsets) == data
    assert encoding.ids == model.token_ids(text, add_special=False)
    assert model.detokenize(encoding.ids) == text
    for (begin, end), (first, last) in zip(encoding.offsets, encoding.byte_offsets, strict=True):
        covered = text[begin:end].encode()
        assert data[first:last] in covered  # widened to whole characters, never narrowed
        assert len(text[:begin].encode()) <= first and len(text[:end].encode()) >= last
    assert all(encoding.covered(i) for i in range(len(encoding)))


def test_nfc_keeps_the_offsets_of_the_text_given(model: dasan.Model) -> None:
    nfd = unicodedata.normalize("NFD", "여권은 어디서")
    encoding = model.tokenize(nfd, add_special=False, nfc=True)
    assert encoding.ids == model.token_ids("여권은 어디서", add_special=False)
    assert encoding.offsets[-1][1] == len(nfd)
    assert len(model.token_ids(nfd, add_special=False)) > len(encoding)


def test_chat_template(model: dasan.Model, expected: list[dict[str, object]]) -> None:
    for case in expected:
        assert model.chat_tokens(ask(str(case["question"]))) == case["prompt_ids"]
    text = model.apply_chat_template(ask("q"), template="{{ messages[0].content }}|{{ grade }}", variables={"grade": "C"})
    assert text == "q|C"


def test_progress_is_told_and_can_end_it(demo_path: Path) -> None:
    seen: list[float] = []
    dasan.Model(demo_path, progress=seen.append).close()
    assert seen and seen == sorted(seen) and seen[-1] <= 1.0
    with pytest.raises(dasan.CancelledError):
        dasan.Model(demo_path, progress=lambda fraction: False)

    def fails(fraction: float) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        dasan.Model(demo_path, progress=fails)


def test_errors_carry_the_status_and_the_message(tmp_path: Path, demo_path: Path, model: dasan.Model) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        dasan.Model(tmp_path / "none.gguf")
    assert isinstance(missing.value, dasan.NotFoundError) and missing.value.status == -3
    assert "none.gguf" in str(missing.value)
    (tmp_path / "bad.gguf").write_bytes(demo_path.read_bytes()[:5000])
    with pytest.raises(dasan.FormatError):
        dasan.Model(tmp_path / "bad.gguf")
    with pytest.raises(dasan.InvalidArgumentError, match="'isa'"):
        dasan.Model(demo_path, cpu_isa="isa")
    with pytest.raises(dasan.InvalidArgumentError, match="no_such_key"):
        dasan.Model(demo_path, overrides={"no_such_key": 1})
    with pytest.raises(dasan.InvalidArgumentError, match="surrogate at character 1"):
        model.tokenize("a\ud800")
    with pytest.raises(dasan.InvalidArgumentError, match="99999999"):
        model.token_bytes(99999999)
    with pytest.raises(dasan.InvalidArgumentError, match="messages"):
        model.apply_chat_template([{"role": "user", "content": object()}])
    with pytest.raises(dasan.InvalidArgumentError, match="unknown role"):
        model.apply_chat_template([{"role": "robot", "content": "x"}])


def test_closed_and_forked(demo_path: Path) -> None:
    with dasan.Model(demo_path, vocab_only=True) as model:
        pid = os.fork()
        if pid == 0:
            try:
                model.token_ids("x")
                os._exit(1)
            except dasan.StateError as error:
                os._exit(0 if "after the fork" in str(error) else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with pytest.raises(dasan.StateError, match="the model is closed"):
        model.token_ids("x")
    assert "closed" in repr(model)


def test_notebook(model: dasan.Model) -> None:
    html = model._repr_html_()
    assert "dasan demonstration" in html and "192" in html
    assert "2.02 M" in html or "2.0" in repr(model)
