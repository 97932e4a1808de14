"""The application: routes, who may call them, and what is noted about each request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from .._native import build_info
from ..engine import Engine
from ..errors import DasanError
from ..formats import format_of
from . import errors, telemetry, wire
from .audit import AuditLog
from .errors import ApiError
from .generation import Job, chat_job, completion_job, inputs_of, template_messages
from .guard import Guard
from .keys import Caller, Keys
from .metrics import Metrics
from .schemas import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingsRequest,
    ErrorBody,
    RerankRequest,
    TokenizeRequest,
)
from .settings import Settings

T = TypeVar("T")
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
_FAILURES: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody} for code in (400, 401, 404, 408, 413, 422, 429, 500, 503)
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    **_FAILURES, 200: {"content": {"application/json": {"schema": {"type": "object"}}, **_STREAM}}
}  # fmt: skip


class Service:
    """What the routes share: the engine, the callers, the notes."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        info = engine.model.info
        self.name = settings.name or info.name or Path(engine.model.path).stem
        self.fingerprint = f"fp_{info.fingerprint:016x}"
        template = engine.model.chat_template or ""
        self.template_hash = hashlib.sha256(template.encode()).hexdigest()
        self.form = format_of(engine.model)
        self.keys = Keys(settings.keys, settings.max_concurrent)
        self.metrics = Metrics()
        self.audit = AuditLog(settings.audit) if settings.audit else None
        self.started = int(time.time())
        self.draining = False

    def check_model(self, name: str) -> None:
        if name != self.name:
            raise ApiError(
                404, f"model: {name!r} is not here, expected {self.name!r}", param="model", code="model_not_found"
            )

    def check_open(self) -> None:
        if self.draining:
            raise ApiError(503, "the server is closing", code="unavailable")

    def note(self, job: Job, status: int) -> None:
        """Audit line, counters and span of a generation that has ended."""
        seconds = time.monotonic() - job.started
        made = job.completion_tokens
        m = self.metrics
        m.tokens[job.caller.name, "prompt"] += job.prompt_tokens
        m.tokens[job.caller.name, "completion"] += made
        m.whole.observe(seconds)
        if job.first_token is not None:
            m.first_token.observe(job.first_token - job.started)
        for t in job.timelines:
            if t is not None and t.generated_tokens > 1:
                m.per_token.observe(t.decode_seconds / (t.generated_tokens - 1))
        times = [t for t in job.timelines if t is not None]
        record: dict[str, Any] = {
            "request": job.id, "caller": job.caller.name, "endpoint": job.kind, "status": status,
            "model": self.name, "model_fingerprint": self.fingerprint, "template_sha256": self.template_hash,
            "build": build_info(),
            "sampling": {
                k: repr(v) if k == "logit_bias" else v
                for k, v in job.options.items()
                if k not in ("stop", "session", "seed", "client", "cache_salt")
            },
            "seeds": job.seeds,
            "prompt_tokens": job.prompt_tokens, "completion_tokens": made,
            "cached_tokens": sum(t.cached_tokens for t in times),
            "queue_seconds": [round(t.queue_seconds, 6) for t in times],
            "prefill_seconds": [round(t.prefill_seconds, 6) for t in times],
            "decode_seconds": [round(t.decode_seconds, 6) for t in times],
            "seconds": round(seconds, 6), "finish": job.finishes,
        }  # fmt: skip
        if self.audit is not None:
            if self.settings.audit_bodies:
                record["body"] = errors.clean(job.request.model_dump_json(exclude_none=True))
            self.audit.write(record)
        telemetry.record(
            f"dasan {job.kind}", seconds,
            {"gen_ai.request.model": self.name, "gen_ai.usage.input_tokens": job.prompt_tokens,
             "gen_ai.usage.output_tokens": made, "http.status_code": status},
        )  # fmt: skip


async def _while_connected(receive: Callable[[], Awaitable[Any]], work: Awaitable[T], metrics: Metrics) -> T:
    """The result of `work`, which is cancelled when the client leaves."""
    task = asyncio.ensure_future(work)

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.create_task(left())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            metrics.disconnects += 1
            raise HTTPException(499, "the client left")
        return task.result()
    finally:
        task.cancel()
        watch.cancel()


