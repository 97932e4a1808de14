"""Time from the start of a process to its first token, and its peak memory, with the file in the
page cache. Of a peer that runs inside Python, the time and memory of Python and its imports are
taken off.
"""
import os
import statistics
import sys
import time

from . import engines, models
from .engines import Worker, WorkerError


def once(name, model, options):
    start = time.perf_counter()
    worker = Worker(engines.command(name, options.build, model.path, options.threads,
                                    options.context, options.kv, options.isa),
                    os.sched_getaffinity(0), name)
    try:
        ready = time.perf_counter() - start
        reply = worker.ask("generate:1")
        seconds = time.perf_counter() - start
    finally:
        worker.close()
    about = worker.about
    rss = reply["peak_rss_bytes"]
    if name != "dasan":  # what came before the engine's own loading began
        seconds -= ready - about["load_seconds"]
        rss -= about["import_rss_bytes"]
    return seconds, rss, about


def run(options, writer):
    engines.check_names(options.engines)
    for name in options.models:
        model = models.resolve(name, options.build, options.folder)
        with open(model.path, "rb") as f:  # into the page cache
            while f.read(1 << 24):
                pass
        present = [e for e in options.engines if engines.absence(e) is None]
        for engine in set(options.engines) - set(present):
            print(f"{engine}: absent: {engines.absence(engine)}", file=sys.stderr)
            writer.write({"record": "absent", "engine": engine, "reason": engines.absence(engine)})
        taken = {e: [] for e in present}
        for number in range(options.rounds):
            for engine in present if number % 2 == 0 else reversed(present):
                try:
                    seconds, rss, about = once(engine, model, options)
                except WorkerError as error:
                    print(f"{engine}: {name}: failed: {error}", file=sys.stderr)
                    continue
                kv = about.get("kv_bytes", 0)
                taken[engine].append((seconds, rss))
                writer.write({"record": "load", "engine": engine, "version": about["version"],
                              "kernel": about["kernel"], "model": model.shape,
                              "format": model.format, "threads": options.threads,
                              "kv": options.kv, "context": options.context,
                              "seconds": round(seconds, 4), "peak_rss_bytes": rss,
                              "file_bytes": os.path.getsize(model.path), "kv_bytes": kv})
        for engine, values in taken.items():
            if values:
                print(f"{name:<22} {engine:<12} first token after "
                      f"{statistics.median(v[0] for v in values):.3f} s, peak memory "
                      f"{statistics.median(v[1] for v in values) / 1e6:.0f} MB, file "
                      f"{os.path.getsize(model.path) / 1e6:.0f} MB", file=sys.stderr)
