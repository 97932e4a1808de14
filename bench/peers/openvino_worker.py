"""OpenVINO GenAI on the CPU: it reads GGUF files of the families it knows. Times come from its own
metrics: to the first token for a prompt, between tokens for generation.

    openvino_worker.py MODEL.gguf --threads N --context N [--kv f16]
"""
import argparse
import os
import time

STARTED = time.perf_counter()
import numpy as np
import openvino
import openvino_genai

from worker import Timer, parse_case, peak_rss_bytes, serve, tokens_for

IMPORTED = time.perf_counter()
RSS_BEFORE = peak_rss_bytes()
TOKEN_RANGE = 256  # ids that every vocabulary has


class Engine:
    def __init__(self, options):
        self.pipeline = openvino_genai.LLMPipeline(options.model, "CPU",
                                                   INFERENCE_NUM_THREADS=options.threads)

    def generate(self, prompt, count):
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = count
        config.min_new_tokens = count
        config.ignore_eos = True
        config.do_sample = False
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
        return self.pipeline.generate(ids, config).perf_metrics

    def run(self, text):
        case = parse_case(text)
        if case[0] not in ("prompt", "generate"):
            raise RuntimeError(f"{case[0]} is not measured with this engine")
        kind, _, count, depth = case
        if kind == "prompt":
            if depth > 0:
                raise RuntimeError("a prompt at depth is not measured with this engine")
            metrics = self.generate(tokens_for(count, TOKEN_RANGE), 1)
            return count, metrics.get_ttft().mean / 1000
        metrics = self.generate(tokens_for(max(depth, 1), TOKEN_RANGE), count + 1)
        return count, count * metrics.get_tpot().mean / 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--kv", default="f16")  # the engine chooses
    options = parser.parse_args()
    with Timer() as timer:
        engine = Engine(options)
    serve({"engine": "openvino", "version": f"openvino-genai {openvino_genai.__version__}",
           "kernel": "CPU", "threads": options.threads, "kv": options.kv,
           "load_seconds": round(timer.seconds, 4),
           "import_seconds": round(IMPORTED - STARTED, 4), "import_rss_bytes": RSS_BEFORE,
           "file_bytes": os.path.getsize(options.model)}, engine.run)


main()
