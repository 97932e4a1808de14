"""A Ray cluster on this machine: a worker that is killed loses and doubles nothing, and requests with
one prefix go to one replica."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO, ask

ray = pytest.importorskip("ray", reason="SKIPPED: ray is not installed")

from ray import serve as ray_serve  # noqa: E402

from dasan.batch import COLUMNS, Progress, Result, job_of  # noqa: E402
from dasan.options import GenerateOptions  # noqa: E402
from dasan.ray import data  # noqa: E402
from dasan.ray.router import prefix_of, ranked  # noqa: E402
from dasan.ray.serve import build  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=4, log_to_driver=False, include_dashboard=False)
    yield
    ray_serve.shutdown()
    ray.shutdown()


ENGINE = {"threads": 1, "kv_bytes": 8 << 20, "max_sequences": 16}


def workers() -> list[int]:
    """Processes of this cluster that compute: descendants of this one, by the name Ray gives them."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = []
    for pid, name in names.items():
        at = pid
        while at in parents and at != os.getpid():
            at = parents[at]
        if at == os.getpid() and name.startswith("ray::") and "Worker" in name:
            found.append(pid)
    return found


def test_a_killed_worker_loses_and_doubles_nothing(cluster: None, tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    source = tmp_path / "in.jsonl"
    rows = [{"prompt": expected[i % len(expected)]["question"] + "?" * (i % 5)} for i in range(1500)]
    source.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    options = GenerateOptions(max_tokens=16, temperature=0.7, seed=1)
    job = job_of(str(DEMO), source, options, True)

    written: list[int] = []

    class Counted(Progress):
        def add(self, results: Any) -> None:
            written.extend(r.row for r in results)
            super().add(results)

    progress = Counted(tmp_path / "a.db", job)
    killed: list[int] = []

    def kill_one() -> None:
        end = time.monotonic() + 90
        while not written and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(workers()[0], signal.SIGKILL)
        killed.append(len(written))

    thread = threading.Thread(target=kill_one)
    thread.start()
    data.run(str(DEMO), source, progress, options, workers=2, engine=ENGINE)
    thread.join()
    assert killed and 0 < killed[0] < len(rows), f"killed after {killed} rows: not in the middle"
    assert sorted(written) == list(range(len(rows)))
    progress.export(tmp_path / "a.jsonl")

    # An undisturbed run, begun by `dasan batch`'s own loop and resumed here, gives the same file.
    partial = Progress(tmp_path / "b.db", job)
    with_rows = Progress(tmp_path / "a.db", job)
    done = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(with_rows.done()) == len(rows) == len(done)
    partial.add([Result(**{c: r.get(c) for c in COLUMNS}) for r in done[::2]])
    data.run(str(DEMO), source, partial, options, workers=2, engine=ENGINE)
    partial.export(tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_ranking_moves_only_what_it_has_to() -> None:
    prefixes = [f"prefix {i}" for i in range(300)]
    three = {p: ["a", "b", "c"][ranked(p, ["a", "b", "c"])[0]] for p in prefixes}
    two = {p: ["a", "b"][ranked(p, ["a", "b"])[0]] for p in prefixes}
    assert all(two[p] == three[p] for p in prefixes if three[p] != "c")
    assert all(60 < list(three.values()).count(name) < 140 for name in "abc")
    system = {"role": "system", "content": "규정집 " * 200}
    bodies = [json.dumps({"messages": [system, {"role": "user", "content": q}]}).encode() for q in ("가", "나")]
    assert prefix_of(bodies[0]) == prefix_of(bodies[1]) != prefix_of(b'{"prompt": "x"}')
    assert prefix_of(b"\xff") == prefix_of(b"[]") == ""


def test_serve_answers_and_routes_by_prefix(cluster: None, expected: list[dict[str, Any]]) -> None:
    import openai

    ray_serve.start(http_options={"host": "127.0.0.1", "port": 18431})
    ray_serve.run(build(str(DEMO), replicas=2, cpus_per_replica=1, engine=ENGINE))
    client = openai.OpenAI(base_url="http://127.0.0.1:18431/v1", api_key="x", max_retries=0)
    name = client.models.list().data[0].id
    fingers: dict[str, set[str]] = {}
    for _ in range(3):
        for case in expected:
            stream = client.chat.completions.create(
                model=name, messages=ask(case["question"]), temperature=0, stream=True  # type: ignore[arg-type]
            )
            text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
            assert text == case["text"]
            raw = client.chat.completions.with_raw_response.create(
                model=name, messages=ask(case["question"]), temperature=0  # type: ignore[arg-type]
            )
            fingers.setdefault(case["question"], set()).add(raw.headers["x-dasan-process"])
    assert all(len(seen) == 1 for seen in fingers.values()), fingers
    assert len({next(iter(s)) for s in fingers.values()}) == 2  # and both replicas have some
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model=name, messages=ask("a"), temperature=9)  # type: ignore[arg-type]
