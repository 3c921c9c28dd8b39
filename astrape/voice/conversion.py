"""Conversion of recordings to a voice: what a live stream of chunks gives, over files and folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from astrape.errors import AstrapeError
from astrape.graph.compile import load
from astrape.graph.graph import Graph
from astrape.graph.outputs import with_outputs
from astrape.runtime.audio_target import atomic_path
from astrape.runtime.files import SLOWEST_AUDIO, Conversion, audio_ports, check_chunk, process_file
from astrape.voice.building import build_voicebank
from astrape.voice.container import MAGIC
from astrape.voice.embedding import CHANNELS
from astrape.voice.errors import VoicebankError
from astrape.voice.speaker import MEL_STATISTICS, SpeakerEncoder, speaker_encoder
from astrape.voice.voicebank import ZIP_MAGICS, Voicebank, read_voicebank

__all__ = ["RECIPE", "SEED", "Batch", "Converter", "Failure", "convert", "voice_of"]

RECIPE = "astrape-vc"

SEED = 0
"""What weights are drawn with where none are given, so that the same noise comes out each time."""

SPEAKER = "speaker"
CODES = "codes"

ENDINGS = {"aif", "aifc", "oga", "opus"} | {name.lower() for name in soundfile.available_formats()} - {"raw"}
"""Of what is converted in a folder. Raw samples say neither rate nor channels."""

Progress = Callable[[float, float | None], None]


@dataclass(frozen=True)
class Failure:
    """A file of a folder that was not converted, and why."""

    source: str
    error: str

    def to_dict(self) -> dict[str, str]:
        return {"source": self.source, "error": self.error}


@dataclass(frozen=True)
class Batch:
    """What became of a folder.

    Attributes:
        converted: in the order of their paths.
        failed: what could not be converted.
        passed_over: how many files are no audio by their ending.
    """

    converted: tuple[Conversion, ...]
    failed: tuple[Failure, ...]
    passed_over: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "converted": [done.to_dict() for done in self.converted],
            "failed": [failure.to_dict() for failure in self.failed],
            "passed_over": self.passed_over,
        }


class Converter:
    """A graph that converts to a voice, ready for any number of files.

    Args:
        graph: with one audio input, an audio output and a control ``speaker`` of 128 channels, such as ``astrape-vc``.
        output: the output to write, the first one that is audio when left out. Of the others, nothing is computed that
            this one does not need.
        codes: keep the output ``codes`` too.

    Attributes:
        graph: the part of it that is run.
        output: what is written.

    Raises:
        AstrapeError: for a graph of another form.

    >>> converter = Converter(load("astrape-vc-small"))
    >>> converter.output, list(converter.graph.outputs), converter.graph.controls
    ('wav', ['wav'], {'speaker': 128})
    """

    def __init__(self, graph: Graph, *, output: str | None = None, codes: bool = False) -> None:
        if output is None:
            output = next((name for name, stream in graph.outputs.items() if stream.rate >= SLOWEST_AUDIO), None)
        _, self.output = audio_ports(graph, output)
        if codes and CODES not in graph.outputs:
            listed = ", ".join(graph.outputs)
            raise AstrapeError(f"'{graph.name}' has no output '{CODES}' to store (there is: {listed})")
        channels = graph.controls.get(SPEAKER)
        if channels != CHANNELS:
            found = "no such control" if channels is None else f"one of {channels}"
            raise AstrapeError(
                f"'{graph.name}' converts to no voice: that takes a control '{SPEAKER}' of {CHANNELS} channels, and it "
                f"has {found}"
            )
        self.graph = with_outputs(graph, [self.output, CODES] if codes else [self.output])
        if SPEAKER not in self.graph.controls:
            raise AstrapeError(f"'{graph.name}' converts to no voice: '{self.output}' does not depend on '{SPEAKER}'")

    @classmethod
    def load(
        cls,
        recipe: str | Path = RECIPE,
        weights: str | Path | None = None,
        *,
        output: str | None = None,
        codes: bool = False,
    ) -> Converter:
        """With a recipe by name or path, and weights from a safetensors file; drawn with ``SEED`` where there are none.

        Raises:
            RecipeError: for a recipe or weights that cannot be read or do not fit together.
            AstrapeError: for a recipe of another form.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            graph = load(recipe, weights=weights)
        return cls(graph, output=output, codes=codes)

    @property
    def learned(self) -> int:
        """Parameters that conversion uses: 0 for a recipe that has nothing to train, where no weights are missing."""
        return sum(parameter.numel() for parameter in self.graph.parameters())

    def file(
        self,
        source: str | Path,
        out: str | Path,
        voice: Voicebank | Tensor,
        *,
        chunk_ms: float = 10.0,
        live_latency: bool = False,
        codes: str | Path | None = None,
        controls: Mapping[str, Tensor | float] | None = None,
        progress: Progress | None = None,
    ) -> Conversion:
        """Convert a file. See :func:`astrape.runtime.files.process_file` for what holds of rates, lengths and errors.

        Args:
            source, out: audio files.
            voice: a voicebank, or an embedding of 128 numbers.
            chunk_ms: what the graph gets at a time, milliseconds. The result does not depend on it.
            live_latency: keep the latency that a live host hears, instead of aligning.
            codes: an .npy file for the code stream, where the converter keeps it: int32 ``(frames,)``, or ``(frames,
                channels)`` where there are several, each frame as the decoder takes it, from the very first on.
            controls: further controls of the recipe, held throughout.
            progress: called with seconds done and in all (``None``: unknown) now and then.

        Raises:
            AstrapeError: when something cannot be read, converted or written. ``out`` is not touched then.
        """
        values = dict(controls or {}) | {SPEAKER: voice.speaker if isinstance(voice, Voicebank) else voice}
        # 4 bytes a frame: an hour at 25 Hz is 360 kB.
        taken = bytearray()

        def take(frames: Tensor) -> None:
            nonlocal taken
            taken += frames.T.to(torch.int32).contiguous().numpy().tobytes()

        with ExitStack() as written:
            store = None
            if codes is not None:
                if CODES not in self.graph.outputs:
                    raise AstrapeError(f"{codes}: this converter keeps no codes: make it with codes=True")
                if Path(codes).suffix.lower() != ".npy":
                    raise AstrapeError(f"{codes}: codes are stored as .npy: end it with that")
                store = written.enter_context(atomic_path(codes))
            done = process_file(
                self.graph,
                source,
                out,
                controls=values,
                chunk_ms=chunk_ms,
                output=self.output,
                live_latency=live_latency,
                beside=None if store is None else {CODES: take},
                progress=progress,
            )
            if store is not None:
                stream = np.frombuffer(taken, np.int32).reshape(-1, self.graph.outputs[CODES].channels)
                np.save(store, stream[:, 0] if stream.shape[1] == 1 else stream)
        return done

    def folder(
        self,
        source: str | Path,
        out: str | Path,
        voice: Voicebank | Tensor,
        *,
        chunk_ms: float = 10.0,
        live_latency: bool = False,
        controls: Mapping[str, Tensor | float] | None = None,
        progress: Progress | None = None,
    ) -> Batch:
        """Convert every audio file below a folder, to files of the same relative paths and endings below another.

        Which files are audio, their endings say; hidden files and folders are left alone, and so is ``out`` where it
        lies inside ``source``. A file that cannot be converted is noted, and the others go on.

        Args:
            source, out: folders; ``out`` is made where it is missing.
            voice, chunk_ms, live_latency, controls: as for :meth:`file`.
            progress: called with files done, fractions included, and in all.

        Raises:
            AstrapeError: for folders that cannot be read or made, without audio, or of which one would overwrite the
                other's files; nothing is converted then.
        """
        source, out = Path(source), Path(out)
        check_chunk(chunk_ms)
        if not source.is_dir():
            raise AstrapeError(f"{source}: is no folder")
        if out.exists() and not out.is_dir():
            raise AstrapeError(f"{out}: is no folder, and a folder converts to one: name another")
        files = sorted(_below(source, out))
        audio = [path for path in files if path.suffix.removeprefix(".").lower() in ENDINGS]
        if not audio:
            raise AstrapeError(f"{source}: holds no audio file (of {len(files)}): nothing to convert")
        targets = [out / path.relative_to(source) for path in audio]
        overwritten = {path.resolve() for path in audio} & {path.resolve() for path in targets}
        if overwritten:
            raise AstrapeError(f"{out}: would overwrite the source {min(overwritten)}: name another folder")
        converted: list[Conversion] = []
        failed: list[Failure] = []
        for index, (path, target) in enumerate(zip(audio, targets, strict=True)):
            tell = _within(progress, index, len(audio))
            try:
                _make(target.parent)
                converted.append(
                    self.file(
                        path,
                        target,
                        voice,
                        chunk_ms=chunk_ms,
                        live_latency=live_latency,
                        controls=controls,
                        progress=tell,
                    )
                )
            except AstrapeError as error:
                failed.append(Failure(str(path), str(error)))
            tell(1.0, 1.0)
        return Batch(tuple(converted), tuple(failed), len(files) - len(audio))


