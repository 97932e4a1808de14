"""dasan serve MODEL, also python -m dasan.server MODEL."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from ..engine import Engine
from ..errors import DasanError
from .settings import Settings


def _parser() -> argparse.ArgumentParser:
    d = Settings()
    p = argparse.ArgumentParser(
        prog="dasan serve", description="Serve a model over OpenAI's interface, with a page to try it at /."
    )
    p.add_argument("model", nargs="?", help="a GGUF file or a Hugging Face checkpoint folder")
    p.add_argument("--name", default="", help="name of the model for clients; default: from the file")
    p.add_argument("--host", default=d.host, help="address to listen at (default %(default)s: this machine only)")
    p.add_argument("--port", type=int, default=d.port)
    p.add_argument("--keys", type=Path, help="file of API keys; without it, everybody is let in")
    p.add_argument("--new-key", metavar="NAME", help="add a key to the file, print it once, and end")
    p.add_argument("--audit", type=Path, help="append a chained record of each request to this file")
    p.add_argument("--audit-bodies", action="store_true", help="with the requests' texts")
    p.add_argument("--max-body-bytes", type=int, default=d.max_body_bytes)
    p.add_argument("--max-concurrent", type=int, default=d.max_concurrent, help="requests of one caller at a time")
    p.add_argument("--header-seconds", type=float, default=d.header_seconds, help="for a request's headers to come")
    p.add_argument("--body-seconds", type=float, default=d.body_seconds, help="for its body")
    p.add_argument("--request-seconds", type=float, default=d.request_seconds, help="for an answer; 0: any")
    p.add_argument("--drain-seconds", type=float, default=d.drain_seconds, help="for answers to end at shutdown")
    p.add_argument("--pooling", choices=("mean", "cls", "last"), default=d.pooling, help="of embeddings")
    p.add_argument("--max-sequences", type=int, default=0, help="answers computed at once (0: the engine's default)")
    p.add_argument("--max-queued", type=int, default=0, help="requests waiting at most")
    p.add_argument("--context", type=int, default=0, help="tokens of one sequence")
    p.add_argument("--kv-mib", type=int, default=0, help="memory of the KV cache")
    p.add_argument("--threads", type=int, default=0)
    return p


def main() -> int:
    parser = _parser()
    o = parser.parse_args()
    try:
        if o.new_key is not None:
            from .keys import add

            if o.keys is None:
                parser.error("--new-key: expected --keys FILE with it")
            print(add(o.keys, o.new_key))
            return 0
        if o.model is None:
            parser.error("expected a model")
        return _serve(o)
    except (DasanError, OSError, ValueError) as error:
        print(f"dasan serve: {error}", file=sys.stderr)
        return 1


def _serve(o: Any) -> int:
    try:
        import uvicorn

        from .app import create_app
        from .guard import protocol
    except ImportError as error:
        print(f"dasan serve: {error}; install the server's parts: pip install 'dasan[server]'", file=sys.stderr)
        return 1
    settings = Settings(
        name=o.name, host=o.host, port=o.port, keys=o.keys, audit=o.audit, audit_bodies=o.audit_bodies,
        header_seconds=o.header_seconds, body_seconds=o.body_seconds,
        max_body_bytes=o.max_body_bytes, max_concurrent=o.max_concurrent, request_seconds=o.request_seconds,
        drain_seconds=o.drain_seconds, pooling=o.pooling,
    )  # fmt: skip
    with Engine(
        o.model, max_sequences=o.max_sequences, max_queued=o.max_queued, max_context=o.context,
        kv_bytes=o.kv_mib << 20, threads=o.threads,
    ) as engine:  # fmt: skip
        app = create_app(engine, settings)
        service = app.state.service

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                self.force_exit = self.force_exit or service.draining  # the second one ends at once
                service.draining = True  # no new answers; those that run may end
                super().handle_exit(sig, frame)

        if settings.keys is None and settings.host not in ("127.0.0.1", "::1", "localhost"):
            print(f"dasan serve: {settings.host} without --keys: everybody who reaches it is let in", file=sys.stderr)
        config = uvicorn.Config(
            app, host=settings.host, port=settings.port, http=protocol(settings.header_seconds),
            log_level="warning", access_log=False, server_header=False,
            timeout_graceful_shutdown=max(1, int(settings.drain_seconds)), timeout_keep_alive=75, backlog=2048,
        )  # fmt: skip
        print(f"{service.name}: http://{settings.host}:{settings.port}/ and /v1", file=sys.stderr, flush=True)
        # uvicorn raises the signal again when it is done: a drained server has ended well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            Server(config).run()
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
