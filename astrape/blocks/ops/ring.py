"""Where new frames stand in their streams, and in a ring of the frames before them."""

from __future__ import annotations

import torch
from torch import Tensor

from astrape.blocks.ops.rotary import Rotary
from astrape.blocks.policy import policy

__all__ = ["Place"]


class Place:
    """The place of ``count`` new frames: what all attention layers of a stack share in a step.

    A ring holds the last ``window`` frames of ``(batch, heads, window, head_dim)``; frame ``p`` of the stream stands at
    ``p mod window``. Rows of a batch may be of different age.

    Args:
        age: int64 ``(batch, 1)``, frames before the new ones.
        count: how many are new.
        window: frames attended to, each frame itself included.
        dtype: of the queries.
        rotary: the rotation.

    Attributes:
        after: the age after them.
        angles: of the rotation, by frame.
        ring_mask: for the newest frame's query on the ring that holds it: 0 where there is a frame, minus infinity
            where none has been yet, in the queries' dtype; another gives wrong scores without a word.
    """

    def __init__(self, age: Tensor, count: int, window: int, dtype: torch.dtype, rotary: Rotary) -> None:
        positions = age + torch.arange(count, device=age.device)
        self.age, self.after, self.angles = age, age + count, rotary.angles(positions, dtype)
        self.count, self.window, self.dtype = count, window, dtype
        self._policy = policy()
        self._kept = min(count, window)
        self._slots = positions[:, count - self._kept :] % window
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._order: Tensor | None = None
        if count == 1:
            slots = torch.arange(window, device=age.device)
            self.ring_mask = self._penalty(slots < self.after[:, None, None])

    def write(self, ring: Tensor, new: Tensor) -> Tensor:
        """The ring with the new frames in it, ``(batch, heads, count, head_dim)``: in place in a live session."""
        newest = new if self._kept == self.count else new[:, :, self.count - self._kept :]
        # Many frames leave the ring in use: those before them are still attended to.
        return self._policy.write_ring(ring, self._slots, newest, lone=self.count == 1)

    def unrolled(self, ring: Tensor, new: Tensor) -> Tensor:
        """The ``window - 1`` frames before the new ones and these, oldest first."""
        if self._order is None:
            reach = self.window - 1
            past = torch.arange(-reach, 0, device=ring.device)
            self._order = ((self.age + past) % self.window)[:, None, :, None]
        batch, heads, _, width = ring.shape
        before = ring.gather(2, self._order.expand(batch, heads, self._order.shape[2], width))
        return torch.cat([before, new], dim=2)

    def mask(self, start: int, count: int) -> Tensor:
        """For the queries of the new frames ``start`` on and the keys of their :meth:`unrolled` span.

        Key ``j`` of the span lies ``i + window - 1 - j`` frames before query ``i``, and its place among all keys of the
        call is ``start + j``, of which the first ``window - 1 - age`` stand for frames before time zero. From the
        first full window on the mask is the same for all blocks of queries.
        """
        reach = self.window - 1
        key = (min(start, reach), count)
        if key not in self._masks:
            place = torch.arange(count + reach, device=self.age.device)
            past = place - torch.arange(count, device=self.age.device).unsqueeze(-1)
            allowed = (past >= 0) & (past <= reach)
            if start < reach:
                allowed = allowed & (place + start >= reach - self.age[:, :, None, None])
            self._masks[key] = self._penalty(allowed)
        return self._masks[key]

    def _penalty(self, allowed: Tensor) -> Tensor:
        return torch.where(allowed, torch.zeros((), dtype=self.dtype, device=allowed.device), float("-inf"))
