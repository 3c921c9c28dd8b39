"""Products of one or two frames with a weight, split so that the weight is read as fast as memory gives it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["FEW", "Layer", "split_products"]

Layer = tuple[Tensor, Tensor | None]
"""Weight ``(channels, channels_in)`` and bias of a linear layer."""

FEW = 2
"""Frames up to which ``weight @ x`` is taken in place of ``x @ weight.T``."""

LARGE = 1 << 19
"""Elements of a weight, 2 MB, from which on two frames are a batch that reads it twice, the second time from the cache:
on a machine whose memory was busy, 270 us for 512 by 1536 and not 420. Smaller ones are alike or slower."""


def split_products(x: Tensor, layers: tuple[Layer, ...]) -> list[Tensor]:
    """``weight x + bias`` of each layer at one or two frames in all, ``(batch, n, channels_in)``, float32 on a CPU.

    See :func:`~astrape.blocks.product.frame_product`.
    """
    batch, frames, _ = x.shape
    rows = batch * frames
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
