"""Shares of the sources in what is drawn, for a corpus that has much of the cheap and little of the dear.

With ``shares: {kokoro: 3, flite: 3, other: 1}``, seven draws in a row are three sets of Kokoro's voices, three of
flite's and one of whatever else there is, spread as evenly as may be: a batch of seven sets is always made up alike,
however many hours the corpus has of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from astrape.corpus.utterances import Utterance
from astrape.training.errors import CacheError

__all__ = ["OTHER", "Shares"]

OTHER = "other"
"""The share of all sources without one of their own, including sets without a source."""


class Shares:
    """The order of sets: each source's sets are shuffled on their own, and all come before any comes again.

    Args:
        sets: the renderings of each set.
        shares: draws in a round by source, whole numbers. Without any, all sets are one source. What the corpus has
            not takes no part.
        seed: of the orders.

    Attributes:
        shares: as given; ``{OTHER: 1}`` without any.
        members: numbers of the sets that each source has.
        round: a source and how many of it came before, for each draw of a round.

    Raises:
        CacheError: for a source of the corpus that has no share, and where nothing is left to draw.

    Example: with ``{"kokoro": 2, "flite": 1}`` a round is a set of kokoro, one of flite, one of kokoro.
    """

    def __init__(self, sets: Sequence[Sequence[Utterance]], shares: Mapping[str, int], seed: int) -> None:
        self.seed, self.count = seed, len(sets)
        self.members: dict[str, npt.NDArray[np.int64]] = {}
        self.shares = dict(shares) or {OTHER: 1}
        by_source: dict[str, list[int]] = {}
        for index, (first, *_) in enumerate(sets):
            by_source.setdefault(self._source(first), []).append(index)
        # In the order of the section, whatever comes first in the corpus.
        there = [name for name, share in self.shares.items() if share and name in by_source]
        if not there:
            found = ", ".join(sorted(by_source))
            raise CacheError(
                f"no source has a share above 0 of what is drawn (the corpus has {found}): give one a share"
            )
        self.members = {name: np.array(by_source[name], np.int64) for name in there}
        self.round = _spread({name: self.shares[name] for name in there})
        self._orders: dict[str, tuple[tuple[int, int], npt.NDArray[np.int64]]] = {}

    def __call__(self, epoch: int, drawn: int) -> int:
        """The set at a place of an epoch."""
        rounds, place = divmod(drawn, len(self.round))
        name, before = self.round[place]
        members = self.members[name]
        passes, index = divmod(rounds * self.shares[name] + before, len(members))
        return int(members[self._order(name, epoch, passes)[index]])

    def near(self, epoch: int, drawn: int) -> list[int] | None:
        """The sets that are at hand at a place; ``None``: all are alike."""
        return None

    def _order(self, name: str, epoch: int, passes: int) -> npt.NDArray[np.int64]:
        kept = self._orders.get(name)
        if kept is None or kept[0] != (epoch, passes):
            # The fourth number keeps these draws apart from those of crops, the fifth one source from another.
            which = list(self.members).index(name)
            draw = np.random.default_rng((self.seed, epoch, passes, 1, *([which] if which else [])))
            kept = self._orders[name] = (epoch, passes), draw.permutation(len(self.members[name]))
        return kept[1]

    def _source(self, one: Utterance) -> str:
        if one.source in self.shares:
            return str(one.source)
        if OTHER not in self.shares:
            raise CacheError(
                f"'{one.key}' is of the source '{one.source}', which has no share of what is drawn (there are "
                f"{', '.join(self.shares)}): write pairs: {{shares: {{{OTHER}: 1}}}}, or 0 to leave it out"
            )
        return OTHER


def _spread(shares: Mapping[str, int]) -> list[tuple[str, int]]:
    """A round: sources with how often each has come before, each one's draws as far apart as may be."""
    draws = [((number + 0.5) / share, name, number) for name, share in shares.items() for number in range(share)]
    order = list(shares)
    draws.sort(key=lambda draw: (draw[0], order.index(draw[1])))
    return [(name, number) for _, name, number in draws]
