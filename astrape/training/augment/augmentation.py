"""The base of all augmentations, their names in recipes, and lists of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.parameters import check_real
from astrape.named import Named, made
from astrape.training.errors import TrainingError

__all__ = [
    "Augmentation",
    "Augmented",
    "augmentation_names",
    "augmented",
    "build_augmentation",
    "register_augmentation",
    "span",
]

Draw = np.random.Generator
Others = Callable[[np.random.Generator], Tensor]
Span = Sequence[float]


class Augmented(NamedTuple):
    """A source after an augmentation.

    Attributes:
        wave: ``(samples,)``.
        gain: what the target's level is to be multiplied by.
    """

    wave: Tensor
    gain: float = 1.0


class Augmentation(ABC):
    """One entry of the list.

    A subclass implements :meth:`apply` and is put in reach of recipes by :func:`register_augmentation`. It is causal in
    the sense that training needs: the source stays aligned with its target to a fraction of a millisecond.

    Args:
        chance: share of the windows that it happens to, 0 to 1; all by default.

    Raises:
        ValueError: for a share out of range.
    """

    def __init__(self, chance: float = 1.0) -> None:
        self.chance = check_real("chance", chance, 0.0, 1.0)

    @abstractmethod
    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        """The source as it is heard.

        Args:
            wave: ``(samples,)`` float32.
            rate: Hz.
            draw: where all that is random comes from.
            others: gives a window of another recording, as long as the wave, of a draw.
        """


_known: Named[Augmentation] = Named("augmentation", TrainingError)

register_augmentation, augmentation_names = _known.register, _known.names
"""A decorator that puts an augmentation in reach of recipes as ``use: NAME``, and all names, sorted."""


def build_augmentation(spec: Mapping[str, Any]) -> Augmentation:
    """An augmentation as a recipe writes it, ``{use: noise, chance: 0.7, snr: [5, 40]}``.

    Raises:
        TrainingError: for an unknown name or parameter, or a value that it refuses.
    """
    name = spec.get("use")
    params = {key: value for key, value in spec.items() if key != "use"}
    return made(f"augmentation '{name}'", _known.find(name), params, error=TrainingError)


def augmented(
    wave: Tensor, rate: float, entries: Sequence[Augmentation], seeds: tuple[int, ...], others: Others | None = None
) -> tuple[Tensor, float]:
    """A source after all entries of a list.

    Args:
        wave: ``(samples,)`` float32.
        rate: Hz.
        entries: in their order.
        seeds: what the draws are a function of, beside the place in the list.
        others: gives a window of another recording; silence when left out.

    Returns:
        The source, and what the target's level is to be multiplied by.
    """
    gain = 1.0
    others = others or partial(_silence, wave)
    for place, entry in enumerate(entries):
        draw = np.random.default_rng((*seeds, place))
        if draw.random() < entry.chance:
            wave, factor = entry.apply(wave, rate, draw, others)
            gain *= factor
    return wave, gain


def _silence(wave: Tensor, draw: Draw) -> Tensor:
    return torch.zeros_like(wave)


def span(name: str, value: Any, least: float, most: float) -> tuple[float, float]:
    """Two numbers to draw between, or one for both.

    Raises:
        ValueError: for anything else, and numbers out of range or order.
    """
    both = [value, value] if isinstance(value, (int, float)) else value
    if not isinstance(both, (list, tuple)) or len(both) != 2:
        raise ValueError(f"{name} must be two numbers to draw between, such as [{least:g}, {most:g}], not {value!r}")
    low, high = (check_real(name, one, least, most) for one in both)
    if low > high:
        raise ValueError(f"{name} must go upwards, not from {low:g} to {high:g}")
    return low, high
