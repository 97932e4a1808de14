"""transformers with PyTorch on the CPU, in bfloat16 or float32: it reads GGUF files by dequantising
them. Next tokens are given, not sampled.

    transformers_worker.py MODEL.gguf --threads N --context N [--kv f16] [--dtype float32]
"""
import argparse
import os
import time

STARTED = time.perf_counter()
import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

from worker import Timer, parse_case, peak_rss_bytes, serve, tokens_for

IMPORTED = time.perf_counter()
RSS_BEFORE = peak_rss_bytes()


class Engine:
    def __init__(self, options):
        torch.set_num_threads(options.threads)
        folder, name = os.path.split(os.path.abspath(options.model))
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=getattr(torch, options.dtype), local_files_only=True)
        self.model.eval()
        self.vocabulary = self.model.config.vocab_size
        self.cache, self.filled = None, None

    def forward(self, rows, cache):
        """rows: token lists of equal length, one per sequence."""
        return self.model(input_ids=torch.tensor(rows), past_key_values=cache, use_cache=True,
                          logits_to_keep=1)

    def fill(self, sequences, depth):
        if self.filled != (sequences, depth) or depth == 0:
            self.cache = DynamicCache(config=self.model.config)
            if depth > 0:
                self.forward([tokens_for(depth, self.vocabulary)] * sequences, self.cache)
        else:
            self.cache.crop(depth)
        self.filled = (sequences, depth)

    @torch.inference_mode()
    def run(self, text):
        case = parse_case(text)
        if case[0] == "logits":
            raise RuntimeError("logits are not compared with this engine")
        kind, sequences, count, depth = case
        self.fill(sequences, depth)
        tokens = tokens_for(count, self.vocabulary)
        with Timer() as timer:
            if kind == "prompt":
                self.forward([tokens], self.cache)
            else:
                for token in tokens:
                    self.forward([[token]] * sequences, self.cache)
        return sequences * count, timer.seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--kv", default="f16")  # its cache has the type of the model
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    with Timer() as timer:
        engine = Engine(options)
    serve({"engine": "transformers",
           "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
           "kernel": f"{options.dtype} {torch.backends.cpu.get_cpu_capability()}",
           "threads": options.threads, "kv": options.dtype,
           "load_seconds": round(timer.seconds, 4),
           "import_seconds": round(IMPORTED - STARTED, 4), "import_rss_bytes": RSS_BEFORE,
           "file_bytes": os.path.getsize(options.model)}, engine.run)


main()
