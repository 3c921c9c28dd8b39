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
from dataclasses import dataclass, field
from typing import Any

from astrape.blocks.codebook import Relaxation
from astrape.graph.recipe import Recipe
from astrape.training.errors import TrainingError
from astrape.training.keys import Keys
from astrape.training.objectives import PAIRING, loss_names
from astrape.training.pairs import LABELS, PAIR_SIGNALS, TWIN, Pairs, read_pairs
from astrape.training.relaxation import build_relaxation

__all__ = ["Discriminators", "LossPlan", "Optimiser", "Phase", "Relaxing", "Section", "Stage", "read_section"]

STAGES = ("encoder", "decoder", "voice")
"""What can be trained: an encoder, a decoder behind a trained encoder, or both together."""

TARGETS = ("teacher.content", "teacher.wav", "mic.pitch", *PAIR_SIGNALS, *LABELS, TWIN)
"""What losses compare with, beside the recipe's inputs and ``teacher.layer_N``."""

LONGEST = 10**7

SOFTEST = 0.01


@dataclass(frozen=True)
class LossPlan:
    """One loss of a phase.

    Attributes:
        name: the recipe's own.
        use: the registered loss.
        of: the graph's output that it measures.
        to: what it is measured against; ``None`` where the loss needs nothing but the data's speakers or judgements.
        weight: its factor in the sum; 0 leaves it out.
        voiced: weight of a voiced frame, where an unvoiced one has 1.
        ahead: teacher frames that the target lies in the future.
        params: the loss's own.
    """

    name: str
    use: str
    of: str
    to: str | None
    weight: float
    voiced: float = 1.0
    ahead: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        """What ``build_loss`` takes."""
        return {"use": self.use, "of": self.of, **self.params}


@dataclass(frozen=True)
class Optimiser:
    """AdamW and how its rate goes.

    Attributes:
        lr: learning rate at the start.
        betas, weight_decay: AdamW's.
        clip: largest norm of the gradient; 0: unbounded.
        schedule: ``cosine`` over all epochs to 0, epoch by epoch, or ``constant``.
        warmup: steps in which the rate rises from nothing to that; 0: it begins there.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-5
    clip: float = 1.0
    schedule: str = "cosine"
    warmup: int = 0


@dataclass(frozen=True)
class Discriminators:
    """The adversaries of a phase.

    Attributes:
        of, to: the waveform that they judge, and the true one.
        window: samples of the random window that they see.
        networks: by name, ``use`` and parameters.
        optimiser: their own.
    """

    of: str
    to: str
    window: int
    networks: Mapping[str, Mapping[str, Any]]
    optimiser: Optimiser


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
class Relaxing:
    """A quantiser that is soft at first, and snaps more and more as training goes on.

    Attributes:
        use: ``gumbel`` or ``noise``, see :mod:`astrape.training.relaxation`.
        start, end: of what changes from the first epoch to the last, in even steps: the temperature (gumbel) or the
            scale (noise). Below 0.01 the quantiser snaps.
        params: the others.
    """

    use: str
    start: float
    end: float
    params: Mapping[str, Any] = field(default_factory=dict)

    def at(self, progress: float) -> Relaxation | None:
        """What stands for snapping after a share of the training, 0 to 1."""
        value = self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)
        changing = "temperature" if self.use == "gumbel" else "scale"
        return build_relaxation({"use": self.use, changing: value, **self.params}) if value >= SOFTEST else None


@dataclass(frozen=True)
class Stage:
    """The training of an encoder, of a decoder, or of both.

    Attributes:
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
        """Of all phases."""
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
    """The training section of a recipe."""

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
                f"{recipe.where_of('training')}: '{recipe.name}' does not say how to train its {name}: "
                f"add training.{name}"
            )
        return self.stages[name]


def read_section(recipe: Recipe, section: Mapping[str, Any] | None = None) -> Section:
    """The training section of a recipe, checked: keys, types, and the names of nodes and signals.

    Args:
        recipe: whose it is; complaints name its file and the line.
        section: the section where a command line has changed it; the recipe's own when left out.

    Raises:
        TrainingError: for a recipe without one, and for whatever is wrong in it, with file, line, place and mend.
    """
    values = recipe.training if section is None else section
    if not values:
        raise TrainingError(f"{recipe.where}: '{recipe.name}' has no training section: add training, or name another")
    keys = Keys(recipe, ("training",), dict(values))
    outputs = [*recipe.outputs, *recipe.training_outputs]
    features = keys.text("features")
    keys.check("features", features, [*outputs, *recipe.inputs], "output")
    teacher = keys.inside("teacher").rest("use", text="use") if "teacher" in keys else {}
    stages = {name: _stage(name, keys.inside(name), recipe, outputs) for name in STAGES if name in keys}
    keys.done()
    return Section(teacher, features, stages)


