"""Sources of converted files: a graph that converts them now, or another system that did already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from astrape.audio.atomic import make_folder
from astrape.audio.endings import ENDINGS
from astrape.audio.places import Place, Where, anywhere, local_file
from astrape.blocks.base import StreamBlock
from astrape.blocks.quantize import FSQ, Q2D2
from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.progress import Progress
from astrape.runtime.files import Conversion
from astrape.voice.building import build_voicebank
from astrape.voice.conversion import CODES, Converter, is_voice, voice_of
from astrape.voice.evaluation.context import Codes, Latency
from astrape.voice.evaluation.errors import EvaluationError
from astrape.voice.evaluation.pairs import Pair, Target
from astrape.voice.folder import is_folder, is_there
from astrape.voice.speaker import SpeakerEncoder
from astrape.voice.voicebank import Voicebank

__all__ = ["Conversions", "Converted", "ConvertedFile", "Fit", "System"]

Fit = Callable[[Voicebank, Sequence[Path | Place], Graph], Voicebank]
"""Brings a voice nearer to its recordings, see :func:`astrape.training.fitting.fit_voice`."""


@dataclass(frozen=True)
class ConvertedFile:
    """A converted file.

    Attributes:
        path: the file.
        late: seconds by which it is late.
        conversion, codes, latency: of a conversion made here.
    """

    path: Path | Place
    late: float = 0.0
    conversion: Conversion | None = None
    codes: Codes | None = None
    latency: Latency | None = None


class System(Protocol):
    """A system that gives a converted file for a pair.

    Attributes:
        converts: it does so now, rather than having done so.
    """

    converts: bool

    def render(self, pair: Pair, progress: Progress | None = None) -> ConvertedFile:
        """The file.

        Raises:
            AstrapeError: when there is none, and why.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """A description of the system, to be written beside the results."""
        ...