def convert(
    source: str | Path,
    target: str | Path | Voicebank,
    out: str | Path,
    *,
    recipe: str | Path = RECIPE,
    weights: str | Path | None = None,
    encoder: str | SpeakerEncoder = MEL_STATISTICS,
    chunk_ms: float = 10.0,
    live_latency: bool = False,
    output: str | None = None,
    codes: str | Path | None = None,
    controls: Mapping[str, Tensor | float] | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a recording to a voice. For many of them, make a :class:`Converter` once.

    The output has the source's rate and length and is aligned with it to the sample. Memory does not grow with the
    length.

    Args:
        source: an audio file of any format, rate, length and channel count that soundfile reads.
        target: the voice: a voicebank or its file, or a recording to build one from.
        out: the file to write; its ending picks the format.
        recipe: the name of a shipped recipe, or the path of a YAML file.
        weights: a safetensors file. Left out, the weights are random, drawn with ``SEED``, and what is written is
            noise; a warning says so.
        encoder: the speaker encoder for a recording, or its name.
        chunk_ms, live_latency, codes, controls, progress: as for :meth:`Converter.file`.
        output: the output to write where the recipe has several; the first that is audio when left out.

    Raises:
        AstrapeError: when something cannot be read, converted or written; ``out`` is not touched then.
    """
    check_chunk(chunk_ms)
    converter = Converter.load(recipe, weights, output=output, codes=codes is not None)
    if weights is None and converter.learned:
        warnings.warn(f"'{converter.graph.name}' has random weights: the output is noise", stacklevel=2)
    voice = target if isinstance(target, Voicebank) else voice_of(target, encoder)
    return converter.file(
        source,
        out,
        voice,
        chunk_ms=chunk_ms,
        live_latency=live_latency,
        codes=codes,
        controls=controls,
        progress=progress,
    )


def voice_of(
    target: str | os.PathLike[str], encoder: str | SpeakerEncoder = MEL_STATISTICS, progress: Progress | None = None
) -> Voicebank:
    """The voice that a file holds: a voicebank of either form, or a recording, which the encoder embeds.

    Which of them it is, its first bytes say; one that is called .astrape or .npz is never taken for a recording.

    Raises:
        VoicebankError: for a file that is neither, and a recording that is no good reference.
    """
    path = Path(target)
    begin = _begin(path)
    if begin == MAGIC or begin in ZIP_MAGICS or path.suffix.lower() in (".astrape", ".npz"):
        return read_voicebank(path)
    embeds = speaker_encoder(encoder) if isinstance(encoder, str) else encoder
    try:
        return build_voicebank(path, embeds, progress=progress)
    except VoicebankError as error:
        if "is no audio that can be read" in str(error):
            raise VoicebankError(f"{path}: is neither a voicebank nor audio that can be read") from error
        raise


def _begin(path: Path) -> bytes:
    """A regular file's first bytes; none of what is no file, which whoever reads it says better."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise VoicebankError(f"{path}: cannot be opened: {error.strerror or error}") from error


def _below(folder: Path, apart: Path) -> Iterator[Path]:
    """The files below a folder that are not hidden, but for those below ``apart``."""

    def refuse(error: OSError) -> None:
        raise AstrapeError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    left_alone = apart.resolve() if apart.resolve() != folder.resolve() else None
    for root, folders, names in os.walk(folder, onerror=refuse):
        here = Path(root)
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() != left_alone]
        yield from (here / name for name in names if name[0] != ".")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AstrapeError(f"{folder}: cannot be made: {error.strerror or error}") from error


def _within(progress: Progress | None, index: int, count: int) -> Progress:
    """Progress of one file as progress through all of them."""

    def tell(done: float, total: float | None) -> None:
        if progress is not None:
            progress(index + (min(1.0, done / total) if total else 0.0), float(count))

    return tell
