"""A thousand times loaded, used and given back: the memory of the process does not grow."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import dasan


def resident_kib() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def test_a_thousand_cycles_are_flat(demo_path: Path) -> None:
    def cycle() -> None:
        with dasan.Model(demo_path) as model, dasan.Engine(model, threads=1, kv_bytes=1 << 20) as engine:
            with engine.session() as session:
                assert engine.generate("a", max_tokens=2, session=session).tokens
            stream = engine.stream("a", ignore_eos=True)
            next(stream)  # and one that is dropped while it runs

    for _ in range(100):
        cycle()
    gc.collect()
    before = resident_kib()
    marks = []
    for _ in range(9):
        for _ in range(100):
            cycle()
        gc.collect()
        marks.append(resident_kib() - before)
    # The model alone is 2.4 MiB: one kept per hundred cycles would show.
    assert max(marks) < 2048, marks
    print("KiB above the first hundred cycles:", marks)
