"""Windows of a pack, in an order that reads shards one after another, and of each process its own."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import islice

import numpy as np
import numpy.typing as npt

from astrape.corpus.utterances import Utterance
from astrape.training.caches.cache import Cache
from astrape.training.caches.packed import Pack
from astrape.training.errors import CacheError
from astrape.training.windows import Windows

__all__ = ["PackedWindows"]

TOGETHER = 4
"""Shards whose utterances are mixed: those that a process reads at a time."""


class PackedWindows(Windows):
    """As :class:`~astrape.training.windows.Windows`, but for the order.

    Each epoch deals the shards anew among the processes. A process takes its own four at a time, and their utterances
    in a random order, each once; then the next four, and after the last of them it is dealt others. What comes at a
    place is a function of the seed, the epoch and the place alone, so a resumed run goes on with the shards that it was
    reading, and reads none that it is through with.

    Args:
        pack: what to read.
        caches: of the pack, those that are needed.
        batch, world: windows of a step in each process, and how many processes there are.
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
        self.shards, self.batch, self.world = pack.shards, batch, world
        self._dealt: tuple[tuple[int, int, int], list[Utterance]] | None = None

    def at(self, epoch: int, item: int) -> Utterance:
        step, within = divmod(item, self.batch * self.world)
        rank, place = within // self.batch, step * self.batch + within % self.batch
        passes = 0
        while True:
            count = sum(len(self.shards[index]) for index in self._own(epoch, rank, passes))
            if place < count:
                return self._order_of(epoch, rank, passes)[place]
            place, passes = place - count, passes + 1

    def _own(self, epoch: int, rank: int, passes: int) -> npt.NDArray[np.int64]:
        """The shards of a process, in their order."""
        return np.random.default_rng((self.seed, epoch, passes, 1)).permutation(len(self.shards))[rank :: self.world]

    def _order_of(self, epoch: int, rank: int, passes: int) -> list[Utterance]:
        if self._dealt is None or self._dealt[0] != (epoch, rank, passes):
            own = iter(self._own(epoch, rank, passes).tolist())
            draw = np.random.default_rng((self.seed, epoch, passes, 5, rank))
            order: list[Utterance] = []
            while some := list(islice(own, TOGETHER)):
                held = [one for index in some for one in self.shards[index]]
                order += [held[index] for index in draw.permutation(len(held))]
            self._dealt = (epoch, rank, passes), order
        return self._dealt[1]
