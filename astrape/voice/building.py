"""Voicebanks from recordings of a speaker."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.errors import AstrapeError
from astrape.runtime.files import resampling
from astrape.voice.embedding import checked_embedding
from astrape.voice.errors import VoicebankError
from astrape.voice.metadata import Metadata
from astrape.voice.quality import ReferenceMeter, rms_dbfs
from astrape.voice.speaker import SpeakerEncoder
from astrape.voice.voicebank import Voicebank

__all__ = ["LEAST_SECONDS", "build_voicebank"]

LEAST_SECONDS = 5
WINDOW_SECONDS, HOP_SECONDS = 8, 4
SHORTEST_SECONDS = 1
"""A recording below this has too little of a voice to weigh as much as a window of 8 s does."""
SILENT_DBFS = -45.0
READ_SECONDS = 1.0
LOWEST_RATE, HIGHEST_RATE = 8000, 768_000

Progress = Callable[[float, float | None], None]


def build_voicebank(
    references: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    encoder: SpeakerEncoder,
    *,
    created: datetime | None = None,
    progress: Progress | None = None,
) -> Voicebank:
    """Embed one speaker's voice from one or more recordings, and measure how good they are.

    Each recording is mixed to mono, resampled as a stream to the encoder's rate and cut into windows of 8 s, one every
    4 s; a last window ends with the recording where those leave a rest, and a recording shorter than 8 s is one window.
    Windows below -45 dBFS are skipped. The embedding is the mean over all windows of all recordings. Memory does not
    grow with their length.

    Of the metadata, ``source_sample_rate`` is the lowest of the recordings' rates, ``source_path`` their paths joined
    by ``"; "``, and ``reference_sha256`` the digest of the files' bytes one after the other, so for one file what
    ``sha256sum`` prints.

    Args:
        references: audio files that soundfile reads, 5 s or more in all and 1 s or more each, 8 kHz or more.
        encoder: what embeds them.
        created: time to note; now when left out.
        progress: called with seconds done and in all (``None``: unknown) now and then.

    Raises:
        VoicebankError: for a recording that cannot be read, is too short, silent or not finite, and an encoder that
            gives anything but 128 finite numbers.
    """
    paths = [references] if isinstance(references, (str, os.PathLike)) else list(references)
    _check_encoder(encoder)
    shown = [_shown(path) for path in paths]
    _check_paths(paths)
    # A look at all of them first: a missing last file is not found out after the first hour.
    expected = [_expected_seconds(path) for path in paths]
    total = None if None in expected else sum(filter(None, expected))
    digest = hashlib.sha256()
    meters: list[ReferenceMeter] = []
    mean = _Mean(encoder)
    done = 0.0
    for path in paths:
        before = done

        def tell(seconds: float, before: float = before) -> None:
            if progress is not None:
                progress(before + seconds, total)

        meters.append(_embed(path, mean, tell))
        _hash(path, digest)
        done += meters[-1].frames / meters[-1].rate
    seconds = sum(Fraction(meter.frames, meter.rate) for meter in meters)
    if seconds < LEAST_SECONDS:
        raise VoicebankError(
            f"{', '.join(shown)}: {float(seconds):.2f} s of reference, and an embedding takes at least "
            f"{LEAST_SECONDS}: add recordings of the same speaker"
        )
    quality = ReferenceMeter.together(meters)
    metadata = Metadata(
        duration_seconds=quality.duration_seconds,
        source_sample_rate=min(meter.rate for meter in meters),
        source_path="; ".join(shown),
        embedding_model=encoder.name,
        reference_sha256=digest.hexdigest(),
        created_utc=(created or datetime.now(UTC)).astimezone(UTC).isoformat(),
        peak_amplitude=quality.peak_amplitude,
        rms_dbfs=quality.rms_dbfs,
        clipping_fraction=quality.clipping_fraction,
        active_speech_ratio=quality.active_speech_ratio,
        dc_offset=quality.dc_offset,
        quality_warnings=quality.warnings,
    )
    return Voicebank(mean.value(shown), metadata)


class _Mean:
    """The mean of the embeddings of all windows that are loud enough."""

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder
        self.sum = np.zeros(128)
        self.count = 0
        self.loudest = rms_dbfs(0.0)

    def add(self, window: Tensor) -> None:
        level = rms_dbfs(float(window.double().square().mean()))
        self.loudest = max(self.loudest, level)
        if level < SILENT_DBFS:
            return
        with torch.no_grad():
            given = torch.as_tensor(self.encoder.embed(window.clone())).detach().cpu()
        try:
            # NumPy has no bfloat16.
            self.sum += checked_embedding((given.float() if given.is_floating_point() else given).numpy())
        except VoicebankError as error:
            raise VoicebankError(f"speaker encoder '{self.encoder.name}': {error}") from None
        self.count += 1

    def value(self, shown: Sequence[str]) -> Any:
        if not self.count:
            raise VoicebankError(
                f"{', '.join(shown)}: no window reaches {SILENT_DBFS:g} dBFS (the loudest has {self.loudest:.1f}): "
                f"record louder, or raise the level"
            )
        return self.sum / self.count


def _embed(path: str | os.PathLike[str], mean: _Mean, tell: Callable[[float], None]) -> ReferenceMeter:
    """Measure a recording and add its windows to the mean."""
    shown = _shown(path)
    with _opened(path) as audio:
        meter = ReferenceMeter(int(audio.samplerate))
        rate = mean.encoder.sample_rate
        pieces = _heard(audio, meter, shown, tell)
        try:
            graph = resampling(meter.rate, Stream(rate, 1))
        except AstrapeError as error:
            raise VoicebankError(f"{shown}: {meter.rate} Hz cannot be brought to {rate} Hz: {error}") from error
        if graph is not None:
            pieces = graph.stream().compensated(pieces)
        flat = (piece.reshape(-1) for piece in pieces)
        for window in _windows(flat, WINDOW_SECONDS * rate, HOP_SECONDS * rate):
            if len(window) >= SHORTEST_SECONDS * rate:
                mean.add(window)
    if meter.frames < SHORTEST_SECONDS * meter.rate:
        raise VoicebankError(
            f"{shown}: {meter.frames / meter.rate:.2f} s long, and a reference has at least {SHORTEST_SECONDS}: "
            f"leave it out, or join it with another"
        )
    return meter


def _windows(pieces: Iterable[Tensor], length: int, hop: int) -> Iterator[Tensor]:
    """Windows of ``length`` every ``hop``; a last one at the very end for what they leave; all, where it is less."""
    held = torch.zeros(0)
    start = 0
    for piece in pieces:
        held = torch.cat((held, piece))
        while len(held) >= start + length:
            yield held[start : start + length]
            # From the last window's start: the window at the very end may reach back that far.
            held = held[start:]
            start = hop
    if start == 0 or len(held) > length:
        yield held[-length:]


def _heard(
    audio: soundfile.SoundFile, meter: ReferenceMeter, shown: str, tell: Callable[[float], None]
) -> Iterator[Tensor]:
    """A file piece by piece, measured, mixed to ``(1, 1, n)``."""
    size = max(1, round(READ_SECONDS * meter.rate))
    while True:
        at = meter.frames / meter.rate
        try:
            samples = audio.read(size, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise VoicebankError(f"{shown}: cannot be read beyond {at:.3f} s: {_reason(error)}") from error
        if not len(samples):
            return
        bad = np.flatnonzero(~np.isfinite(samples).all(axis=1))
        if bad.size:
            at += float(bad[0]) / meter.rate
            raise VoicebankError(f"{shown}: the sample at {at:.3f} s is not finite: cut it out or render anew")
        meter.add(samples)
        tell(meter.frames / meter.rate)
        yield torch.from_numpy(samples.mean(axis=1, dtype=np.float64).astype(np.float32)).reshape(1, 1, -1)


def _opened(path: str | os.PathLike[str]) -> soundfile.SoundFile:
    shown = _shown(path)
    try:
        if not Path(path).is_file():
            what = "is no regular file" if Path(path).exists() else "there is no such file"
            raise VoicebankError(f"{shown}: {what}")
        audio = soundfile.SoundFile(os.fspath(path))
    except OSError as error:
        raise VoicebankError(f"{shown}: cannot be opened: {error.strerror or error}") from error
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise VoicebankError(f"{shown}: is no audio that can be read: {_reason(error)}") from error
    if not LOWEST_RATE <= audio.samplerate <= HIGHEST_RATE:
        with audio:
            limits = f"{LOWEST_RATE} to {HIGHEST_RATE} Hz"
            raise VoicebankError(f"{shown}: {audio.samplerate} Hz, and a reference has {limits}: record it anew")
    return audio


def _expected_seconds(path: str | os.PathLike[str]) -> float | None:
    """What a file says of its length; ``None`` where it says nothing."""
    with _opened(path) as audio:
        return audio.frames / audio.samplerate if 0 < audio.frames < 2**62 else None


def _hash(path: str | os.PathLike[str], digest: Any) -> None:
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise VoicebankError(f"{_shown(path)}: cannot be read: {error.strerror or error}") from error


def _check_paths(paths: Sequence[str | os.PathLike[str]]) -> None:
    if not paths:
        raise VoicebankError("there is no reference: name at least one recording of the speaker")
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise VoicebankError(f"{_shown(path)}: is given twice: name each recording once")
        seen.add(real)


def _check_encoder(encoder: SpeakerEncoder) -> None:
    if not isinstance(encoder.name, str) or not encoder.name:
        raise VoicebankError("a speaker encoder's name must be text that is not empty: the voicebank keeps it")
    rate = encoder.sample_rate
    if isinstance(rate, bool) or not isinstance(rate, int) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        limits = f"{LOWEST_RATE} to {HIGHEST_RATE} Hz"
        raise VoicebankError(
            f"speaker encoder '{encoder.name}': sample_rate must be a whole number of {limits}, not {rate!r}"
        )


def _shown(path: str | os.PathLike[str]) -> str:
    """A path as text that UTF-8 has a form for, whatever bytes the file system has."""
    return os.fsencode(path).decode("utf-8", "replace")


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