class _Events(StreamingResponse):
    """Server-sent events of a job. Leaving, failing or finishing, the job is ended and noted once."""

    def __init__(self, service: Service, job: Job) -> None:
        self._service, self._job = service, job
        self._complete = False
        super().__init__(self._body(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _body(self) -> AsyncIterator[bytes]:
        async for event in wire.events(self._job, self._service.name, self._service.fingerprint):
            yield event
        self._complete = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        metrics = self._service.metrics
        metrics.open_streams += 1
        try:
            await _while_connected(receive, self.stream_response(send), metrics)
        except HTTPException:
            pass  # nobody is left to be told
        finally:
            metrics.open_streams -= 1
            self._job.cancel()
            self._job.caller.leave()
            self._service.note(self._job, 200 if self._complete else 499)


def _caller_of(request: Request, authorization: Annotated[str | None, Header()] = None) -> Caller:
    service: Service = request.app.state.service
    service.check_open()
    return service.keys.caller(authorization)


CallerGiven = Annotated[Caller, Depends(_caller_of)]


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """The FastAPI application over an engine, which stays the caller's to close."""
    settings = settings or Settings()
    service = Service(engine, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if service.audit is not None:
            service.audit.close()

    app = FastAPI(
        title="dasan", version=build_info().split()[0], lifespan=lifespan, docs_url=None, redoc_url=None,
        description="OpenAI-compatible inference on this machine.",
    )  # fmt: skip
    app.state.service = service
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    app.add_exception_handler(ApiError, errors.on_api_error)
    app.add_exception_handler(DasanError, errors.on_engine_error)
    app.add_exception_handler(RequestValidationError, errors.on_validation_error)
    app.add_exception_handler(HTTPException, errors.on_http_error)

    async def answer(request: Request, make: Callable[[], Job], caller: Caller, stream: bool | None) -> Response:
        caller.enter()
        job: Job | None = None
        streaming = False
        status = 500
        try:
            job = make()
            if stream:
                streaming = True
                return _Events(service, job)
            body = wire.whole(job, service.name, service.fingerprint)
            result = await _while_connected(request.receive, body, service.metrics)
            status = 200
            return JSONResponse(result)
        except ApiError as error:
            status = error.status
            raise
        except DasanError as error:
            status = errors.of_engine(error).status
            raise
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            if not streaming:
                caller.leave()
                if job is not None:
                    job.cancel()
                    service.note(job, status)

    @app.post("/v1/chat/completions", responses=_ANSWERS, response_model=None)
    async def chat_completions(body: ChatRequest, request: Request, caller: CallerGiven) -> Response:
        service.check_model(body.model)
        if (body.n or 1) > settings.max_choices:
            raise ApiError(400, f"n: {body.n}, expected at most {settings.max_choices}", param="n")
        seconds = settings.request_seconds
        return await answer(
            request, lambda: chat_job(body, engine, service.form, caller, seconds), caller, body.stream
        )

    @app.post("/v1/completions", responses=_ANSWERS, response_model=None)
    async def completions(body: CompletionRequest, request: Request, caller: CallerGiven) -> Response:
        service.check_model(body.model)
        return await answer(
            request,
            lambda: completion_job(body, engine, caller, settings.request_seconds, settings.max_choices),
            caller,
            body.stream,
        )

    def checked(texts: list[Any], what: str) -> list[list[int]]:
        if not 1 <= len(texts) <= settings.max_inputs:
            raise ApiError(400, f"{what}: {len(texts)} of them, expected from 1 to {settings.max_inputs}", param=what)
        tokens = [engine.model.token_ids(t) if isinstance(t, str) else t for t in texts]
        for i, ids in enumerate(tokens):
            if not 1 <= len(ids) <= engine.max_context:
                raise ApiError(
                    400, f"{what}[{i}]: {len(ids)} tokens, expected from 1 to {engine.max_context}",
                    param=what, code="context_length_exceeded",
                )  # fmt: skip
        return tokens

    @app.post("/v1/embeddings", responses=_FAILURES)
    async def embeddings(body: EmbeddingsRequest, caller: CallerGiven) -> dict[str, Any]:
        service.check_model(body.model)
        width = engine.model.info.n_embd
        if body.dimensions not in (None, width):
            raise ApiError(400, f"dimensions: {body.dimensions}, expected {width}", param="dimensions")
        tokens = checked(inputs_of(body.input), "input")
        with caller.slot():
            rows = await engine.aembed(tokens, pooling=settings.pooling)
        data = []
        for i, row in enumerate(rows):
            value: Any = row.tolist()
            if body.encoding_format == "base64":
                value = base64.b64encode(row.astype("<f4").tobytes()).decode()
            data.append({"object": "embedding", "index": i, "embedding": value})
        used = sum(len(t) for t in tokens)
        service.metrics.tokens[caller.name, "prompt"] += used
        usage = {"prompt_tokens": used, "total_tokens": used}
        return {"object": "list", "data": data, "model": service.name, "usage": usage}

    @app.post("/v1/rerank", responses=_FAILURES)
    async def rerank(body: RerankRequest, caller: CallerGiven) -> dict[str, Any]:
        """Documents by the cosine of their embedding with the query's."""
        service.check_model(body.model)
        tokens = checked([body.query], "query") + checked(list(body.documents), "documents")
        with caller.slot():
            rows = await engine.aembed(tokens, pooling=settings.pooling)
        scores = (rows[1:] @ rows[0]).tolist()
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: body.top_n]
        results: list[dict[str, Any]] = []
        for i in order:
            entry: dict[str, Any] = {"index": i, "relevance_score": scores[i]}
            if body.return_documents:
                entry["document"] = {"text": body.documents[i]}
            results.append(entry)
        used = sum(len(t) for t in tokens)
        service.metrics.tokens[caller.name, "prompt"] += used
        return {"model": service.name, "method": "embedding_cosine", "results": results, "usage": {"total_tokens": used}}

    @app.post("/v1/tokenize", responses=_FAILURES)
    def tokenize(body: TokenizeRequest, caller: CallerGiven) -> dict[str, Any]:
        service.check_model(body.model)
        if body.messages is not None:
            text = engine.model.apply_chat_template(template_messages(body.messages))
            encoding = engine.model.tokenize(text, add_special=False, parse_special=True)
        else:
            encoding = engine.model.tokenize(body.text or "", add_special=body.add_special)
        return {
            "tokens": encoding.ids, "offsets": encoding.offsets, "count": len(encoding),
            "max_context": engine.max_context,
        }  # fmt: skip

    @app.post("/v1/detokenize", responses=_FAILURES)
    def detokenize(body: DetokenizeRequest, caller: CallerGiven) -> dict[str, str]:
        service.check_model(body.model)
        return {"text": engine.model.detokenize(body.tokens)}

    def description() -> dict[str, Any]:
        info = engine.model.info
        return {
            "id": service.name, "object": "model", "created": service.started, "owned_by": "local",
            "max_context": engine.max_context, "architecture": info.architecture,
            "n_params": info.n_params, "fingerprint": service.fingerprint,
            "tools": service.form.tools is not None, "reasoning": service.form.thinks,
        }  # fmt: skip

    @app.get("/v1/models", responses=_FAILURES)
    def models(caller: CallerGiven) -> dict[str, Any]:
        return {"object": "list", "data": [description()]}

    @app.get("/v1/models/{name:path}", responses=_FAILURES)
    def model(name: str, caller: CallerGiven) -> dict[str, Any]:
        service.check_model(name)
        return description()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", responses=_FAILURES)
    def ready() -> dict[str, str]:
        service.check_open()
        _ = engine.stats
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        text = service.metrics.text(engine.stats)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    page, policy = _page()

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    return app


def _page() -> tuple[str, str]:
    """The page and the policy that lets it load nothing but itself."""
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    def digest(tag: str) -> str:
        source = text.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0]
        return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()

    return text, (
        f"default-src 'none'; script-src 'sha256-{digest('script')}'; style-src 'sha256-{digest('style')}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
