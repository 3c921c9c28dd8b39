"""Windows of a pack, in an order that reads shards one after another, and of each process its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from torch import Tensor

from astrape.corpus.utterances import Utterance
from astrape.training.caches.cache import Cache
from astrape.training.caches.packed import Pack
from astrape.training.deal import TOGETHER, Deal, Steps
from astrape.training.errors import CacheError
from astrape.training.shares import Shares
from astrape.training.windows import Cropping, Windows

__all__ = ["PackedShares", "PackedWindows", "check_audio"]


class PackedWindows(Windows):
    """:class:`~astrape.training.windows.Windows` of a pack, in an order that reads few shards at a time.

    Each epoch deals the shards anew among the processes (:class:`~astrape.training.deal.Deal`), so a resumed run goes
    on with the shards that it was reading, and reads none that it is through with. While a process reads four shards,
    the next four are fetched.

    Args:
        pack: what to read.
        caches: of the pack, those that are needed.
        cropping: how long windows are, and where they begin.
        steps: how the windows of an epoch are shared out.

    Raises:
        CacheError: for fewer shards than processes, and a pack without audio where that is needed.
    """

    def __init__(
        self,
        pack: Pack,
        caches: Sequence[Cache],
        cropping: Cropping,
        steps: Steps,
    ) -> None:
        check_audio(pack, caches, cropping.audio)
        super().__init__(pack.split.train, caches, **vars(cropping))
        self.pack, self.steps = pack, steps
        self.deal = Deal(pack.shards, str(pack.place), world=steps.world, seed=cropping.seed)
        self._reading: tuple[int, int, tuple[int, int]] | None = None

    def __getitem__(self, place: tuple[int, int] | int) -> dict[str, Tensor]:
        epoch, item = (0, place) if isinstance(place, int) else place
        rank, own = self.steps.share(item)
        reading = (epoch, rank, self.deal.reading(epoch, rank, own))
        if self._reading != reading:
            self._reading = reading
            after = self.deal.following(epoch, rank, own, self.steps.due)
            self.pack.fetch_ahead([str(self.deal.shards[index][0].path) for index in after])
        return super().__getitem__(place)

    def at(self, epoch: int, item: int) -> Utterance:
        return self.deal.at(epoch, *self.steps.share(item))


class PackedShares(Shares):
    """The order of a pack's sets: :class:`~astrape.training.shares.Shares` over a process's own shards.

    The sets of each source have shards of their own, which are dealt among the processes source by source. With several
    sources a process reads two shards of each at a time.

    Args:
        sets, shares, seed: as for ``Shares``.
        pack: where the sets are.
        steps: how the draws of an epoch are shared out; how many of a process there are must be known.

    Raises:
        CacheError: as ``Shares``, and for a source of fewer shards than there are processes.
    """

    def __init__(
        self,
        sets: Sequence[Sequence[Utterance]],
        shares: Mapping[str, int],
        seed: int,
        *,
        pack: Pack,
        steps: Steps,
    ) -> None:
        super().__init__(sets, shares, seed)
        assert steps.due is not None
        self.pack, self.steps, self._places = pack, steps, steps.due
        self._names: dict[str, list[str]] = {}
        self._deals: dict[str, Deal[int]] = {}
        for which, (name, members) in enumerate(self.members.items()):
            shards: dict[str, list[int]] = {}
            for index in members.tolist():
                shards.setdefault(str(sets[index][0].path), []).append(index)
            self._names[name] = list(shards)
            together = TOGETHER if len(self.members) == 1 else TOGETHER // 2
            self._deals[name] = Deal(
                list(shards.values()), str(pack.place), world=steps.world, seed=seed, which=which, together=together
            )
        self._reading: dict[str, tuple[int, int, tuple[int, int]]] = {}
        self._after: dict[str, list[str]] = {}

    def __call__(self, epoch: int, drawn: int) -> int:
        name, rank, place = self._located(drawn)
        deal = self._deals[name]
        reading = (epoch, rank, deal.reading(epoch, rank, place))
        if self._reading.get(name) != reading:
            self._reading[name] = reading
            due = self._before(name, self._places)
            self._after[name] = [self._names[name][one] for one in deal.following(epoch, rank, place, due)]
            self.pack.fetch_ahead([shard for after in self._after.values() for shard in after])
        return deal.at(epoch, rank, place)

    def near(self, epoch: int, drawn: int) -> list[int]:
        """The sets of the shards that are read at a place."""
        name, rank, place = self._located(drawn)
        deal = self._deals[name]
        return [index for shard in deal.together_at(epoch, rank, place) for index in deal.shards[shard]]

    def _located(self, drawn: int) -> tuple[str, int, int]:
        """The source that a draw is of, the process, and how many of that source this has had in the epoch."""
        rank, own = self.steps.share(drawn)
        name, _ = self.round[own % len(self.round)]
        return name, rank, self._before(name, own)

    def _before(self, name: str, places: int) -> int:
        """Draws of a source among the first places of a process."""
        rounds, rest = divmod(places, len(self.round))
        return rounds * self.shares[name] + sum(one == name for one, _ in self.round[:rest])


def check_audio(pack: Pack, caches: Sequence[Cache], audio: Fraction | int | None) -> None:
    """Refuse a pack without recordings at the rate that is needed.

    Raises:
        CacheError: with what makes it.
    """
    held = {cache.rate for cache in caches if cache.what == "audio"}
    if audio is not None and audio not in held:
        other = f" (but at {next(iter(held))} Hz)" if held else ""
        raise CacheError(
            f"{pack.place}: holds no audio at {audio} Hz{other}, which is needed: make it with `astrape cache --what "
            f"audio`, and pack again"
        )
