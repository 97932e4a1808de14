"""What stands before the application: bodies that are too large or too slow, counting, and access.

Plain ASGI: a streaming answer passes through without being wrapped once more per event.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import ApiError, respond
from .metrics import Metrics
from .settings import Settings

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        process = (b"x-dasan-process", str(os.getpid()).encode())  # which of several replicas answered

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS, process]
            await send(message)

        try:
            try:
                body = await asyncio.wait_for(self._body(scope, receive), self._settings.body_seconds)
            except asyncio.TimeoutError:
                seconds = self._settings.body_seconds
                error = ApiError(408, f"the body did not come within {seconds:g} s", code="timeout")
                await respond(error)(scope, receive, counted)
                return
            except ApiError as error:
                await respond(error)(scope, receive, counted)
                return
            if body is None:
                return  # the client left before it had asked
            await self._app(scope, _replay(body, receive), counted)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")  # the pattern: what a client makes up is no label
            self._metrics.requests[path, status] += 1

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        limit = self._settings.max_body_bytes
        too_large = ApiError(413, f"the body is larger than {limit} bytes", code="request_too_large")
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
                raise too_large
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def protocol(header_seconds: float) -> type[Any]:
    """uvicorn's protocol, with a limit on how long a request's headers may take to come."""

    class Protocol(HttpToolsProtocol):
        _alarm: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._alarm = self.loop.call_later(header_seconds, transport.close)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._alarm is None:
                self._alarm = self.loop.call_later(header_seconds, self.transport.close)

        def on_headers_complete(self) -> None:
            self._disarm()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _disarm(self) -> None:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

    return Protocol
