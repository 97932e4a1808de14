"""Counters and histograms in Prometheus' text format. Touched by the event loop's thread alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> list[str]:
        out, total = [], 0
        for bound, count in zip((*_SECONDS, "+Inf"), self._counts, strict=True):
            total += count
            out.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*out, f"{name}_sum {self._sum:.6f}", f"{name}_count {total}"]


class Metrics:
    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = defaultdict(int)
        self.tokens: dict[tuple[str, str], int] = defaultdict(int)
        self.disconnects = 0
        self.open_streams = 0
        self.first_token, self.per_token, self.whole = Histogram(), Histogram(), Histogram()

    def text(self, engine: dict[str, int]) -> str:
        out: list[str] = []

        def family(name: str, kind: str, help_text: str, lines: list[str]) -> None:
            out.extend([f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *lines])

        family(
            "dasan_http_requests_total", "counter", "Requests by endpoint and status.",
            [f'dasan_http_requests_total{{endpoint="{e}",status="{s}"}} {n}' for (e, s), n in self.requests.items()],
        )  # fmt: skip
        family(
            "dasan_tokens_total", "counter", "Tokens by caller and kind.",
            [f'dasan_tokens_total{{caller="{_label(c)}",kind="{k}"}} {n}' for (c, k), n in self.tokens.items()],
        )  # fmt: skip
        for name, histogram, what in (
            ("dasan_first_token_seconds", self.first_token, "From submission to the first token."),
            ("dasan_token_seconds", self.per_token, "Mean time between tokens of an answer."),
            ("dasan_request_seconds", self.whole, "Whole generations."),
        ):
            family(name, "histogram", what, histogram.lines(name))
        family("dasan_disconnects_total", "counter", "Clients that left early.",
               [f"dasan_disconnects_total {self.disconnects}"])  # fmt: skip
        family("dasan_open_streams", "gauge", "Streams being sent.", [f"dasan_open_streams {self.open_streams}"])
        gauges = ("running", "waiting", "kv_pages_total", "kv_pages_used", "kv_pages_idle")
        for key, value in engine.items():
            kind = "gauge" if key in gauges else "counter"
            name = f"dasan_engine_{key}" + ("" if kind == "gauge" else "_total")
            family(name, kind, "As dasan_engine_get_stats says.", [f"{name} {value}"])
        return "\n".join(out) + "\n"


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
