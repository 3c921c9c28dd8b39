"""The frames before the present ones that a block still needs: zeros before time zero, then the newest heard."""

from __future__ import annotations

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.parameters import check_elements

__all__ = ["empty_history", "join_history", "own_copy"]


def empty_history(
    batch_size: int, channels: int, frames: int, device: torch.device | str | None, dtype: torch.dtype | None
) -> State:
    """The history at time zero: ``(batch, channels, frames)`` zeros, or an empty state where no frame is needed."""
    check_elements("a state", batch_size, channels, frames)
    return torch.zeros(batch_size, channels, frames, device=device, dtype=dtype) if frames else ()


def join_history(history: State, x: Tensor) -> tuple[Tensor, State]:
    """Put the history before ``x``.

    Returns:
        The frames of the history followed by those of ``x``, and the next history: as many of the newest frames as
        the history had before, in memory of their own.
    """
    if not isinstance(history, Tensor):
        return x, ()
    if x.dim() == 3 and x.stride(1) == 1 < x.shape[1]:
        # Channels of a frame beside each other in memory, as matrix products leave them: they stay so, and what is
        # joined is copied in whole frames.
        joined = torch.cat([history.transpose(1, 2), x.transpose(1, 2)], dim=1).transpose(1, 2)
    else:
        joined = torch.cat([history, x], dim=-1)
    return joined, own_copy(joined[..., x.shape[-1] :])


def own_copy(part: Tensor) -> Tensor:
    """``part`` contiguous and in memory of its own.

    A state that is a view of a longer tensor keeps that tensor alive, and breaks compiled runs in silence.
    ``contiguous`` alone would hand such a view through when batch and channels are 1.
    """
    return part.clone(memory_format=torch.contiguous_format)
