"""Transformer layers with a window to both sides, rotary positions, and norms that a speaker may steer."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from astrape.training.teachers.miocodec.config import TransformerConfig

__all__ = ["MioTransformer", "windowed_attention"]

BLOCK = 64
"""Queries at least that are attended for at once where there is a window."""


class MioTransformer(nn.Module):
    """Pre-norm layers of self-attention and gated feed-forward: ``(batch, frames, width)`` in and out.

    Parameters are named as MioCodec's checkpoints name them. The layers follow Llama 3 but for their norms, which are
    layer norms: learned ones, or, with a condition, AdaLN-Zero (Peebles & Xie, arXiv:2212.09748).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = _norm(config, gated=False)
        if config.input_dim is not None:
            self.input_proj: nn.Module = nn.Linear(config.input_dim, config.dim)
        else:
            self.input_proj = nn.Identity()
        if config.output_dim is not None:
            self.output_proj: nn.Module = nn.Linear(config.dim, config.output_dim)
        else:
            self.output_proj = nn.Identity()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """``condition`` is ``(batch, channels)``, the same for all frames."""
        turns = None
        if self.config.theta is not None:
            turns = rotations(x.shape[1], self.config.dim // self.config.heads, self.config.theta, x.device)
        x = self.input_proj(x)
        for layer in self.layers:
            x = layer(x, turns, condition)
        normed, _ = self.norm(x, condition)
        result: Tensor = self.output_proj(normed)
        return result


def rotations(frames: int, width: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each frame's angles, ``(frames, width / 2)``.

    In float32 throughout, as the published model was trained: at frame 5000 its angles are 3e-4 from the exact ones.
    """
    exponents = torch.arange(0, width, 2, device=device).float() / width
    angles = torch.outer(torch.arange(frames, device=device).float(), 1.0 / theta**exponents)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Neighbouring channels as the parts of complex numbers, turned by their frame's angles."""
    cosine, sine = turns
    real, imaginary = x[..., 0::2], x[..., 1::2]
    return torch.stack((real * cosine - imaginary * sine, real * sine + imaginary * cosine), dim=-1).flatten(-2)


def windowed_attention(query: Tensor, key: Tensor, value: Tensor, side: int | None) -> Tensor:
    """Softmax attention of each frame to those at most ``side`` away, ``(batch, heads, frames, width)``.

    In blocks of queries, each with the keys that its window reaches: time and memory grow with the frames, not with
    their square.
    """
    if side is None:
        return functional.scaled_dot_product_attention(query, key, value)
    batch, frames, block = query.shape[0], query.shape[2], max(BLOCK, side)
    if frames <= block + 2 * side:
        at = torch.arange(frames, device=query.device)
        near = (at[:, None] - at[None, :]).abs() <= side
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=near)
    count = -(-frames // block)
    reach = block + 2 * side
    beyond = count * block - frames
    queries = functional.pad(query, (0, 0, 0, beyond)).unfold(2, block, block)
    keys, values = (functional.pad(one, (0, 0, side, side + beyond)).unfold(2, reach, block) for one in (key, value))
    queries, keys, values = (
        rearrange(one, "b heads count width frames -> (b count) heads frames width") for one in (queries, keys, values)
    )
    first = torch.arange(count, device=query.device)[:, None, None] * block
    asking = first + torch.arange(block, device=query.device)[None, :, None]
    asked = first + torch.arange(reach, device=query.device)[None, None, :] - side
    near = ((asking - asked).abs() <= side) & (asked >= 0) & (asked < frames)
    # Frames beyond the end are dropped below; they may look anywhere.
    near = near | (asking >= frames)
    mask = near[None, :, None].expand(batch, count, 1, block, reach).flatten(0, 1)
    found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return rearrange(found, "(b count) heads frames width -> b heads (count frames) width", b=batch)[:, :, :frames]


class _Layer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.feed_forward = _FeedForward(config.dim, config.hidden)
        self.attention_norm = _norm(config, gated=True)
        self.ffn_norm = _norm(config, gated=True)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor] | None, condition: Tensor | None) -> Tensor:
        normed, gate = self.attention_norm(x, condition)
        x = x + gate * self.attention(normed, turns)
        normed, gate = self.ffn_norm(x, condition)
        x = x + gate * self.feed_forward(normed)
        return x


class _Attention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.side = config.heads, config.side
        self.wq = nn.Linear(config.dim, config.dim, bias=config.qkv_bias)
        self.wk = nn.Linear(config.dim, config.dim, bias=config.qkv_bias)
        self.wv = nn.Linear(config.dim, config.dim, bias=config.qkv_bias)
        self.wo = nn.Linear(config.dim, config.dim, bias=config.proj_bias)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        query, key, value = (
            rearrange(layer(x), "b frames (heads width) -> b heads frames width", heads=self.heads)
            for layer in (self.wq, self.wk, self.wv)
        )
        if turns is not None:
            query, key = rotated(query, turns), rotated(key, turns)
        found = windowed_attention(query, key, value, self.side)
        result: Tensor = self.wo(rearrange(found, "b heads frames width -> b frames (heads width)"))
        return result


class _FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv:2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return result


class _LearnedNorm(nn.LayerNorm):
    """A layer norm, with a gate that is always open."""

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | float]:  # type: ignore[override]
        return super().forward(x), 1.0


class _SteeredNorm(nn.Module):
    """A layer norm that a condition shifts and scales, and the gate for what follows on it."""

    def __init__(self, dim: int, condition: int, eps: float, gated: bool) -> None:
        super().__init__()
        self.dim, self.eps, self.gated = dim, eps, gated
        self.condition_proj = nn.Sequential(nn.SiLU(), nn.Linear(condition, (3 if gated else 2) * dim))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | float]:
        shift, scale, *gate = self.condition_proj(condition)[:, None].split(self.dim, dim=-1)
        normed = functional.layer_norm(x, (self.dim,), eps=self.eps)
        return normed * (1 + scale) + shift, gate[0] if self.gated else 1.0


def _norm(config: TransformerConfig, *, gated: bool) -> nn.Module:
    if config.condition is None:
        return _LearnedNorm(config.dim, eps=config.eps)
    return _SteeredNorm(config.dim, config.condition, config.eps, gated)
