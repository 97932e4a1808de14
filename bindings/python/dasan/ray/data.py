"""Batch inference with Ray Data: python -m dasan.ray.data MODEL INPUT -o OUTPUT --workers N.

The same job as `dasan batch`, with the same database: rows that are done are not computed again, and a
job begun on one machine can go on here. Workers only compute; the driver alone writes, keyed by row, so
a block that Ray computes again after a worker died replaces nothing and doubles nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from ..batch import COLUMNS, Bar, Progress, Result, answer_row, job_of, options_of, parser, read_rows
from ..engine import Engine
from ..errors import DasanError
from ..options import GenerateOptions

BLOCK = 64  # rows that one task of a worker answers together, and so the most that a death costs


class Worker:
    """An engine in a process of its own, answering blocks of rows."""

    def __init__(self, model: str, options: GenerateOptions, engine: Mapping[str, Any], chat: bool) -> None:
        self._engine = Engine(model, **engine)
        self._options, self._chat = options, chat

    def __call__(self, block: dict[str, Any]) -> dict[str, list[Any]]:
        async def all_rows() -> list[Result]:
            rows = zip(block["row"], block["prompt"], strict=True)
            return await asyncio.gather(
                *(
                    answer_row(self._engine, int(row), json.loads(prompt), self._options, chat=self._chat)
                    for row, prompt in rows
                )
            )

        results = asyncio.run(all_rows())
        return {column: [getattr(r, column) for r in results] for column in COLUMNS}


def run(
    model: str, source: Path, progress: Progress, options: GenerateOptions, *, chat: bool = True,
    workers: int = 2, cpus_per_worker: float = 1, engine: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Answers the rows that `progress` does not have. Ray is started if it is not."""
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    done = progress.done()
    total = 0

    def pending() -> Iterator[dict[str, Any]]:
        nonlocal total
        for row, prompt in enumerate(read_rows(source)):
            total += 1
            if row not in done:
                yield {"row": row, "prompt": json.dumps(prompt, ensure_ascii=False)}

    items = list(pending())
    if not items:
        return
    bar = Bar(total, len(done))
    blocks = max(workers, -(-len(items) // BLOCK))
    dataset = ray.data.from_items(items, override_num_blocks=min(blocks, len(items))).map_batches(
        Worker,
        fn_constructor_args=(model, options, dict(engine or {}), chat),
        batch_size=BLOCK,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus_per_worker,
    )
    batches: Any = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        results = [Result(**{c: record.get(c) for c in COLUMNS}) for record in batch.to_pylist()]
        progress.add(results)
        bar(len(results))


def main() -> int:
    p = parser("python -m dasan.ray.data")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--cpus-per-worker", type=float, default=1)
    p.add_argument("--address", help="of a running cluster; default: one on this machine")
    o = p.parse_args()
    try:
        ray.init(address=o.address, log_to_driver=False)
        options = options_of(o)
        job = job_of(o.model, o.input, options, not o.raw)
        progress = Progress(o.db or o.output.with_name(o.output.name + ".db"), job)
        engine = {"max_sequences": o.max_sequences, "threads": o.threads or int(o.cpus_per_worker), "kv_bytes": o.kv_mib << 20}
        run(
            os.path.abspath(o.model), o.input, progress, options, chat=not o.raw, workers=o.workers,
            cpus_per_worker=o.cpus_per_worker, engine=engine,
        )  # fmt: skip
        progress.export(o.output)
        answered, failed = progress.counts()
        progress.close()
    except (DasanError, OSError, sqlite3.Error) as error:
        print(f"dasan.ray.data: {error}", file=sys.stderr)
        return 1
    print(f"\n{o.output}: {answered} rows answered, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
