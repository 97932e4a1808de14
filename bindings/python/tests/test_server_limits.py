"""Clients that are wrong, slow, hostile or gone: each gets its error, the others notice nothing."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO, ask
from serving import Server, serve

from dasan.server import audit

NAME = "dasan demonstration"
CHAT = {"model": NAME, "messages": ask("여권은 어디서 만드나요?"), "temperature": 0}
LONG = {"model": NAME, "prompt": "a", "max_tokens": 240, "ignore_eos": True, "stream": True, "n": 16}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(DEMO, "--kv-mib", "32", "--max-body-bytes", "100000") as server:
        yield server


def well(server: Server) -> None:
    status, answer = server.request("POST", "/v1/chat/completions", CHAT)
    assert status == 200 and answer["choices"][0]["message"]["content"].startswith("여권은")
    server.wait_idle()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, ""),
        (b"{", 400, "JSON"),
        (b"[]", 400, ""),
        (b"null", 400, ""),
        (b"\xff\xfe{}", 400, ""),
        (b'{"model": "\xff"}', 400, ""),
        (b"[" * 90000, 400, ""),
        (b'{"a":' * 9000, 400, ""),
        (b'{"model": 1e999, "messages": []}', 400, ""),
        (json.dumps({**CHAT, "temperature": float("nan")}).encode(), 400, "temperature"),
        (json.dumps({**CHAT, "temperature": "warm"}).encode(), 400, "temperature"),
        (json.dumps({**CHAT, "max_tokens": 10**30}).encode(), 400, "max_tokens"),
        (json.dumps({**CHAT, "model": "\ud800"}).encode(), 404, "ud800"),
        (json.dumps({**CHAT, "stop": "\ud800"}).encode(), 400, "surrogate"),
        (json.dumps({**CHAT, "stop": [""]}).encode(), 400, "stop"),
        (json.dumps({**CHAT, "messages": ask("\ud800")}).encode(), 400, ""),
        (json.dumps({**CHAT, "messages": ask("x" * 99000)}).encode(), 400, "together"),
        (json.dumps({**CHAT, "stop": ["x"] * 17}).encode(), 400, "stop"),
        (json.dumps({**CHAT, "chat_template_kwargs": {"messages": 3}}).encode(), None, ""),
        (json.dumps({**CHAT, "messages": ask("x" * 200000)}).encode(), 413, "100000"),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400, ""),
    ],
)
def test_bad_bodies(server: Server, body: bytes, status: int | None, words: str) -> None:
    got, answer = server.request("POST", "/v1/chat/completions", body)
    assert got == status if status else got < 500, answer
    if got >= 400:
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert words in answer["error"]["message"]
    well(server)


def test_wrong_paths_methods_types(server: Server) -> None:
    for method, path, status in (("GET", "/none", 404), ("GET", "/v1/chat/completions", 405), ("PUT", "/", 405)):
        got, answer = server.request(method, path)
        assert got == status and answer["error"]["message"]
    got, answer = server.request("POST", "/v1/embeddings", {"model": NAME, "input": []})
    assert got == 400 and "input" in answer["error"]["message"]
    got, answer = server.request("POST", "/v1/embeddings", {"model": NAME, "input": [[10**6]]})
    assert got == 400
    got, answer = server.request("POST", "/v1/detokenize", {"model": NAME, "tokens": [10**6]})
    assert got == 400 and "1000000" in answer["error"]["message"]
    well(server)


def _raw(server: Server, data: bytes) -> socket.socket:
    s = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    s.sendall(data)
    return s


def _post(body: Any, path: str = "/v1/completions") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def test_leaving_at_every_stage_cancels(server: Server) -> None:
    whole = _post(LONG)
    before = server.metric("dasan_engine_requests_cancelled_total")
    for cut in (0, 1, 20, 60, len(whole) - 1):
        _raw(server, whole[:cut]).close()
    for wait in (0.0, 0.001, 0.01):
        for _ in range(3):
            s = _raw(server, whole)
            time.sleep(wait)
            s.close()
            s = _raw(server, _post({**LONG, "stream": False}))
            time.sleep(wait)
            s.close()
    s = _raw(server, whole)
    assert s.recv(100)
    s.close()
    server.wait_idle()
    assert server.metric("dasan_engine_requests_cancelled_total") > before
    assert server.metric("dasan_open_streams") == 0
    well(server)


def test_a_reader_that_does_not_read(server: Server) -> None:
    readers = [_raw(server, _post(LONG)) for _ in range(8)]
    start = time.monotonic()
    well_status, _ = server.request("POST", "/v1/chat/completions", CHAT)
    assert well_status == 200 and time.monotonic() - start < 10
    for s in readers:
        s.close()
    well(server)


def test_idle_connections_cost_little(server: Server) -> None:
    def resident() -> int:
        text = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1])  # type: ignore[index]

    before = resident()
    idle = [_raw(server, b"") for _ in range(500)]
    well(server)
    assert resident() - before < 50_000  # KiB, of which a connection has about ten
    for s in idle:
        s.close()


def test_slow_headers_and_slow_bodies() -> None:
    with serve(DEMO, "--header-seconds", "1", "--body-seconds", "1") as server:
        start = time.monotonic()
        silent, header = _raw(server, b""), _raw(server, b"GET / HTTP/1.1\r\nHost")
        body = _raw(server, _post(LONG)[:-5])
        assert body.recv(1000).startswith(b"HTTP/1.1 408")
        assert silent.recv(10) == b"" and header.recv(10) == b""
        assert 0.8 < time.monotonic() - start < 8
        well(server)


def test_keys_limits_and_audit(tmp_path: Path) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "audit.jsonl"

    def new(name: str) -> str:
        command = [sys.executable, "-m", "dasan.server", "--keys", str(keys), "--new-key", name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    first, second, third = new("복지과"), new("batch"), new("other")
    entries = json.loads(keys.read_text())
    assert first not in keys.read_text() and keys.stat().st_mode & 0o77 == 0
    entries["keys"][1]["requests_per_minute"] = 2
    keys.write_text(json.dumps(entries))
    with serve(DEMO, "--keys", str(keys), "--audit", str(log)) as server:
        for head in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Authorization": first}):
            status, answer = server.request("POST", "/v1/chat/completions", CHAT, head)
            assert status == 401 and "wrong" not in answer["error"]["message"]
        assert server.request("GET", "/v1/models")[0] == 401
        good = {"Authorization": f"Bearer {first}"}
        assert server.request("POST", "/v1/chat/completions", CHAT, good)[0] == 200
        status, _ = server.request("POST", "/v1/chat/completions", {**CHAT, "seed": 7, "temperature": 1}, good)
        limited = [server.request("POST", "/v1/chat/completions", CHAT, {"Authorization": f"Bearer {second}"}) for _ in range(3)]
        assert [status for status, _ in limited] == [200, 200, 429]
        assert "more than 2 requests in a minute" in limited[2][1]["error"]["message"]
        # What one caller's prompt left in the cache, another does not find.
        prompt = {"model": NAME, "prompt": "여권은 어디서 만드나요? " * 12, "max_tokens": 1}
        cached = []
        for key in (first, first, third):
            _, answer = server.request("POST", "/v1/completions", prompt, {"Authorization": f"Bearer {key}"})
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert cached[0] == cached[2] == 0 and cached[1] > 32
        _, metrics = server.request("GET", "/metrics")
        assert 'dasan_tokens_total{caller="복지과",kind="completion"}' in metrics
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["caller"] for r in records[:4]] == ["복지과", "복지과", "batch", "batch"]
    assert records[1]["seeds"] == [7] and records[1]["finish"] == ["stop"] and len(records[1]["template_sha256"]) == 64
    assert first not in log.read_text() and "여권" not in log.read_text()

    count, head = audit.verify(log)
    assert count == 7
    lines = log.read_bytes().splitlines(keepends=True)
    for damaged in (
        lines[:1] + lines[2:],  # one removed
        [lines[1], lines[0], *lines[2:]],  # two swapped
        [lines[0].replace('"복지과"'.encode("ascii", "backslashreplace"), b'"x"'), *lines[1:]],  # one changed
        [*lines[:6], lines[6][:-20]],  # one cut
        [lines[0].replace(b"{", b'{"caller":"other",', 1), *lines[1:]],  # one key twice
    ):
        (tmp_path / "bad").write_bytes(b"".join(damaged))
        with pytest.raises(ValueError, match="bad:"):
            audit.verify(tmp_path / "bad")
    (tmp_path / "short").write_bytes(b"".join(lines[:6]))
    assert audit.verify(tmp_path / "short")[1] != head  # what --head is for
    again = audit.AuditLog(log)
    again.write({"request": "next"})
    again.close()
    assert audit.verify(log)[0] == 8


def test_terminating_lets_answers_end() -> None:
    with serve(DEMO, "--drain-seconds", "20") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/v1/completions", json.dumps(LONG), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.read(10)
        server.process.send_signal(signal.SIGTERM)
        rest = response.read().decode()
        assert rest.endswith("data: [DONE]\n\n") and rest.count('"finish_reason": "length"') == 16
        connection.close()
        assert server.process.wait(10) == 0


def test_the_address_is_taken_or_the_model_is_not_there(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dasan.server", str(tmp_path / "none.gguf")], capture_output=True, text=True
    )
    assert run.returncode == 1 and "none.gguf" in run.stderr and "Traceback" not in run.stderr
    (tmp_path / "keys").write_text('{"keys": [{"name": "a", "sha256": "x"}]}')
    run = subprocess.run(
        [sys.executable, "-m", "dasan.server", str(DEMO), "--keys", str(tmp_path / "keys")], capture_output=True, text=True
    )
    assert run.returncode == 1 and "keys[0]" in run.stderr and "Traceback" not in run.stderr
