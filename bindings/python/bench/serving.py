"""A server under load: serving.py MODEL [--streams 64] [--tokens 200] [--idle 1000]

Starts `dasan serve`, opens idle connections and one reader that does not read, then streams over raw
sockets, and prints tokens per second, gaps between events of a stream, and the server's memory. The
client runs on the same machine and takes its share of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def memory(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


async def one(port: int, request: bytes, gaps: list[float]) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(request)
    tokens, last = 0, 0.0
    async for line in reader:
        if not line.startswith(b"data: {"):
            if line.startswith(b"data: [DONE]"):
                break
            continue
        now = time.perf_counter()
        if b'"completion_tokens": ' in line:
            tokens = int(line.split(b'"completion_tokens": ')[1].split(b",")[0])
        elif last:
            gaps.append(now - last)
        last = now
    writer.close()
    return tokens


async def load(port: int, name: str, streams: int, tokens: int) -> None:
    body = {
        "model": name, "prompt": "a", "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    request = head.encode() + data
    gaps: list[float] = []
    await asyncio.gather(*(one(port, request, []) for _ in range(8)))
    start = time.perf_counter()
    made = sum(await asyncio.gather(*(one(port, request, gaps) for _ in range(streams))))
    seconds = time.perf_counter() - start
    gaps.sort()
    q = [gaps[min(int(len(gaps) * x), len(gaps) - 1)] * 1e3 for x in (0.5, 0.99, 1)]
    print(
        f"{streams} streams: {made} tokens in {seconds:.2f} s: {made / seconds:,.0f} tokens/s; "
        f"gap between events p50 {q[0]:.1f} ms, p99 {q[1]:.1f} ms, most {q[2]:.1f} ms; {len(gaps)} gaps"
    )


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--streams", type=int, default=64)
    p.add_argument("--tokens", type=int, default=200)
    p.add_argument("--threads", type=int, default=1, help="of the engine; the demonstration model has work for one")
    p.add_argument("--idle", type=int, default=1000)
    o = p.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "dasan.server", o.model, "--port", str(port), "--max-sequences", str(o.streams),
               "--kv-mib", "64", "--threads", str(o.threads), "--header-seconds", "600"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as response:
                    name = json.load(response)["data"][0]["id"]
                break
            except OSError:
                time.sleep(0.05)
        asyncio.run(load(port, name, o.streams, o.tokens))
        before = memory(process.pid)
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(o.idle)]
        body = json.dumps({"model": name, "prompt": "a", "max_tokens": 200, "ignore_eos": True, "stream": True, "n": 16})
        slow = socket.create_connection(("127.0.0.1", port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        slow.sendall((head + body).encode())
        print(f"with {o.idle} idle connections and a reader that does not read:")
        asyncio.run(load(port, name, o.streams, o.tokens))
        print(f"server's memory: {before:.0f} MiB before, {memory(process.pid):.0f} MiB with them")
        del idle
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
