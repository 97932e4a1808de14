"""Spans of OpenTelemetry, where its interface is installed; otherwise nothing."""

from __future__ import annotations

from typing import Any

try:
    from opentelemetry import trace

    _tracer: Any = trace.get_tracer("dasan")
except ImportError:
    _tracer = None


def record(name: str, seconds: float, attributes: dict[str, Any]) -> None:
    """A span that ends now and began `seconds` ago."""
    if _tracer is None:
        return
    import time

    end = time.time_ns()
    span = _tracer.start_span(name, start_time=end - int(seconds * 1e9), attributes=attributes)
    span.end(end_time=end)
