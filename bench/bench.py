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


def compare(options):
    from harness.compare import compare_files
    compare_files(options)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("run", help="time models on engines, interleaved")
    p.add_argument("--models", type=comma_list, required=True,
                   help="SHAPE:FORMAT or paths, for example llama-1b:q4_0,qwen3-0.6b:q8_0")
    p.add_argument("--cases", type=comma_list, default=["prompt:512", "generate:128"],
                   help="prompt:N, generate:N, batch:SxN, each with an optional @DEPTH")
    p.add_argument("--engines", type=comma_list, default=["dasan"])
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--kv", default="f16")
    p.add_argument("--context", type=int, default=8192)
    p.add_argument("--isa", help="force a kernel table of dasan")
    p.add_argument("--folder", default=os.path.join(ROOT, "build", "bench-models"),
                   help="where model files are made")
    add_output(p)
    p.set_defaults(handler=run)

    p = commands.add_parser("compare", help="ratios of two result files, with intervals")
    p.add_argument("before")
    p.add_argument("after")
    p.set_defaults(handler=compare)

    options = parser.parse_args()
    try:
        options.handler(options)
    except (BenchError, WorkerError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


main()
