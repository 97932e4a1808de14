#!/usr/bin/env python3
"""The benchmark suite: docs/benchmarking.md says how to run it and how to read what it writes."""
import argparse
import os
import sys

from harness import results
from harness.engines import ROOT, WorkerError
from harness.results import BenchError


def comma_list(text):
    return [part for part in text.split(",") if part]


def add_output(parser):
    parser.add_argument("--out", help="append JSON lines to this file (default: standard output)")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"),
                        help="folder of the bench programs")


def writer(options):
    return results.Writer(options.out, {"machine": results.machine(),
                                        "commit": results.commit(ROOT)})


def run(options):
    from harness.run import Runner
    Runner(options, writer(options)).run()


def kernels(options):
    from harness import kernels as module
    module.run(options, writer(options))


def quality(options):
    from harness import quality as module
    module.run(options, writer(options))


def load(options):
    from harness import load as module
    module.run(options, writer(options))


def compare(options):
    from harness.compare import compare_files
    compare_files(options)


def bars(options):
    from harness import bars as module
    module.run(options)


def report(options):
    from harness import report as module
    module.run(options)


def check_threads(count):
    cores = len(os.sched_getaffinity(0))
    if not 1 <= count <= cores:
        raise BenchError(f"threads: {count}, expected 1 to {cores}, the cores this process may use")


def add_models(p, context):
    p.add_argument("--models", type=comma_list, required=True,
                   help="SHAPE:FORMAT or paths, for example llama-1b:q4_0,qwen3-0.6b:q8_0")
    p.add_argument("--engines", type=comma_list, default=["dasan"])
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--kv", default="f16", help="type of the KV cache")
    p.add_argument("--context", type=int, default=context)
    p.add_argument("--isa", help="force a kernel table of dasan")
    p.add_argument("--folder", default=os.path.join(ROOT, "build", "bench-models"),
                   help="where model files are made")
    add_output(p)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("run", help="time models on engines, interleaved")
    add_models(p, 8192)
    p.add_argument("--cases", type=comma_list, default=["prompt:512", "generate:128"],
                   help="prompt:N, generate:N, batch:SxN, each with an optional @DEPTH")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--patience", type=float, default=5,
                   help="seconds to wait for other programs before a sample; 0: take it as it comes")
    p.set_defaults(handler=run)

    p = commands.add_parser("kernels", help="time kernels; arguments after -- go to bench_kernels")
    p.add_argument("arguments", nargs="*")
    add_output(p)
    p.set_defaults(handler=kernels)

    p = commands.add_parser("quality", help="KL divergence from the same weights in F32")
    add_models(p, 1024)
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--token-range", type=int, default=256, help="token numbers below this")
    p.add_argument("--keep", action="store_true", help="keep the F32 files")
    p.set_defaults(handler=quality)

    p = commands.add_parser("load", help="time to the first token of a process, and its peak memory")
    add_models(p, 512)
    p.add_argument("--rounds", type=int, default=5)
    p.set_defaults(handler=load)

    p = commands.add_parser("compare", help="ratios of two result files, with intervals")
    p.add_argument("before")
    p.add_argument("after")
    p.set_defaults(handler=compare)

    p = commands.add_parser("bars", help="a table of result files against the project's bars")
    p.add_argument("files", nargs="+")
    p.set_defaults(handler=bars)

    p = commands.add_parser("report", help="plots and one HTML page of result files")
    p.add_argument("files", nargs="+")
    p.add_argument("--out", default=os.path.join(ROOT, "build", "bench-report"), help="folder")
    p.set_defaults(handler=report)

    options = parser.parse_args()
    try:
        if hasattr(options, "threads"):
            check_threads(options.threads)
        options.handler(options)
    except (BenchError, WorkerError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


main()
