"""dasan batch: killed in the middle, each row is answered once, as if nothing had happened."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO

import dasan


def start(source: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dasan.batch", str(DEMO), str(source), "-o", str(output), "-n", "40", "--threads", "1", *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    return errors


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_killed_job_goes_on(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    source = tmp_path / "in.jsonl"
    rows = [{"prompt": expected[i % len(expected)]["question"] + "?" * (i % 7)} for i in range(1000)]
    source.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    killed = start(source, tmp_path / "a.jsonl", "--temp", "0.7")
    end = time.monotonic() + 60
    while True:
        time.sleep(0.05)
        assert killed.poll() is None and time.monotonic() < end, "it was done before it could be killed"
        try:
            with sqlite3.connect(tmp_path / "a.jsonl.db") as db:
                n = db.execute("SELECT COUNT(*) FROM result").fetchone()[0]
        except sqlite3.OperationalError:
            continue
        if n > 0:
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "a.jsonl").exists()
    finish(start(source, tmp_path / "a.jsonl", "--temp", "0.7", "--max-sequences", "5"))
    finish(start(source, tmp_path / "b.jsonl", "--temp", "0.7"))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert [r["row"] for r in records(tmp_path / "a.jsonl")] == list(range(1000))
    # Done already: nothing is computed, the file is the same.
    finish(start(source, tmp_path / "a.jsonl", "--temp", "0.7"))
    # Another job's progress is not this one's.
    other = start(source, tmp_path / "a.jsonl", "--temp", "0.8")
    assert "another job" in other.communicate()[1] and other.returncode == 1


def test_rows_of_every_kind(tmp_path: Path, engine: dasan.Engine, expected: list[dict[str, Any]]) -> None:
    questions = [case["question"] for case in expected]
    (tmp_path / "q.txt").write_text("\n".join(questions) + "\n", encoding="utf-8")
    finish(start(tmp_path / "q.txt", tmp_path / "q.out", "-n", "100"))
    assert [r["text"] for r in records(tmp_path / "q.out")] == [c["text"] for c in expected]
    lines = [{"messages": [{"role": "user", "content": q}]} for q in questions]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    finish(start(tmp_path / "m.jsonl", tmp_path / "m.out", "-n", "100"))
    assert (tmp_path / "m.out").read_bytes() == (tmp_path / "q.out").read_bytes()
    finish(start(tmp_path / "q.txt", tmp_path / "raw.out", "--raw"))
    assert records(tmp_path / "raw.out")[0]["text"] == engine.generate(questions[0], max_tokens=40).text


def test_a_bad_row_fails_alone_and_a_bad_file_at_once(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("여권?\n" + "가나다라 " * 500 + "\nWhere?\n", encoding="utf-8")
    process = start(tmp_path / "long.txt", tmp_path / "long.out")
    assert "2 rows answered, 1 failed" in process.communicate()[1] and process.returncode == 1
    got = records(tmp_path / "long.out")
    assert [("error" in r) for r in got] == [False, True, False] and "256" in got[1]["error"]
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    process = start(tmp_path / "bad.jsonl", tmp_path / "bad.out")
    errors = process.communicate()[1]
    assert process.returncode == 1 and "row 1" in errors and "Traceback" not in errors


@pytest.mark.parametrize("arguments", [["none.gguf", "none.txt"], [str(DEMO), "none.txt"]])
def test_missing_files(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dasan.batch", *arguments, "-o", str(tmp_path / "o")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and "none" in run.stderr and "Traceback" not in run.stderr
