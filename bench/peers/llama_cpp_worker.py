"""llama.cpp through llama-cpp-python's low-level functions, one llama_decode per step, as its own
benchmark tool does. Next tokens are given, not sampled, so no cost of sampling is charged to it.

    llama_cpp_worker.py MODEL.gguf --threads N --context N [--kv f16|q8_0] [--no-flash-attention]
"""
import argparse
import ctypes
import os
import sys
import time

STARTED = time.perf_counter()
import numpy as np
import llama_cpp as lib

from worker import Timer, parse_case, peak_rss_bytes, serve, tokens_for

IMPORTED = time.perf_counter()
RSS_BEFORE = peak_rss_bytes()
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}


class Engine:
    def __init__(self, options):
        self.options = options
        quiet = lib.llama_log_callback(lambda level, text, user: None)
        self.quiet = quiet  # kept alive: the library keeps the pointer
        lib.llama_log_set(quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(options.model.encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {options.model}")
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        context = lib.llama_context_default_params()
        context.n_ctx = options.context
        context.n_batch = 2048
        context.n_ubatch = 512
        context.n_seq_max = options.sequences
        context.n_threads = context.n_threads_batch = options.threads
        context.type_k = context.type_v = KV_TYPES[options.kv]
        if hasattr(context, "kv_unified"):
            context.kv_unified = True  # the setting of its own batched benchmark with -kvu
        if options.no_flash_attention:
            context.flash_attn_type = 0
        self.context = lib.llama_init_from_model(self.model, context)
        if not self.context:
            sys.exit("llama.cpp cannot create a context")
        self.memory = lib.llama_get_memory(self.context)
        self.batch = lib.llama_batch_init(2048, 0, 1)
        self.filled = (0, 0)  # sequences, tokens in each

    def decode(self, entries):
        """entries: (token, position, sequence, wants logits)"""
        b = self.batch
        b.n_tokens = len(entries)
        for i, (token, position, sequence, logits) in enumerate(entries):
            b.token[i] = token
            b.pos[i] = position
            b.n_seq_id[i] = 1
            b.seq_id[i][0] = sequence
            b.logits[i] = logits
        status = lib.llama_decode(self.context, b)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        lib.llama_synchronize(self.context)

    def append(self, tokens, depth, sequence=0, all_logits=False):
        for begin in range(0, len(tokens), 2048):
            part = tokens[begin:begin + 2048]
            last = begin + len(part) == len(tokens)
            self.decode([(t, depth + begin + i, sequence,
                          all_logits or (last and i == len(part) - 1)) for i, t in enumerate(part)])

    def fill(self, sequences, depth):
        if self.filled != (sequences, depth):
            lib.llama_memory_clear(self.memory, True)
            for s in range(sequences):
                if depth > 0:
                    self.append(tokens_for(depth, self.vocabulary), 0, s)
            self.filled = (sequences, depth)
        for s in range(sequences):
            lib.llama_memory_seq_rm(self.memory, s, depth, -1)

    def run(self, text):
        case = parse_case(text)
        if case[0] == "logits":
            return self.logits(case[1])
        kind, sequences, count, depth = case
        self.fill(sequences, depth)
        tokens = tokens_for(count, self.vocabulary)
        with Timer() as timer:
            if kind == "prompt":
                self.append(tokens, depth)
            else:
                for i in range(count):
                    self.decode([(tokens[i], depth + i, s, True) for s in range(sequences)])
        return sequences * count, timer.seconds

    def logits(self, path):
        with open(path) as f:
            tokens = [int(t) for t in f.read().split()]
        lib.llama_memory_clear(self.memory, True)
        self.filled = (0, 0)
        with Timer() as timer:
            self.append(tokens, 0, all_logits=True)
        rows = np.ctypeslib.as_array(lib.llama_get_logits(self.context),
                                     shape=(len(tokens), self.vocabulary))
        rows.astype(np.float32).tofile(path + ".llama.cpp")
        return len(tokens), timer.seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--kv", choices=KV_TYPES, default="f16")
    parser.add_argument("--no-flash-attention", action="store_true")
    options = parser.parse_args()
    with Timer() as timer:
        engine = Engine(options)
    info = lib.llama_print_system_info().decode()
    serve({"engine": "llama.cpp", "version": f"llama-cpp-python {lib.__version__}",
           "kernel": " ".join(part.split("=")[0].strip() for part in info.split("|")
                              if part.strip().endswith("= 1")),
           "threads": options.threads, "kv": options.kv,
           "load_seconds": round(timer.seconds, 4),
           "import_seconds": round(IMPORTED - STARTED, 4), "import_rss_bytes": RSS_BEFORE,
           "file_bytes": os.path.getsize(options.model)}, engine.run)


main()
