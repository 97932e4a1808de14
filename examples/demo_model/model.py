"""A plain Llama in float32 PyTorch: RMSNorm, interleaved RoPE, grouped-query attention, SwiGLU, tied
embeddings. RoPE pairs neighbours (2i, 2i+1), which is how GGUF stores `llama`, so nothing is permuted."""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab: int
    dim: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 3
    ffn: int = 512
    context: int = 256
    eps: float = 1e-5
    rope_base: float = 10000.0


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rope(x, base):
    """x: [batch, heads, time, head_dim]"""
    time, dim = x.shape[-2:]
    angle = torch.outer(torch.arange(time, dtype=torch.float64), base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim))
    cos, sin = angle.cos().float(), angle.sin().float()
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, head = c, c.dim // c.heads
        self.attn_norm = nn.Parameter(torch.ones(c.dim))
        self.ffn_norm = nn.Parameter(torch.ones(c.dim))
        self.attn_q = nn.Linear(c.dim, c.heads * head, bias=False)
        self.attn_k = nn.Linear(c.dim, c.kv_heads * head, bias=False)
        self.attn_v = nn.Linear(c.dim, c.kv_heads * head, bias=False)
        self.attn_output = nn.Linear(c.heads * head, c.dim, bias=False)
        self.ffn_gate = nn.Linear(c.dim, c.ffn, bias=False)
        self.ffn_up = nn.Linear(c.dim, c.ffn, bias=False)
        self.ffn_down = nn.Linear(c.ffn, c.dim, bias=False)

    def forward(self, x):
        c, (batch, time, _) = self.c, x.shape
        h = rms_norm(x, self.attn_norm, c.eps)
        split = lambda t, n: t.view(batch, time, n, -1).transpose(1, 2)
        q = rope(split(self.attn_q(h), c.heads), c.rope_base)
        k = rope(split(self.attn_k(h), c.kv_heads), c.rope_base).repeat_interleave(c.heads // c.kv_heads, 1)
        v = split(self.attn_v(h), c.kv_heads).repeat_interleave(c.heads // c.kv_heads, 1)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, time, -1)
        x = x + self.attn_output(o)
        h = rms_norm(x, self.ffn_norm, c.eps)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Embedding(c.vocab, c.dim)
        self.blk = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.output_norm = nn.Parameter(torch.ones(c.dim))
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.05)

    def forward(self, ids):
        x = self.token_embd(ids)
        for layer in self.blk:
            x = layer(x)
        return rms_norm(x, self.output_norm, self.c.eps) @ self.token_embd.weight.T
