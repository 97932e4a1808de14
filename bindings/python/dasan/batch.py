"""dasan batch MODEL INPUT: one answer per row of a file, kept in SQLite as they come.

A row is a line of text, a JSON object (JSONL) with "prompt" or "messages", or a row of a Parquet file
with such a column. The database is the progress: a run that was killed goes on where it was, and rows
are neither lost nor answered twice. The answer of a row depends on the row, its number and the options
alone, so that a resumed run and an undisturbed one give the same file.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .engine import Engine, Prompt
from .errors import DasanError, InvalidArgumentError
from .model import Model
from .options import GenerateOptions

COLUMNS = ("row", "text", "finish", "prompt_tokens", "tokens", "seed", "error")
_COMMIT_SECONDS = 1.0  # at most so much work is done again after a kill


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a row; `error` is set where there is no answer."""

    row: int
    text: str | None = None
    finish: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    seed: int = 0
    error: str | None = None


class Progress:
    """The database of one job: what it is, and the rows that are done."""

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS job (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS result (row INTEGER PRIMARY KEY, text TEXT, finish TEXT, "
            "prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL, seed INTEGER NOT NULL, error TEXT)"
        )
        held = dict(self._db.execute("SELECT name, value FROM job"))
        for name, value in job.items():
            text = json.dumps(value, sort_keys=True)
            if held and held.get(name) != text:
                raise InvalidArgumentError(
                    f"{path}: its {name} is {held.get(name)}, expected {text}: it is the progress of another job"
                )
            self._db.execute("INSERT OR IGNORE INTO job VALUES (?, ?)", (name, text))

    def done(self) -> set[int]:
        """Rows that have an answer; those that failed are tried again."""
        return {row for (row,) in self._db.execute("SELECT row FROM result WHERE error IS NULL")}

    def add(self, results: Sequence[Result]) -> None:
        """All of them or, if the process dies, none."""
        values = [tuple(getattr(r, c) for c in COLUMNS) for r in results]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(f"INSERT OR REPLACE INTO result VALUES ({', '.join('?' * len(COLUMNS))})", values)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def counts(self) -> tuple[int, int]:
        """Rows answered and failed."""
        query = "SELECT COUNT(*) FILTER (WHERE error IS NULL), COUNT(*) FILTER (WHERE error IS NOT NULL) FROM result"
        answered, failed = self._db.execute(query).fetchone()
        return answered, failed

    def export(self, path: Path) -> None:
        """The results in the order of the rows, as JSONL; the file appears when it is whole."""
        part = path.with_name(path.name + ".part")
        with part.open("w", encoding="utf-8") as file:
            for values in self._db.execute(f"SELECT {', '.join(COLUMNS)} FROM result ORDER BY row"):
                record = {k: v for k, v in zip(COLUMNS, values, strict=True) if k != "error" or v is not None}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        part.replace(path)

    def close(self) -> None:
        self._db.close()


def read_rows(path: Path) -> Iterator[str | list[dict[str, Any]]]:
    """The prompts of a file, one per row; InvalidArgumentError names the row that is none."""
    if path.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError:
            raise InvalidArgumentError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from None
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                yield _prompt(record, path, number)
                number += 1
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            text = line.rstrip("\n")
            if path.suffix not in (".jsonl", ".json", ".ndjson"):
                yield text
                continue
            try:
                record = json.loads(text)
            except ValueError as error:
                raise InvalidArgumentError(f"{path}: row {number}: {error}, expected a JSON object") from None
            yield _prompt(record, path, number)


def _prompt(record: Any, path: Path, number: int) -> str | list[dict[str, Any]]:
    if isinstance(record, dict):
        prompt, messages = record.get("prompt"), record.get("messages")
        if isinstance(prompt, str):
            return prompt
        if isinstance(messages, list) and messages:
            return messages
    raise InvalidArgumentError(f'{path}: row {number}: expected "prompt" with a text, or "messages" with a list')


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


async def answer_row(engine: Engine, row: int, prompt: Any, options: GenerateOptions, *, chat: bool) -> Result:
    """One row; what is wrong with it is its result."""
    mine = GenerateOptions(**options)
    mine["seed"] = seed = (options.get("seed", 0) + row) % 2**63
    try:
        given: Prompt = [{"role": "user", "content": prompt}] if chat and isinstance(prompt, str) else prompt
        answer = await engine.agenerate(given, **mine)
    except DasanError as error:
        return Result(row, seed=seed, error=f"{error.name}: {error}")
    t = answer.timeline
    return Result(row, answer.text, answer.finish, t.prompt_tokens, t.generated_tokens, seed)


async def run(
    engine: Engine, rows: Iterator[tuple[int, Any]], options: GenerateOptions, progress: Progress, *,
    chat: bool, at_once: int, report: Callable[[int], None] = lambda n: None,
) -> None:  # fmt: skip
    """Answers rows, `at_once` of them in flight, and keeps results as they come."""
    waiting: list[Result] = []
    last = time.monotonic()
    tasks: set[asyncio.Task[Result]] = set()

    def keep(force: bool) -> None:
        nonlocal last
        if waiting and (force or time.monotonic() - last > _COMMIT_SECONDS):
            progress.add(waiting)
            report(len(waiting))
            waiting.clear()
            last = time.monotonic()

    try:
        while True:
            while len(tasks) < at_once and (item := next(rows, None)) is not None:
                tasks.add(asyncio.create_task(answer_row(engine, *item, options, chat=chat)))
            if not tasks:
                break
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=_COMMIT_SECONDS)
            waiting += [task.result() for task in done]
            keep(False)
    finally:
        keep(True)
        for task in tasks:
            task.cancel()


