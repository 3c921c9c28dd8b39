"""A recipe's training section: what learns, from which losses, for how long.

training:
  blocks: {...}                       # training-only nodes and
  outputs: {features: wavlm, ...}     # signals that are named below; the graph's compiler reads these two
  teacher: {use: miocodec}
  features: features                  # where training enters the graph: the output that is stored beforehand
  encoder:
    train: [adapter, encoder]         # nodes, or nested graphs; all else is frozen
    window: 800                       # frames of the features in a crop
    batch: 2
    epochs: 60
    steps_per_epoch: 2000
    optimiser: {use: adamw, lr: 1.0e-4, clip: 1.0}
    losses:
      content_cosine: {use: cosine, of: content, to: teacher.content, weight: 1.0, voiced: 1.5}
  decoder:
    ...                               # the same, and in place of losses:
    phases:
      - {name: reconstruction, epochs: 10, losses: {...}}
      - {name: adversarial, epochs: 50, losses: {...}, discriminators: {...}}
  voice:
    ...                               # both together; see :mod:`astrape.training.pairs` for parallel sets
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, model_validator

from astrape.graph.recipe import Recipe
from astrape.settings import Between, Known, Location, Name, Settings, Spec, Unfit, read_settings
from astrape.training.augment import build_augmentation
from astrape.training.errors import TrainingError
from astrape.training.objectives import loss_names
from astrape.training.pairs import LABELS, PAIR, PAIR_SIGNALS, TWIN, Given, Pairs
from astrape.training.stage import (
    LONGEST,
    Discriminators,
    Epochs,
    LossPlan,
    Optimiser,
    Phase,
    Relaxing,
    Section,
    Share,
    Stage,
)

__all__ = ["read_section"]

TARGETS = ("teacher.content", "teacher.wav", "mic.pitch", *PAIR_SIGNALS, *LABELS, TWIN)
"""Targets of losses, beside the recipe's inputs and ``teacher.layer_N``."""

GIVEN_TO = Known("signal or control")

Count = Annotated[int, Between(1, LONGEST)]
NodeName = Annotated[Name, Known("node")]


class _Losses(Settings):
    """The losses of a phase, or of a stage that is all one phase."""

    epochs: Epochs = 60
    losses: Annotated[dict[str, LossPlan], Field(min_length=1)]
    discriminators: Discriminators | None = None

    @model_validator(mode="after")
    def _weighs_something(self) -> _Losses:
        for name, plan in self.losses.items():
            plan.take_name(name)
        if self.losses and not any(plan.weight for plan in self.losses.values()):
            raise Unfit("has weights of 0 alone", "give one a weight above 0", ("losses",))
        return self

    def phase(self, name: str) -> Phase:
        return Phase(name, self.epochs, tuple(self.losses.values()), self.discriminators)


class _Phase(_Losses):
    name: Name


class _Share(Settings):
    same: Annotated[float, Between(0, 1)] = 0.0
    both: bool = False
    colour: Annotated[float, Between(0, 12)] = 0.0
    blur: Annotated[float, Between(0, 1)] = 0.0
    onsets: Annotated[float, Between(0, 1)] = 0.0
    shares: dict[Name, Annotated[int, Between(0, 1000)]] = Field(default_factory=dict)


