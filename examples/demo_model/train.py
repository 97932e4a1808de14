"""Trains the tokenizer and the model of the demonstration and writes dasan-demo.gguf.

    python train.py [--steps 2600] [--threads 2]      needs torch, tokenizers, gguf; about half an hour

PyTorch is a tool of the author; dasan itself needs none of this.
"""
import argparse
import pathlib
import random
import time

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus
from model import Config, Llama

HERE = pathlib.Path(__file__).parent
SPECIALS = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
BEGIN, END, SYSTEM, USER, ASSISTANT = range(5)
# The split pattern of Llama 3, which GGUF names `llama-bpe`.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = (
    "{{- bos_token -}}{%- for message in messages -%}"
    "{%- if message.role not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role: ' + message.role) -}}{%- endif -%}"
    "{{- '<|' + message.role + '|>' + message.content | trim + '<|end|>' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}")
SYSTEMS = ["당신은 공공서비스를 안내합니다.", "You are a helpful assistant.", "짧게 답하세요."]


def train_tokenizer(vocab):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIALS, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = [t for t, _ in corpus.examples()] + [a for topic in corpus.TOPICS for a in (topic[2], topic[5])] * 4
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def turn(tokenizer, question, answer):
    """ids and the mask of the tokens the model must learn to say"""
    q = [USER] + tokenizer.encode(question).ids + [END, ASSISTANT]
    a = tokenizer.encode(answer).ids + [END]
    return q + a, [0] * len(q) + [1] * len(a)


def conversation(tokenizer, rng, pairs):
    ids, mask = [BEGIN], [0]
    if rng.random() < 0.1:
        system = [SYSTEM] + tokenizer.encode(rng.choice(SYSTEMS)).ids + [END]
        ids, mask = ids + system, mask + [0] * len(system)
    for question, answer in pairs:
        i, m = turn(tokenizer, question, answer)
        ids, mask = ids + i, mask + m
    return ids, mask


def batches(tokenizer, rng, size):
    """Endless batches; one conversation in six has a second turn. Sorted by length to waste little."""
    pairs = list(corpus.examples())
    while True:
        rng.shuffle(pairs)
        todo = []
        for i, pair in enumerate(pairs):
            more = [pairs[(i + 7) % len(pairs)]] if rng.random() < 1 / 6 else []
            todo.append(conversation(tokenizer, rng, [pair] + more))
        todo.sort(key=lambda t: len(t[0]))
        groups = [todo[i:i + size] for i in range(0, len(todo), size)]
        rng.shuffle(groups)
        for group in groups:
            length = max(len(i) for i, _ in group)
            ids = torch.zeros(len(group), length, dtype=torch.long)
            mask = torch.zeros(len(group), length)
            for row, (i, m) in enumerate(group):
                ids[row, :len(i)] = torch.tensor(i)
                mask[row, :len(m)] = torch.tensor(m, dtype=torch.float)
            yield ids, mask


def write_gguf(path, model, tokenizer):
    c = model.c
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_name("dasan demonstration")
    w.add_description("Answers short questions about public services. A demonstration, not knowledge.")
    w.add_license("apache-2.0")
    w.add_context_length(c.context)
    w.add_embedding_length(c.dim)
    w.add_block_count(c.layers)
    w.add_feed_forward_length(c.ffn)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.kv_heads)
    w.add_layer_norm_rms_eps(c.eps)
    w.add_rope_freq_base(c.rope_base)
    w.add_rope_dimension_count(c.dim // c.heads)
    w.add_vocab_size(c.vocab)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("llama-bpe")
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda t: t[1])
    w.add_token_list([piece for piece, _ in vocab])
    w.add_token_types([gguf.TokenType.CONTROL if i < len(SPECIALS) else gguf.TokenType.NORMAL for _, i in vocab])
    import json
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    w.add_bos_token_id(BEGIN)
    w.add_eos_token_id(END)
    w.add_add_bos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)
    for name, parameter in model.named_parameters():
        data = parameter.detach().numpy().astype(np.float32)
        if not name.endswith("weight"):
            name += ".weight"
        if data.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            w.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
        else:
            w.add_tensor(name, data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--steps", type=int, default=2600)
    args.add_argument("--batch", type=int, default=32)
    args.add_argument("--vocab", type=int, default=2048)
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    rng = random.Random(1)
    tokenizer = train_tokenizer(args.vocab)
    model = Llama(Config(vocab=tokenizer.get_vocab_size()))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    decay = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() == 1]
    peak = 2e-3
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0}],
                                  lr=peak, betas=(0.9, 0.98))
    start, total = time.time(), 0.0
    for step, (ids, mask) in enumerate(batches(tokenizer, rng, args.batch)):
        if step == args.steps:
            break
        rate = min(step / 100, 0.5 * (1 + np.cos(np.pi * step / args.steps)) + 0.02, 1)
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        # Typing noise: some question tokens vanish or change, so that the model reads the gist.
        noisy = ids[:, :-1].clone()
        flip = (torch.rand(noisy.shape) < 0.06) & (mask[:, :-1] == 0) & (noisy >= len(SPECIALS))
        noisy[flip] = torch.randint(len(SPECIALS), model.c.vocab, (int(flip.sum()),))
        logits = model(noisy)
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weight = mask[:, 1:].flatten()
        loss = (loss * weight).sum() / weight.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {total / 50:.4f} {time.time() - start:.0f} s", flush=True)
            total = 0.0
        if (step + 1) % 400 == 0:
            write_gguf(HERE / "dasan-demo.gguf", model, tokenizer)
    write_gguf(HERE / "dasan-demo.gguf", model, tokenizer)


if __name__ == "__main__":
    main()