class Bar:
    """A line on stderr: how far, how fast, how long still."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._first = total, done, done
        self._start = time.monotonic()

    def __call__(self, more: int) -> None:
        self._done += more
        rate = (self._done - self._first) / max(time.monotonic() - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else 0
        share = self._done / self._total if self._total else 1.0
        bar = "#" * int(24 * share)
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"[{bar:<24}] {self._done:,}/{self._total:,} rows, {rate:,.1f}/s, {left:,.0f} s left ", end=end, file=sys.stderr)


def job_of(model: str, source: Path, options: Mapping[str, Any], chat: bool) -> dict[str, Any]:
    """What makes a job the same job."""
    with Model(model, vocab_only=True) as loaded:
        fingerprint = f"{loaded.info.fingerprint:016x}"
    return {"input_sha256": digest_of(source), "model": fingerprint, "options": dict(options), "chat": chat}


def parser(prog: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=prog, description="Answer every row of a file; resumable.")
    p.add_argument("model")
    p.add_argument("input", type=Path, help="lines of text, .jsonl, or .parquet")
    p.add_argument("-o", "--output", type=Path, required=True, help="JSONL, written when all rows are done")
    p.add_argument("--db", type=Path, help="the progress (default: OUTPUT.db)")
    p.add_argument("--raw", action="store_true", help="texts as they are, without the chat template")
    p.add_argument("-n", "--max-tokens", type=int, default=256)
    p.add_argument("--temp", type=float, default=0.0)
    p.add_argument("--seed", type=int, default=0, help="row i has seed + i")
    p.add_argument("--stop", action="append", default=[])
    p.add_argument("--max-sequences", type=int, default=16)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--kv-mib", type=int, default=0)
    return p


def options_of(o: Any) -> GenerateOptions:
    options: dict[str, Any] = {"max_tokens": o.max_tokens, "temperature": o.temp, "seed": o.seed}
    if o.stop:
        options["stop"] = o.stop
    return cast(GenerateOptions, options)


def main() -> int:
    o = parser("dasan batch").parse_args()
    try:
        return _main(o)
    except (DasanError, OSError, sqlite3.Error, UnicodeDecodeError) as error:
        print(f"dasan batch: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dasan batch: interrupted; the same command goes on", file=sys.stderr)
        return 130


def _main(o: Any) -> int:
    options, chat = options_of(o), not o.raw
    progress = Progress(o.db or o.output.with_name(o.output.name + ".db"), job_of(o.model, o.input, options, chat))
    done = progress.done()
    total = sum(1 for _ in read_rows(o.input))
    rows = ((i, prompt) for i, prompt in enumerate(read_rows(o.input)) if i not in done)
    with Engine(o.model, max_sequences=o.max_sequences, threads=o.threads, kv_bytes=o.kv_mib << 20) as engine:
        asyncio.run(
            run(engine, rows, options, progress, chat=chat, at_once=2 * o.max_sequences, report=Bar(total, len(done)))
        )
    progress.export(o.output)
    answered, failed = progress.counts()
    progress.close()
    print(f"\n{o.output}: {answered} rows answered, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
