"""Result files: one JSON object per line, each complete in itself (machine, commit, engine, kernel,
case, limits), so that files can be joined, cut and compared. Statistics on samples.
"""
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time


class BenchError(Exception):
    """A mistake of the caller: reported as one line, without a trace."""


def machine():
    """What this machine is, from /proc/cpuinfo."""
    fields = {}
    with open("/proc/cpuinfo") as f:
        for line in f:
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", "").split()
    with open("/proc/meminfo") as f:
        memory_kib = int(f.readline().split()[1])
    return {
        "cpu": fields.get("model name", platform.processor()),
        "family": int(fields.get("cpu family", 0)),
        "model": int(fields.get("model", 0)),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / 2**20, 1),
        "isa": [f for f in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
                if f in flags],
        "kernel": platform.release(),
    }


def machine_name(m):
    zen = {(25, 1): "Zen 3", (25, 17): "Zen 4", (26, 2): "Zen 5"}.get((m["family"], m["model"]))
    return f"{m['cpu']}{f' ({zen})' if zen else ''}, {m['cores']} cores, {m['memory_gib']} GiB, " \
           f"{'+'.join(m['isa'])}"


def commit(root):
    """The commit of the tree, with "+changes" when it was not clean."""
    def git(*arguments):
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    head = git("rev-parse", "--short=12", "HEAD")
    if head.returncode != 0:
        return "unknown"
    clean = git("status", "--porcelain", "--untracked-files=no").stdout == ""
    return head.stdout.strip() + ("" if clean else "+changes")


class Writer:
    """Appends records; every record carries the session's common fields."""

    def __init__(self, path, common):
        self.common = common
        self.file = open(path, "a") if path else sys.stdout

    def write(self, record):
        line = {**record, **self.common, "time": round(time.time(), 3)}
        print(json.dumps(line, separators=(",", ":")), file=self.file, flush=True)


def read(paths):
    records = []
    for path in paths:
        try:
            with open(path) as f:
                lines = f.readlines()
        except OSError as error:
            raise BenchError(f"{path}: {error.strerror}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                raise BenchError(f"{path}:{number}: not a JSON object") from None
            if not isinstance(record, dict) or "record" not in record:
                raise BenchError(f"{path}:{number}: no result record: it has no \"record\"")
            records.append(record)
    return records


DISTURBED = 0.2  # cores that other programs took during a sample


def undisturbed(records):
    """Without the samples that other programs disturbed."""
    return [r for r in records if r.get("other_cores", 0) <= DISTURBED]


def group(records, key):
    groups = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def ratio_interval(a, b, repeats=2000, level=0.95):
    """median(a) / median(b) and its bootstrap percentile interval. Seeded: the same samples give
    the same interval."""
    rng = random.Random(1)
    ratios = sorted(statistics.median(rng.choices(a, k=len(a))) /
                    statistics.median(rng.choices(b, k=len(b))) for _ in range(repeats))
    tail = (1 - level) / 2
    return (statistics.median(a) / statistics.median(b), ratios[int(tail * repeats)],
            ratios[int((1 - tail) * repeats) - 1])
