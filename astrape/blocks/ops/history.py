"""Frames that a block keeps from call to call: those before the present ones, and output that is not complete yet."""

from __future__ import annotations

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.parameters import check_elements

__all__ = ["empty_history", "empty_tail", "join_history", "next_history", "own_copy"]


def empty_history(
    batch_size: int, channels: int, frames: int, device: torch.device | str | None, dtype: torch.dtype | None
) -> State:
    """The history at time zero: ``(batch, frames, channels)`` zeros, or an empty state where no frame is needed.

    A frame's channels lie together, as matrix products leave them, so that a live step moves whole frames.
    """
    check_elements("a state", batch_size, frames, channels)
    return torch.zeros(batch_size, frames, channels, device=device, dtype=dtype) if frames else ()


def empty_tail(
    batch_size: int, channels: int, frames: int, device: torch.device | str | None, dtype: torch.dtype | None
) -> State:
    """Output past the newest frame, at time zero: ``(batch, channels, frames)`` zeros, or an empty state."""
    check_elements("a state", batch_size, channels, frames)
    return torch.zeros(batch_size, channels, frames, device=device, dtype=dtype) if frames else ()


def join_history(history: State, x: Tensor) -> tuple[Tensor, State]:
    """Put the history before ``x``.

    Returns:
        The frames of the history followed by those of ``x``, ``(batch, channels, any)``, and the next history: as many
        of the newest frames as the history had before, in memory of their own.
    """
    if not isinstance(history, Tensor):
        return x, ()
    if x.shape[1] > 1 and x.stride(1) == 1:
        joined = torch.cat([history, x.transpose(1, 2)], dim=1).transpose(1, 2)
    else:
        joined = torch.cat([history.transpose(1, 2), x], dim=-1)
    return joined, own_copy(joined[..., x.shape[-1] :].transpose(1, 2))


def next_history(history: State, x: Tensor) -> State:
    """The history after ``x``: as many of the newest frames as it had before, in memory of their own."""
    if not isinstance(history, Tensor):
        return ()
    frames, count = history.shape[1], x.shape[-1]
    if count >= frames:
        return own_copy(x[..., count - frames :].transpose(1, 2))
    return torch.cat([history[:, count:], x.transpose(1, 2)], dim=1)


def own_copy(part: Tensor) -> Tensor:
    """``part`` contiguous and in memory of its own.

    A state that is a view of a longer tensor keeps that tensor alive, and breaks compiled runs in silence.
    ``contiguous`` alone would hand such a view through when batch and channels are 1.
    """
    return part.clone(memory_format=torch.contiguous_format)
