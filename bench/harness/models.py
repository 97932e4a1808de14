"""Model files: named SHAPE:FORMAT and made on demand with random weights, or a path to any file."""
import os
import re
import subprocess

from .results import BenchError


class ModelFile:
    def __init__(self, name, path):
        self.name = name
        self.path = path
        shape, _, form = name.partition(":")
        self.shape, self.format = shape, form


def resolve(name, build, folder, as_f32=False):
    """A ModelFile, making the file when it is not there yet. as_f32: the same weights, dequantised."""
    if "/" in name or name.endswith(".gguf"):
        if not os.path.exists(name):
            raise BenchError(f"{name}: no such file")
        base = os.path.basename(name).removesuffix(".gguf")
        return ModelFile(base + ":file", name)
    if not re.fullmatch(r"[a-z0-9._-]+:[a-z0-9_]+", name):
        raise BenchError(f"model '{name}', expected SHAPE:FORMAT or a path to a .gguf file")
    shape, form = name.split(":")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{shape}-{form}{'-as-f32' if as_f32 else ''}.gguf")
    if not os.path.exists(path):
        part = f"{path}.part{os.getpid()}"
        made = subprocess.run([os.path.join(build, "bench_make_model"), shape, form, part,
                               *(["--f32"] if as_f32 else [])], capture_output=True, text=True)
        if made.returncode != 0:
            if os.path.exists(part):
                os.unlink(part)
            raise BenchError(made.stderr.strip().removeprefix("make_model: ") or
                             f"bench_make_model ended with status {made.returncode}")
        os.rename(part, path)
    return ModelFile(name, path)
