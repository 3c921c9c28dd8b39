"""The matrix product at each frame, in the form that is fastest for the few frames of a live step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from astrape.blocks.live import current

__all__ = ["frame_product", "frame_products"]

FEW = 2
"""Frames up to which ``weight @ x`` is taken in place of ``x @ weight.T``."""

LARGE = 1 << 19
"""Elements of a weight, 2 MB, from which on two frames are a batch that reads it twice, the second time from the cache:
on a machine whose memory was busy, 270 us for 512 by 1536 and not 420. Smaller ones are alike or slower."""


def frame_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``weight x + bias`` at each frame: ``(batch, n, channels_in)`` to ``(batch, n, channels)``.

    The same numbers as ``functional.linear``, up to rounding. One or two frames in all, which is what a live step has,
    are bound by how fast the weights are read, and there libraries differ by the form of the question. Microseconds
    for one frame on one core (AMD EPYC, MKL, weights not in cache), and GB/s, where a mere sum reads at 28::

        weight          linear, or mv     weight @ [x x]     two halves of weight, in a batch
        (1536, 512)     293   11          154   20           109   29
        (512, 512)       95   11           54   20            40   27
        (512, 1024)     137   15          109   19            71   29
        (384, 1536)     150   16          132   18            88   27

    A batch of one is as slow as ``mv``. For two frames ``weight @ x`` reads at 19, and from three on ``linear`` is as
    fast or faster.

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
    if rows == 1:
        # A row turned round: the very same numbers as a column of rows of one are read eight times as slowly.
        column = x.reshape(1, 1, -1).mT.expand(2, -1, 1)
        return [_halves(column, weight, bias).reshape(batch, frames, -1) for weight, bias in layers]
    # Contiguous rows: on transposed ones, the form that channels come in, the product takes five times as long.
    columns = x.reshape(rows, -1).contiguous()
    found = []
    for weight, bias in layers:
        if weight.numel() >= LARGE:
            y = _batched(
                weight.expand(2, -1, -1), columns.unsqueeze(1).mT, None if bias is None else bias.expand(2, -1)
            )
            found.append(y.reshape(batch, frames, -1))
            continue
        turned = columns.t()
        y = torch.mm(weight, turned) if bias is None else torch.addmm(bias[:, None], weight, turned)
        found.append(y.t().reshape(batch, frames, -1))
    return found


def _halves(column: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``weight x + bias`` of a frame, given twice, ``(2, channels_in, 1)``; an odd number of channels is not halved."""
    if weight.shape[0] % 2:
        return functional.linear(column[:1, :, 0], weight, bias)
    return _batched(weight.reshape(2, -1, weight.shape[1]), column, None if bias is None else bias.view(2, -1))


def _batched(weights: Tensor, columns: Tensor, biases: Tensor | None) -> Tensor:
    """A product of a batch of two, ``(2, channels, channels_in)`` with ``(2, channels_in, 1)``."""
    return torch.bmm(weights, columns) if biases is None else torch.baddbmm(biases.unsqueeze(-1), weights, columns)


def _wide(x: Tensor, weight: Tensor, bias: Tensor | None, layout: Tensor | None) -> Tensor:
    if layout is None:
        return functional.linear(x, weight, bias)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, layout, bias, "none", [], "")
    return y
