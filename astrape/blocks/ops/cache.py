"""The key-value cache of causal attention: a ring of the last frames, and the positions of new frames in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from astrape.blocks.ops.rotary import Rotary
from astrape.blocks.policy import policy

__all__ = ["KeyValueCache", "RingPositions"]


class RingPositions:
    """The positions of ``count`` new frames in their streams and in a ring, with the masks and angles they give.

    All attention layers of a stack share one in a step. Frame ``p`` of a stream stands at ``p mod window`` of the ring.
    Rows of a batch may be of different age.

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
            where none has been yet, in the queries' dtype; with another dtype the scores are silently wrong.
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

    def unroll(self, ring: Tensor, new: Tensor) -> Tensor:
        """The ``window - 1`` frames before the new ones and these, oldest first."""
        if self._order is None:
            reach = self.window - 1
            past = torch.arange(-reach, 0, device=ring.device)
            self._order = ((self.age + past) % self.window)[:, None, :, None]
        batch, heads, _, width = ring.shape
        before = ring.gather(2, self._order.expand(batch, heads, self._order.shape[2], width))
        return torch.cat([before, new], dim=2)

    def mask(self, start: int, count: int) -> Tensor:
        """The mask of queries from new frame ``start`` on, over the keys of the :meth:`unroll`-ed ring in their reach.

        Key ``j`` of those lies ``i + window - 1 - j`` frames before query ``i``, and is number ``start + j`` among all
        keys of the call, of which the first ``window - 1 - age`` stand for frames before time zero. From the first full
        window on the mask is the same for all blocks of queries.
        """
        reach = self.window - 1
        key = (min(start, reach), count)
        if key not in self._masks:
            number = torch.arange(count + reach, device=self.age.device)
            past = number - torch.arange(count, device=self.age.device).unsqueeze(-1)
            allowed = (past >= 0) & (past <= reach)
            if start < reach:
                allowed = allowed & (number + start >= reach - self.age[:, :, None, None])
            self._masks[key] = self._penalty(allowed)
        return self._masks[key]

    def _penalty(self, allowed: Tensor) -> Tensor:
        return torch.where(allowed, torch.zeros((), dtype=self.dtype, device=allowed.device), float("-inf"))


class KeyValueCache:
    """The keys and values of one attention layer's last ``window`` frames, open for one step.

    Between steps they are plain tensors in a state tree, so that they can be copied, saved and reset like any other
    state. A step opens them with the positions of its frames, and a stack of layers opens all of its caches with the
    same positions, which are then computed once::

        cache = KeyValueCache(state, positions)
        attended = cache.unroll(keys, values)       # what many queries see
        cache = cache.append(keys, values)          # what one query sees, and what is kept
        state = cache.state

    Args:
        state: ``keys`` and ``values``, ``(batch, heads, window, head_dim)`` each.
        positions: of the step's frames.
    """

    def __init__(self, state: Mapping[str, Tensor], positions: RingPositions) -> None:
        self.keys, self.values, self.positions = state["keys"], state["values"], positions

    @staticmethod
    def empty(
        shape: tuple[int, int, int, int], device: torch.device | str | None, dtype: torch.dtype | None
    ) -> dict[str, Tensor]:
        """Keys and values at time zero, of ``(batch, heads, window, head_dim)``."""
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in ("keys", "values")}

    def append(self, keys: Tensor, values: Tensor) -> KeyValueCache:
        """The cache with the new frames in it, ``(batch, heads, count, head_dim)`` each: in place in a live session."""
        write = self.positions.write
        return KeyValueCache({"keys": write(self.keys, keys), "values": write(self.values, values)}, self.positions)

    def unroll(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the ``window - 1`` frames before the new ones, and the new ones, oldest first."""
        return self.positions.unroll(self.keys, keys), self.positions.unroll(self.values, values)

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors to keep until the next step, ``keys`` and ``values``."""
        return {"keys": self.keys, "values": self.values}
