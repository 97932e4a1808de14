"""How a model and an answer look in a notebook: plain HTML, no script, no external resource."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answer import Answer
    from .model import Model

_BARS = (("queue", "#9aa0a6"), ("prefill", "#4c78a8"), ("decode", "#2f8f5b"))


def model_html(model: Model) -> str:
    i = model.info
    rows = {
        "model": i.name or Path(model.path).name,
        "architecture": i.architecture,
        "parameters": f"{i.n_params / 1e6:,.2f} M",
        "weights": f"{i.weight_bytes / 2**20:,.1f} MiB, mostly {i.quantization}",
        "shape": f"{i.n_layers} layers of {i.n_embd}, {i.n_heads} heads, {i.n_kv_heads} KV heads, "
        f"vocabulary {i.n_vocab:,}",
        "context": f"{i.n_ctx_train:,} tokens, {i.kv_bytes_per_token:,} bytes each",
        "device": i.device,
    }
    cells = "".join(f"<tr><th style='text-align:left'>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{cells}</table>"


def answer_html(answer: Answer) -> str:
    t = answer.timeline
    seconds = (t.queue_seconds, t.prefill_seconds, t.decode_seconds)
    whole = sum(seconds) or 1.0
    bars = "".join(
        f"<span title='{name} {value * 1e3:.1f} ms' style='display:inline-block;height:10px;"
        f"width:{100 * value / whole:.2f}%;background:{colour}'></span>"
        for (name, colour), value in zip(_BARS, seconds, strict=True)
    )
    legend = ", ".join(f"{name} {s * 1e3:.1f} ms" for (name, _), s in zip(_BARS, seconds, strict=True))
    return (
        f"<div style='white-space:pre-wrap'>{escape(answer.text)}</div>"
        f"<div role='img' aria-label='{legend}' style='font-size:0;margin-top:6px'>{bars}</div>"
        f"<small>{t.prompt_tokens} prompt tokens ({t.cached_tokens} cached), {t.generated_tokens} generated, "
        f"{t.tokens_per_second:.1f} tokens/s; {legend}; finish: {answer.finish}</small>"
    )
