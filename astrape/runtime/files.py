"""A graph over an audio file of any length, format, rate and channel count, block by block in constant memory."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch
from torch import Tensor

from astrape.audio.downmix import MEAN, Downmix
from astrape.audio.levels import Level, decibels
from astrape.audio.pipes import PipeReader, PipeTarget, PipeWriter
from astrape.audio.places import Place
from astrape.audio.reader import AudioReader, Samples
from astrape.audio.resampling import resampled, resampling, resampling_to
from astrape.audio.writer import AudioWriter
from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.progress import Progress
from astrape.runtime.ports import audio_ports, not_finite

__all__ = ["Conversion", "Streaming", "Timed", "check_chunk", "in_chunks", "joined", "process_file"]

READ_SECONDS = 0.5
"""Seconds that are read and resampled at a time. Memory depends on it, results do not."""


class Timed:
    """Times and levels that all results of a graph over a file have; a base of dataclasses with those fields."""

    seconds: float
    graph_seconds: float

    @property
    def real_time_factor(self) -> float:
        """Graph time per second of audio; below 1 is faster than real time. 0 for an empty file."""
        return self.graph_seconds / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for machines."""
        return asdict(cast(Any, self)) | {"real_time_factor": self.real_time_factor}


@dataclass(frozen=True)
class Conversion(Timed):
    """The result of ``process_file``.

    Attributes:
        seconds: length of the input.
        elapsed: wall-clock seconds, reading, resampling and writing included.
        graph_seconds: the part of it that the graph took.
        latency_frames: frames by which the output file is late, at its rate; 0 when compensated.
        clipped: samples beyond full scale, cut off there; counted alike for float files, which keep them.
        missing: frames that the input's header promises and the file does not hold; what is there was converted.
        surplus: frames in the file that its header does not speak of; they were not converted.
        unsized: the input's header leaves its length open; it was read to its end.
        cut: whether the input ends too early, also by an unknown length.
        cancelled: seconds in which the input's channels cancel each other in their mean; 0 where that is under a tenth
            of the sound.
        not_finite: NaN and infinite input samples, taken as silence.
        first_not_finite: where the first of them stands, seconds.
    """

    source: str
    target: str
    rate_in: int
    channels_in: int
    frames_in: int
    rate_out: int
    channels_out: int
    frames_out: int
    subtype: str
    seconds: float
    elapsed: float
    graph_seconds: float
    latency_frames: int
    clipped: int
    missing: int
    surplus: int
    unsized: bool
    cut: bool
    cancelled: float
    not_finite: int
    first_not_finite: float | None
    peak_in: float
    peak_out: float
    rms_in: float
    rms_out: float


class Streaming(TypedDict, total=False):
    """Settings of a file's way through a graph: arguments that callers of :func:`process_file` pass on to it."""

    chunk_ms: float
    live_latency: bool
    channel: str
    controls: Mapping[str, Tensor | float] | None


