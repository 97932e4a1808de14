"""The audit log: one JSON line per request, each holding the digest of the one before, so that a line
that was changed, removed or put in between is noticed. Prompts and answers are left out unless asked
for. `dasan audit FILE` checks a log; `--head` also notices a log that was cut at its end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

GENESIS = "0" * 64


def _canonical(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(record)).hexdigest()


def _line(record: Mapping[str, Any], digest: str) -> bytes:
    return _canonical({**record, "digest": digest}) + b"\n"


class AuditLog:
    """Appends records; continues the chain of a file that exists."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._count, self.head = verify(path) if path.exists() else (0, GENESIS)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, record: Mapping[str, Any]) -> None:
        with self._lock:
            line = {
                **record,
                "seq": self._count,
                "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "previous": self.head,
            }
            digest = _digest(line)
            # One write per line: a crash leaves a whole chain, or one broken last line. What a full
            # disk cuts is taken back, or the next line would be glued to it.
            raw, before = _line(line, digest), os.fstat(self._file).st_size
            written = os.write(self._file, raw)
            if written != len(raw):
                os.ftruncate(self._file, before)
                raise OSError(f"audit log: {written} of {len(raw)} bytes of record {self._count} written")
            self._count, self.head = self._count + 1, digest

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)
                os.close(self._file)
                self._file = -1


def verify(path: Path) -> tuple[int, str]:
    """The number of records and the last digest; ValueError names the first line that is wrong."""
    head, count = GENESIS, 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                record = json.loads(raw)
                digest = record.pop("digest")
            except (ValueError, KeyError, AttributeError):
                raise ValueError(f"{path}:{number}: not a record of this log") from None
            if not raw.endswith(b"\n"):
                raise ValueError(f"{path}:{number}: cut short, expected a whole line")
            if record.get("seq") != count:
                raise ValueError(f"{path}:{number}: record {record.get('seq')}, expected {count}")
            if record.get("previous") != head:
                raise ValueError(f"{path}:{number}: follows {record.get('previous')}, expected {head}")
            if _digest(record) != digest:
                raise ValueError(f"{path}:{number}: was changed: digest {digest}, expected {_digest(record)}")
            if raw != _line(record, digest):  # two readers might read two things in it
                raise ValueError(f"{path}:{number}: not written as this log writes its records")
            head, count = digest, count + 1
    return count, head


def main() -> int:
    parser = argparse.ArgumentParser(prog="dasan audit", description="Check an audit log's chain of digests.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--head", help="the last digest as it was noted elsewhere")
    options = parser.parse_args()
    try:
        count, head = verify(options.file)
        if options.head and head != options.head:
            raise ValueError(f"{options.file}: ends with {head}, expected {options.head}")
    except (OSError, ValueError) as error:
        print(f"dasan audit: {error}")
        return 1
    print(f"{options.file}: {count} records, unbroken; head {head}")
    return 0
