"""Stages of a training: losses, optimiser, phases, as a recipe's training section describes them, checked.

:mod:`astrape.training.section` reads them from a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from astrape.blocks.codebook import Relaxation
from astrape.graph.recipe import Recipe
from astrape.settings import Between, Known, Name, Settings, Spec, Unfit
from astrape.training.errors import TrainingError
from astrape.training.objectives import PAIRING
from astrape.training.pairs import Pairs
from astrape.training.relaxation import build_relaxation

__all__ = [
    "LONGEST",
    "Discriminators",
    "Epochs",
    "LossPlan",
    "Optimiser",
    "Phase",
    "Relaxing",
    "Section",
    "Share",
    "Stage",
]

LONGEST = 10**7
"""Frames, steps and epochs that any setting takes at most."""

SOFTEST = 0.01
"""Temperature, or scale, below which a quantizer snaps."""

Epochs = Annotated[int, Between(0, LONGEST)]
Output = Annotated[Name, Known("output")]
Target = Annotated[Name, Known("signal", r"teacher\.layer_\d+")]
Share = Annotated[float, Between(0, 0.999999)]


class LossPlan(Settings, extra="allow"):
    """One loss of a phase.

    Attributes:
        use: the registered loss.
        of: the graph's output that it measures.
        to: what it is measured against; ``None`` where the loss needs nothing but the data's speakers or judgements.
        weight: its factor in the sum; 0 leaves it out.
        voiced: weight of a voiced frame, where an unvoiced one has 1.
        ahead: teacher frames that the target lies in the future.
    """

    use: Annotated[Name, Known("loss")]
    of: Output
    to: Target | None = None
    weight: Annotated[float, Between(0, 1e6)] = 1.0
    voiced: Annotated[float, Between(0, 1000)] = 1.0
    ahead: Annotated[int, Between(0, 1000)] = 0
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """The recipe's own name of it."""
        return self._name

    def take_name(self, name: str) -> None:
        """Set :attr:`name`, which the recipe says beside the loss and not in it."""
        self._name = name

    @property
    def params(self) -> dict[str, Any]:
        """The loss's own parameters."""
        return {key: value for key, value in (self.model_extra or {}).items() if key not in PAIRING}

    @property
    def spec(self) -> dict[str, Any]:
        """The argument of ``build_loss``."""
        return {"use": self.use, "of": self.of, **self.params}


class Optimiser(Settings):
    """AdamW and how its rate goes.

    Attributes:
        lr: learning rate at the start.
        betas, weight_decay: AdamW's.
        clip: largest norm of the gradient; 0: unbounded.
        schedule: ``cosine`` over all epochs to ``least``, epoch by epoch, or ``constant``.
        least: share of ``lr`` at which a cosine ends; 0: it falls to nothing.
        warmup: steps in which the rate rises from nothing to that; 0: it begins there.
    """

    use: Literal["adamw"] = "adamw"
    lr: Annotated[float, Between(1e-12, 10)] = 1e-4
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.999)
    weight_decay: Annotated[float, Between(0, 10)] = 1e-5
    clip: Annotated[float, Between(0, 1e6)] = 1.0
    schedule: Literal["cosine", "constant"] = "cosine"
    least: Share = 0.0
    warmup: Epochs = 0


class Discriminators(Settings):
    """The adversaries of a phase.

    Attributes:
        of, to: the waveform that they judge, and the true one.
        window: samples of the random window that they see.
        networks: by name.
        optimiser: their own.
    """

    of: Output
    to: Target
    window: Annotated[int, Between(256, LONGEST)] = 16384
    networks: Annotated[dict[str, Spec], Field(min_length=1)]
    optimiser: Optimiser = Optimiser()


class Relaxing(Settings, extra="allow"):
    """A quantizer that is soft at first, and snaps more and more as training goes on.

    Attributes:
        use: ``gumbel`` or ``noise``, see :mod:`astrape.training.relaxation`.
        start, end: of what changes from the first epoch to the last, in even steps: the temperature (gumbel) or the
            scale (noise). Below 0.01 the quantizer snaps.
    """

    use: Literal["gumbel", "noise"] = "gumbel"
    start: Annotated[float, Between(0, 10)]
    end: Annotated[float, Between(0, 10)] = 0.0

    @model_validator(mode="after")
    def _can_be_built(self) -> Relaxing:
        for progress in (0.0, 1.0):
            try:
                self.at(progress)
            except TrainingError as error:
                raise Unfit(f"cannot be: {error}", at=("use",)) from error
        return self

    def at(self, progress: float) -> Relaxation | None:
        """The stand-in for snapping after a share of the training, 0 to 1."""
        value = self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)
        changing = "temperature" if self.use == "gumbel" else "scale"
        spec = {"use": self.use, changing: value, **(self.model_extra or {})}
        return build_relaxation(spec) if value >= SOFTEST else None


@dataclass(frozen=True)
class Phase:
    """A part of the training with its own losses."""

    name: str
    epochs: int
    losses: tuple[LossPlan, ...]
    discriminators: Discriminators | None = None

    @property
    def active(self) -> tuple[LossPlan, ...]:
        """The losses that weigh anything."""
        return tuple(loss for loss in self.losses if loss.weight != 0)


@dataclass(frozen=True)
class Stage:
    """The training of an encoder, of a decoder, or of both.

    Attributes:
        train: nodes, or nested graphs; all else is frozen.
        window, evaluation_window: frames of the features in a crop, and in one of the validation.
        batch: windows in a step, for each process.
        pairs: how it draws from parallel sets; ``None``: from single recordings and their caches.
        settle: seconds at the begin of each window that no loss counts, while what is heard for the first time settles.
        average: what is validated and exported are the weights' running means, of which each step keeps this share;
            0: the weights themselves.
    """

    name: str
    train: tuple[str, ...]
    window: int
    evaluation_window: int
    batch: int
    steps_per_epoch: int
    optimiser: Optimiser
    phases: tuple[Phase, ...]
    relax: Relaxing | None = None
    pairs: Pairs | None = None
    settle: float = 0.0
    average: float = 0.0

    @property
    def epochs(self) -> int:
        """The number of epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def phase_at(self, epoch: int) -> Phase:
        """The phase that an epoch belongs to; the last one beyond the end."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        return self.phases[-1]


@dataclass(frozen=True)
class Section:
    """The training section of a recipe; ``stages`` are ``encoder``, ``decoder`` and ``voice``, those that are there."""

    teacher: Mapping[str, Any]
    features: str
    stages: Mapping[str, Stage]

    def stage(self, name: str, recipe: Recipe) -> Stage:
        """The training of ``encoder``, ``decoder`` or ``voice``.

        Raises:
            TrainingError: where the recipe does not say how to train it.
        """
        if name not in self.stages:
            raise TrainingError(
                f"{recipe.location_of('training')}: '{recipe.name}' does not say how to train its {name}: "
                f"add training.{name}"
            )
        return self.stages[name]