def _stage(name: str, keys: Keys, recipe: Recipe, outputs: list[str]) -> Stage:
    train = keys.texts("train")
    for node in train:
        _check_node(keys, "train", node, recipe)
    window = keys.whole("window", 1, LONGEST)
    longer = keys.whole("evaluation_window", 1, LONGEST, default=window)
    batch = keys.whole("batch", 1, 65536, default=2)
    steps = keys.whole("steps_per_epoch", 1, LONGEST, default=2000)
    optimiser = _optimiser(keys.inside("optimiser")) if "optimiser" in keys else Optimiser()
    relax = _relaxing(keys.inside("relax")) if "relax" in keys else None
    if "phases" in keys and "losses" in keys:
        raise keys.wrong("phases", "is there beside losses", "move the losses into a phase")
    if "phases" in keys:
        phases = tuple(_phase(at, None, recipe, outputs) for at in keys.items("phases"))
    else:
        phases = (_phase(keys, name, recipe, outputs),)
    settle = keys.number("settle", 0, 60, default=0.0)
    average = keys.number("average", 0, 0.999999, default=0.0)
    pairs = read_pairs(keys, recipe, outputs, _targets(phases))
    keys.done()
    names = [phase.name for phase in phases]
    if len(set(names)) < len(names):
        raise keys.wrong("phases", "has two phases of one name", "give each its own")
    if all(phase.epochs == 0 for phase in phases):
        raise keys.wrong("phases" if "phases" in keys else "epochs", "comes to no epoch at all", "give at least 1")
    return Stage(name, tuple(train), window, longer, batch, steps, optimiser, phases, relax, pairs, settle, average)


def _targets(phases: tuple[Phase, ...]) -> list[str | None]:
    """What losses and discriminators compare with."""
    judged = [phase.discriminators.to for phase in phases if phase.discriminators is not None]
    return [*(plan.to for phase in phases for plan in phase.losses), *judged]


def _check_node(keys: Keys, key: str, name: str, recipe: Recipe) -> None:
    flat = name.replace(".", "/")
    nodes = [node.name for node in recipe.nodes]
    prefixes = {"/".join(node.split("/")[:depth]) for node in nodes for depth in range(1, node.count("/") + 2)}
    if flat not in prefixes:
        keys.check(key, flat, prefixes, "node")


def _optimiser(keys: Keys) -> Optimiser:
    default = Optimiser()
    keys.choice("use", ["adamw"], default="adamw")
    betas = keys.numbers("betas", 2, 0, 0.999999, default=default.betas)
    read = Optimiser(
        lr=keys.number("lr", 1e-12, 10, default=default.lr),
        betas=(betas[0], betas[1]),
        weight_decay=keys.number("weight_decay", 0, 10, default=default.weight_decay),
        clip=keys.number("clip", 0, 1e6, default=default.clip),
        schedule=keys.choice("schedule", ["cosine", "constant"], default=default.schedule),
        warmup=keys.whole("warmup", 0, LONGEST, default=default.warmup),
    )
    keys.done()
    return read


def _relaxing(keys: Keys) -> Relaxing:
    use = keys.choice("use", ["gumbel", "noise"], default="gumbel")
    start = keys.number("start", 0, 10)
    end = keys.number("end", 0, 10, default=0.0)
    read = Relaxing(use, start, end, keys.rest("use", "start", "end"))
    for progress in (0.0, 1.0):
        try:
            read.at(progress)
        except TrainingError as error:
            raise keys.wrong("use", f"cannot be: {error}") from error
    return read


def _phase(keys: Keys, name: str | None, recipe: Recipe, outputs: list[str]) -> Phase:
    """A phase of its own, or a stage that is all one phase, ``name``, whose other keys are read elsewhere."""
    alone = name is not None
    called = name if name is not None else keys.text("name")
    epochs = keys.whole("epochs", 0, LONGEST, default=60)
    losses = tuple(_loss(at, key, recipe, outputs) for key, at in keys.mapping("losses"))
    adversaries = None
    if "discriminators" in keys:
        adversaries = _discriminators(keys.inside("discriminators"), recipe, outputs)
    phase = Phase(called, epochs, losses, adversaries)
    if not alone:
        keys.done()
    if not phase.active:
        raise keys.wrong("losses", "has none that weighs anything", "give one a weight above 0")
    return phase


def _loss(keys: Keys, name: str, recipe: Recipe, outputs: list[str]) -> LossPlan:
    use = keys.text("use")
    keys.check("use", use, loss_names(), "loss")
    of = keys.text("of")
    keys.check("of", of, outputs, "output")
    to = keys.text("to") if "to" in keys else None
    if to is not None and not _is_layer(to):
        keys.check("to", to, [*TARGETS, *recipe.inputs], "signal")
    weight = keys.number("weight", 0, 1e6, default=1.0)
    voiced = keys.number("voiced", 0, 1000, default=1.0)
    ahead = keys.whole("ahead", 0, 1000, default=0)
    return LossPlan(name, use, of, to, weight, voiced, ahead, keys.rest(*PAIRING))


def _is_layer(to: str) -> bool:
    return to.startswith("teacher.layer_") and to.removeprefix("teacher.layer_").isdigit()


def _discriminators(keys: Keys, recipe: Recipe, outputs: list[str]) -> Discriminators:
    of = keys.text("of")
    keys.check("of", of, outputs, "output")
    to = keys.text("to")
    keys.check("to", to, [*TARGETS, *recipe.inputs], "signal")
    window = keys.whole("window", 256, LONGEST, default=16384)
    optimiser = _optimiser(keys.inside("optimiser")) if "optimiser" in keys else Optimiser()
    networks = {name: at.rest("use", text="use") for name, at in keys.mapping("networks")}
    keys.done()
    return Discriminators(of, to, window, networks, optimiser)
