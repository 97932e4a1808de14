"""The examples run as they stand, on the demonstration model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import DEMO, ROOT
from serving import serve


def run(name: str, *arguments: str, given: str = "") -> str:
    command = [sys.executable, str(ROOT / "examples/python" / name), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chat(expected: list[dict[str, Any]]) -> None:
    assert expected[0]["text"] in run("chat.py", str(DEMO), given=expected[0]["question"] + "\n")


def test_search_cites_the_place(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    texts = [case["text"] for case in expected]
    file = tmp_path / "a.txt"
    file.write_text("\n\n".join(texts), encoding="utf-8")
    hits = run("search.py", str(DEMO), expected[1]["question"], str(file)).splitlines()
    assert 1 <= len(hits) <= 3 and f"{file}:" in hits[0]
    whole = " ".join(file.read_text(encoding="utf-8").split())
    for hit in hits:
        assert hit.split(": ", 1)[1] in whole, hit  # the citation is the text, to the character


def test_summaries_and_minutes(tmp_path: Path) -> None:
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.txt")
        files[-1].write_text("여권은 시청에서 만듭니다. " * (2 + 20 * i), encoding="utf-8")
    out = run("summarise.py", str(DEMO), *map(str, files))
    assert out.count("## ") == 3
    (tmp_path / "t.txt").write_text("김: 여권 창구를 늘립시다.\n이: 다음 주에 하겠습니다.\n", encoding="utf-8")
    assert run("minutes.py", str(DEMO), str(tmp_path / "t.txt")).count("## ") == 3


def test_openai_client(expected: list[dict[str, Any]]) -> None:
    with serve(DEMO, "--kv-mib", "8") as server:
        assert run("openai_client.py", server.url + "/v1").startswith("여권은")
