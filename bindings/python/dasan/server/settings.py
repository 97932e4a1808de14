"""What a server is started with. Every limit has a default that a small machine survives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    name: str = ""  # under which the model is offered; empty: from the file
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None  # file of API keys; None: everybody is let in
    audit: Path | None = None
    audit_bodies: bool = False
    max_body_bytes: int = 4 << 20
    max_choices: int = 16
    max_inputs: int = 256  # texts of one embeddings or rerank request
    max_concurrent: int = 256  # requests of one key at a time, unless its entry says otherwise
    header_seconds: float = 10.0  # for a request's headers to come
    body_seconds: float = 30.0  # for its body
    request_seconds: float = 0.0  # for a whole answer; 0: any
    drain_seconds: float = 30.0
    pooling: str = "mean"
