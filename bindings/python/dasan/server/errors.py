"""Failures as the error objects that OpenAI's clients know."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .. import errors as engine_errors

_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 429: "rate_limit_error",
}  # fmt: skip


class ApiError(Exception):
    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            "error": {"message": clean(str(self)), "type": kind, "param": self.param, "code": self.code}
        }


def clean(text: str) -> str:
    """Text that UTF-8 can hold; a request may carry lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def of_engine(error: engine_errors.DasanError) -> ApiError:
    """A failure of the engine as what the client can do about it."""
    if isinstance(error, engine_errors.CapacityError):
        return ApiError(503, str(error), code="overloaded")
    if isinstance(error, engine_errors.DeadlineError):
        return ApiError(408, str(error), code="timeout")
    if isinstance(error, engine_errors.UnsupportedError):
        return ApiError(400, str(error), code="unsupported")
    if isinstance(error, engine_errors.InvalidArgumentError):
        return ApiError(400, str(error))
    if isinstance(error, engine_errors.StateError):
        return ApiError(503, str(error), code="unavailable")
    return ApiError(500, str(error), code=error.name)


def of_validation(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return ApiError(400, f"{place}: {first['msg']}" if place else str(first["msg"]), param=place or None)


def respond(error: ApiError) -> JSONResponse:
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    if error.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return JSONResponse(error.body(), error.status, headers)


async def on_api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return respond(error)


async def on_engine_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, engine_errors.DasanError)
    return respond(of_engine(error))


async def on_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return respond(of_validation(error))


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = respond(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
    response.headers.update(error.headers or {})
    return response
