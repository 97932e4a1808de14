"""What the workers of other engines share: the cases, the tokens, and the line protocol that
bench_model --serve speaks too. A worker prints one JSON line about itself, then answers each case
that comes on standard input with one JSON line.
"""
import json
import re
import resource
import sys
import time


def parse_case(text):
    """(kind, sequences, tokens, depth); kind is prompt, generate or batch; or ("logits", path)."""
    if text.startswith("logits:"):
        return ("logits", text[7:])
    match = re.fullmatch(r"(prompt|generate|batch):(?:(\d+)x)?(\d+)(?:@(\d+))?", text)
    if not match or (match[1] == "batch") != (match[2] is not None):
        raise ValueError(f"case '{text}' is unknown")
    return (match[1], int(match[2] or 1), int(match[3]), int(match[4] or 0))


def tokens_for(count, vocabulary):
    """The tokens that bench/model.cc runs on."""
    out, state = [], 0x9E3779B97F4A7C15
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        out.append((state >> 33) % vocabulary)
    return out


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Timer:
    def __enter__(self):
        self.start = time.perf_counter()
        return self

    def __exit__(self, *exc):
        self.seconds = time.perf_counter() - self.start


def serve(description, run):
    """description: a dict; run(case) -> (tokens, seconds)."""
    out = sys.stdout
    print(json.dumps(description), file=out, flush=True)
    for line in sys.stdin:
        text = line.strip()
        try:
            tokens, seconds = run(text)
            reply = {"case": text, "tokens": tokens, "seconds": round(seconds, 6),
                     "peak_rss_bytes": peak_rss_bytes()}
        except Exception as error:  # one case that a peer cannot run must not end the others
            reply = {"case": "error", "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=out, flush=True)
