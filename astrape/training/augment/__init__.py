"""Augmentation of a source before it is heard: a list in a recipe, drawn anew for every window, the same in every run.

The list is gone through in its order. What is drawn is a function of the training's seed, the epoch, the window's place
in it and the entry's place in the list alone, so that a run that was stopped, or runs in several processes, hears the
same. The target stays as it is, but for a gain: what is spoken more loudly is to be spoken more loudly in any voice.
"""

from __future__ import annotations

from astrape.training.augment.augmentation import (
    Augmentation,
    Augmented,
    augmentation_names,
    augmented,
    build_augmentation,
    register_augmentation,
)
from astrape.training.augment.filters import Band, Equaliser, Formants, RandomRoom
from astrape.training.augment.levels import Codec, RandomGain, RandomSaturation
from astrape.training.augment.noises import Babble, RandomNoise

__all__ = [
    "Augmentation",
    "Augmented",
    "Babble",
    "Band",
    "Codec",
    "Equaliser",
    "Formants",
    "RandomGain",
    "RandomNoise",
    "RandomRoom",
    "RandomSaturation",
    "augmentation_names",
    "augmented",
    "build_augmentation",
    "register_augmentation",
]
