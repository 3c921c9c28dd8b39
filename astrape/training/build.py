"""Everything that a training needs, put together and checked before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from astrape.audio.places import Place, Where
from astrape.blocks.base import Stream
from astrape.errors import RecipeError
from astrape.graph import compile
from astrape.graph.checksums import read_tensors
from astrape.graph.fitting import listed, mismatches
from astrape.graph.graph import Graph
from astrape.graph.recipe import Recipe
from astrape.graph.subgraph import subgraph
from astrape.training.adversary import Adversary
from astrape.training.architecture import recipe_text, standalone
from astrape.training.caches import front_state
from astrape.training.checkpoint import load_checkpoint
from astrape.training.decoder import DecoderValidation
from astrape.training.device import choose_device
from astrape.training.encoder import EncoderValidation, content_plan
from astrape.training.errors import TrainingError
from astrape.training.feed import Feed, TrainingData, open_data
from astrape.training.labelled import LabelValidation, VoiceValidation
from astrape.training.learner import Learner, build_losses, entered, key_of, trained_parameters
from astrape.training.objectives import loss_class
from astrape.training.options import Options
from astrape.training.pairs import TWIN
from astrape.training.position import Position
from astrape.training.section import read_section
from astrape.training.settings import hold_against
from astrape.training.settled import settled_recipe
from astrape.training.stage import Phase, Stage
from astrape.training.targets import Targets, audio_input
from astrape.training.trainer import Model, make_accelerator

__all__ = ["Setup", "build"]

Validation = EncoderValidation | DecoderValidation | LabelValidation


@dataclass
class Setup:
    """A training that is ready to begin, or to go on.

    Attributes:
        state: of the checkpoint to go on from; ``None``: from the start.
        facts: what going on from a checkpoint insists on, beside the section.
        at_once: windows in a step, over all processes.
        trained: what of the graph is trained once this is done, in words.
    """

    options: Options
    accelerator: Accelerator
    recipe: Recipe
    recipe_text: str
    section: dict[str, Any]
    stage: Stage
    graph: Graph
    feed: Feed
    targets: Targets
    model: Model
    validation: Validation
    facts: dict[str, Any]
    at_once: int
    trained: str
    state: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    @property
    def position(self) -> Position:
        return Position() if self.state is None else Position(**self.state["position"])

    def learner(self, phase: Phase, outputs: list[str]) -> Learner:
        """The learner that validates a phase, with further outputs.

        Losses that know the training's speakers by number are left out, and those between rows that go there and back.
        """
        known = [plan for plan in phase.active if loss_class(plan.use).compares != "speakers" and plan.to != TWIN]
        return _learner(
            self.graph,
            self.entry,
            replace(phase, losses=tuple(known)),
            self.model.losses,
            self.targets,
            outputs,
            self.stage,
        )

    @property
    def entry(self) -> str:
        return str(self.section["features"])

    @property
    def bytes_needed(self) -> int:
        """Bytes of disk that it takes: the last checkpoint, the best, one that is being written, and weights twice.

        What goes to a store takes those of the one that is being written.
        """
        learning = sum(parameter.numel() for parameter in self.model.learning().values())
        rivals: int = sum(p.numel() for one in self.model.adversaries.values() for p in one.networks.parameters())
        whole = sum(tensor.numel() for tensor in self.graph.state_dict().values())
        checkpoint = 4 * (whole + 2 * learning + 3 * rivals)
        return int(checkpoint if Place(self.options.out_dir).path is None else 3 * checkpoint + 8 * whole)


def build(options: Options, say: Callable[[str], None]) -> Setup:
    """Put a training together.

    Raises:
        AstrapeError: for whatever is missing or does not fit, before an hour is lost on it.
    """
    accelerator = _accelerator(options, say)
    if not accelerator.is_main_process:
        say = _silent
    state, path = _resumed(options)
    borrowed = _encoder(options) if state is None else None
    recipe, section, notes = settled_recipe(options, state, borrowed, path, accelerator.num_processes)
    stage = read_section(recipe, section).stage(options.stage, recipe)
    for line in notes:
        say(line)
    torch.manual_seed(options.seed)
    graph = compile(recipe, training=True)
    entry = str(section["features"])
    _check_front(graph, entry, options)
    data = open_data(options, graph, entry)
    taught = data.caches.get("content")
    content = None if taught is None else Stream(taught.rate, taught.channels)
    targets = Targets(graph, stage.phases, section.get("teacher", {}), content, accelerator.device, stage.pairs)
    needs = targets.needs | _controls(graph, entry, stage)
    feed = Feed(data, options, graph, entry, stage, targets, needs, accelerator)
    if state is not None:
        _fill(graph, state["graph"], path, list(graph.state_dict()))
    elif options.stage == "decoder":
        _take_encoder(graph, stage, borrowed, options, data)
    if options.init_from is not None and state is None:
        say(_begin_with(graph, options.init_from))
    facts = {"seed": options.seed, "windows at once": stage.batch * accelerator.num_processes, **feed.facts}
    if state is not None:
        for line in hold_against(state["facts"], facts, path):
            say(f"resuming: {line}")
    graph.requires_grad_(False)
    graph.to(accelerator.device)
    model = _model(graph, entry, stage, feed, targets)
    return Setup(
        options=options,
        accelerator=accelerator,
        recipe=recipe,
        recipe_text=recipe_text(standalone(recipe) | {"training": _with_graph(recipe, section)}),
        section=section,
        stage=stage,
        graph=graph,
        feed=feed,
        targets=targets,
        model=model,
        validation=_validation(stage, graph, accelerator),
        facts=facts,
        at_once=stage.batch * accelerator.num_processes,
        trained="encoder" if options.stage == "encoder" else "encoder and decoder",
        state=state,
        history=[] if state is None else list(state["history"]),
        best={} if state is None else dict(state["best"]),
    )


def _silent(line: str) -> None:
    """Ignore a line: all processes but one do so, since they would print the same."""


def _accelerator(options: Options, say: Callable[[str], None]) -> Accelerator:
    device, notice = choose_device(options.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    accelerator = make_accelerator(device.type)
    if accelerator.device.type != device.type:
        notice = f"device '{options.device}': running on '{accelerator.device}'"
    if notice and accelerator.is_main_process:
        say(f"notice: {notice}")
    torch.set_num_threads(options.threads)
    return accelerator


def _resumed(options: Options) -> tuple[dict[str, Any] | None, str]:
    """The checkpoint to go on from, and its path."""
    own = Place(options.out_dir) / f"{options.run_name}.last.pt"
    if options.resume is None:
        if own.exists() and not options.overwrite:
            raise TrainingError(
                f"{own}: a run of this name is there: --resume goes on with it, --overwrite begins anew, or give "
                f"another --run-name"
            )
        return None, ""
    path = Place(options.resume) if options.resume else own
    if not path.exists():
        raise TrainingError(f"{path}: there is no checkpoint to resume: leave --resume out to begin")
    state = load_checkpoint(path)
    if state["stage"] != options.stage:
        raise TrainingError(f"{path}: is of a training of the {state['stage']}, and this one is of the {options.stage}")
    return state, str(path)


def _encoder(options: Options) -> dict[str, Any] | None:
    """The contents of the file that ``--encoder-ckpt`` names: ``graph``, its tensors, and ``recipe`` where it says."""
    if options.stage != "decoder":
        return None
    if options.encoder is None:
        raise TrainingError("a decoder is trained behind a trained encoder: name one with --encoder-ckpt")
    if Place(options.encoder).suffix == ".safetensors":
        return {"graph": _tensors(options.encoder)}
    return load_checkpoint(options.encoder)


def _check_front(graph: Graph, entry: str, options: Options) -> None:
    """Hold what the command line says of the features against the recipe."""
    if options.features_block is None:
        return
    wire = graph.wiring.get(entry)
    use = graph.nodes[wire.node].use if wire is not None and wire.node in graph.nodes else "an input"
    if use != options.features_block:
        raise TrainingError(
            f"--wavlm-frontend: '{entry}' of '{graph.name}' comes from {use}, not {options.features_block}"
        )


def _controls(graph: Graph, entry: str, stage: Stage) -> set[str]:
    outputs = {plan.of for phase in stage.phases for plan in phase.active}
    given = {} if stage.pairs is None else stage.pairs.given
    controls = subgraph(graph, sorted(outputs), [entry, *entered(graph, entry, sorted(outputs), given)]).controls
    return {"speaker"} if "speaker" in controls and "speaker" not in given else set()


def _take_encoder(
    graph: Graph, stage: Stage, borrowed: Mapping[str, Any] | None, options: Options, data: TrainingData
) -> None:
    """Fill all of the deploy graph that this stage does not train, from the encoder's checkpoint."""
    assert borrowed is not None
    mine = set(trained_parameters(graph, stage.train))
    names = [name for name in graph.deploy().state_dict() if name not in mine]
    before = graph.state_dict()
    cache = data.caches.get("wavlm")
    known = {} if cache is None else front_state(cache.folder)
    front = {name: before[name].clone() for name in known if name in before}
    _fill(graph, borrowed["graph"], str(options.encoder), names)
    after = graph.state_dict()
    for name, tensor in front.items():
        if not torch.equal(after[name].cpu(), tensor.cpu()):
            raise TrainingError(
                f"{options.encoder}: was trained behind another front end than made the cache of features ('{name}' "
                f"differs): name the cache it was trained on with --wavlm-dir"
            )


