"""The front end: the part of a recipe from the microphone to the signal at which training enters its graph."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrape.audio.atomic import shown
from astrape.audio.places import Place
from astrape.blocks.wavlm import WavLMCNN
from astrape.errors import RecipeError
from astrape.graph import compile
from astrape.graph.checksums import read_tensors, sealed_file
from astrape.graph.fitting import listed, mismatches
from astrape.graph.graph import Graph
from astrape.graph.hosted import is_audio_stream
from astrape.graph.recipe import Recipe
from astrape.graph.subgraph import subgraph
from astrape.training.caches.files import write_whole
from astrape.training.caches.record import RECORD, Record, hash_of_state, hash_of_values, read_record
from astrape.training.errors import CacheError
from astrape.voice.wavlm import load_wavlm

__all__ = ["FRONT_WEIGHTS", "SEED", "FrontEnd", "front_state", "load_front"]

FRONT_WEIGHTS = "front.safetensors"
"""The front end's weights, beside the features made with them: a model trained on these features streams with them."""

SEED = 0
"""The seed of weights where none are given, so that all runs and machines draw the same ones."""

PIECE_SECONDS = 2
"""The length worked on at a time, always the same, so that results do not depend on it: memory does."""


class FrontEnd:
    """Computes what ``cache --what wavlm`` stores, with the blocks that stream.

    Args:
        recipe: a shipped recipe's name, or the path of a YAML file.
        features: the output to store; what the recipe's ``training: features:`` says when left out.
        weights: a safetensors file with the graph's ``state_dict``, or the front end's part of one.
        wavlm: a WavLM checkpoint for the recipe's ``wavlm_cnn``, see :func:`~astrape.voice.wavlm.load_wavlm`.
        device: where to compute.

    Attributes:
        graph: the part of the recipe's graph that leads to the signal; its weights have the names they have in the
            whole.
        random: the weights were drawn with seed 0, since none were given.

    Raises:
        CacheError: for a recipe without such an output or with an input that is not audio, and weights that do not fit.
        RecipeError, WavLMError: for a recipe or a checkpoint that cannot be read.
    """

    def __init__(
        self,
        recipe: str,
        features: str | None = None,
        *,
        weights: Path | Place | None = None,
        wavlm: Path | Place | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if weights is not None and wavlm is not None:
            raise CacheError("--weights and --wavlm: both fill the front end: give one of them")
        parsed = Recipe.load(recipe)
        self.recipe = recipe
        self.signal = signal_of(parsed, features)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.graph = subgraph(compile(parsed, training=True), [self.signal]).eval()
        self._check_form()
        self.name = parsed.name
        self._structure = _structure(parsed, self.graph)
        self.random = False
        self.source = "no weights"
        if weights is not None:
            _fill(self.graph, weights)
            self.source = weights.name
        elif wavlm is not None:
            _fill_wavlm(self.graph, wavlm)
            self.source = wavlm.name
        elif self.graph.state_dict():
            self.random = True
            self.source = f"random weights (seed {SEED})"
        self.state = _state(self.graph)
        self.device = torch.device(device)
        self.graph.to(self.device)

    @property
    def rate(self) -> Fraction:
        return self.graph.rate_out

    @property
    def rate_in(self) -> Fraction:
        """Hz, of the audio that it takes."""
        return self.graph.rate_in

    @property
    def channels(self) -> int:
        return self.graph.channels_out

    @property
    def folder_name(self) -> str:
        """The name of its cache: ``wavlm_L4_200hz`` behind five layers (0 to 4) of WavLM at 200 Hz."""
        block = self.graph.nodes[self.graph.wiring[self.signal].node].block
        rate = str(self.rate).replace("/", "_")
        if isinstance(block, WavLMCNN):
            return f"wavlm_L{len(block.conv_layers) - 1}_{rate}hz"
        return f"{self.signal.replace('/', '_')}_{rate}hz"

    def record(self) -> Record:
        """The record of its cache."""
        options = {
            "recipe": _portable(self.recipe),
            "features": self.signal,
            "weights": self.source,
            "rate_in": str(self.rate_in),
            "quantum": [self.graph.quantum, int(self.graph.quantum * self.graph.ratio)],
        }
        return Record(
            what="wavlm",
            channels=self.channels,
            rate=self.rate,
            maker=f"'{self.signal}' of recipe '{self.name}' with {self.source}",
            identity={"front end": self._structure, "weights": hash_of_state(self.state)},
            options=options,
            random=self.random,
        )

    def reuse_weights(self, folder: Path | Place) -> None:
        """Take the weights that a cache was begun with, where none were given and there are some.

        Those of a cache of another front end are left alone, for its record to refuse.

        Raises:
            CacheError: for weights that cannot be read or do not fit.
        """
        if not self.random or not Place(folder / FRONT_WEIGHTS).exists():
            return
        record = read_record(folder) if Place(folder / RECORD).exists() else None
        if record is not None and record.identity.get("front end") != self._structure:
            return
        drawn = hash_of_state(self.state)
        _fill(self.graph, folder / FRONT_WEIGHTS)
        self.state = _state(self.graph)
        if record is not None:
            self.random, self.source = record.random, str(record.options.get("weights", FRONT_WEIGHTS))
        elif hash_of_state(self.state) != drawn:
            self.random, self.source = False, FRONT_WEIGHTS

    def keep_weights(self, folder: Path | Place) -> None:
        """Store the weights beside what they make, unless they are there."""
        path = folder / FRONT_WEIGHTS
        if self.state and not Place(path).exists():
            write_whole(path, sealed_file(self.state, {}))

    def frames(self, samples: int) -> int:
        """Frames of that many samples: those of whole quanta, as a stream has given them by then."""
        return samples // self.graph.quantum * int(self.graph.quantum * self.graph.ratio)

    @torch.inference_mode()
    def features(self, audio: Tensor) -> Tensor:
        """``(1, 1, samples)`` at ``rate_in`` to ``(channels, frames)``, frame 0 first: the graph's step from time zero.

        Raises:
            CacheError: for audio of less than one frame, and features that are not finite.
        """
        x = audio.to(self.device).expand(-1, self.graph.channels_in, -1)
        piece = max(1, int(PIECE_SECONDS / self.graph.period)) * self.graph.quantum
        state = self.graph.init_state(1, self.device, x.dtype)
        whole = x.shape[-1] // self.graph.quantum * self.graph.quantum
        made: list[Tensor] = []
        prepared = self.graph.prepare(self.graph.read_controls({}, x))
        # TF32, which cuDNN takes by default, has 10 bits: the features would not be those that the stream has.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for begin in range(0, whole, piece):
                y, state = self.graph.step(x[..., begin : min(begin + piece, whole)], state, prepared)
                made.append(y[0].cpu())
        if not made:
            seconds = float(self.graph.period)
            raise CacheError(f"{x.shape[-1]} samples, and one frame of '{self.signal}' takes {seconds:g} s of audio")
        features = torch.cat(made, dim=-1)
        if not bool(torch.isfinite(features).all()):
            raise CacheError(f"'{self.signal}' is not finite on it: look at the weights, and at the level of the audio")
        return features

    def _check_form(self) -> None:
        inputs = self.graph.inputs
        ((port, stream), *others) = inputs.items()
        if others or not is_audio_stream(stream):
            listed = ", ".join(f"{name} at {each.rate} Hz" for name, each in inputs.items())
            raise CacheError(f"'{self.signal}' comes of {listed}, and a cache is made of one input of audio")
        needed = [name for name, spec in self.graph.control_specs.items() if spec.default is None]
        if needed:
            raise CacheError(f"'{self.signal}' depends on the control '{needed[0]}', which recordings do not have")
        if not self.graph.nodes:
            raise CacheError(f"training enters at the input '{port}' itself: there is nothing to store")
        if self.graph.training_only:
            raise CacheError(f"'{self.signal}' needs training-only nodes, which do not stream: name another output")


def signal_of(recipe: Recipe, features: str | None = None) -> str:
    """The output that is stored: the one that is asked for, or the recipe's ``training: features:``.

    Raises:
        CacheError: where there is none.
    """
    signal = recipe.training.get("features") if features is None else features
    known = [*recipe.outputs, *recipe.training_outputs]
    if signal is None:
        raise CacheError(
            f"recipe '{recipe.name}' does not say where training enters it: give it `training: {{features: OUTPUT}}`, "
            f"or name an output with --features (choose from: {', '.join(known)})"
        )
    if signal not in known:
        if signal in recipe.inputs:
            raise CacheError(
                f"training enters '{recipe.name}' at the input '{signal}' itself: there is nothing to store"
            )
        raise CacheError(f"recipe '{recipe.name}' has no output '{signal}' (choose from: {', '.join(known)})")
    return str(signal)


def front_state(folder: Path | Place) -> dict[str, Tensor]:
    """The weights of the front end that made a cache, by their names in the whole graph.

    Raises:
        CacheError: for a file that is missing or cannot be read.
    """
    return _read(folder / FRONT_WEIGHTS)


def load_front(graph: Graph, folder: Path | Place, record: Record) -> None:
    """Give a graph the weights of the front end that made a cache, so that it streams what it was trained on.

    Args:
        graph: the whole graph, or any part with the front end in it.
        folder: the cache of features.
        record: what that cache says of itself.

    Raises:
        CacheError: for weights that are missing, are not those of the record, or do not fit the graph.
    """
    if not Place(folder / FRONT_WEIGHTS).exists() and record.identity.get("weights") == hash_of_state({}):
        return
    state = front_state(folder)
    if hash_of_state(state) != record.identity.get("weights"):
        raise CacheError(
            f"{shown(folder / FRONT_WEIGHTS)}: holds other weights than its cache was made with: put the right ones "
            f"back, or remove the folder and make it anew"
        )
    own = graph.state_dict()
    for name, tensor in state.items():
        if name not in own or own[name].shape != tensor.shape:
            raise CacheError(f"{shown(folder)}: '{name}' of its front end does not fit '{graph.name}': another recipe?")
    graph.load_state_dict(own | state)


def _fill(graph: Graph, path: Path | Place) -> None:
    """Take the graph's weights out of a file that may hold those of a larger one."""
    given = _read(path)
    own = graph.state_dict()
    wrong = mismatches(own, given, subset=True)
    wrong += [
        f"'{name}' is not finite" for name in own if name in given and not bool(torch.isfinite(given[name]).all())
    ]
    if wrong:
        raise CacheError(f"{shown(path)}: does not fit the front end of '{graph.name}': {listed(wrong)}")
    graph.load_state_dict({name: given[name] for name in own})


def _fill_wavlm(graph: Graph, path: Path | Place) -> None:
    blocks = [node.block for node in graph.nodes.values() if isinstance(node.block, WavLMCNN)]
    if len(blocks) != 1:
        raise CacheError(f"--wavlm: the front end of '{graph.name}' has {len(blocks)} blocks wavlm_cnn: give --weights")
    load_wavlm(blocks[0], path)


def _state(graph: Graph) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in graph.state_dict().items()}


def _read(path: Path | Place) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except RecipeError as error:
        raise CacheError(shown(str(error))) from error


def _structure(recipe: Recipe, graph: Graph) -> str:
    """A hash of all that the front end's numbers depend on but its weights: blocks, parameters, wiring."""
    nodes = {node.name: node for node in recipe.nodes}
    described: list[Mapping[str, Any]] = []
    for name, planned in sorted(graph.nodes.items()):
        node = nodes.get(name)
        reads = {port: str(signal) for port, signal in planned.sources.items()}
        # A delay that the compiler put in has no node; its frames are in what it reads and in its block.
        params = node.params if node is not None else {"frames": getattr(planned.block, "frames", None)}
        described.append({"name": name, "use": planned.use, "reads": reads, "params": params})
    inputs = {name: [str(stream.rate), stream.channels] for name, stream in graph.inputs.items()}
    return hash_of_values({"inputs": inputs, "nodes": described, "signal": str(graph.wiring[graph.main])})


def _portable(recipe: str) -> str:
    """A recipe's name as it is; a path as one that holds from any folder."""
    path = Path(recipe)
    return str(path.absolute()) if path.suffix or path.parent != Path() else recipe
