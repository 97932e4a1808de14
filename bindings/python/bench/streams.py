"""What streaming through Python costs: streams.py MODEL [--streams 16] [--tokens 128] [--rounds 5]

The same requests, rounds interleaved: consumed by Python threads, by asyncio, and by nobody (the engine
computes, events gather in the library, and Python only looks at its counters now and then). The last is
the C interface with a consumer that costs nothing, so the overhead is an upper bound.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Callable

import dasan


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--streams", type=int, default=16)
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=0)
    o = p.parse_args()
    context = o.tokens + 32
    model = dasan.Model(o.model)
    with dasan.Engine(
        model, max_sequences=o.streams, max_context=context, threads=o.threads,
        kv_bytes=model.info.kv_bytes_per_token * (context + 64) * (o.streams + 1),
    ) as engine:  # fmt: skip
        prompts = [engine.prompt_tokens(f"Once upon a time, {i}") for i in range(o.streams)]
        options = dasan.GenerateOptions(max_tokens=o.tokens, ignore_eos=True)

        def nobody() -> None:
            before = engine.stats["requests_done"]
            streams = [engine.stream(prompt, **options) for prompt in prompts]
            while engine.stats["requests_done"] - before < len(streams):
                time.sleep(0.002)

        def threads() -> None:
            workers = [threading.Thread(target=lambda p=p: list(engine.stream(p, **options))) for p in prompts]
            for w in workers:
                w.start()
            for w in workers:
                w.join()

        def tasks() -> None:
            async def all_streams() -> None:
                await asyncio.gather(*(engine.astream(p, **options).read() for p in prompts))

            asyncio.run(all_streams())

        ways: dict[str, Callable[[], None]] = {"nobody": nobody, "threads": threads, "asyncio": tasks}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(o.rounds + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
        base = statistics.median(seconds["nobody"][1:])
        for name, times in seconds.items():
            median = statistics.median(times[1:])  # the first round warms up
            rate = o.streams * o.tokens / median
            print(f"{name:<8} {rate:10,.1f} tokens/s  {100 * (median / base - 1):+6.2f} %")


if __name__ == "__main__":
    main()
