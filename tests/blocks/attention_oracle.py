"""The oracle of attention and transformer: a T x T band mask, absolute positions, complex rotations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from astrape.blocks.attention import Attention
from astrape.blocks.transformer import TransformerLayer


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(block: Any, seed: int = 0) -> Any:
    """All parameters random: biases and zero-started gates would otherwise hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return block


def naive_rotary(x: Tensor, pairing: str, theta: float, start: int) -> Tensor:
    """``(batch, heads, frames, d)`` at absolute positions, as multiplication of complex numbers."""
    frames, d = x.shape[-2:]
    position = torch.arange(start, start + frames, dtype=torch.float64)[:, None]
    turn = torch.polar(torch.ones(frames, d // 2, dtype=x.dtype), position * theta ** (-torch.arange(0, d, 2) / d))
    out = torch.empty_like(x)
    if pairing == "half":
        z = torch.complex(x[..., : d // 2], x[..., d // 2 :]) * turn
        out[..., : d // 2], out[..., d // 2 :] = z.real, z.imag
    else:
        z = torch.complex(x[..., 0::2], x[..., 1::2]) * turn
        out[..., 0::2], out[..., 1::2] = z.real, z.imag
    return out


def naive_attention(block: Attention, x: Tensor, pairing: str, theta: float = 1e4, start: int = 0) -> Tensor:
    batch, _, frames = x.shape
    inner = block.heads * block.head_dim
    projected = []
    for part in range(3):
        rows = slice(part * inner, (part + 1) * inner)
        y = x.transpose(1, 2) @ block.in_proj_weight[rows].T
        if block.in_proj_bias is not None:
            y = y + block.in_proj_bias[rows]
        projected.append(y.reshape(batch, frames, block.heads, block.head_dim).transpose(1, 2))
    q, k, v = projected
    if pairing != "none":
        q, k = naive_rotary(q, pairing, theta, start), naive_rotary(k, pairing, theta, start)
    scores = q @ k.transpose(-1, -2) / block.head_dim**0.5
    for t in range(frames):
        for s in range(frames):
            if not t - block.window < s <= t:
                scores[..., t, s] = -torch.inf
    y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, frames, inner)
    return block.out_proj(y).transpose(1, 2)


def naive_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()


def naive_layer(layer: TransformerLayer, x: Tensor, pairing: str, control: Tensor | None) -> Tensor:
    def norm(x: Tensor, which: str) -> tuple[Tensor, Tensor | float]:
        if control is None:
            affine = getattr(layer, f"norm{1 if which == 'attn' else 2}")
            return naive_norm(x) * affine.weight[:, None] + affine.bias[:, None], 1.0
        projection = getattr(layer, f"{which}_adaln").condition_proj[1]
        modulation = (control * torch.sigmoid(control)) @ projection.weight.T + projection.bias
        width = x.shape[1]
        shift, scale, gate = (modulation[:, i * width : (i + 1) * width, None] for i in range(3))
        return naive_norm(x) * (1 + scale) + shift, gate

    h, gate = norm(x, "attn")
    x = x + gate * naive_attention(layer.attn, h, pairing)
    h, gate = norm(x, "ffn")
    frames = h.transpose(1, 2)
    a = layer.w1(frames)
    return x + gate * layer.w2(a * torch.sigmoid(a) * layer.w3(frames)).transpose(1, 2)
