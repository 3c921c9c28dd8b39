"""Rotary position embedding by distance alone, so that no position grows with the stream."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from astrape.blocks.parameters import check_elements

__all__ = ["PAIRINGS", "Rotary"]

PAIRINGS = ("half", "interleaved", "none")


class Rotary(nn.Module):
    """Rotates pairs of a head's dimensions by ``position * theta^(-2 i / head_dim)``, pair ``i`` (Su et al.,
    arXiv:2104.09864).

    The product of a rotated query and a rotated key depends only on the distance between them, so positions may be
    counted from anywhere: here from the oldest key in reach of the first query. They are small indices into a table
    made in float64, and a stream of any length is as exact as its first second, where float32 positions of 10^7 shift
    scores by 0.4.

    Checkpoints differ in which dimensions make a pair. ``half``: ``i`` with ``i + head_dim / 2`` (GPT-NeoX, Llama in
    transformers). ``interleaved``: ``2 i`` with ``2 i + 1`` (the paper). A product stays the same when queries and keys
    are reordered alike, so :meth:`arrange` brings either to halves once per new frame, and the rest need not know.

    Args:
        head_dim: dimensions of a head, even.
        positions: length of the table.
        pairing: ``half``, ``interleaved``, or ``none`` for no rotation at all.
        theta: base of the wavelengths, 1e4 by convention.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, head_dim: int, positions: int, pairing: str = "half", theta: float = 1e4) -> None:
        super().__init__()
        self.pairing = pairing
        if pairing == "none":
            return
        check_elements("the rotary table", positions, head_dim)
        self.positions = positions
        self.frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
        shape = (positions, head_dim // 2)
        self.register_buffer("cosine", torch.empty(shape), persistent=False)
        self.register_buffer("sine", torch.empty(shape), persistent=False)
        self._fill()

    def _fill(self) -> None:
        angles = torch.from_numpy(np.outer(np.arange(self.positions), self.frequencies))
        self.cosine = angles.cos().to(self.cosine)
        self.sine = angles.sin().to(self.sine)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        # Scores depend on distance alone only as far as the table is exact: one rounded to float32 and then widened
        # would make a float64 step differ from the whole sequence by 1e-8. So every change of type makes it anew.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.pairing != "none":
            self._fill()
        return self

    def arrange(self, x: Tensor) -> Tensor:
        """Reorder the last dimension so that its first half pairs with its second."""
        if self.pairing != "interleaved":
            return x
        return torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1)

    def forward(self, x: Tensor, first: int) -> Tensor:
        """Rotate ``(..., frames, head_dim)``, arranged in halves, by the positions ``first``, ``first + 1``, ..."""
        if self.pairing == "none":
            return x
        where = slice(first, first + x.shape[-2])
        cosine, sine = self.cosine[where], self.sine[where]
        one, other = x.chunk(2, dim=-1)
        return torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1).to(x.dtype)
