"""Windows of a pack, in an order that reads shards one after another, and of each process its own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from torch import Tensor

from astrape.corpus.utterances import Utterance
from astrape.training.caches.cache import Cache
from astrape.training.caches.packed import Pack
from astrape.training.errors import CacheError
from astrape.training.windows import Windows

__all__ = ["PackedWindows"]

TOGETHER = 4
"""Shards whose utterances are mixed: those that a process reads at a time."""

HELD = 8
"""Deals of the shards that are held in memory."""


class PackedWindows(Windows):
    """As :class:`~astrape.training.windows.Windows`, but for the order.

    Each epoch deals the shards anew among the processes. A process takes its own four at a time, and their utterances
    in a random order, each once; then the next four, and after the last of them it is dealt others. What comes at a
    place is a function of the seed, the epoch and the place alone, so a resumed run goes on with the shards that it was
    reading, and reads none that it is through with. While it reads four, the next four are fetched.

    Args:
        pack: what to read.
        caches: of the pack, those that are needed.
        batch, world: windows of a step in each process, and how many processes there are.
        steps: in an epoch, after which the shards are dealt anew; ``None``: nobody knows.
        seconds, period, audio, seed: as for ``Windows``.

    Raises:
        CacheError: for fewer shards than processes, and a pack without audio where that is needed.
    """

    def __init__(
        self,
        pack: Pack,
        caches: Sequence[Cache],
        *,
        batch: int,
        world: int,
        steps: int | None = None,
        seconds: Fraction,
        period: Fraction,
        audio: Fraction | int | None = None,
        seed: int = 0,
    ) -> None:
        if audio is not None and "audio" not in {cache.what for cache in caches}:
            raise CacheError(
                f"{pack.place}: holds no audio at {audio} Hz, which is needed: make it with `astrape cache --what "
                f"audio`, and pack again"
            )
        if len(pack.shards) < world:
            raise CacheError(
                f"{pack.place}: {len(pack.shards)} shards to train on, and {world} processes take one each at least; "
                f"hint: pack again with a smaller --shard-size"
            )
        super().__init__(pack.split.train, caches, seconds=seconds, period=period, audio=audio, seed=seed)
        self.pack, self.shards, self.batch, self.world, self.steps = pack, pack.shards, batch, world, steps
        self._reading: tuple[int, int, int, int] | None = None
        self._grouped: dict[tuple[int, int, int], list[tuple[list[int], int]]] = {}
        self._dealt: tuple[tuple[int, int, int], list[Utterance]] | None = None

    def __getitem__(self, place: tuple[int, int] | int) -> dict[str, Tensor]:
        epoch, item = (0, place) if isinstance(place, int) else place
        self._fetch_ahead(epoch, item)
        return super().__getitem__(place)

    def at(self, epoch: int, item: int) -> Utterance:
        rank, passes, place = self._located(epoch, item)
        return self._order_of(epoch, rank, passes)[place]

    def _located(self, epoch: int, item: int) -> tuple[int, int, int]:
        """The process that an item is of, how often it is through with its shards by then, and the place after that."""
        step, within = divmod(item, self.batch * self.world)
        rank, place = within // self.batch, step * self.batch + within % self.batch
        passes = 0
        while True:
            count = self._groups(epoch, rank, passes)[-1][1]
            if place < count:
                return rank, passes, place
            place, passes = place - count, passes + 1

    def _fetch_ahead(self, epoch: int, item: int) -> None:
        """Where the reading of four shards begins, have the four fetched that come after them."""
        rank, passes, place = self._located(epoch, item)
        groups = self._groups(epoch, rank, passes)
        number = bisect_right(groups, place, key=lambda group: group[1])
        if self._reading == (epoch, rank, passes, number):
            return
        self._reading = (epoch, rank, passes, number)
        done = (item // (self.batch * self.world)) * self.batch + item % self.batch - place
        if self.steps is not None and done + groups[number][1] >= self.steps * self.batch:
            after = self._groups(epoch + 1, rank, 0)[0]
        elif number + 1 < len(groups):
            after = groups[number + 1]
        else:
            after = self._groups(epoch, rank, passes + 1)[0]
        self.pack.fetch_ahead([str(self.shards[index][0].path) for index in after[0]])

    def _own(self, epoch: int, rank: int, passes: int) -> npt.NDArray[np.int64]:
        """The shards of a process, in their order."""
        return np.random.default_rng((self.seed, epoch, passes, 1)).permutation(len(self.shards))[rank :: self.world]

    def _groups(self, epoch: int, rank: int, passes: int) -> list[tuple[list[int], int]]:
        """Shards that are read together, and the place where the reading of them ends."""
        key = (epoch, rank, passes)
        if key not in self._grouped:
            if len(self._grouped) >= HELD:
                self._grouped.clear()
            own = self._own(epoch, rank, passes).tolist()
            parts = [own[at : at + TOGETHER] for at in range(0, len(own), TOGETHER)]
            ends = accumulate(sum(len(self.shards[index]) for index in part) for part in parts)
            self._grouped[key] = list(zip(parts, ends, strict=True))
        return self._grouped[key]

    def _order_of(self, epoch: int, rank: int, passes: int) -> list[Utterance]:
        if self._dealt is None or self._dealt[0] != (epoch, rank, passes):
            draw = np.random.default_rng((self.seed, epoch, passes, 5, rank))
            order: list[Utterance] = []
            for some, _ in self._groups(epoch, rank, passes):
                held = [one for index in some for one in self.shards[index]]
                order += [held[index] for index in draw.permutation(len(held))]
            self._dealt = (epoch, rank, passes), order
        return self._dealt[1]
