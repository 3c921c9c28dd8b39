"""The split of utterances into those trained on and those held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from astrape.audio.atomic import shown
from astrape.corpus.errors import CorpusError
from astrape.corpus.utterances import EVALUATE, HELD, Utterance, speakers_of

__all__ = ["CorpusSplit", "split_by_speaker", "split_corpus"]


@dataclass(frozen=True)
class CorpusSplit:
    """Utterances to train on, and those of speakers that training never hears."""

    train: list[Utterance]
    unseen: list[Utterance]


def split_by_speaker(utterances: Sequence[Utterance], unseen: float = 0.1, seed: int = 0) -> CorpusSplit:
    """Set speakers aside whom training never hears.

    Speakers are ordered by a hash of their name and the seed, and the first ones set aside: on every machine the same
    ones, and another corpus with some of the same speakers treats most of these alike.

    Args:
        utterances: of two speakers or more.
        unseen: share of the speakers, over 0 and below 1; at least one is set aside and at least one is left.
        seed: for another choice.

    Raises:
        CorpusError: for a single speaker, and a share out of range.

    Example: of VCTK's 110 speakers, 11 are unseen by default.
    """
    if not 0 < unseen < 1:
        raise CorpusError(f"the share of unseen speakers must be over 0 and below 1, not {unseen:g}")
    names = list(speakers_of(utterances))
    if len(names) < 2:
        found = f"'{shown(names[0])}' alone" if names else "none"
        raise CorpusError(
            f"a split by speaker takes two speakers or more, and there is {found}: add recordings of others, or say "
            f"who speaks with a manifest"
        )
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest())
    aside = set(order[: min(len(names) - 1, max(1, round(unseen * len(names))))])
    ordered = sorted(utterances, key=lambda one: one.key)
    return CorpusSplit(
        train=[one for one in ordered if one.speaker not in aside],
        unseen=[one for one in ordered if one.speaker in aside],
    )


def split_corpus(utterances: Sequence[Utterance], unseen: float = 0.1, seed: int = 0) -> CorpusSplit:
    """Split utterances for training and validation: as the manifest says, or by speaker where it says nothing.

    What is kept for evaluation is in neither.

    Raises:
        CorpusError: for a manifest that leaves nothing to train on, or holds nothing out, and as
            :func:`split_by_speaker`.
    """
    if all(one.split is None for one in utterances):
        return split_by_speaker(utterances, unseen, seed)
    ordered = sorted(utterances, key=lambda one: one.key)
    train = [one for one in ordered if one.split not in (HELD, EVALUATE)]
    split = CorpusSplit(train, [one for one in ordered if one.split == HELD])
    if not split.train or not split.unseen:
        raise CorpusError(
            f"the manifest has {len(split.train)} recordings to train on and {len(split.unseen)} with split 'held': "
            f"hold some speakers out, and leave some"
        )
    return split
