"""Writes hf_ids.txt: what the `tokenizers` package gives for real tokenizer.json files over the texts of
the shared data. One line per tokenizer and text: NAME SPECIAL TEXT COUNT FNV, where FNV is the FNV-1a
hash of the ids as little-endian int32, so that neither texts nor vocabularies are copied.

    python make_hf_ids.py      needs tokenizers
"""
import json
import pathlib
import struct

from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data"
FILES = ["tokenizers/hf-ortx/phi-2",
         "tokenizers/hf-ortx/phi-3", "tokenizers/hf-ortx/tokenizer/roberta-base", "tokenizers/hf-ortx/chatglm",
         "tokenizers/hf-ortx/tokenizer/whisper.tiny", "tokenizers/hf/cohere-tokenizer.json",
         "tokenizers-ko/bora-vaetki-32k", "weights/stories260K/hf"]


def fnv(ids):
    h = 0xCBF29CE484222325
    for b in b"".join(struct.pack("<i", i) for i in ids):
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return h


texts = json.load(open(DATA / "expected/tokenization/korean_bpe_ids.json", encoding="utf-8"))["texts"]
raw = open(DATA / "tokenizers/llama.cpp-vocab/ggml-vocab-gpt-2.gguf.inp", encoding="utf-8", newline="").read()
texts += [t for t in raw.replace("\r", "").split("\n__ggml_vocab_test__\n") if t]
with open(HERE / "hf_ids.txt", "w") as out:
    for name in FILES:
        path = DATA / name
        tokenizer = Tokenizer.from_file(str(path if path.suffix == ".json" else path / "tokenizer.json"))
        for special in (0, 1):
            for i, text in enumerate(texts):
                ids = tokenizer.encode(text, add_special_tokens=bool(special)).ids
                out.write(f"{name} {special} {i} {len(ids)} {fnv(ids):016x}\n")
