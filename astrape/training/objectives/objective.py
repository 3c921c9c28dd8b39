"""The base of all losses: a sum and the weight it was summed with, so that parts of a batch add up to the whole."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from astrape.blocks.base import Stream
from astrape.named import Named, made
from astrape.training.errors import TrainingError
from astrape.wording import suggest

__all__ = [
    "PAIRING",
    "Comparison",
    "LossContext",
    "Objective",
    "Total",
    "build_loss",
    "loss_class",
    "loss_names",
    "register_loss",
]

Comparison = Literal["frames", "samples", "speakers", "judgements", "labels"]
"""Kinds of comparison, see :attr:`Objective.compares`."""

PAIRING = frozenset({"use", "of", "to", "weight", "ahead", "voiced"})
"""Keys of a loss in a recipe that say what is compared, and how much it counts; all others are the loss's own."""


class Total(NamedTuple):
    """A loss before it is divided: the value is ``total / weight``.

    Over several processes, or parts of a batch, the totals are added and the weights are added, and the quotient is
    that of all at once. A mean of means is not, where one part holds more padding than another.

    Attributes:
        total: weighted sum, a scalar with a gradient.
        weight: sum of the weights, a scalar without one; 0 where nothing was valid, and then ``total`` is 0 as well.
    """

    total: Tensor
    weight: Tensor


@dataclass(frozen=True)
class LossContext:
    """The facts about graph and data that a loss needs to be built.

    Args:
        channels_of: channels of every signal that a loss may name.
        rate_of: frames per second of the same, exact.
        speakers: number of speakers in the training data; 0 where there is none to tell apart.
    """

    channels_of: Mapping[str, int]
    rate_of: Mapping[str, Fraction]
    speakers: int = 0

    def stream(self, name: str) -> Stream:
        """The signal's rate and channels.

        Raises:
            TrainingError: for a signal that is not there, with the nearest one that is.
        """
        if name not in self.channels_of or name not in self.rate_of:
            raise TrainingError(f"no signal '{name}' for a loss: {suggest(name, self.channels_of, 'signal')}")
        return Stream(self.rate_of[name], self.channels_of[name])


class Objective(nn.Module, ABC):
    """A loss between a signal and its target, frame by frame or sample by sample.

    A subclass implements :meth:`measure` and is put in reach of recipes by :func:`register_loss`::

        @register_loss("l2")
        class L2(Objective):
            def measure(self, signal, target, weights):
                error = (signal - target).square().mean(dim=1, keepdim=True)
                return Total((error * weights).sum(), weights.sum())

    Args:
        source: rate and channels of the signal.
    """

    compares: ClassVar[Comparison] = "frames"
    """Kind of ``signal`` and ``target``: ``frames`` or ``samples``, ``(batch, channels, n)`` both; ``speakers``: the
    target is the speaker's index, ``(batch,)`` int64; ``judgements``: both are what discriminators gave; ``labels``:
    the target is the number of a class, ``(batch, 1, n)`` int64, below 0 if unknown."""

    def __init__(self, source: Stream) -> None:
        super().__init__()
        self.source = source

    def forward(self, signal: Tensor, target: Tensor, weights: Tensor, band: Tensor | None = None) -> Total:
        """The loss of a batch.

        Args:
            signal: ``(batch, channels, n)``, from the graph.
            target: the same, already paired frame by frame. No gradient goes to it.
            weights: ``(batch, 1, n)``, at least 0. What has weight 0 is not there: it changes neither the sum nor a
                gradient, whatever it holds, a NaN included.
            band: Hz, ``(batch,)``: how high each target reaches, since a recording at 16 kHz says nothing of what lies
                above 8 kHz. Losses between spectra leave that out; others take no notice.

        Raises:
            ValueError: for shapes that do not fit, naming them.
        """
        if signal.shape != target.shape or weights.shape != (signal.shape[0], 1, signal.shape[-1]):
            raise ValueError(
                f"{type(self).__name__} takes a signal and a target of one shape (batch, channels, n) and weights "
                f"(batch, 1, n), not {tuple(signal.shape)}, {tuple(target.shape)} and {tuple(weights.shape)}"
            )
        absent = weights <= 0
        weights = weights.masked_fill(absent, 0.0).to(signal.dtype)
        signal, target = signal.masked_fill(absent, 0.0), target.detach().masked_fill(absent, 0.0).to(signal.dtype)
        return self.measure(signal, target, weights) if band is None else self.within(signal, target, weights, band)

    def within(self, signal: Tensor, target: Tensor, weights: Tensor, band: Tensor) -> Total:
        """The loss of targets that reach so high, ``(batch,)`` Hz; the same as without, by default."""
        return self.measure(signal, target, weights)

    @abstractmethod
    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        """The loss, of inputs that are checked and hold 0 where the weight is 0."""


_known: Named[Objective] = Named("loss", TrainingError)

register_loss, loss_names, loss_class = _known.register, _known.names, _known.find
"""A decorator that puts a loss in reach of recipes as ``use: NAME``; all names, sorted; and the class of a name."""


def build_loss(spec: Mapping[str, Any], context: LossContext) -> Objective:
    """A loss as a recipe's training section writes it.

    ``{use: multi_resolution_stft, of: wav, to: mic, weight: 1.0, sizes: [512, 1024]}`` becomes a loss over the signal
    ``wav`` with ``sizes`` as its own parameter; ``of``, ``to``, ``weight``, ``ahead`` and ``voiced`` are for whoever
    pairs and sums.

    Raises:
        TrainingError: for an unknown loss, signal or parameter, or a value that the loss refuses; it names them.
    """
    name = spec.get("use")
    cls = loss_class(name)
    if "of" not in spec:
        raise TrainingError(f"loss '{name}' does not say which signal it is of: add `of: SIGNAL`")
    params = {key: value for key, value in spec.items() if key not in PAIRING}
    more = {"speakers": context.speakers} if "speakers" in inspect.signature(cls).parameters else {}
    return made(
        f"loss '{name}'", cls, params, context.stream(str(spec["of"])), error=TrainingError, own=PAIRING, **more
    )
