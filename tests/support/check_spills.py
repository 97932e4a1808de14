#!/usr/bin/env python3
"""Registers, shared memory and spills of every device kernel, as ptxas reports them.

usage: check_spills.py SOURCE [--nvcc NVCC] [--arch sm_80,sm_90a] [--table] [--jobs N]

Compiles kernels/cuda/*.cu with -Xptxas -v and fails when a kernel spills. --table prints the rows of
the table in docs/kernels.md. A kernel's name is demangled and shortened to itself and its arguments.
"""
import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile


def demangle(names):
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True)
    return out.stdout.splitlines() if out.returncode == 0 else names


def shorten(name):
    name = re.sub(r"dasan::kernels::(cuda::)?|\(anonymous namespace\)::|_GLOBAL__N__\w+::", "", name)
    name = re.sub(r"^void ", "", name)
    name = re.sub(r"\(([A-Za-z:]*[a-z]\w*)\)(-?\d)", r"\2", name)  # casts of template arguments
    return re.sub(r"\((?:[^()]|\([^()]*\))*\)$", "", name)


def compile_one(nvcc, root, source, arch):
    sass = f"arch={arch.replace('sm', 'compute')},code={arch}"
    with tempfile.TemporaryDirectory() as tmp:
        run = subprocess.run(
            [nvcc, "-std=c++17", "-O3", "--fmad=false", "-Xptxas", "-v", "-gencode", sass, f"-I{root}",
             "-cubin", str(source), "-o", f"{tmp}/out.cubin"], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{source} ({arch}):\n{run.stderr}")
    kernels, name = [], None
    for line in run.stderr.splitlines():
        if m := re.search(r"Compiling entry function '(\w+)'", line):
            name, spills = m[1], 0
        elif m := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spills = int(m[1]) + int(m[2])
        elif name and (m := re.search(r"Used (\d+) registers", line)):
            shared = re.search(r"(\d+) bytes smem", line)
            kernels.append((name, arch, int(m[1]), int(shared[1]) if shared else 0, spills))
            name = None
    return kernels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--arch", default="sm_80,sm_90a")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    root = pathlib.Path(args.source)
    sources = sorted((root / "kernels/cuda").glob("*.cu"))
    if not sources:
        sys.exit(f"no kernel found under {root}/kernels/cuda")
    work = [(s, a) for s in sources for a in args.arch.split(",")]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        found = [k for ks in pool.map(lambda w: compile_one(args.nvcc, root, *w), work) for k in ks]
    names = dict(zip([k[0] for k in found], map(shorten, demangle([k[0] for k in found]))))
    if args.table:
        archs = args.arch.split(",")
        print("| kernel | " + " | ".join(f"registers {a}" for a in archs) + " | static shared bytes | spills |")
        print("|---|" + "---|" * (len(archs) + 2))
        for name in dict.fromkeys(k[0] for k in found):
            rows = {k[1]: k for k in found if k[0] == name}
            print(f"| `{names[name]}` | " + " | ".join(str(rows[a][2]) if a in rows else "-" for a in archs) +
                  f" | {max(r[3] for r in rows.values())} | {max(r[4] for r in rows.values())} |")
    bad = [k for k in found if k[4] != 0]
    for name, arch, registers, _, spills in bad:
        print(f"{names[name]} ({arch}): {spills} bytes spilled at {registers} registers", file=sys.stderr)
    print(f"{len(found)} kernels, {len(bad)} spill", file=sys.stderr)
    return 1 if bad or not found else 0


if __name__ == "__main__":
    sys.exit(main())
