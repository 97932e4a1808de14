"""API keys: who is calling, and what they may do.

The file is JSON, {"keys": [{"name", "sha256", "priority", "prefix_salt", "max_concurrent",
"requests_per_minute"}]}, and holds digests, not keys. What one caller's prompts left in the KV cache is
not another's to find, not even by timing; callers that may share name the same prefix_salt. `dasan serve --new-key NAME --keys FILE` adds one and prints it once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ApiError

_FIELDS = {
    "name": str, "sha256": str, "priority": int, "prefix_salt": str, "max_concurrent": int,
    "requests_per_minute": int,
}  # fmt: skip


@dataclass(slots=True)
class Caller:
    name: str
    digest: str = ""
    priority: int = 0
    max_concurrent: int = 0  # 0: any
    requests_per_minute: int = 0
    prefix_salt: str = ""  # empty: the caller's own
    running: int = 0
    client: int = field(default=0, init=False)
    cache_salt: int = field(default=0, init=False)
    _allowance: float = field(default=0.0, repr=False)
    _last: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._allowance = float(self.requests_per_minute)
        self.client = _number(f"client {self.name}") if self.digest else 0
        self.cache_salt = _number(f"salt {self.prefix_salt or self.digest}") if self.digest else 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Counts a request in, or says why not. A bucket that refills evenly over the minute."""
        if self.max_concurrent and self.running >= self.max_concurrent:
            raise ApiError(
                429, f"{self.name}: {self.running} requests running, expected at most {self.max_concurrent}",
                code="too_many_concurrent_requests",
            )  # fmt: skip
        rate = self.requests_per_minute
        if rate:
            now = time.monotonic()
            self._allowance = min(rate, self._allowance + (now - self._last) * rate / 60 if self._last else rate)
            self._last = now
            if self._allowance < 1:
                raise ApiError(429, f"{self.name}: more than {rate} requests in a minute", code="rate_limit_exceeded")
            self._allowance -= 1
        self.running += 1

    def leave(self) -> None:
        self.running -= 1


class Keys:
    def __init__(self, path: Path | None, max_concurrent: int) -> None:
        self._callers: dict[str, Caller] = {}
        self._anonymous = None if path else Caller("anonymous", max_concurrent=max_concurrent)
        for entry in read(path) if path else []:
            caller = Caller(
                entry["name"], entry["sha256"], entry.get("priority", 0),
                entry.get("max_concurrent", max_concurrent), entry.get("requests_per_minute", 0),
                entry.get("prefix_salt", ""),
            )  # fmt: skip
            self._callers[caller.digest] = caller

    def caller(self, authorization: str | None) -> Caller:
        if self._anonymous is not None:
            return self._anonymous
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise ApiError(401, "no API key, expected a header 'Authorization: Bearer KEY'", code="missing_api_key")
        given = digest(key.strip())
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, given):
                return caller
        raise ApiError(401, "the API key is not known", code="invalid_api_key")


def _number(text: str) -> int:
    """A 64-bit number that stands for a text, never 0, which is everybody's."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") or 1


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of a key file; ValueError says what is wrong with it."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: {error!r}, expected JSON {{"keys": [...]}}') from None
    for i, entry in enumerate(entries):
        for name, value in entry.items():
            kind = _FIELDS.get(name)
            if kind is None:
                raise ValueError(f"{path}: keys[{i}].{name}: not known, expected one of {', '.join(_FIELDS)}")
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{path}: keys[{i}].{name}: {value!r}, expected {kind.__name__}")
        if len(entry.get("sha256", "")) != 64 or not entry.get("name"):
            raise ValueError(f"{path}: keys[{i}]: expected a name and a sha256 of 64 digits")
    return list(entries)


def add(path: Path, name: str) -> str:
    """Adds a key and returns it; the file, readable by its owner alone, gets its digest."""
    entries = read(path) if path.exists() else []
    if any(entry["name"] == name for entry in entries):
        raise ValueError(f"{path}: a key named {name!r} is there already")
    key = "sk-dasan-" + secrets.token_urlsafe(32)
    entries.append({"name": name, "sha256": digest(key)})
    text = json.dumps({"keys": entries}, indent=1, ensure_ascii=False) + "\n"
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)
    return key
