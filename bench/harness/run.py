"""Runs cases on engines, interleaved: round by round, every engine once, in alternating order, so
that what the machine does meanwhile meets all of them alike. Each sample carries the DRAM bandwidth
measured right before and right after it, and the share of the cores that other programs took.
"""
import os
import statistics
import sys
import time

from . import engines, models
from .cases import demand, parts
from .engines import LimitsWorker, Worker, WorkerError
from .results import DISTURBED, BenchError

TRIES = 3


def busy_seconds():
    """CPU time of everything on this machine, stolen time included."""
    with open("/proc/stat") as f:
        fields = [int(x) for x in f.readline().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def wait_for_calm(patience):
    """Until other programs leave the cores alone, or patience (seconds) ends. Engines are idle."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        busy, start = busy_seconds(), time.monotonic()
        time.sleep(0.2)
        if busy_seconds() - busy <= 0.02 + DISTURBED * (time.monotonic() - start):
            return


class Runner:
    def __init__(self, options, writer):
        self.options = options
        self.writer = writer
        self.build = options.build
        self.cores = sorted(os.sched_getaffinity(0))
        if options.rounds < 1:
            raise BenchError(f"rounds: {options.rounds}, expected at least 1")
        engines.check_names(options.engines)
        for case in options.cases:
            parts(case)
        for tool in ("bench_model", "bench_limits", "bench_make_model"):
            if not os.path.exists(os.path.join(self.build, tool)):
                raise BenchError(f"{self.build}/{tool}: not built (./dev bench builds it)")
        self.limits = LimitsWorker(self.build)

    def run(self):
        try:
            present = []
            for name in self.options.engines:
                why = engines.absence(name)
                if why is None:
                    present.append(name)
                    continue
                print(f"{name}: absent: {why}", file=sys.stderr)
                self.writer.write({"record": "absent", "engine": name, "reason": why})
            for model in [models.resolve(m, self.build, self.options.folder)
                          for m in self.options.models]:
                self.model(model, present)
        finally:
            self.limits.close()

    def start(self, name, model):
        command = engines.command(name, self.build, model.path, self.options.threads,
                                  self.options.context, self.options.kv, self.options.isa)
        worker = Worker(command, set(self.cores[:self.options.threads]), name)
        worker.ask("prompt:16")  # page tables, lazy initialisation
        worker.ask("generate:2")
        return worker

    def model(self, model, present):
        # What a token costs is a fact of the file, told by dasan for every engine.
        probe = Worker(engines.command("dasan", self.build, model.path, self.options.threads,
                                       self.options.context, self.options.kv, self.options.isa),
                       set(self.cores), "dasan")
        about = probe.about
        probe.close()
        workers = {}
        try:
            for name in present:
                try:
                    workers[name] = self.start(name, model)
                except WorkerError as error:
                    self.failed(name, model, "load", error)
            limits = self.limits.ask("all", self.options.threads)
            for case in self.options.cases:
                self.case(case, model, about, workers, limits)
        finally:
            for worker in workers.values():
                worker.close()

    def failed(self, name, model, case, error):
        print(f"{name}: {model.name} {case}: failed: {error}", file=sys.stderr)
        self.writer.write({"record": "failed", "engine": name, "model": model.shape,
                           "format": model.format, "case": case, "reason": str(error)})

    def case(self, case, model, about, workers, limits):
        rates = {name: [] for name in workers}
        working = list(workers)
        for number in range(self.options.rounds):
            for name in working if number % 2 == 0 else reversed(working):
                try:
                    sample = self.sample(case, workers[name])
                except WorkerError as error:
                    self.failed(name, model, case, error)
                    working = [w for w in working if w != name]
                    continue
                rates[name].append(self.record(case, model, about, workers[name], limits, sample,
                                               number))
            if not working:
                return
        line = "  ".join(f"{name} {statistics.median(r):8.2f}" for name, r in rates.items() if r)
        print(f"{model.name:<22} {case:<18} {line}  tokens/s", file=sys.stderr)

    def sample(self, case, worker):
        """One undisturbed sample, or the least disturbed of a few."""
        best = None
        for _ in range(TRIES if self.options.patience > 0 else 1):
            wait_for_calm(self.options.patience)
            before = self.limits.ask("dram", self.options.threads)["dram_read_gbs"]
            busy, own = busy_seconds(), worker.cpu_seconds()
            reply = worker.ask(case)
            # In cores. Clock ticks are coarse: a sample of few ticks says nothing about others.
            other = (busy_seconds() - busy) - (worker.cpu_seconds() - own)
            other = max(0.0, other - 0.03) / max(reply["seconds"], 1e-9)
            after = self.limits.ask("dram", self.options.threads)["dram_read_gbs"]
            if best is None or other < best["other_cores"]:
                best = {"reply": reply, "dram_before": before, "dram_after": after,
                        "other_cores": round(other, 3)}
            if other <= DISTURBED:
                break
        return best

    def record(self, case, model, about, worker, limits, sample, number):
        reply = sample["reply"]
        seconds = reply["seconds"]
        need = demand(case, about)
        dram = (sample["dram_before"] + sample["dram_after"]) / 2
        gbs = need["bytes"] / seconds * 1e-9
        linear_gops = need["linear_ops"] / seconds * 1e-9
        rate = reply["tokens"] / seconds
        record = {
            "record": "sample", "engine": worker.name, "version": worker.about["version"],
            "kernel": worker.about["kernel"], "model": model.shape, "format": model.format,
            "case": case, "round": number, "threads": self.options.threads,
            "kv": self.options.kv, "tokens": reply["tokens"], "seconds": seconds,
            "tokens_per_second": round(rate, 4), "bytes": round(need["bytes"]),
            "ops": round(need["ops"]), "gbs": round(gbs, 3), "linear_gops": round(linear_gops, 2),
            "limits": {**limits, "dram_read_gbs": round(dram, 2),
                       "dram_before_gbs": sample["dram_before"],
                       "dram_after_gbs": sample["dram_after"]},
            "other_cores": sample["other_cores"],
        }
        if parts(case)[0] == "prompt":
            if limits["int8_gops"] > 0:
                record["fraction_int8"] = round(linear_gops / limits["int8_gops"], 4)
            if limits["bf16_gflops"] > 0:
                record["fraction_bf16"] = round(linear_gops / limits["bf16_gflops"], 4)
            record["fraction_fma"] = round(linear_gops / limits["fma_gflops"], 4)
        else:
            record["fraction_dram"] = round(gbs / dram, 4)
        self.writer.write(record)
        return rate
