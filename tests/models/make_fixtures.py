"""Makes the fixtures of families_test.cc: tiny models of every family, computed by transformers.

A fixture is a folder of fixtures/: config.json, tensors.txt (name and shape), tokens.txt and
logits.f32 (n_tokens x n_vocab, little-endian), all for weights that are never stored: both this
script and the test compute them from the tensor's name and the element's index (`weight`).

Needs torch and transformers 5.24 or newer, the first with EXAONE 3.5. Run it in this folder: python make_fixtures.py [NAME...]
"""
import json
import pathlib
import sys

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

N_TOKENS = 40
M64 = (1 << 64) - 1


def fnv1a(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & M64
    return h


def counter(name, n):
    """splitmix64 of (hash of the name) + index: 64 random bits for each element."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weight(name, shape):
    """Uniform in [-a, a) with 16 bits, hence exact in f32; norms around 1."""
    n = int(np.prod(shape))
    u = ((counter(name, n) >> np.uint64(48)).astype(np.int64) - 32768) / 32768.0
    if len(shape) == 1 and name.endswith(".weight"):
        values = 1.0 + 0.25 * u
    elif "embed_tokens" in name or ".wte." in name:
        values = u
    else:
        values = 0.25 * u
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=False, rope_theta=10000.0,
            bos_token_id=1, eos_token_id=2)


def case(model_type, **changes):
    return {"model_type": model_type, **BASE, **changes}


LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
QWEN = dict(rms_norm_eps=1e-6, rope_theta=1000000.0)
MOE = dict(head_dim=16, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=20)
EXAONE4 = dict(num_hidden_layers=4, rope_theta=1000000.0)

CASES = {
    "llama": case("llama"),
    "llama_tied": case("llama", tie_word_embeddings=True, num_key_value_heads=4,
                       num_hidden_layers=3),
    "llama_biases": case("llama", attention_bias=True, mlp_bias=True, num_key_value_heads=1),
    "llama_head_dim": case("llama", head_dim=16),
    "llama_llama3": case("llama", rope_theta=500000.0, rope_scaling=LLAMA3),
    "llama_yarn": case("llama", rope_scaling=YARN, head_dim=16),
    "llama_yarn_factor": case("llama", head_dim=32, rope_scaling={
        **YARN, "attention_factor": 1.5, "beta_fast": 2.0, "beta_slow": 0.25}),
    "llama_linear": case("llama", rope_scaling=dict(type="linear", factor=4.0)),
    "mistral_window": case("mistral", sliding_window=7, num_hidden_layers=3),
    "qwen2": case("qwen2", **QWEN, use_sliding_window=False, sliding_window=5,
                  max_window_layers=1),
    "qwen2_tied_window": case("qwen2", **QWEN, use_sliding_window=True, sliding_window=6,
                              max_window_layers=1, num_hidden_layers=3,
                              tie_word_embeddings=True),
    "qwen2_yarn": case("qwen2", **QWEN, use_sliding_window=False, rope_scaling=dict(
        type="yarn", factor=4.0, original_max_position_embeddings=16)),
    "qwen3": case("qwen3", **QWEN, head_dim=16, attention_bias=False),
    "qwen3_tied_window": case("qwen3", **QWEN, head_dim=16, tie_word_embeddings=True,
                              use_sliding_window=True, sliding_window=9, max_window_layers=1,
                              num_hidden_layers=3),
    "qwen3_yarn": case("qwen3", **QWEN, head_dim=16, rope_scaling=YARN),
    "qwen3_moe": case("qwen3_moe", **QWEN, **MOE, norm_topk_prob=True),
    "qwen3_moe_softmax": case("qwen3_moe", **QWEN, **{**MOE, "num_experts": 5}, norm_topk_prob=False,
                              attention_bias=True, tie_word_embeddings=True),
    "qwen3_moe_sparse": case("qwen3_moe", **QWEN, **MOE, norm_topk_prob=True, decoder_sparse_step=2,
                             mlp_only_layers=[3], num_hidden_layers=5, use_sliding_window=True,
                             sliding_window=9, max_window_layers=4),
    "exaone4_window": case("exaone4", **EXAONE4, sliding_window=6, sliding_window_pattern="LLLG"),
    "exaone4_saved": case("exaone4", **EXAONE4, sliding_window=8, sliding_window_pattern=2),
    "exaone4_global": case("exaone4", **EXAONE4, sliding_window=None, sliding_window_pattern=None,
                           tie_word_embeddings=True, rope_scaling=LLAMA3),
    "exaone4_window_llama3": case("exaone4", **EXAONE4, sliding_window=6,
                                  sliding_window_pattern="LLLG", rope_scaling=LLAMA3),
    "exaone35": {"model_type": "exaone", "vocab_size": 64, "hidden_size": 32,
                 "intermediate_size": 48, "num_layers": 3, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
                 "layer_norm_epsilon": 1e-5, "activation_function": "silu",
                 "tie_word_embeddings": False, "rope_theta": 1000000.0, "rope_scaling": LLAMA3},
}
CASES["exaone35_tied"] = {**CASES["exaone35"], "tie_word_embeddings": True, "num_layers": 2,
                          "num_key_value_heads": 4}


# transformers calls the tensors of EXAONE 3.5 otherwise than the published checkpoints.
EXAONE_NAMES = {"model.layers.": "transformer.h.", "model.embed_tokens": "transformer.wte",
                "model.norm": "transformer.ln_f", "self_attn.o_proj": "attn.attention.out_proj",
                "self_attn.": "attn.attention.", "mlp.gate_proj": "mlp.c_fc_0",
                "mlp.up_proj": "mlp.c_fc_1", "mlp.down_proj": "mlp.c_proj",
                "post_attention_layernorm": "ln_2", "input_layernorm": "ln_1"}


def published(name, model_type):
    if model_type == "exaone":
        for ours, theirs in EXAONE_NAMES.items():
            name = name.replace(ours, theirs)
    return name


def stacked_experts(name, shape, shapes):
    """transformers 5 holds a layer's experts in two tensors; checkpoints hold three per expert."""
    prefix, kind = name.rsplit(".", 1)
    stack = []
    for e in range(shape[0]):
        parts = []
        for role in ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",):
            expert = f"{prefix}.{e}.{role}.weight"
            shapes[expert] = (shape[1] // (2 if kind == "gate_up_proj" else 1), shape[2])
            parts.append(weight(expert, shapes[expert]))
        stack.append(torch.cat(parts))
    return torch.stack(stack)


def transformers_model(config, tokens):
    settings = {k: v for k, v in config.items() if k != "model_type"}
    if isinstance(settings.get("sliding_window_pattern"), str):  # as published; not read any more
        pattern = settings["sliding_window_pattern"]
        settings["sliding_window_pattern"] = len(pattern)
        settings["layer_types"] = [
            "sliding_attention" if pattern[i % len(pattern)] == "L" else "full_attention"
            for i in range(settings["num_hidden_layers"])]
    if settings.get("sliding_window", 0) is None:
        settings["layer_types"] = ["full_attention"] * settings["num_hidden_layers"]
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(config["model_type"], **json.loads(json.dumps(settings))),
        attn_implementation="eager", dtype=torch.float32).eval()
    shapes = {}
    for name, parameter in model.named_parameters():  # a tied head is listed once
        if name.endswith((".experts.gate_up_proj", ".experts.down_proj")):
            parameter.data = stacked_experts(name, tuple(parameter.shape), shapes)
            continue
        name = published(name, config["model_type"])
        shapes[name] = tuple(parameter.shape)
        parameter.data = weight(name, shapes[name])
    model.tie_weights()
    logits = model(torch.tensor([tokens])).logits[0]
    # A cached run must agree, else the reference itself is unsure of its masks.
    cache, rows = None, []
    for t in tokens:
        out = model(torch.tensor([[t]]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0, -1])
    drift = (torch.stack(rows) - logits).abs().max().item()
    return shapes, logits, drift, model.config


def main(names):
    folder = pathlib.Path(__file__).parent / "fixtures"
    for name, config in CASES.items():
        if names and name not in names:
            continue
        tokens = [int(x % np.uint64(config["vocab_size"])) for x in counter("tokens", N_TOKENS)]
        with torch.no_grad():
            shapes, logits, drift, made = transformers_model(config, tokens)
        if name in ("qwen3_yarn", "exaone4_saved"):  # as transformers 5 saves it: rope_parameters, layer_types
            config = json.loads(made.to_json_string(use_diff=False))
        out = folder / name
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        (out / "tensors.txt").write_text(
            "".join(f"{n} {' '.join(map(str, s))}\n" for n, s in shapes.items()))
        (out / "tokens.txt").write_text(" ".join(map(str, tokens)) + "\n")
        logits.numpy().astype("<f4").tofile(out / "logits.f32")
        print(f"{name}: {len(shapes)} tensors, |logits| <= {logits.abs().max():.2f}, "
              f"cached run differs by {drift:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