def process_file(
    graph: Graph,
    source: str | Path | Place | PipeReader,
    target: str | Path | Place | PipeTarget,
    *,
    controls: Mapping[str, Tensor | float] | None = None,
    chunk_ms: float = 10.0,
    output: str | None = None,
    live_latency: bool = False,
    keep_rate: bool = False,
    channel: str = MEAN,
    beside: Mapping[str, Callable[[Tensor], None]] | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Run a graph with one audio input and one audio output over a file, as a live host would.

    The file is mixed to the graph's channels (to and from one channel by mean and copies) and resampled as a stream to
    the graph's rate; the output goes back to the file's rate. It is written under a temporary name and renamed at the
    end, so that the target is either whole or not touched. Memory does not grow with the length.

    Args:
        graph: what to run.
        source, target: audio files, also by URL. The target's ending picks its format; it keeps the source's subtype
            (16 bit, float) where the format has it. WAV beyond 4 GB becomes RF64. Or streams of bytes: what comes out
            of one is taken as it comes, and what goes into one is flushed with every chunk.
        controls: values by name, held throughout.
        chunk_ms: what the graph is given at a time, milliseconds of its input, at least one frame. Results do not
            depend on it.
        output: which output to write where the graph has several.
        live_latency: keep the latency a live host hears: the output is late, and longer, by the host latency. Left
            out, the output is aligned with the input to the sample and has its length.
        keep_rate: write at the graph's output rate instead of the file's.
        channel: what of a file with several channels is heard where the graph has another number of them, or where one
            is named: ``mean``, ``left``, ``right``, or the number of one, from 1.
        beside: other outputs to listen to by name, codes for instance. Each function is called with ``(channels,
            frames)`` as they come, from the output's very first frame to its last: in time with the graph's own
            streams, so late by that output's latency. Not with ``live_latency``, whose streams begin with padding.
        progress: called with seconds done and in all (``None``: unknown) now and then.

    Raises:
        AstrapeError: for a file that cannot be read or written, a graph of the wrong form, controls that do not fit,
            and output that is not finite. The target is not touched then.
    """
    begin = time.perf_counter()
    port_in, port_out = audio_ports(graph, output)
    stream_in, stream_out = graph.inputs[port_in], graph.outputs[port_out]
    check_chunk(chunk_ms, stream_in.rate)
    if beside and live_latency:
        raise AstrapeError(f"'{next(iter(beside))}' is taken down without live latency: leave one of the two out")
    with source if isinstance(source, PipeReader) else AudioReader(source) as audio:
        rate = audio.rate
        rate_out = _whole(stream_out.rate) if keep_rate else rate
        try:
            to_graph, from_graph = resampling(rate, stream_in), resampling_to(stream_out, rate_out)
        except AstrapeError as error:
            raise AstrapeError(f"{_shown(source)}: {error}") from error
        chunk = max(1, round(chunk_ms * float(stream_in.rate) / 1000))
        run = _Run(graph, port_out, chunk, live_latency, dict(controls or {}), dict(beside or {}))
        heard = _Heard(audio, stream_in.channels, channel)
        channels = stream_out.channels
        expected = ((audio.promised or 0) - audio.missing) * rate_out // rate
        with _target(target, audio, rate_out, channels, expected) as written:
            pieces = resampled(to_graph, heard.read(max(1, int(READ_SECONDS * rate)), progress))
            pieces = resampled(from_graph, run.over(in_chunks(pieces, chunk)))
            if not isinstance(target, PipeTarget):
                pieces = joined(pieces, int(READ_SECONDS * rate_out))
            late = run.latency / stream_out.rate if live_latency else Fraction(0)
            for piece in pieces:
                wanted = math.ceil((Fraction(audio.frames, rate) + late) * rate_out)
                last = heard.done
                written.write(piece[0].T[: wanted - written.frames if last else None].numpy())
            run.refuse_faults(_shown(source), heard.level)
            wanted = math.ceil((Fraction(audio.frames, rate) + late) * rate_out)
            if written.frames != wanted:
                raise AstrapeError(f"{_shown(target)}: {written.frames} frames came out and {wanted} were due")
        seconds = audio.frames / rate
        return Conversion(
            source=_shown(source),
            target=_shown(target),
            rate_in=rate,
            channels_in=audio.channels,
            frames_in=audio.frames,
            rate_out=rate_out,
            channels_out=channels,
            frames_out=written.frames,
            subtype=written.subtype,
            seconds=seconds,
            elapsed=time.perf_counter() - begin,
            graph_seconds=run.seconds,
            latency_frames=round(late * rate_out),
            clipped=written.clipped,
            missing=audio.missing,
            surplus=audio.surplus,
            unsized=audio.unsized,
            cut=audio.is_cut,
            cancelled=heard.downmix.cancelled_seconds if heard.downmix is not None and heard.downmix.cancels else 0.0,
            not_finite=heard.not_finite,
            first_not_finite=heard.first_not_finite,
            peak_in=heard.level.peak,
            peak_out=written.level.peak,
            rms_in=heard.level.rms,
            rms_out=written.level.rms,
        )


def _target(
    target: str | Path | Place | PipeTarget, audio: AudioReader | PipeReader, rate: int, channels: int, frames: int
) -> AudioWriter | PipeWriter:
    if isinstance(target, PipeTarget):
        return target.open(rate, channels, audio)
    source = audio.path if isinstance(audio, AudioReader) else None
    return AudioWriter(target, rate, channels, audio.subtype, frames=frames, source=source)


def _shown(end: str | Path | Place | PipeReader | PipeTarget) -> str:
    return end.name if isinstance(end, (PipeReader, PipeTarget)) else str(end)


SHORT_CHUNK = 0.1
"""Milliseconds: a tenth of the shortest buffer of a sound card."""


def check_chunk(chunk_ms: float, rate: Fraction | None = None) -> None:
    """Refuse a chunk that is not over 0 and up to 60,000 ms, and tell what a very short one costs.

    Args:
        rate: of the audio that is cut into chunks, Hz; without it the range alone is checked.

    Raises:
        AstrapeError: for any other, and for less than one frame.

    Warns:
        UserWarning: under ``SHORT_CHUNK``.
    """
    if not (math.isfinite(chunk_ms) and 0 < chunk_ms <= 60_000):
        raise AstrapeError(f"a chunk must be over 0 and up to 60000 ms, not {chunk_ms:g}")
    if rate is None:
        return
    frames = chunk_ms * float(rate) / 1000
    # A chunk that is meant as one frame may be short of it by its decimals.
    if frames < 0.99:
        raise AstrapeError(
            f"a chunk of {chunk_ms:g} ms is {frames:.3g} frames at {rate} Hz, and a graph takes whole frames: hint: "
            f"--chunk 10, or {1000 / float(rate):.4f} for one frame at a time"
        )
    if chunk_ms < SHORT_CHUNK:
        warnings.warn(
            f"a chunk of {chunk_ms:g} ms costs as much as one of 10 ms, so seconds of sound take minutes; what comes "
            "out is the same: hint: --chunk 10, or what your host's buffers last",
            stacklevel=2,
        )


class _Run:
    """The graph's part: chunks in, the wanted output's frames out, the time it takes, and its faults."""

    def __init__(
        self,
        graph: Graph,
        output: str,
        chunk: int,
        live: bool,
        controls: dict[str, Tensor | float],
        beside: dict[str, Callable[[Tensor], None]],
    ) -> None:
        self.session = graph.stream(constant_latency=live, chunk=chunk)
        self.output = output
        self.beside = beside
        self.live = live
        self.seconds = 0.0
        stream = next(iter(graph.inputs.values()))
        self.latency = self.session.latency_frames(output)
        self.faults: list[Any] = []
        # Nothing is heard yet: this refuses controls that do not fit before the target is opened.
        self.session.push(torch.zeros(1, stream.channels, 0), **controls)

    def over(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        skip = 0 if self.live else self.latency
        for chunk in chunks:
            began = time.perf_counter()
            y = self._wanted(self.session.push(chunk))
            self.seconds += time.perf_counter() - began
            dropped = min(skip, y.shape[-1])
            skip -= dropped
            yield y[..., dropped:]
        self.faults = self.session.faults
        yield self._wanted(self.session.flush())[..., skip:]

    def refuse_faults(self, source: str, heard: Level) -> None:
        if self.faults:
            told = not_finite(self.session.graph, self.faults[0])
            raise AstrapeError(
                f"{source}: {told}; its input peaks at {decibels(heard.peak):.1f} dB: hint: bring that to 0 dB, or "
                f"look at recipe and weights"
            )

    def _wanted(self, y: Any) -> Tensor:
        named = y if isinstance(y, dict) else {self.output: y}
        for name, listener in self.beside.items():
            listener(named[name][0])
        found: Tensor = named[self.output]
        return found


class _Heard:
    """Reads a file piece by piece, mixed to a number of channels, with what is not finite taken as silence."""

    def __init__(self, audio: AudioReader | PipeReader, channels: int, channel: str) -> None:
        self.audio, self.channels = audio, channels
        mixed = audio.channels != channels or channel != MEAN
        self.downmix = Downmix(audio.rate, audio.channels, channel, audio.name) if mixed else None
        self.done = False
        self.not_finite = 0
        self.first_not_finite: float | None = None
        self.level = Level()

    def read(self, size: int, progress: Progress | None) -> Iterator[Tensor]:
        rate, promised = self.audio.rate, self.audio.promised
        while len(data := self.audio.read(size)):
            x = self._finite(data)
            self.level.add(x)
            if self.downmix is None:
                yield torch.from_numpy(x).T.unsqueeze(0)
            else:
                yield torch.from_numpy(self.downmix.add(x)).expand(1, self.channels, -1)
            if progress is not None:
                progress(self.audio.frames / rate, promised / rate if promised else None)
        self.done = True

    def _finite(self, x: Samples) -> Samples:
        bad = ~np.isfinite(x)
        count = int(bad.sum())
        if not count:
            return x
        if self.first_not_finite is None:
            first = self.audio.frames - len(x) + int(np.flatnonzero(bad.any(axis=1))[0])
            self.first_not_finite = first / self.audio.rate
        self.not_finite += count
        return np.where(bad, np.float32(0), x)


def _whole(rate: Fraction) -> int:
    if rate.denominator != 1:
        raise AstrapeError(f"the output runs at {rate} Hz, and a file has whole rates: leave keep_rate out")
    return int(rate)


def in_chunks(pieces: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    """The same stream in pieces of ``frames``, the last one what is left."""
    held: Tensor | None = None
    for piece in pieces:
        held = piece if held is None else torch.cat((held, piece), dim=-1)
        whole = held.shape[-1] // frames * frames
        for begin in range(0, whole, frames):
            yield held[..., begin : begin + frames]
        held = held[..., whole:].clone()
    if held is not None and held.shape[-1]:
        yield held


def joined(pieces: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    """The same stream in pieces of at least ``frames``, but for the last."""
    held: list[Tensor] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += piece.shape[-1]
        if count >= frames:
            yield torch.cat(held, dim=-1)
            held, count = [], 0
    if held:
        yield torch.cat(held, dim=-1)
