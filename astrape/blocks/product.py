"""The matrix product at each frame, in the form that is fastest for the few frames of a live step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from astrape.blocks.live import current

__all__ = ["frame_product", "frame_products"]

FEW = 2
"""Frames up to which ``weight @ x`` is taken in place of ``x @ weight.T``."""


def frame_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``weight x + bias`` at each frame: ``(batch, n, channels_in)`` to ``(batch, n, channels)``.

    The same numbers as ``functional.linear``, up to rounding. One or two frames in all, which is what a live step has,
    are bound by how fast the weights are read, and there libraries differ by the form of the question. Microseconds
    for one frame on one core (AMD EPYC, MKL, weights not in cache), and GB/s::

        weight          linear, or mv     weight @ [x x]
        (1536, 512)     313   10          166   19
        (512, 512)      106   10           63   17
        (512, 1024)     138   15          118   18
        (384, 1536)     158   15          139   17

    The two columns cost no more than one, as both wait for the same weights; a single frame is therefore doubled.
    From three frames on, ``linear`` is as fast or faster.

    Args:
        x: frames by channels, contiguous or not.
        weight: ``(channels, channels_in)``.
        bias: ``(channels,)``.
    """
    return frame_products(x, (weight, bias))[0]


def frame_products(x: Tensor, *layers: tuple[Tensor, Tensor | None]) -> list[Tensor]:
    """:func:`frame_product` of several weights and biases with the same frames."""
    batch, frames, _ = x.shape
    rows = batch * frames
    narrow = x.is_cpu and x.dtype == torch.float32 and layers[0][0].dtype == torch.float32
    if not (narrow and 1 <= rows <= FEW):
        live = current() if narrow else None
        return [
            _wide(x, weight, bias, None if live is None else live.laid_out(weight, rows)) for weight, bias in layers
        ]
    # Contiguous rows: on transposed ones, the form that channels come in, the product takes five times as long.
    columns = torch.cat((x, x), dim=1).squeeze(0) if rows == 1 else x.reshape(rows, -1).contiguous()
    found = []
    for weight, bias in layers:
        y = functional.linear(weight, columns)
        y = y.select(1, 0) if rows == 1 else y.t()
        found.append((y if bias is None else y + bias).reshape(batch, frames, -1))
    return found


def _wide(x: Tensor, weight: Tensor, bias: Tensor | None, layout: Tensor | None) -> Tensor:
    if layout is None:
        return functional.linear(x, weight, bias)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), layout, bias, "none", [], "")
    return y
