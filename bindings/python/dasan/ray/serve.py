"""The server as a Ray Serve application: python -m dasan.ray.serve MODEL --replicas 2.

A gateway takes HTTP and hands each request, whole, to a replica that the prefix router chose; a replica
runs the same FastAPI application as `dasan serve`, over an engine of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from ..engine import Engine
from ..server.settings import Settings
from .router import prefix_of


@serve.deployment
class Replica:
    """One engine and the application over it, called in this process."""

    def __init__(self, model: str, settings: Settings, engine: Mapping[str, Any]) -> None:
        from ..server.app import create_app

        self._engine = Engine(model, **engine)
        self._app = create_app(self._engine, settings)

    async def call(self, prefix: str, scope: dict[str, Any], body: bytes) -> AsyncIterator[dict[str, Any]]:
        """The messages of the application's answer. `prefix` is for the router."""
        out: asyncio.Queue[Any] = asyncio.Queue(maxsize=16)
        given = False
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def answer() -> None:
            try:
                await self._app(scope, receive, out.put)
            finally:
                await out.put(None)

        task = asyncio.create_task(answer())
        try:
            while (message := await out.get()) is not None:
                yield message
        finally:
            gone.set()
            task.cancel()

    def check_health(self) -> None:
        _ = self._engine.stats


async def _gateway(scope: Any, receive: Any, send: Any, replicas: Any, limit: int) -> None:
    from ..server.errors import ApiError, respond

    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            await respond(ApiError(413, f"the body is larger than {limit} bytes"))(scope, receive, send)
            return
        if not message.get("more_body"):
            break
    body = b"".join(parts)
    plain = {k: scope[k] for k in ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers")}
    stream = replicas.call.remote(prefix_of(body), {**plain, "root_path": "", "asgi": {"version": "3.0"}}, body)

    async def forward() -> None:
        async for part in stream:
            await send(part)

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = {asyncio.create_task(forward()), asyncio.create_task(left())}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
        stream.cancel()
    for task in done:
        task.result()


def _ingress() -> Any:
    """Makes the gateway's ASGI application, in the process that it will run in."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            gateway: Any = serve.get_replica_context().servable_object
            await _gateway(scope, receive, send, gateway.replicas, gateway.limit)

    return application


@serve.deployment(max_ongoing_requests=1000)
@serve.ingress(_ingress)
class Gateway:
    def __init__(self, replicas: Any, limit: int) -> None:
        self.replicas, self.limit = replicas.options(stream=True), limit


def build(
    model: str, settings: Settings | None = None, *, replicas: int | tuple[int, int] = 2,
    cpus_per_replica: float = 1, engine: Mapping[str, Any] | None = None, max_ongoing_requests: int = 64,
) -> Any:  # fmt: skip
    """The application, for serve.run. `replicas` is a number, or the least and the most of them."""
    settings = settings or Settings()
    router: Any = "dasan.ray.router:PrefixRouter"
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": cpus_per_replica},
        "max_ongoing_requests": max_ongoing_requests,
        "request_router_config": RequestRouterConfig(request_router_class=router),
    }
    if isinstance(replicas, tuple):
        options["autoscaling_config"] = AutoscalingConfig(min_replicas=replicas[0], max_replicas=replicas[1])
    else:
        options["num_replicas"] = replicas
    given = {"threads": max(1, int(cpus_per_replica)), **(engine or {})}
    replica: Any = Replica  # what the decorators make of the classes is not in Ray's types
    gateway: Any = Gateway
    bound = replica.options(**options).bind(os.path.abspath(model), settings, given)
    return gateway.bind(bound, settings.max_body_bytes)


def main() -> None:
    import ray

    p = argparse.ArgumentParser(prog="python -m dasan.ray.serve", description=__doc__)
    p.add_argument("model")
    p.add_argument("--replicas", default="2", help="a number, or LEAST-MOST")
    p.add_argument("--cpus-per-replica", type=float, default=1)
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument("--port", type=int, default=8000)
    p.add_argument("--address", help="of a running cluster; default: one on this machine")
    o = p.parse_args()
    least, _, most = o.replicas.partition("-")
    replicas = (int(least), int(most)) if most else int(least)
    ray.init(address=o.address)
    serve.start(http_options={"host": o.host, "port": o.port})
    serve.run(build(o.model, replicas=replicas, cpus_per_replica=o.cpus_per_replica), blocking=True)


if __name__ == "__main__":
    main()
