"""Rotary position embedding by whole numbers, as exact after a year as in the first second."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from astrape.blocks.parameters import check_elements

__all__ = ["PAIRINGS", "Rotary"]

PAIRINGS = ("half", "interleaved", "none")


class Rotary(nn.Module):
    """Rotates pairs of a head's dimensions by ``position * theta^(-2 i / head_dim)``, pair ``i`` (Su et al.,
    arXiv:2104.09864).

    A float32 angle of position 10^7 is off by half a radian. Here an angle is a 64-bit whole number, a full turn being
    2^64: position times turns per frame wraps around by itself and loses nothing, and what is left is less than a turn
    when it becomes a float. A frequency is rounded by half of 2^-64 turns per frame, so after a year at 100 Hz
    (3e9 frames) angles are off by 5e-10.

    Checkpoints differ in which dimensions make a pair. ``half``: ``i`` with ``i + head_dim / 2`` (GPT-NeoX, Llama in
    transformers). ``interleaved``: ``2 i`` with ``2 i + 1`` (the paper).

    Args:
        head_dim: dimensions of a head, even.
        pairing: ``half``, ``interleaved``, or ``none`` for no rotation at all.
        theta: base of the wavelengths, 1e4 by convention.
    """

    turns: Tensor

    def __init__(self, head_dim: int, pairing: str = "half", theta: float = 1e4) -> None:
        super().__init__()
        self.pairing = pairing
        if pairing == "none":
            return
        check_elements("the rotary table", head_dim)
        frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)
        # At most 1 / 2 pi of a turn per frame, so the numbers stay below 2^63.
        turns = torch.tensor([round(float(frequency) * 2.0**64) for frequency in frequencies], dtype=torch.int64)
        self.register_buffer("turns", turns, persistent=False)

    def angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines for int64 positions ``(batch, n)``: ``(batch, n, 1, head_dim / 2)`` each."""
        if self.pairing == "none":
            return None
        wide = torch.promote_types(dtype, torch.float32)
        angle = (positions[:, :, None, None] * self.turns).to(wide) * (2 * math.pi / 2.0**64)
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        """Rotate ``(batch, n, heads, head_dim)`` by what :meth:`angles` gave for its frames."""
        if angles is None:
            return x
        cosine, sine = angles
        pair, shape = (-2, (2, -1)) if self.pairing == "half" else (-1, (-1, 2))
        x = x.view(*x.shape[:-1], *shape)
        one, other = x.unbind(pair)
        turned = x * cosine.unsqueeze(pair)
        turned.select(pair, 0).addcmul_(other, sine, value=-1)
        turned.select(pair, 1).addcmul_(one, sine)
        return turned.flatten(-2)
