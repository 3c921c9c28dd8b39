"""The order in which processes read shards: each its own, a few of them at a time, mixed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from astrape.training.errors import CacheError

__all__ = ["TOGETHER", "Deal", "Steps"]

TOGETHER = 4
"""Shards whose items are mixed: those that a process reads at a time."""

HELD = 8
"""Deals of the shards that are held in memory."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Steps:
    """The steps of an epoch, and how the items of each are shared out among the processes.

    Attributes:
        batch: items of a step in each process.
        world: processes.
        count: steps in an epoch, after which the shards are dealt anew; ``None``: unknown.
    """

    batch: int
    world: int
    count: int | None = None

    @property
    def due(self) -> int | None:
        """Items that a process has in an epoch."""
        return None if self.count is None else self.count * self.batch

    def share(self, item: int) -> tuple[int, int]:
        """The process that an item is of, and how many it has had before."""
        step, within = divmod(item, self.batch * self.world)
        return within // self.batch, step * self.batch + within % self.batch


class Deal(Generic[Item]):
    """Items of shards, in the order in which each of several processes comes to them.

    Each epoch deals the shards anew among the processes. A process takes its own some at a time, and their items in a
    random order, each once; then the next ones, and after the last of them it is dealt others. What comes at a place is
    a function of the seed, the epoch, the process and the place alone.

    Args:
        shards: the items of each.
        pack: what they are of, for messages.
        world: how many processes there are.
        seed: of the order.
        which: of several deals of one seed, this one.
        together: shards that are read at a time.

    Raises:
        CacheError: for fewer shards than processes.
    """

    def __init__(
        self,
        shards: Sequence[Sequence[Item]],
        pack: str,
        *,
        world: int,
        seed: int,
        which: int = 0,
        together: int = TOGETHER,
    ) -> None:
        if len(shards) < world:
            raise CacheError(
                f"{pack}: {len(shards)} shards to train on, and {world} processes take one each at least; hint: pack "
                f"again with a smaller --shard-size"
            )
        self.shards, self.world, self.seed, self.together = shards, world, seed, together
        self._which = [which] if which else []
        self._grouped: dict[tuple[int, int, int], list[tuple[list[int], int]]] = {}
        self._dealt: tuple[tuple[int, int, int], list[Item]] | None = None

    def at(self, epoch: int, rank: int, place: int) -> Item:
        """The item that a process comes to after ``place`` others of an epoch."""
        passes, within = self._through(epoch, rank, place)
        return self._order_of(epoch, rank, passes)[within]

    def reading(self, epoch: int, rank: int, place: int) -> tuple[int, int]:
        """A process's count of finished passes over its shards at a place, and the group that it reads in this pass."""
        passes, _, number = self._at(epoch, rank, place)
        return passes, number

    def together_at(self, epoch: int, rank: int, place: int) -> list[int]:
        """The shards that a process reads at a place."""
        passes, number = self.reading(epoch, rank, place)
        return self._groups(epoch, rank, passes)[number][0]

    def following(self, epoch: int, rank: int, place: int, due: int | None) -> list[int]:
        """The shards that a process reads after those that it reads at a place.

        Args:
            epoch, rank, place: as of :meth:`at`.
            due: places of an epoch, after which the shards are dealt anew; ``None``: unknown.
        """
        passes, within, number = self._at(epoch, rank, place)
        groups = self._groups(epoch, rank, passes)
        if due is not None and place - within + groups[number][1] >= due:
            return self._groups(epoch + 1, rank, 0)[0][0]
        if number + 1 < len(groups):
            return groups[number + 1][0]
        return self._groups(epoch, rank, passes + 1)[0][0]

    def own(self, epoch: int, rank: int, passes: int) -> npt.NDArray[np.int64]:
        """The shards of a process, in their order."""
        draw = np.random.default_rng((self.seed, epoch, passes, 1, *self._which))
        return draw.permutation(len(self.shards))[rank :: self.world]

    def _through(self, epoch: int, rank: int, place: int) -> tuple[int, int]:
        """A process's count of finished passes over its shards at a place, and the place within this pass."""
        passes = 0
        while place >= (count := self._groups(epoch, rank, passes)[-1][1]):
            place, passes = place - count, passes + 1
        return passes, place

    def _at(self, epoch: int, rank: int, place: int) -> tuple[int, int, int]:
        """:meth:`_through`, with the group that a process reads there."""
        passes, within = self._through(epoch, rank, place)
        groups = self._groups(epoch, rank, passes)
        return passes, within, bisect_right(groups, within, key=lambda group: group[1])

    def _groups(self, epoch: int, rank: int, passes: int) -> list[tuple[list[int], int]]:
        """Shards that are read together, and the place where the reading of them ends."""
        key = (epoch, rank, passes)
        if key not in self._grouped:
            if len(self._grouped) >= HELD:
                self._grouped.clear()
            own = self.own(epoch, rank, passes).tolist()
            parts = [own[at : at + self.together] for at in range(0, len(own), self.together)]
            ends = accumulate(sum(len(self.shards[index]) for index in part) for part in parts)
            self._grouped[key] = list(zip(parts, ends, strict=True))
        return self._grouped[key]

    def _order_of(self, epoch: int, rank: int, passes: int) -> list[Item]:
        if self._dealt is None or self._dealt[0] != (epoch, rank, passes):
            draw = np.random.default_rng((self.seed, epoch, passes, 5, rank, *self._which))
            order: list[Item] = []
            for some, _ in self._groups(epoch, rank, passes):
                held = [one for index in some for one in self.shards[index]]
                order += [held[index] for index in draw.permutation(len(held))]
            self._dealt = (epoch, rank, passes), order
        return self._dealt[1]
