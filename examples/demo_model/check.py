"""Measures the shipped weights: answers the held-out questions greedily in float32 from the dequantised
GGUF, and writes expected.json, the oracle of the engine's tests.

    python check.py [--write]      needs torch, tokenizers, gguf
"""
import argparse
import json
import pathlib

import gguf
import numpy as np
import torch

import corpus
from model import Config, Llama
from train import ASSISTANT, BEGIN, END, USER, train_tokenizer

HERE = pathlib.Path(__file__).parent
# Asked by `./dev demo` and by the tests. Their answers must stand at a safe margin.
QUESTIONS = ["주민등록등본은 어디에서 발급받나요?", "여권은 어디서 만드나요?", "전입신고는 어떻게 하나요?",
             "불이 나면 어디에 전화하나요?", "너는 누구니?", "안녕하세요",
             "Where can I get a passport?", "How do I report that I moved?", "What number do I call for a fire?",
             "How do I call the police?", "Who are you?", "hello"]


def load(path):
    reader = gguf.GGUFReader(str(path))
    tensors = {t.name: torch.from_numpy(np.array(gguf.dequantize(t.data, t.tensor_type), dtype=np.float32))
               for t in reader.tensors}
    model = Llama(Config(vocab=tensors["token_embd.weight"].shape[0]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name if name.endswith("weight") else name + ".weight"].view_as(parameter))
    return model.eval()


@torch.no_grad()
def answer(model, ids, limit=80):
    """Greedy ids up to and without <|end|>, and the least distance between the first and second choice."""
    out, margin = [], float("inf")
    while len(out) < limit:
        top = model(torch.tensor([ids + out]))[0, -1].topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        token = int(top.indices[0])
        if token == END:
            break
        out.append(token)
    return out, margin


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--write", action="store_true")
    args = args.parse_args()
    tokenizer = train_tokenizer(2048)  # deterministic: the same vocabulary again
    model = load(HERE / "dasan-demo.gguf")

    def ask(question):
        prompt = [BEGIN, USER] + tokenizer.encode(question).ids + [END, ASSISTANT]
        ids, margin = answer(model, prompt)
        return prompt, ids, tokenizer.decode(ids), margin

    right, total = {"ko": 0, "en": 0}, {"ko": 0, "en": 0}
    for question, expected in corpus.examples(held_out=True):
        language = "en" if question.isascii() else "ko"
        _, _, text, _ = ask(question)
        total[language] += 1
        right[language] += text == expected
        if text != expected:
            print(f"  {question}\n    {text}")
    print(f"held-out questions answered word for word: Korean {right['ko']}/{total['ko']}, English {right['en']}/{total['en']}")
    answers = []
    for question in QUESTIONS:
        prompt, ids, text, margin = ask(question)
        print(f"{margin:6.2f}  {question}  {text}")
        answers.append({"question": question, "prompt_ids": prompt, "ids": ids, "text": text, "margin": round(margin, 3)})
    if args.write:
        with open(HERE / "expected.json", "w", encoding="utf-8") as f:
            json.dump({"answers": answers}, f, ensure_ascii=False, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