class Conversions:
    """A graph, which converts each pair to a file below a folder.

    Args:
        converter: ready to convert.
        folder: results go to ``folder/TARGET/SPEAKER/NAME.wav``, here or in a store; made where it is missing.
        out: the one file to write instead, for a single pair.
        encoder: speaker encoder for targets that are recordings, or its name; the converter's when left out.
        weights: the file that the converter's weights come from, for the record.
        chunk_ms: what the graph gets at a time.
        controls: further controls of the recipe.
        fit: for targets that are recordings.
    """

    converts = True

    def __init__(
        self,
        converter: Converter,
        folder: Path | Place,
        *,
        out: Path | Place | None = None,
        encoder: str | SpeakerEncoder | None = None,
        weights: Where | None = None,
        chunk_ms: float = 10.0,
        controls: Mapping[str, Tensor | float] | None = None,
        fit: Fit | None = None,
    ) -> None:
        self._converter: Converter | None = converter
        self._loaded_with = converter.loaded_with
        self.folder, self.out = folder, out
        self.encoder: str | SpeakerEncoder = encoder or converter.encoder
        self.weights = weights
        self.chunk_ms = chunk_ms
        self.controls = dict(controls or {})
        self.fit = fit
        self._quantizer = _quantizer(converter)
        self._voices: dict[tuple[Path | Place, ...], Voicebank | AstrapeError] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The state without the graph, which the receiving worker loads itself, once for all systems of a run."""
        return vars(self) | {"_converter": None, "_quantizer": None}

    @property
    def converter(self) -> Converter:
        """The converter."""
        self.load()
        assert self._converter is not None
        return self._converter

    def load(self) -> None:
        """Load the graph, where this came from another process.

        Raises:
            AstrapeError: for a recipe or weights that cannot be read here.
        """
        if self._converter is None:
            assert self._loaded_with is not None
            self._converter = _loaded(*self._loaded_with)
            self._quantizer = _quantizer(self._converter)

    def check_portable(self) -> None:
        """Check that other processes can load the graph.

        Raises:
            EvaluationError: for a converter that was made of a graph.
        """
        if self._loaded_with is None:
            name = self.converter.graph.name
            raise EvaluationError(f"'{name}': workers load it themselves; hint: make it with Converter.load")

    def into(self, folder: Path | Place) -> Conversions:
        """The same graph, writing to another folder; voices that are known already stay known."""
        made = copy(self)
        made._converter, made._quantizer = self._converter, self._quantizer
        made.folder, made.out = folder, None
        return made

    def voice(self, target: Target) -> Voicebank:
        """The target's voice, embedded once.

        Raises:
            VoicebankError: for a file that is not a voice.
        """
        if target.files not in self._voices:
            try:
                self._voices[target.files] = self._read(target)
            except AstrapeError as error:
                self._voices[target.files] = error
        found = self._voices[target.files]
        if isinstance(found, AstrapeError):
            raise found
        return found

    def render(self, pair: Pair, progress: Progress | None = None) -> ConvertedFile:
        if pair.target is None:
            raise EvaluationError(f"{pair.name}: there is no target to convert to")
        self.load()
        out = self.out or self.folder / pair.target.name / f"{pair.source.key}.wav"
        make_folder(out.parent)
        with TemporaryDirectory(prefix="astrape-codes-") as place:
            taken = Path(place) / "codes.npy" if self._quantizer else None
            done = self.converter.file(
                pair.heard,
                out,
                self.voice(pair.target),
                chunk_ms=self.chunk_ms,
                codes=taken,
                controls=self.controls,
                progress=progress,
            )
            codes = None if taken is None else _codes(self._quantizer, np.load(taken))
        report = self.converter.graph.report().to_dict()["outputs"][self.converter.output]
        first = next(iter(self.converter.graph.inputs.values()))
        host_ms = 1000 * float(report["host_samples"] / first.rate)
        return ConvertedFile(out, 0.0, done, codes, Latency(report["algorithmic_ms"], host_ms))

    def describe(self) -> dict[str, Any]:
        graph = self.converter.graph
        return {
            "recipe": graph.name,
            "output": self.converter.output,
            "weights": None if self.weights is None else os.fspath(self.weights),
            "weights_sha256": None if self.weights is None else _file_hash(local_file(self.weights)),
            "random_weights": self.weights is None and self.converter.learned > 0,
            "parameters": self.converter.learned,
            "parameters_sha256": _parameters_hash(graph),
            "blocks": {name: node.use for name, node in graph.nodes.items()},
            "chunk_ms": self.chunk_ms,
            "controls": {name: torch.as_tensor(value).flatten().tolist() for name, value in self.controls.items()},
            "speaker_encoder": self.encoder if isinstance(self.encoder, str) else self.encoder.name,
            "voices_fitted": self.fit is not None,
        }

    def _read(self, target: Target) -> Voicebank:
        if len(target.files) == 1:
            found = voice_of(target.files[0], self.encoder)
        else:
            found = build_voicebank(target.files, self.encoder)
        self.converter.check_voice(found.metadata, target.files[0])
        if self.fit is None or is_voice(target.files[0]):
            return found
        return self.fit(found, target.files, self.converter.graph)


class Converted:
    """Files that another system converted.

    Args:
        place: the file, for a single pair; or a folder with ``TARGET/SPEAKER/NAME``, ``TARGET/NAME``, ``SPEAKER/NAME``
            or ``NAME`` of any audio ending; here or in a store. ``None`` where each pair names its own.
        late: seconds by which all of them are late.
    """

    converts = False

    def __init__(self, place: Where | None = None, late: float = 0.0) -> None:
        self.place, self.late = None if place is None else anywhere(place), late
        self._listed: dict[Path | Place, list[str]] = {}
        if self.place is not None and not is_there(self.place):
            raise EvaluationError(f"{place}: there is no such converted file or folder")

    def render(self, pair: Pair, progress: Progress | None = None) -> ConvertedFile:
        if pair.converted is not None:
            return ConvertedFile(pair.converted, self.late)
        if self.place is None:
            raise EvaluationError(f"{pair.name}: no converted file is named")
        if not is_folder(self.place):
            return ConvertedFile(self.place, self.late)
        names = [pair.source.key, pair.source.name, pair.source.path.stem]
        if pair.target is not None:
            names = [f"{pair.target.name}/{name}" for name in names] + names
        for name in names:
            wanted = self.place / name
            endings = {f"{wanted.name}.{ending}" for ending in ENDINGS}
            for file in self._files(wanted.parent):
                if _lower_ending(file) in endings:
                    return ConvertedFile(wanted.parent / file, self.late)
        raise EvaluationError(f"{self.place}: holds no converted file {names[0]}.wav (or {names[-1]}.wav)")

    def describe(self) -> dict[str, Any]:
        return {
            "recipe": None,
            "converted_elsewhere": None if self.place is None else os.fspath(self.place),
            "late_ms": 1000 * self.late,
        }

    def _files(self, folder: Path | Place) -> list[str]:
        """Names of files in a folder, which is listed once."""
        if folder not in self._listed:
            self._listed[folder] = Place(folder).files()
        return self._listed[folder]


@lru_cache(maxsize=1)
def _loaded(recipe: str | Path, weights: str | Path | Place | None, output: str | None, codes: bool) -> Converter:
    return Converter.load(recipe, weights, output=output, codes=codes)


def _quantizer(converter: Converter) -> Q2D2 | FSQ | None:
    """The quantizer behind the output ``codes``, where the graph has both."""
    wire = converter.graph.wiring.get(CODES)
    if wire is None or wire.node not in converter.graph.nodes:
        return None
    block: StreamBlock = converter.graph.nodes[wire.node].block
    return block if isinstance(block, (Q2D2, FSQ)) else None


def _codes(quantizer: Q2D2 | FSQ | None, codes: Any) -> Codes | None:
    if quantizer is None:
        return None
    radix = (quantizer.quantizer.pairs if isinstance(quantizer, Q2D2) else quantizer.axes).radix
    if radix is None:
        return None
    sizes = tuple(int(size) for size in radix.sizes.flatten())
    return Codes(torch.from_numpy(codes.astype(np.int64)).flatten(), quantizer.codebook_size, sizes, radix.split)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parameters_hash(graph: torch.nn.Module) -> str:
    """A hash of the numbers that conversion computes with: weights that were drawn have no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(graph.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _lower_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return f"{stem}{dot}{ending.lower()}"
