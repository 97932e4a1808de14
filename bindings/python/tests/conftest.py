"""The demonstration model, whose expected answers were computed with PyTorch, is the oracle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dasan

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "examples/demo_model/dasan-demo.gguf"


@pytest.fixture(scope="session")
def demo_path() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def expected() -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = json.loads((DEMO.parent / "expected.json").read_text())["answers"]
    assert len(answers) >= 4
    return answers


@pytest.fixture(scope="session")
def model() -> dasan.Model:
    return dasan.Model(DEMO)


@pytest.fixture(scope="session")
def engine(model: dasan.Model) -> Iterator[dasan.Engine]:
    with dasan.Engine(model, max_sequences=16, kv_bytes=32 << 20, threads=2) as engine:
        yield engine


def ask(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]