class _Stage(_Losses):
    """A stage as it is written."""

    losses: dict[str, LossPlan] = Field(default_factory=dict)
    phases: Annotated[tuple[_Phase, ...], Field(strict=False, min_length=1)] | None = None
    train: Annotated[tuple[NodeName, ...], Field(strict=False, min_length=1)]
    window: Count
    evaluation_window: Count | None = None
    batch: Annotated[int, Between(1, 65536)] = 2
    steps_per_epoch: Count = 2000
    optimiser: Optimiser = Optimiser()
    relax: Relaxing | None = None
    settle: Annotated[float, Between(0, 60)] = 0.0
    average: Share = 0.0
    pairs: _Share | None = None
    given: dict[str, Given] | None = None
    augment: Annotated[tuple[Spec, ...], Field(strict=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_or_the_other(cls, values: Any) -> Any:
        if isinstance(values, dict) and "phases" in values:
            for key in ("losses", "epochs", "discriminators"):
                if key in values:
                    raise Unfit(f"stands beside {key}", f"move {key} into a phase", ("phases",))
        elif isinstance(values, dict) and not values.get("losses"):
            raise Unfit("is empty" if "losses" in values else "is missing", "give at least one loss", ("losses",))
        return values

    @model_validator(mode="after")
    def _adds_up(self) -> _Stage:
        names = [phase.name for phase in self.phases or ()]
        if len(set(names)) < len(names):
            raise Unfit("has two phases of one name", "give each its own", ("phases",))
        if not any(phase.epochs for phase in self.phases or (self,)):
            raise Unfit("is 0 in all", "give at least 1", ("phases" if self.phases else "epochs",))
        return self

    @model_validator(mode="after")
    def _pairs_fit(self, info: ValidationInfo[dict[str, list[str]]]) -> _Stage:
        if TWIN in self.targets and not (self.pairs and self.pairs.both):
            raise Unfit(f"compare with {TWIN}, and rows have none", "write pairs: {both: true}", ("losses",))
        for name in self.given or ():
            node, _, port = name.partition(".")
            if not port or node.replace(".", "/") not in info.context["node"]:
                try:
                    GIVEN_TO.check(name, info)
                except Unfit as fault:
                    raise Unfit(fault.fault, fault.hint, ("given", name)) from None
        for place, spec in enumerate(self.augment or ()):
            try:
                build_augmentation(spec.model_dump())
            except TrainingError as error:
                raise Unfit(f"cannot be: {error}", at=("augment", place, "use")) from error
        return self

    @property
    def targets(self) -> set[str | None]:
        """Targets of losses and discriminators."""
        phases = self.phases or (self,)
        judges = [one.discriminators for one in phases]
        plans = [plan for one in phases for plan in one.losses.values()]
        return {one.to for one in (*plans, *judges) if one is not None}

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        pairs = None
        about_pairs = any(to and (to.startswith(PAIR) or to in (*LABELS, TWIN)) for to in self.targets)
        if about_pairs or any(one is not None for one in (self.pairs, self.given, self.augment)):
            share = self.pairs or _Share()
            augment = tuple(build_augmentation(spec.model_dump()) for spec in self.augment or ())
            pairs = Pairs(given=dict(self.given or {}), augment=augment, **dict(share))
        return Stage(
            name=name,
            train=self.train,
            window=self.window,
            evaluation_window=self.evaluation_window or self.window,
            batch=self.batch,
            steps_per_epoch=self.steps_per_epoch,
            optimiser=self.optimiser,
            phases=(self.phase(name),) if self.phases is None else tuple(one.phase(one.name) for one in self.phases),
            relax=self.relax,
            pairs=pairs,
            settle=self.settle,
            average=self.average,
        )


class _Section(Settings):
    """The section as it is written."""

    features: Annotated[Name, Known("output or input")]
    teacher: Spec | None = None
    encoder: _Stage | None = None
    decoder: _Stage | None = None
    voice: _Stage | None = None


def read_section(recipe: Recipe, section: Mapping[str, Any] | None = None) -> Section:
    """The training section of a recipe, checked: keys, types, and the names of nodes and signals.

    Args:
        recipe: whose it is; complaints name its file and the line.
        section: the section where a command line has changed it; the recipe's own when left out.

    Raises:
        TrainingError: for a recipe without one, and for whatever is wrong in it, with file, line, key and hint.
    """
    values = recipe.training if section is None else section
    if not values:
        raise TrainingError(
            f"{recipe.location}: '{recipe.name}' has no training section: add training, or name another"
        )

    def where(keys: Location) -> object:
        return recipe.location if recipe.located is None else recipe.located.location_of(*keys)

    written = read_settings(_Section, dict(values), TrainingError, where, ("training",), _names(recipe))
    stages = {name: getattr(written, name) for name in ("encoder", "decoder", "voice")}
    return Section(
        {} if written.teacher is None else written.teacher.model_dump(),
        written.features,
        {name: stage.stage(name) for name, stage in stages.items() if stage is not None},
    )


def _names(recipe: Recipe) -> dict[str, list[str]]:
    """Names that the section can use, by kind."""
    outputs = [*recipe.outputs, *recipe.training_outputs]
    nodes = [node.name for node in recipe.nodes]
    groups = ["/".join(node.split("/")[:depth]) for node in nodes for depth in range(1, node.count("/") + 2)]
    return {
        "loss": loss_names(),
        "output": outputs,
        "output or input": [*outputs, *recipe.inputs],
        "node": [*dict.fromkeys([*groups, *(group.replace("/", ".") for group in groups)])],
        "signal": [*TARGETS, *recipe.inputs],
        "signal or control": [*outputs, *nodes, *recipe.controls],
    }