def _begin_with(graph: Graph, path: Where) -> str:
    """Take what fits from a file of weights."""
    tensors = _tensors(path) if Place(path).suffix == ".safetensors" else load_checkpoint(path)["graph"]
    own = graph.state_dict()
    fitting = {name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise TrainingError(f"{path}: has no tensor of '{graph.name}'")
    graph.load_state_dict(own | fitting)
    rest = [name for name in own if name not in fitting]
    beside = f"; the other {len(rest)} begin anew ('{rest[0]}' and so on)" if rest else ""
    return f"{path}: {len(fitting)} tensors to begin with{beside}"


def _fill(graph: Graph, tensors: Mapping[str, Tensor], path: str, names: list[str]) -> None:
    own = graph.state_dict()
    wrong = mismatches({name: own[name] for name in names}, tensors, subset=True)
    if wrong:
        raise TrainingError(f"{path}: does not fit '{graph.name}': {listed(wrong)}: give the recipe it is of")
    graph.load_state_dict(own | {name: tensors[name] for name in names})


def _tensors(path: Where) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except RecipeError as error:
        raise TrainingError(str(error)) from error


def _model(graph: Graph, entry: str, stage: Stage, feed: Feed, targets: Targets) -> Model:
    losses = build_losses(stage.phases, graph, feed.speakers)
    adversaries = {
        phase.name: Adversary(phase.discriminators, phase.active, losses)
        for phase in stage.phases
        if phase.discriminators is not None
    }
    for module in (*losses.values(), *adversaries.values()):
        module.to(graph.device)
    parameters = trained_parameters(graph, stage.train)
    if not parameters:
        raise TrainingError(f"training.{stage.name}.train: {', '.join(stage.train)} has nothing that learns")
    return Model(
        stage,
        parameters,
        losses,
        adversaries,
        lambda phase: _learner(graph, entry, phase, losses, targets, [], stage),
    )


def _learner(
    graph: Graph,
    entry: str,
    phase: Phase,
    losses: Mapping[str, Any],
    targets: Targets,
    outputs: list[str],
    stage: Stage,
) -> Learner:
    wanted = [plan.of for plan in phase.active] + outputs
    if phase.discriminators is not None:
        wanted.append(phase.discriminators.of)
    names = list(dict.fromkeys(wanted))
    given = None if stage.pairs is None else stage.pairs.given
    return Learner(graph, entry, names, phase.active, losses, targets.clocks, targets.audio, given, stage.settle)


def _validation(stage: Stage, graph: Graph, accelerator: Accelerator) -> Validation:
    plans = [plan for phase in stage.phases for plan in phase.active]
    labelled = list({plan.name: plan for plan in plans if loss_class(plan.use).compares == "labels"}.values())
    labels = LabelValidation(labelled) if labelled else None
    if stage.name == "encoder":
        plan = content_plan(stage)
        if plan is not None:
            return EncoderValidation(plan, graph)
        if labels is not None:
            return labels
        raise TrainingError(
            "training.encoder: no loss compares an output with teacher.content or with labels: there is no measure"
        )
    waves = [plan for plan in plans if graph.outputs[plan.of].rate >= 4000 and plan.to is not None]
    if not waves:
        raise TrainingError(f"training.{stage.name}: no loss is of a waveform: there is no measure")
    wave, stream = waves[0], graph.outputs[waves[0].of]
    return VoiceValidation(wave.of, stream, accelerator.device, key_of(wave.to or "", audio_input(graph)), labels)


def _with_graph(recipe: Recipe, section: Mapping[str, Any]) -> dict[str, Any]:
    """The section with the blocks and outputs that the compiler reads from it."""
    written = dict(standalone(recipe).get("training", {}))
    return {key: written[key] for key in ("blocks", "outputs") if key in written} | dict(section)
