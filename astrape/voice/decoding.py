"""Decoding of stored codes, with a voice, to sound."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrape.audio.places import Place, anywhere
from astrape.audio.resampling import resampled, resampling_to
from astrape.audio.writer import AudioWriter
from astrape.errors import AstrapeError, StreamError
from astrape.graph.compile.plan import Wire
from astrape.graph.graph import Graph
from astrape.graph.hosted import is_audio_stream
from astrape.graph.subgraph import subgraph
from astrape.progress import Progress
from astrape.runtime.files import Timed, check_chunk, joined
from astrape.runtime.ports import not_finite
from astrape.voice.codes import CodedRecording, CodesError, CodeStream, read_codes
from astrape.voice.names import FROM_CODES
from astrape.voice.spaces import BoundToSpace
from astrape.voice.speaking import SPEAKER, check_speaker, load_seeded
from astrape.voice.voicebank import Voicebank

__all__ = ["FROM_CODES", "CodeDecoder", "Decoded"]

PIECE_SECONDS = 0.5
"""Seconds that are resampled and written at a time."""


@dataclass(frozen=True)
class Decoded(Timed):
    """The result of decoding a file of codes; as :class:`~astrape.runtime.files.Conversion` where names are the same.

    Attributes:
        coded_by: the recipe that coded it, if the file says.
        codes: how many there are.
        rate_codes: codes a second.
    """

    source: str
    target: str
    coded_by: str
    codes: int
    rate_codes: str
    rate_out: int
    frames_out: int
    subtype: str
    seconds: float
    elapsed: float
    graph_seconds: float
    clipped: int
    peak_out: float
    rms_out: float


class CodeDecoder(BoundToSpace):
    """A graph from codes and a voice to sound, ready for any number of files.

    Args:
        graph: with one input of codes, an audio output and a control ``speaker`` of 128 channels, such as
            ``astrape-vc-from-codes``.
        output: the output to write, the first one that is audio when left out.

    Raises:
        AstrapeError: for a graph of another form.
    """

    def __init__(self, graph: Graph, *, output: str | None = None) -> None:
        if len(graph.inputs) != 1 or is_audio_stream(next(iter(graph.inputs.values()))):
            listed = ", ".join(f"{name} at {stream.rate} Hz" for name, stream in graph.inputs.items())
            raise AstrapeError(
                f"'{graph.name}' decodes no codes: it takes {listed}, and codes want a recipe such as {FROM_CODES}"
            )
        heard = [name for name, stream in graph.outputs.items() if is_audio_stream(stream)]
        if output is None and not heard:
            raise AstrapeError(f"'{graph.name}' has no audio output")
        self.output = heard[0] if output is None else output
        if self.output not in heard:
            raise AstrapeError(f"'{graph.name}' has no audio output '{self.output}' (choose from: {', '.join(heard)})")
        check_speaker(graph)
        self.graph = subgraph(graph, [self.output])
        check_speaker(self.graph)
        self.input, self.stream = next(iter(self.graph.inputs.items()))

    @classmethod
    def load(
        cls, recipe: str | Path = FROM_CODES, weights: str | Path | Place | None = None, *, output: str | None = None
    ) -> CodeDecoder:
        """Load a recipe by name or path, and its part of the weights of the whole, a safetensors file.

        Raises:
            RecipeError: for a recipe or weights that cannot be read, or weights that lack a tensor of it.
            AstrapeError: for a recipe of another form.
        """
        made = cls(load_seeded(recipe, weights, subset=True), output=output)
        made.bind(weights, recipe)
        return made

    def file(
        self,
        source: str | Path,
        out: str | Path | Place,
        voice: Voicebank | Tensor,
        *,
        chunk_ms: float = 10.0,
        controls: Mapping[str, Tensor | float] | None = None,
        progress: Progress | None = None,
    ) -> Decoded:
        """Decode a file of codes, ``.npy`` or ``.npz``.

        Of an ``.npz`` comes what conversion wrote when it stored the codes, with the recording's rate and length, and
        aligned with it to the sample. Codes alone come as long as they last, at the graph's rate, aligned with
        themselves: sample 0 is where the first code begins.

        Args:
            source: the file.
            out: an audio file; its ending picks the format.
            voice: a voicebank, or an embedding of 128 numbers.
            chunk_ms: what the graph gets at a time, at least one code.
            controls: further controls of the recipe, held throughout.
            progress: called with seconds done and in all now and then.

        Raises:
            AstrapeError: when something cannot be read, decoded or written. ``out`` is not touched then.
        """
        begin = time.perf_counter()
        check_chunk(chunk_ms)
        source, target = Path(source), anywhere(out)
        if isinstance(voice, Voicebank):
            self.check_voice(voice.metadata)
        codes = read_codes(source)
        self._check(codes, source)
        spoken = voice.speaker if isinstance(voice, Voicebank) else voice
        chunk = max(1, round(chunk_ms * float(self.stream.rate) / 1000))
        run = _Run(self, codes, chunk, dict(controls or {}) | {SPEAKER: spoken})
        stream = self.graph.outputs[self.output]
        recording = codes.recording or CodedRecording(round(stream.rate), 0, "")
        lasting = Fraction(len(codes.codes)) / self.stream.rate
        seconds = lasting if codes.recording is None else Fraction(recording.frames, recording.rate)
        wanted = math.ceil(seconds * recording.rate)
        target_form = (recording.rate, stream.channels, recording.subtype)
        with AudioWriter(target, *target_form, frames=wanted, source=source) as written:
            pieces = joined(run.over(math.ceil(seconds * stream.rate)), int(PIECE_SECONDS * stream.rate))
            for piece in resampled(resampling_to(stream, recording.rate), pieces):
                written.write(piece[0].T[: wanted - written.frames].numpy())
                if progress is not None:
                    progress(written.frames / recording.rate, float(seconds))
            if run.session.faults:
                raise AstrapeError(
                    f"{source}: {not_finite(self.graph, run.session.faults[0])}: hint: look at weights and voice"
                )
            if written.frames != wanted:
                raise AstrapeError(f"{target}: {written.frames} frames came out and {wanted} were due")
        return Decoded(
            source=str(source),
            target=str(target),
            coded_by=codes.recipe,
            codes=len(codes.codes),
            rate_codes=str(self.stream.rate),
            rate_out=recording.rate,
            frames_out=written.frames,
            subtype=written.subtype,
            seconds=float(seconds),
            elapsed=time.perf_counter() - begin,
            graph_seconds=run.seconds,
            clipped=written.clipped,
            peak_out=written.level.peak,
            rms_out=written.level.rms,
        )

    def _check(self, codes: CodeStream, name: Path) -> None:
        if codes.rate not in (None, self.stream.rate):
            raise CodesError(
                f"{name}: has {codes.rate} codes a second, and '{self.graph.name}' takes {self.stream.rate}"
                + (f": decode it with what belongs to '{codes.recipe}'" if codes.recipe else "")
            )
        channels = codes.codes.shape[1]
        if channels != self.stream.channels:
            raise CodesError(
                f"{name}: has codes of {channels} channels, and '{self.graph.name}' takes {self.stream.channels}"
            )
        entry = Wire(self.input, "out")
        sizes = [
            size
            for node in self.graph.nodes.values()
            if entry in node.sources.values() and (size := getattr(node.block, "codebook_size", None)) is not None
        ]
        if sizes and codes.codes.size and int(codes.codes.max()) >= min(sizes):
            raise CodesError(f"{name}: has the code {int(codes.codes.max())}, and '{self.graph.name}' has {min(sizes)}")


class _Run:
    """Codes in, sound without its latency out."""

    def __init__(self, decoder: CodeDecoder, codes: CodeStream, chunk: int, controls: dict[str, Any]) -> None:
        self.session = decoder.graph.stream(chunk=chunk)
        self.chunk = chunk
        self.codes = torch.from_numpy(codes.codes)
        self.seconds = 0.0
        stream = decoder.graph.outputs[decoder.output]
        # Rounded once, as a session of the whole graph rounds it.
        self.late = math.ceil((codes.latency + decoder.graph.latencies[decoder.output]) * stream.rate)
        self.ratio = stream.rate / decoder.stream.rate
        # Nothing is heard yet: this refuses controls that do not fit before the target is opened.
        try:
            self.session.push(torch.zeros(1, decoder.stream.channels, 0), **controls)
        except StreamError as error:
            raise AstrapeError(str(error)) from error

    def over(self, wanted: int) -> Iterator[Tensor]:
        """``wanted`` frames, as they come."""
        skip = self.late
        for x in self._chunks(wanted + self.late):
            began = time.perf_counter()
            y: Any = self.session.push(x)
            self.seconds += time.perf_counter() - began
            dropped = min(skip, y.shape[-1])
            skip -= dropped
            y = y[..., dropped : dropped + wanted]
            wanted -= y.shape[-1]
            yield y

    def _chunks(self, frames: int) -> Iterator[Tensor]:
        """The codes, and after them the last one again until ``frames`` of sound are due."""
        for begin in range(0, len(self.codes), self.chunk):
            yield self.codes[begin : begin + self.chunk].T.unsqueeze(0).to(torch.get_default_dtype())
        more = math.ceil(frames / self.ratio) - len(self.codes)
        if more > 0 and len(self.codes):
            yield self.codes[-1:].expand(more, -1).T.unsqueeze(0).to(torch.get_default_dtype())
