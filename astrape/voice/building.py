"""Voicebanks from recordings of a speaker."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrape.audio.atomic import shown as _shown
from astrape.audio.downmix import MEAN, Downmix
from astrape.audio.places import Place, anywhere, local_file
from astrape.audio.reader import AudioReader
from astrape.audio.resampling import resampled, resampling
from astrape.blocks.base import Stream
from astrape.errors import AstrapeError, told_as
from astrape.progress import Progress
from astrape.voice.embedding import checked_embedding
from astrape.voice.errors import VoicebankError
from astrape.voice.metadata import Metadata
from astrape.voice.names import RECIPE
from astrape.voice.quality import ReferenceMeter, rms_dbfs
from astrape.voice.reference import SHORTEST_SECONDS, SILENT_DBFS, level_of, reference_windows
from astrape.voice.register import RegisterMeter
from astrape.voice.spaces import encoder_for
from astrape.voice.speaker import SpeakerEncoder, speaker_encoder
from astrape.voice.voicebank import Voicebank
from astrape.wording import reason_of

__all__ = ["LEAST_SECONDS", "build_voicebank"]

LEAST_SECONDS = 5
READ_SECONDS = 1.0
LOWEST_RATE, HIGHEST_RATE = 8000, 768_000
LOUDEST = 1e12
"""Samples of whole numbers of 32 bits pass, in a file of floats too; far above, their squares leave float32."""


def build_voicebank(
    references: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    encoder: SpeakerEncoder | str | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    channel: str = MEAN,
    created: datetime | None = None,
    progress: Progress | None = None,
) -> Voicebank:
    """Embed one speaker's voice from one or more recordings, and measure how good they are.

    Each recording is mixed to mono, resampled as a stream to the encoder's rate and cut into windows of 8 s, one every
    4 s; a last window ends with the recording where those leave a rest, and a recording shorter than 8 s is one window.
    Windows below -45 dBFS are skipped. The embedding is the mean over all windows of all recordings. Memory does not
    grow with their length.

    Of the metadata, ``source_sample_rate`` is the lowest of the recordings' rates, ``source_path`` their paths joined
    by ``"; "``, ``median_f0_hz`` the median of F0 over all voiced frames by ``pitch_tracker`` (left out where half a
    second is not voiced), and ``reference_sha256`` the digest of the files' bytes one after the other, so for one file
    what ``sha256sum`` prints.

    Args:
        references: audio files that soundfile reads, also by URL, 5 s or more in all and 1 s or more each, 8 kHz or
            more.
        encoder: what embeds them, or its name. Left out, it is the one that the weights were trained with, so that the
            voice is one that they take.
        weights: a decoder's, safetensors; those that ship with the default recipe when left out.
        channel: of recordings with several, as for :class:`~astrape.audio.downmix.Downmix`.
        created: time to note; now when left out.
        progress: called with seconds done and in all (``None``: unknown) now and then.

    Raises:
        VoicebankError: for a recording that cannot be read, is cut short, too short, silent or not finite, or whose
            channels cancel each other, and an encoder that gives anything but 128 finite numbers.
    """
    paths = [references] if isinstance(references, (str, os.PathLike)) else list(references)
    if encoder is None or isinstance(encoder, str):
        encoder = speaker_encoder(encoder_for(encoder, weights, RECIPE))
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

        meters.append(_embed(path, mean, channel, tell))
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
        median_f0_hz=mean.register.median,
        sealed=True,
    )
    return Voicebank(mean.value(shown), metadata)


class _Mean:
    """The mean of the embeddings of all windows that are loud enough."""

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder
        self.register = RegisterMeter(encoder.sample_rate)
        self.sum = np.zeros(128)
        self.count = 0
        self.loudest = rms_dbfs(0.0)

    def add(self, window: Tensor) -> None:
        level = level_of(window)
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


def _embed(path: str | os.PathLike[str], mean: _Mean, channel: str, tell: Callable[[float], None]) -> ReferenceMeter:
    """Measure a recording and add its windows to the mean."""
    shown = _shown(path)
    with _opened(path) as audio, told_as(VoicebankError):
        meter = ReferenceMeter(audio.rate)
        rate = mean.encoder.sample_rate
        try:
            graph = resampling(meter.rate, Stream(rate, 1))
        except AstrapeError as error:
            raise VoicebankError(f"{shown}: {error}") from error
        flat = mean.register.follow(
            piece.reshape(-1) for piece in resampled(graph, _heard(audio, meter, channel, tell))
        )
        for window in reference_windows(flat, rate):
            mean.add(window)
    if meter.frames < SHORTEST_SECONDS * meter.rate:
        raise VoicebankError(
            f"{shown}: {meter.frames / meter.rate:.2f} s long, and a reference has at least {SHORTEST_SECONDS}: "
            f"leave it out, or join it with another"
        )
    return meter


def _heard(audio: AudioReader, meter: ReferenceMeter, channel: str, tell: Callable[[float], None]) -> Iterator[Tensor]:
    """A file piece by piece, measured, mixed to ``(1, 1, n)``."""
    downmix = Downmix(audio.rate, audio.channels, channel, audio.name)
    for samples in audio.finite_blocks(READ_SECONDS):
        if (peak := float(np.abs(samples).max(initial=0))) > LOUDEST:
            raise VoicebankError(
                f"{audio.name}: a sample is {peak:.3g}, and full scale is 1: hint: divide all by that, or render anew"
            )
        mono = downmix.add(samples)
        meter.add(samples if channel == MEAN else mono[:, None])
        tell(meter.frames / meter.rate)
        yield torch.from_numpy(mono).reshape(1, 1, -1)
    audio.refuse_faults()
    downmix.refuse_cancelled()


def _opened(path: str | os.PathLike[str]) -> AudioReader:
    with told_as(VoicebankError):
        audio = AudioReader(path)
    if not LOWEST_RATE <= audio.rate <= HIGHEST_RATE:
        with audio:
            limits = f"{LOWEST_RATE} to {HIGHEST_RATE} Hz"
            raise VoicebankError(f"{audio.name}: {audio.rate} Hz, and a reference has {limits}: record it anew")
    return audio


def _expected_seconds(path: str | os.PathLike[str]) -> float | None:
    """The length that a file declares, seconds; ``None`` where it declares none."""
    with _opened(path) as audio, told_as(VoicebankError):
        audio.refuse_faults()
        return None if audio.promised is None else audio.promised / audio.rate


def _hash(path: str | os.PathLike[str], digest: Any) -> None:
    with told_as(VoicebankError):
        local = local_file(path)
    try:
        with local.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise VoicebankError(f"{_shown(path)}: cannot be read: {reason_of(error)}") from error


def _check_paths(paths: Sequence[str | os.PathLike[str]]) -> None:
    if not paths:
        raise VoicebankError("there is no reference: name at least one recording of the speaker")
    seen: set[str] = set()
    for path in paths:
        place = anywhere(path)
        real = str(place) if isinstance(place, Place) else os.path.realpath(place)
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
