"""The engines that can be timed: dasan, and peers that are used where they are installed."""
import json
import os
import subprocess
import sys

from .results import BenchError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.path.join(ROOT, "bench", "peers")

# name: (worker script, modules it needs, package that has it, extra arguments). Without a script: a
# peer that cannot read the files, and why.
PEER_TABLE = {
    "llama.cpp": ("llama_cpp_worker.py", "llama_cpp", "llama-cpp-python", []),
    "llama.cpp-nofa": ("llama_cpp_worker.py", "llama_cpp", "llama-cpp-python",
                       ["--no-flash-attention"]),
    "openvino": ("openvino_worker.py", "openvino_genai", "openvino-genai", []),
    "ctranslate2": (None, "ctranslate2", "it reads no GGUF file", []),
    "transformers": ("transformers_worker.py", "torch transformers gguf accelerate",
                     "torch, transformers, gguf, accelerate", []),
}
NAMES = ["dasan", *PEER_TABLE]


def check_names(names):
    for name in names:
        if name not in NAMES:
            raise BenchError(f"engine '{name}' is unknown, expected one of: {', '.join(NAMES)}")


def peer_python():
    """The interpreter that has the peers: $DASAN_BENCH_PYTHON, else the environment that
    `./dev bench --peers` makes, else this one."""
    made = os.path.join(ROOT, "build", "bench-venv", "bin", "python")
    return os.environ.get("DASAN_BENCH_PYTHON") or (made if os.path.exists(made) else sys.executable)


def absence(name):
    """Why a peer cannot run here, or None."""
    if name == "dasan":
        return None
    script, modules, package, _ = PEER_TABLE[name]
    if script is None:
        return package
    try:
        found = subprocess.run(
            [peer_python(), "-c", "import importlib.util as u, sys; "
             f"sys.exit(any(u.find_spec(m) is None for m in '{modules}'.split()))"], capture_output=True)
    except OSError as error:
        return f"{peer_python()}: {error.strerror}"
    if found.returncode != 0:
        return f"not installed in {peer_python()}: {package}"
    return None


class WorkerError(Exception):
    """An engine that failed; the others go on."""


class Worker:
    """A process that answers one line of JSON per case."""

    def __init__(self, command, cores, name):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.about = self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            message = self.process.stderr.read().strip().splitlines()
            raise WorkerError(f"{self.name}: " + (message[-1] if message else
                              f"ended with status {self.process.returncode}"))
        return json.loads(line)

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # _read tells why
        reply = self._read()
        if "error" in reply:
            raise WorkerError(f"{self.name}: {line}: {reply['error']}")
        return reply

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def command(name, build, model, threads, context, kv, isa):
    if name == "dasan":
        line = [os.path.join(build, "bench_model"), model, "--threads", str(threads),
                "--context", str(context), "--kv", kv, "--serve"]
        return line + (["--isa", isa] if isa else [])
    script, _, _, extra = PEER_TABLE[name]
    return [peer_python(), os.path.join(PEERS, script), model, "--threads", str(threads),
            "--context", str(context), "--kv", kv, *extra]


class LimitsWorker:
    """bench_limits --serve: this machine's limits at this moment."""

    def __init__(self, build):
        self.process = subprocess.Popen([os.path.join(build, "bench_limits"), "--serve"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what, threads):
        self.process.stdin.write(f"{what} {threads}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BenchError("bench_limits ended before it answered")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
