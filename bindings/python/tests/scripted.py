"""A real model file whose answer is known: a llama of one layer that does nothing, one-hot embeddings,
and an output matrix that is a table of successors. What it says is what the table says, computed by
the engine like any other model's answer.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = (
    "{%- if tools %}<|system|>{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'Call as <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|end|>{% endif -%}'
    "{%- for m in messages %}<|{{ m.role }}|>"
    "{%- if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif -%}"
    "{{ m.content }}{%- for c in m.tool_calls or [] %}"
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
    "{%- endfor %}<|end|>{% endfor -%}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif -%}"
)
CONTROL = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]


def write(path: Path, script: Sequence[str], after: Mapping[str, Sequence[str]] | None = None) -> Path:
    """A model that says `script` after a chat prompt, and after[c] where a prompt ends with byte c.
    Pieces must differ, because each one's successor is the next."""
    alphabet = _byte_alphabet()
    tokens = [alphabet[b] for b in range(256)] + CONTROL
    successor: dict[int, int] = {}

    def say(start: int, pieces: Sequence[str]) -> None:
        at = start
        for piece in pieces:
            text = "".join(alphabet[b] for b in piece.encode())
            assert text not in tokens, piece
            tokens.append(text)
            successor[at] = at = len(tokens) - 1
        successor[at] = 256 + CONTROL.index("<|end|>")

    say(256 + CONTROL.index("<|assistant|>"), script)
    for character, pieces in (after or {}).items():
        say(ord(character), pieces)

    n, width = len(tokens), 320
    assert n <= width
    embedding = np.zeros((n, width), np.float32)
    embedding[np.arange(n), np.arange(n)] = 1
    output = np.zeros((n, width), np.float32)
    for token, following in successor.items():
        output[following, token] = 1
    square, zeros = np.zeros((width, width), np.float32), np.zeros((32, width), np.float32)
    ones = np.ones(width, np.float32)
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "token_embd.weight": embedding, "output_norm.weight": ones, "output.weight": output,
        "blk.0.attn_norm.weight": ones, "blk.0.ffn_norm.weight": ones,
        "blk.0.attn_q.weight": square, "blk.0.attn_k.weight": zeros, "blk.0.attn_v.weight": zeros,
        "blk.0.attn_output.weight": square, "blk.0.ffn_gate.weight": zeros, "blk.0.ffn_up.weight": zeros,
        "blk.0.ffn_down.weight": np.zeros((width, 32), np.float32),
    }  # fmt: skip
    end = 256 + CONTROL.index("<|end|>")
    metadata: dict[str, Any] = {
        "general.architecture": "llama", "general.name": "scripted",
        "llama.block_count": 1, "llama.context_length": 4096, "llama.embedding_length": width,
        "llama.feed_forward_length": 32, "llama.attention.head_count": 10, "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-6, "llama.vocab_size": n,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if t in CONTROL else 1 for t in tokens],
        "tokenizer.ggml.merges": ["Ġ Ġ"] if "ĠĠ" in tokens else [],
        "tokenizer.ggml.eos_token_id": end, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }  # fmt: skip
    path.write_bytes(_gguf(metadata, tensors))
    return path


def _byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    result, spare = [""] * 256, 256
    for b in range(256):
        if b in kept:
            result[b] = chr(b)
        else:
            result[b], spare = chr(spare), spare + 1
    return result


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if all(isinstance(v, int) for v in value) and value:
        return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(v) for v in value)


def _gguf(metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    out = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += _string(key) + _value(value)
    offset = 0
    for name, tensor in tensors.items():
        out += _string(name) + struct.pack("<I", tensor.ndim)
        out += struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape)) + struct.pack("<IQ", 0, offset)
        offset += -(-tensor.nbytes // 32) * 32
    out += b"\0" * (-len(out) % 32)
    for tensor in tensors.values():
        out += tensor.tobytes() + b"\0" * (-tensor.nbytes % 32)
    return out
