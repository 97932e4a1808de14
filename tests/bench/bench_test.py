"""The benchmark suite refuses what it cannot measure, by name; runs what it can; and its figures
add up. Usage: bench_test.py BUILD_FOLDER. Needs python3 alone.

What would be wrong if this failed: a typing mistake would be measured as something else, an absent
peer would end a run of hours, or a comparison would call noise a difference.
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import unittest

BUILD = os.path.abspath(sys.argv.pop(1))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORES = len(os.sched_getaffinity(0))
TINY = "tiny:q8_0"


def call(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=900, **options)


def program(name, *arguments):
    return call(os.path.join(BUILD, name), *arguments)


class Suite(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def bench(self, *arguments, **options):
        return call(sys.executable, os.path.join(ROOT, "bench", "bench.py"), *arguments, **options)

    def run_cases(self, *arguments, **options):
        return self.bench("run", "--build", BUILD, "--folder", self.folder.name, "--rounds", "1",
                          "--patience", "0", *arguments, **options)

    def refused(self, result, *words):
        self.assertNotEqual(result.returncode, 0, result.stdout)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertNotIn("Traceback", result.stderr)

    def test_unknown_names(self):
        self.refused(self.run_cases("--models", "llama-9b:q4_0"), "llama-9b", "llama-1b")
        self.refused(self.run_cases("--models", "tiny:q4_9"), "q4_9", "q4_k_m")
        self.refused(self.run_cases("--models", "tiny"), "'tiny'", "SHAPE:FORMAT")
        self.refused(self.run_cases("--models", "none/such.gguf"), "none/such.gguf")
        self.refused(self.run_cases("--models", TINY, "--engines", "dasan,abc.cpp"), "'abc.cpp'",
                     "llama.cpp")
        for case in ("prmpt:5", "prompt:", "prompt:0", "batch:5", "prompt:5@x", "generate:-1"):
            self.refused(self.run_cases("--models", TINY, "--cases", case), f"'{case}'")
            self.refused(program("bench_model", "none.gguf", case), f"'{case}'")
        self.refused(program("bench_kernels", "--format", "Q9_9"), "Q9_9", "Q4_0")
        self.refused(program("bench_kernels", "--isa", "sse9"), "sse9", "generic")
        self.refused(program("bench_kernels", "--op", "matmull"), "matmull", "moe_mlp")
        self.refused(program("bench_kernels", "--shape", "llama-9b"), "llama-9b", "qwen3-0.6b")

    def test_threads(self):
        for count in ("0", str(CORES + 1), "-1"):
            expected = f"expected 1 to {CORES}"
            self.refused(self.run_cases("--models", TINY, "--threads", count), f"threads: {count}",
                         expected)
            for tool in (["bench_limits"], ["bench_kernels"], ["bench_model", "none.gguf"]):
                self.refused(program(*tool, "--threads", count), f"threads: {count}", expected)

    def test_forced_isa(self):
        with open("/proc/cpuinfo") as f:
            flags = f.read()
        missing = [isa for isa, flag in (("avx512", "avx512_vnni"), ("avx2", "avx2"))
                   if flag not in flags]
        for isa in missing:
            self.refused(self.run_cases("--models", TINY, "--isa", isa), isa, "this machine runs")
            self.refused(program("bench_kernels", "--isa", isa), isa, "this machine runs")

    def test_absent_peer(self):
        """It is named, and the rest runs."""
        result = self.run_cases("--models", TINY, "--cases", "generate:4", "--engines",
                                "llama.cpp,dasan", env={**os.environ, "DASAN_BENCH_PYTHON":
                                                        "/nonexistent/python"})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("llama.cpp: absent: ", result.stderr)
        records = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([r["engine"] for r in records if r["record"] == "absent"], ["llama.cpp"])
        self.assertEqual({r["engine"] for r in records if r["record"] == "sample"}, {"dasan"})

    def test_samples(self):
        """Every sample says what, where and with which limit; its figures follow from each other."""
        result = self.run_cases("--models", TINY, "--cases",
                                "prompt:32,generate:8@16,batch:3x4@8", "--isa", "generic")
        self.assertEqual(result.returncode, 0, result.stderr)
        records = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([r["case"] for r in records],
                         ["prompt:32", "generate:8@16", "batch:3x4@8"])
        # tiny: 2 layers of q, o 256x256; k, v 128x256; gate, up, down 512x256; Q8_0: 34 bytes of 32
        weights = 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256)
        head, kv = 512 * 256, 2 * 2 * 128 * 2
        norms = 4 * 256 * 5
        step = (weights + head) * 34 // 32 + norms
        for r in records:
            self.assertEqual(r["kernel"], "cpu:generic")
            self.assertGreater(r["limits"]["dram_read_gbs"], 0)
            self.assertTrue(r["machine"]["cpu"] and r["commit"])
            self.assertAlmostEqual(r["tokens_per_second"], r["tokens"] / r["seconds"], delta=0.01)
        self.assertEqual([r["tokens"] for r in records], [32, 8, 12])
        self.assertEqual(records[1]["bytes"], 8 * step + kv * sum(16 + i for i in range(1, 9)))
        self.assertEqual(records[2]["bytes"], 4 * step + kv * 3 * sum(8 + i for i in range(1, 5)))
        attention = 2 * 4 * 4 * 64
        self.assertEqual(records[0]["ops"], 32 * 2 * weights + 2 * head + attention * 32 * 33 // 2)

    def test_kernels_agree(self):
        """Every operation is compared with the reference, on every table of this machine."""
        result = program("bench_kernels", "--check-only", "--quick", "--shape", "qwen3-0.6b",
                         "--format", "Q4_0,F16",
                         "--threads", "1")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertGreater(int(result.stdout.split()[0]), 30)

    def test_kernel_records(self):
        result = self.bench("kernels", "--build", BUILD, "--", "--op", "rms_norm,moe_route",
                            "--seconds", "0.001", "--threads", "1")
        self.assertEqual(result.returncode, 0, result.stderr)
        records = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual({r["op"] for r in records}, {"rms_norm", "moe_route"})
        for r in records:
            self.assertTrue(r["kernel"] and r["isa"] and r["commit"] and r["machine"])
            self.assertGreaterEqual(len(r["samples"]), 5)
            self.assertAlmostEqual(r["gbs"], r["bytes"] / r["seconds"] * 1e-9, delta=0.01 * r["gbs"])

    def test_divergence(self):
        def rows(name, values):
            path = os.path.join(self.folder.name, name)
            with open(path, "wb") as f:
                f.write(struct.pack(f"{len(values)}f", *values))
            return path
        p = rows("p", [0.0, math.log(3), 0.0, 0.0])  # (1/4, 3/4), (1/2, 1/2)
        q = rows("q", [0.0, 0.0, 0.0, math.log(3)])
        same = json.loads(program("bench_divergence", p, p, "2").stdout)
        self.assertEqual((same["kl_mean"], same["same_choice"]), (0, 1))
        other = json.loads(program("bench_divergence", p, q, "2").stdout)
        first = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
        second = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
        self.assertAlmostEqual(other["kl_mean"], (first + second) / 2, delta=1e-6)
        self.assertAlmostEqual(other["kl_worst"], max(first, second), delta=1e-6)
        self.refused(program("bench_divergence", p, q, "3"), "rows of 3 floats")
        self.refused(program("bench_divergence", p, "none", "2"), "none")

    def test_quality_and_load(self):
        """Q8_0 is close to its own values in F32, and not equal to them."""
        common = ["--models", TINY, "--build", BUILD, "--folder", self.folder.name]
        result = self.bench("quality", *common, "--tokens", "16")
        self.assertEqual(result.returncode, 0, result.stderr)
        kl = json.loads(result.stdout)["kl_mean"]
        self.assertTrue(0 < kl < 1e-3, kl)
        result = self.bench("load", *common, "--rounds", "1")
        self.assertEqual(result.returncode, 0, result.stderr)
        record = json.loads(result.stdout)
        self.assertTrue(record["peak_rss_bytes"] > record["file_bytes"] > 0)
        for command in ("quality", "load"):
            self.refused(self.bench(command, *common, "--engines", "abc.cpp"), "'abc.cpp'")

    def write(self, name, seconds, **fields):
        path = os.path.join(self.folder.name, name)
        common = {"record": "sample", "engine": "dasan", "model": "m", "format": "q", "case": "c",
                  "threads": 2, "kv": "f16", "machine": {"cpu": "x"}}
        with open(path, "w") as f:
            for s in seconds:
                print(json.dumps({**common, "tokens_per_second": 1 / s, **fields}), file=f)
        return path

    def test_bars(self):
        """The best peer is the faster one; noise is not called a result."""
        def table(dasan, peer, **fields):
            own = self.write("own", dasan, model="llama-1b", format="q8_0", commit="c", **fields)
            other = self.write("peer", peer, model="llama-1b", format="q8_0", commit="c",
                               engine="llama.cpp", **fields)
            return self.bench("bars", own, other).stdout
        machine = {"cpu": "x", "family": 0, "model": 0, "cores": 2, "memory_gib": 1, "isa": []}
        fields = {"case": "prompt:512", "machine": machine}
        # ik_llama.cpp is 2.0 times as fast as llama.cpp here, so 1.6 times the best is 3.2 times.
        self.assertIn("1.6 x: reached |", table([0.30] * 5, [1.0] * 5, **fields))
        self.assertIn("1.6 x: missed |", table([0.33] * 5, [1.0] * 5, **fields))
        self.assertIn("within noise", table([0.2, 0.25, 0.31, 0.4, 0.5], [1.0] * 5, **fields))

    def test_compare(self):
        slow = [1.00, 1.02, 0.98, 1.01, 0.99, 1.03, 0.97]
        a = self.write("a.jsonl", slow)
        verdict = lambda b: self.bench("compare", a, b).stdout.splitlines()[-1]
        self.assertIn("no difference shown", verdict(self.write("b.jsonl", slow[::-1])))
        self.assertRegex(verdict(self.write("c.jsonl", [s / 2 for s in slow])), r" 2\.000 .* faster")
        self.assertIn("slower", verdict(self.write("d.jsonl", [s * 1.5 for s in slow])))
        self.assertIn("too few", verdict(self.write("e.jsonl", slow[:3])))
        disturbed = self.write("h.jsonl", slow, other_cores=0.9)
        self.refused(self.bench("compare", a, disturbed), "h.jsonl", "undisturbed")
        self.assertIn("different machines",
                      self.bench("compare", a, self.write("f.jsonl", slow, machine=3)).stdout)
        self.refused(self.bench("compare", a, "none.jsonl"), "none.jsonl")
        self.refused(self.bench("compare", a, self.write("g.jsonl", slow, case="other")),
                     "no case in common")
        broken = os.path.join(self.folder.name, "broken.jsonl")
        with open(broken, "w") as f:
            f.write('{"record":"sample"\n')
        self.refused(self.bench("compare", a, broken), "broken.jsonl:1")


unittest.main()
