"""How far each engine's logits are from those of the same weights in F32: KL(F32 || engine), on the
same file and tokens. The F32 logits are dasan's, with an F32 KV cache, on a file that holds what the
quantised file's blocks mean; so what is measured is the engine's arithmetic, not the format's loss.
"""
import json
import os
import subprocess
import sys
import tempfile

from . import engines, models
from .engines import Worker, WorkerError
from .results import BenchError

sys.path.insert(0, engines.PEERS)
from worker import tokens_for  # noqa: E402


def logits(name, model, options, kv, tokens_path):
    worker = Worker(engines.command(name, options.build, model.path, options.threads,
                                    options.context, kv, options.isa if name == "dasan" else None),
                    os.sched_getaffinity(0), name)
    try:
        worker.ask("logits:" + tokens_path)
    finally:
        worker.close()
    suffix = "dasan" if name == "dasan" else "llama.cpp"
    return f"{tokens_path}.{suffix}", worker.about


def run(options, writer):
    engines.check_names(options.engines)
    for name in options.models:
        model = models.resolve(name, options.build, options.folder)
        twin = models.resolve(name, options.build, options.folder, as_f32=True)
        with tempfile.TemporaryDirectory() as folder:
            tokens = os.path.join(folder, "tokens")
            with open(tokens, "w") as f:
                f.write(" ".join(map(str, tokens_for(options.tokens, options.token_range))))
            path, about = logits("dasan", twin, options, "f32", tokens)
            base = os.path.join(folder, "base.f32")
            os.rename(path, base)
            vocabulary = os.path.getsize(base) // (4 * options.tokens)
            for engine in options.engines:
                why = engines.absence(engine)
                if why is not None:
                    print(f"{engine}: absent: {why}", file=sys.stderr)
                    writer.write({"record": "absent", "engine": engine, "reason": why})
                    continue
                try:
                    path, about = logits(engine, model, options, options.kv, tokens)
                except WorkerError as error:
                    print(f"{engine}: {name}: failed: {error}", file=sys.stderr)
                    writer.write({"record": "failed", "engine": engine, "model": model.shape,
                                  "format": model.format, "case": "quality", "reason": str(error)})
                    continue
                done = subprocess.run([os.path.join(options.build, "bench_divergence"), base, path,
                                       str(vocabulary)], capture_output=True, text=True)
                if done.returncode != 0:
                    raise BenchError(done.stderr.strip())
                figures = json.loads(done.stdout)
                writer.write({"record": "quality", "engine": engine, "version": about["version"],
                              "kernel": about["kernel"], "model": model.shape,
                              "format": model.format, "kv": options.kv, **figures})
                print(f"{name:<22} {engine:<12} KL mean {figures['kl_mean']:.3e}  worst "
                      f"{figures['kl_worst']:.3e}  same choice {figures['same_choice']:.3f}",
                      file=sys.stderr)
        if not options.keep:
            os.unlink(twin.path)
