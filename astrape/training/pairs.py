"""Training on parallel sets: what of a set is source, what is target, and what the data gives in place of the graph.

voice:
  pairs: {same: 0.1, both: true}                      # a tenth of the targets are the source itself
  given: {f0: pair.pitch, speaker: pair.speaker}      # in place of what the graph has at `f0`, and as a control
  augment:                                            # what happens to the source, in this order
    - {use: noise, chance: 0.7, snr: [5, 40]}
  losses:
    stft: {use: multi_resolution_stft, of: wav, to: pair.wav}
    agreement: {use: mse, of: content, to: twin, weight: 0.3}
    phones: {use: cross_entropy, of: phones, to: phones, weight: 0.3}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from astrape.training.augment import Augmentation

__all__ = ["BAND", "LABELS", "PAIR", "PAIR_SIGNALS", "TWIN", "Given", "Pairs"]

PAIR = "pair."
PAIR_SIGNALS = ("pair.wav", "pair.speaker", "pair.pitch")
Given = Literal["pair.speaker", "pair.pitch", "speaker", "random"]
"""Values that the data can give to a signal or a control of the graph; ``random``: a whole number below 2^24, another
for each row of each step, for the seed of a noise."""

BAND = "pair.band"
"""The batch's key of how high each target reaches, Hz: half the rate of its recording."""

TWIN = "twin"
"""The same signal of the row that goes the other way, from this one's target to this one's source."""

LABELS = ("phones",)
"""Targets that are numbers of classes."""


@dataclass(frozen=True)
class Pairs:
    """The settings by which a stage draws from parallel sets.

    Attributes:
        same: share of the draws whose target is the source itself. What is alone in its set is always its own target.
        both: rows come in twos, there and back: the second has the first's target as its source, the first's source as
            its target, the same seconds, and an augmentation of its own.
        given: what the data gives, by the name of an output, a node's signal or a control of the graph.
        augment: what happens to the source.
        colour: dB by which targets and their speakers' tone are coloured, see :mod:`astrape.training.colour`.
        blur: noise on what the embedding says of the speaker, of its own size, see :mod:`astrape.training.blur`.
        onsets: share of the draws in which speech begins, after up to 0.6 s of silence: what begins after silence is
            a hundredth of what is drawn from amid sentences, and the first word of each is heard badly then.
        shares: draws in a round of each source of the corpus, see :mod:`astrape.training.shares`; none: every set comes
            as often as any other.
    """

    same: float = 0.0
    both: bool = False
    given: Mapping[str, str] = field(default_factory=dict)
    augment: tuple[Augmentation, ...] = ()
    colour: float = 0.0
    blur: float = 0.0
    onsets: float = 0.0
    shares: Mapping[str, int] = field(default_factory=dict)
