"""Conversion of recordings to a voice: what a live stream of chunks gives, over files and folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from astrape.audio.atomic import atomic_path
from astrape.audio.downmix import MEAN
from astrape.audio.pipes import PipeReader, PipeTarget
from astrape.audio.places import Place, anywhere, local_file
from astrape.errors import AstrapeError, AudioError, told_as
from astrape.graph.graph import Graph
from astrape.graph.hosted import is_audio_stream
from astrape.graph.subgraph import subgraph
from astrape.jobs import IN_PROCESS, Engine, Job
from astrape.progress import Progress, within
from astrape.runtime.files import Conversion, Streaming, check_chunk, process_file
from astrape.runtime.ports import audio_ports
from astrape.voice import codes as stored
from astrape.voice.building import build_voicebank
from astrape.voice.container import MAGIC
from astrape.voice.errors import VoicebankError
from astrape.voice.folder import (
    Batch,
    Failure,
    FilePair,
    convert_pair,
    convert_pairs,
    pairs_of_folder,
)
from astrape.voice.names import CODE_ENDINGS, MEL_STATISTICS, RECIPE
from astrape.voice.shipped import shipped_voice, shipped_voices
from astrape.voice.spaces import BoundToSpace
from astrape.voice.speaker import SpeakerEncoder, speaker_encoder
from astrape.voice.speaking import SEED, SPEAKER, check_speaker, load_seeded, voice_controls
from astrape.voice.voicebank import ZIP_MAGICS, Voicebank, read_voicebank
from astrape.wording import reason_of

__all__ = ["RECIPE", "SEED", "Converter", "convert", "is_voice", "voice_of"]

CODES = "codes"


class Converter(BoundToSpace):
    """A graph that converts to a voice, ready for any number of files.

    Args:
        graph: with one audio input, an audio output and a control ``speaker`` of 128 channels, such as ``astrape-vc``.
        output: the output to write, the first one that is audio when left out. Of the others, nothing is computed that
            this one does not need.
        codes: keep the output ``codes`` too.

    Attributes:
        graph: the part of it that is run.
        output: what is written.
        loaded_with: what :meth:`load` was given, for workers that load it too; ``None`` without it.

    Raises:
        AstrapeError: for a graph of another form.

    >>> import astrape
    >>> converter = Converter(astrape.load("astrape-vc-small"))
    >>> converter.output, list(converter.graph.outputs), converter.graph.controls
    ('wav', ['wav'], {'speaker': 128})
    """

    loaded_with: tuple[str | Path, str | Path | Place | None, str | None, bool] | None = None

    def __init__(self, graph: Graph, *, output: str | None = None, codes: bool = False) -> None:
        if output is None:
            output = next((name for name, stream in graph.outputs.items() if is_audio_stream(stream)), None)
        _, self.output = audio_ports(graph, output)
        if codes and CODES not in graph.outputs:
            listed = ", ".join(graph.outputs)
            raise AstrapeError(f"'{graph.name}' has no output '{CODES}' to store (choose from: {listed})")
        check_speaker(graph)
        self.graph = subgraph(graph, [self.output, CODES] if codes else [self.output])
        if SPEAKER not in self.graph.controls:
            raise AstrapeError(f"'{graph.name}' converts to no voice: '{self.output}' does not depend on '{SPEAKER}'")

    @classmethod
    def load(
        cls,
        recipe: str | Path = RECIPE,
        weights: str | Path | Place | None = None,
        *,
        output: str | None = None,
        codes: bool = False,
    ) -> Converter:
        """Load a recipe by name or path, and weights from a safetensors file, or those that ship with the recipe.

        Where there are neither, they are drawn with ``SEED``.

        Raises:
            RecipeError: for a recipe or weights that cannot be read or do not fit together.
            AstrapeError: for a recipe of another form.
        """
        made = cls(load_seeded(recipe, weights), output=output, codes=codes)
        made.bind(weights, recipe)
        made.loaded_with = recipe, weights, output, codes
        return made

    def file(
        self,
        source: str | Path | Place | PipeReader,
        out: str | Path | Place | PipeTarget,
        voice: Voicebank | Tensor,
        *,
        codes: str | Path | Place | None = None,
        progress: Progress | None = None,
        **how: Unpack[Streaming],
    ) -> Conversion:
        """Convert a file. See :func:`astrape.runtime.files.process_file` for what holds of rates, lengths and errors.

        Args:
            source, out: audio files, also by URL, or streams of bytes.
            voice: a voicebank, or an embedding of 128 numbers. A voicebank that says its register sets the control
                ``register`` too, where the graph has one and ``controls`` does not.
            codes: a file for the stream of codes, where the converter keeps it, which
                :class:`~astrape.voice.decoding.CodeDecoder` reads: .npz, with what it takes to decode it to a file
                that is ``out``, or .npy, the codes alone (:mod:`astrape.voice.codes`).
            progress: called with seconds done and in all (``None``: unknown) now and then.
            how: ``chunk_ms``, what the graph gets at a time, milliseconds, 10 by default: the result does not depend on
                it; ``live_latency``, to keep the latency that a live host hears, instead of aligning; ``channel``, of a
                source with several, as for :func:`~astrape.runtime.files.process_file`; ``controls``, further ones of
                the recipe, held throughout.

        Raises:
            AstrapeError: when something cannot be read, converted or written. ``out`` is not touched then.
        """
        if isinstance(voice, Voicebank):
            self.check_voice(voice.metadata)
        of_voice = voice_controls(self.graph, voice)
        how["controls"] = of_voice | dict(how.get("controls") or {}) | {SPEAKER: of_voice[SPEAKER]}
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
                if Path(codes).suffix.lower() not in CODE_ENDINGS:
                    raise AstrapeError(f"{codes}: codes are stored as .npz or .npy: end it with one of them")
                store = written.enter_context(atomic_path(codes))
            done = process_file(
                self.graph,
                source,
                out,
                output=self.output,
                beside=None if store is None else {CODES: take},
                progress=progress,
                **how,
            )
            if store is not None:
                stream = self.graph.outputs[CODES]
                coded = stored.CodeStream(
                    np.frombuffer(taken, np.int32).reshape(-1, stream.channels),
                    stream.rate,
                    self.graph.latencies[CODES],
                    stored.CodedRecording(done.rate_in, done.frames_in, done.subtype),
                    self.graph.name,
                )
                stored.write_codes(store, coded)
        return done

    def folder(
        self,
        source: str | Path | Place,
        out: str | Path | Place,
        voice: Voicebank | Tensor,
        *,
        keep: Sequence[str | Path | Place] = (),
        engine: Engine = IN_PROCESS,
        progress: Progress | None = None,
        **how: Unpack[Streaming],
    ) -> Batch:
        """Convert every audio file below a folder, to files of the same relative paths and endings below another.

        Which files are audio, their endings say; hidden files and folders are left alone, and so is ``out`` where it
        lies inside ``source``. A file that cannot be converted is noted, and the others go on.

        Args:
            source, out: folders, of this machine or of stores by URL; ``out`` is made where it is missing.
            voice, how: as for :meth:`file`.
            keep: files that are in use, such as the voice's own: no output may overwrite them.
            engine: what does the work. Workers other than this process load the recipe and the weights themselves: each
                takes one core, and what a converter takes.
            progress: called with files done, and in all; in this process, fractions of them too.

        Raises:
            AstrapeError: for folders that cannot be read or made, without audio, or where a source or a file to keep
                would be overwritten, and for a converter that workers cannot load, not made by :meth:`load`; nothing is
                converted then.
        """
        _check_chunk(how)
        pairs, others = pairs_of_folder(anywhere(source), anywhere(out), [anywhere(path) for path in keep])
        if self.loaded_with is None and not engine.in_process:
            raise AstrapeError(f"'{self.graph.name}': workers load it themselves; hint: make it with Converter.load")

        def here(pair: FilePair) -> Conversion:
            tell = within(progress, pair.index, len(pairs))
            return self.file(pair.source, pair.target, voice, progress=tell, **how)

        job = Job(_load_converter, (self.loaded_with, voice, how), lambda: partial(convert_pair, here))
        return convert_pairs(job, pairs, others, engine, progress)


def _load_converter(
    loaded_with: tuple[str | Path, str | Path | Place | None, str | None, bool],
    voice: Voicebank | Tensor,
    how: Streaming,
) -> Callable[[FilePair], Conversion | Failure]:
    recipe, weights, output, codes = loaded_with
    # Workers share the cores.
    torch.set_num_threads(1)
    converter = Converter.load(recipe, weights, output=output, codes=codes)
    return partial(convert_pair, lambda pair: converter.file(pair.source, pair.target, voice, **how))


def _check_chunk(how: Streaming) -> None:
    if "chunk_ms" in how:
        check_chunk(how["chunk_ms"])


def convert(
    source: str | Path | Place,
    target: str | Path | Place | Voicebank,
    out: str | Path | Place,
    *,
    recipe: str | Path = RECIPE,
    weights: str | Path | Place | None = None,
    encoder: str | SpeakerEncoder | None = None,
    output: str | None = None,
    codes: str | Path | Place | None = None,
    progress: Progress | None = None,
    **how: Unpack[Streaming],
) -> Conversion:
    """Convert a recording to a voice. For many of them, make a :class:`Converter` once.

    The output has the source's rate and length and is aligned with it to the sample. Memory does not grow with the
    length.

    Args:
        source: an audio file of any format, rate, length and channel count that soundfile reads. This file and those
            below may be URLs.
        target: the voice: a voicebank or its file, or a recording to build one from.
        out: the file to write; its ending picks the format.
        recipe: the name of a shipped recipe, or the path of a YAML file.
        weights: a safetensors file. Left out, those that ship with the recipe; where none ship they are random, drawn
            with ``SEED``, and what is written is noise; a warning says so.
        encoder: the speaker encoder for a recording, or its name; the one that the weights were trained with when left
            out, and ``mel-statistics`` where they do not say.
        output: the output to write where the recipe has several; the first that is audio when left out.
        codes, progress, how: as for :meth:`Converter.file`.

    Raises:
        AstrapeError: when something cannot be read, converted or written; ``out`` is not touched then.
    """
    _check_chunk(how)
    converter = Converter.load(recipe, weights, output=output, codes=codes is not None)
    if converter.random:
        same = ", the same for every voice" if converter.deaf else ""
        warnings.warn(f"'{converter.graph.name}' has random weights: the output is noise{same}", stacklevel=2)
    if isinstance(target, Voicebank):
        voice = target
    else:
        voice = voice_of(target, encoder or converter.encoder)
        converter.check_voice(voice.metadata, target)
    return converter.file(source, out, voice, codes=codes, progress=progress, **how)


def voice_of(
    target: str | os.PathLike[str],
    encoder: str | SpeakerEncoder = MEL_STATISTICS,
    progress: Progress | None = None,
    *,
    channel: str = MEAN,
) -> Voicebank:
    """The voice that a file holds, also by URL: a voicebank of either form, or a recording, which the encoder embeds.

    The name of a voice that ships is one too, where no file is called so.

    Which of them it is, its first bytes say; one that is called .astrape or .npz is never taken for a recording.

    Raises:
        VoicebankError: for a file that is neither, and a recording that is not good enough as a reference.
    """
    shipped = shipped_voice(target)
    if shipped is not None:
        return read_voicebank(shipped)
    path = anywhere(target)
    there = isinstance(path, Place) or path.exists()
    if not there and not path.suffix and path.name == os.fspath(target):
        known = ", ".join(shipped_voices())
        raise VoicebankError(
            f"{target}: there is no such file, and no voice of that name ships: hint: name a recording, a voicebank, "
            f"or one of {known}"
        )
    if _is_voicebank(path):
        return read_voicebank(path)
    embeds = speaker_encoder(encoder) if isinstance(encoder, str) else encoder
    try:
        return build_voicebank(path, embeds, channel=channel, progress=progress)
    except VoicebankError as error:
        if isinstance(error.__cause__, AudioError) and error.__cause__.kind == "format":
            raise VoicebankError(f"{path}: is neither a voicebank nor a readable audio file") from error
        raise


def is_voice(target: str | os.PathLike[str]) -> bool:
    """Whether a target is a voicebank's file or the name of a voice that ships, rather than a recording."""
    return shipped_voice(target) is not None or _is_voicebank(anywhere(target))


def _is_voicebank(path: Path | Place) -> bool:
    begin = _begin(path)
    return begin == MAGIC or begin in ZIP_MAGICS or path.suffix.lower() in (".astrape", ".npz")


def _begin(path: Path | Place) -> bytes:
    """The first bytes of a regular file; empty for anything else, which its reader reports better."""
    with told_as(VoicebankError):
        local = local_file(path)
    try:
        if not local.is_file():
            return b""
        with local.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise VoicebankError(f"{path}: cannot be opened: {reason_of(error)}") from error
