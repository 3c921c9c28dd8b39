"""Requests to a teacher: the content of utterances, and one embedding for each speaker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.audio.atomic import shown
from astrape.corpus.utterances import Utterance
from astrape.errors import AstrapeError
from astrape.training.caches.record import BY_UTTERANCE, Record, hash_of_state
from astrape.training.caches.recording import read_recording
from astrape.training.errors import CacheError
from astrape.training.teachers import Teacher
from astrape.training.voicing import RATE as VOICING_RATE
from astrape.training.voicing import voiced_frames
from astrape.voice.reference import SHORTEST_SECONDS, SILENT_DBFS, level_of, reference_windows

__all__ = ["Content", "Teaching", "teacher_record"]

SEED = 0


@dataclass(frozen=True)
class Content:
    """One utterance as its teacher has it.

    Attributes:
        content: ``(channels, frames)`` float32.
        codes: ``(1, frames)`` int64, where the teacher has codes.
        voiced: ``(1, frames)`` uint8, 1 where most of a frame has a pitch.
    """

    content: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int64] | None
    voiced: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Centroid:
    """A speaker's embedding.

    Attributes:
        embedding: ``(speaker_channels,)`` float32, the mean over windows.
        windows: how many.
        used: the utterances that they are of.
        faults: what could not be used, in words.
    """

    embedding: npt.NDArray[np.float32]
    windows: int
    used: tuple[Utterance, ...]
    faults: tuple[str, ...]


class Teaching:
    """A teacher at work on recordings.

    Args:
        teacher: what ``open_teacher`` gives.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def content(self, utterance: Utterance) -> Content:
        """The content of an utterance.

        Raises:
            CacheError: for audio that cannot be read, and a teacher that gives anything but finite frames, about as
                many as the audio has.
            TeacherError: for audio that the teacher does not take.
        """
        teacher = self.teacher
        audio = read_recording(utterance.path, Fraction(teacher.sample_rate), utterance.channel)
        seconds = Fraction(audio.shape[-1], teacher.sample_rate)
        # A teacher that has both at once is not asked twice.
        both = getattr(teacher, "encode", None) if teacher.code_count is not None else None
        said, coded = (teacher.content(audio), None) if both is None else both(audio)
        content = _checked(said, (1, teacher.content_channels, None), f"content of '{teacher.name}'")
        frames = content.shape[-1]
        expected = int(seconds * teacher.content_rate)
        if not expected <= frames <= expected + 1:
            raise CacheError(
                f"'{teacher.name}' gives {frames} frames of content for {float(seconds):.3f} s, which has {expected}"
            )
        if not frames:
            raise CacheError(f"{float(seconds):.3f} s long, and a frame of content takes {1 / teacher.content_rate} s")
        codes = None
        if teacher.code_count is not None:
            given = (teacher.codes(audio) if coded is None else coded).detach().cpu()
            fits = tuple(given.shape) == (1, 1, frames) and given.dtype == torch.int64
            if not fits or int(given.min()) < 0 or int(given.max()) >= teacher.code_count:
                raise CacheError(
                    f"'{teacher.name}' gives codes {tuple(given.shape)} of {given.dtype}, and (1, 1, {frames}) of "
                    f"int64 below {teacher.code_count} are due"
                )
            codes = given[0].numpy()
        heard = audio
        if teacher.sample_rate != VOICING_RATE:
            heard = read_recording(utterance.path, Fraction(VOICING_RATE), utterance.channel)
        voiced = voiced_frames(heard, teacher.content_rate, frames)
        return Content(content[0].numpy(), codes, voiced.numpy())

    def centroid(self, utterances: Sequence[Utterance], count: int) -> Centroid:
        """One embedding of a speaker: the mean over windows of several utterances.

        Utterances are taken in an order that a hash of their keys gives, so the same ones on every machine, until
        ``count`` of them have been heard. Each is cut into windows of 8 s, one every 4 s, with a last one at its end;
        a shorter one is a window by itself. Windows below 1 s or -45 dBFS are left out: they have little of a voice.

        Args:
            utterances: of one speaker.
            count: how many to take, at least 1.

        Raises:
            CacheError: for a speaker without a window that is loud and long enough.
        """
        order = sorted(utterances, key=lambda one: hashlib.sha256(f"{SEED}\0{shown(one.key)}".encode()).digest())
        total = torch.zeros(self.teacher.speaker_channels, dtype=torch.float64)
        windows, used, faults = 0, list[Utterance](), list[str]()
        for utterance in order:
            if len(used) == count:
                break
            try:
                found = [self._embedding(window) for window in self._windows(utterance)]
            except AstrapeError as error:
                faults.append(str(error))
                continue
            if found:
                used.append(utterance)
                windows += len(found)
                total += torch.stack(found).sum(0)
        if not windows:
            reason = f": {faults[0]}" if faults else ""
            raise CacheError(
                f"no utterance of {len(utterances)} has a window of {SHORTEST_SECONDS} s or more that reaches "
                f"{SILENT_DBFS:g} dBFS{reason}"
            )
        return Centroid((total / windows).float().numpy(), windows, tuple(used), tuple(faults))

    def _embedding(self, window: Tensor) -> Tensor:
        name = f"speaker embedding of '{self.teacher.name}'"
        return _checked(self.teacher.speaker(window), (1, self.teacher.speaker_channels), name)[0].double()

    def _windows(self, utterance: Utterance) -> Iterator[Tensor]:
        rate = self.teacher.sample_rate
        audio = read_recording(utterance.path, Fraction(rate), utterance.channel)
        for window in reference_windows([audio.reshape(-1)], rate):
            if level_of(window) >= SILENT_DBFS:
                yield window.reshape(1, 1, -1)


def teacher_record(
    what: str, teacher: Teacher, spec: Mapping[str, Any], utterances: int, per_utterance: bool = False
) -> Record:
    """The record of a cache that a teacher made.

    Args:
        what: ``content`` or ``speakers``.
        teacher: who makes it.
        spec: ``use`` and the parameters that opened it.
        utterances: of each speaker that are taken; content does not depend on it.
        per_utterance: of speakers, one embedding for each utterance.
    """
    content = what == "content"
    identity: dict[str, Any] = {"teacher": teacher.name}
    state = getattr(teacher, "state_dict", None)
    fingerprint = getattr(teacher, "fingerprint", None)
    if isinstance(fingerprint, str):
        identity["weights"] = fingerprint
    elif callable(state):
        identity["weights"] = hash_of_state(state())
    if not content and per_utterance:
        identity["one for each"] = BY_UTTERANCE
    elif not content:
        identity["utterances per speaker"] = utterances
    return Record(
        what=what,
        channels=teacher.content_channels if content else teacher.speaker_channels,
        rate=teacher.content_rate if content else None,
        maker=f"teacher '{teacher.name}'",
        identity=identity,
        options={"teacher": dict(spec)},
        codes=teacher.code_count if content else None,
    )


def _checked(given: Tensor, shape: tuple[int | None, ...], what: str) -> Tensor:
    y = given.detach().cpu().float()
    wanted = "(" + ", ".join("frames" if size is None else str(size) for size in shape) + ")"
    if y.dim() != len(shape) or any(size not in (None, have) for size, have in zip(shape, y.shape, strict=True)):
        raise CacheError(f"the {what} is {tuple(y.shape)} and not {wanted}")
    if not bool(torch.isfinite(y).all()):
        raise CacheError(f"the {what} is not finite")
    return y
