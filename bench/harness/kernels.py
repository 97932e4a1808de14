"""Runs bench_kernels and gives its lines the fields that every record has."""
import json
import os
import subprocess

from .results import BenchError


def run(options, writer):
    command = [os.path.join(options.build, "bench_kernels"), "--json", *options.arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        writer.write(json.loads(line))
    if process.wait() != 0:
        raise BenchError("bench_kernels failed")
