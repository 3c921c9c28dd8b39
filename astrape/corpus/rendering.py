"""Sets of Kokoro's voices: one sentence, its durations and its contour once, then any number of voices on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from astrape.audio.levels import SPOKEN, sounding_rms
from astrape.corpus.errors import CorpusError, UnfitError
from astrape.corpus.phonemes import SILENCE, Vocabulary, phonemise, plain_labels
from astrape.corpus.plan import Rendering, SetPlan
from astrape.corpus.voices import Voices
from astrape.corpus.warping import warped

__all__ = ["PHONE_RATE", "PITCH_RATE", "KokoroStudio", "RenderedSet", "Synthesiser", "Voiced", "leveled"]

PHONE_RATE, PITCH_RATE = 40, 80
"""Hz, of labels and of F0. A frame covers the time from its own number to the next."""

LEAST_TOKENS, MOST_TOKENS = 12, 200
LONGEST_PHONES = 400

VOICED_HZ = 40.0
"""Kokoro's contour is lower where it is unvoiced."""

REGISTER_HZ = 50.0

PEAK = 0.98

AUDIBLE = 0.01
LEAD, TAIL = 5, 7
"""Frames of 25 ms that are left before the first and after the last audible one, in all renderings alike."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Synthesiser(Protocol):
    """The three parts of :class:`~astrape.corpus.kokoro.Kokoro`.

    Contours have ``f0``, ``(1, frames)`` at 80 Hz.
    """

    def durations(self, tokens: Integers, prosody: Floats, speed: float) -> Integers: ...

    def contours(self, tokens: Integers, prosody: Floats, durations: Integers) -> Any: ...

    def render(self, contours: Any, acoustic: Floats, *, f0: Floats | None = None) -> Floats: ...


@dataclass(frozen=True)
class Voiced:
    """One rendering.

    Attributes:
        audio: float32 ``(samples,)``, at its final level.
        f0: float32 ``(frames at 80 Hz,)``, Hz, 0 where unvoiced.
        gain: that brought it to its level.
    """

    audio: Floats
    f0: Floats
    gain: float


@dataclass(frozen=True)
class RenderedSet:
    """A set as it is written: all renderings of one length, in step.

    Attributes:
        plan: what it was made of.
        phones: as they were spoken; ``None`` if unknown.
        rate: of the audio, Hz.
        frames: length in frames of 25 ms.
        labels: int16 ``(frames,)``, the phone that sounds in each frame, see
            :func:`~astrape.corpus.phonemes.plain_labels`; ``None`` if unknown.
        voices: by name.
    """

    plan: SetPlan
    phones: str | None
    rate: int
    frames: int
    labels: npt.NDArray[np.int16] | None
    voices: dict[str, Voiced]


class KokoroStudio:
    """Renders plans.

    Args:
        synthesiser: Kokoro in three parts.
        voices: the styles.
        vocabulary: of its phones.
        rate: of its audio, Hz.
    """

    def __init__(self, synthesiser: Synthesiser, voices: Voices, vocabulary: Vocabulary, rate: int) -> None:
        self.synthesiser, self.voices, self.vocabulary, self.rate = synthesiser, voices, vocabulary, rate

    def register(self, voice: str, texts: tuple[str, ...]) -> float:
        """The geometric mean, over texts, of a voice's median F0 in its own prosody, Hz."""
        logs: list[float] = []
        for text in texts:
            tokens = self.vocabulary.tokens(phonemise(text))
            prosody = self.voices.prosody(voice, len(tokens))
            durations = self.synthesiser.durations(tokens, prosody, 1.0)
            f0 = self.synthesiser.contours(tokens, prosody, durations).f0
            logs.append(float(np.log(np.median(f0[f0 > REGISTER_HZ]))))
        return float(np.exp(np.mean(logs)))

    def render(self, plan: SetPlan) -> RenderedSet:
        """All renderings of a plan.

        Raises:
            UnfitError: for a sentence of too few or too many phones, or one that comes out silent.
        CorpusError: for samples that are not finite.
            ToolError: where text cannot be turned into phones.
        """
        phones = plan.phones if plan.phones is not None else phonemise(plan.text)[:LONGEST_PHONES]
        tokens = self.vocabulary.tokens(phones)
        if not LEAST_TOKENS <= len(tokens) <= MOST_TOKENS:
            raise UnfitError(f"has {len(tokens)} phones, and sentences have {LEAST_TOKENS} to {MOST_TOKENS}")
        prosody = self.voices.prosody(plan.prosody, len(tokens))
        durations = self.synthesiser.durations(tokens, prosody, plan.speed)
        contours = self.synthesiser.contours(tokens, prosody, durations)
        samples = self.rate // PHONE_RATE
        audio: dict[str, Floats] = {}
        f0s: dict[str, Floats] = {}
        for one in plan.renderings:
            if one.warp is None:
                moved = moved_to(contours.f0, one.register)
                style = self.voices.mixed(one.parts, len(tokens))
                audio[one.name] = self.synthesiser.render(contours, style, f0=moved)
                f0s[one.name] = heard_f0(moved[0], contours.f0[0] > VOICED_HZ)
        begin, end = trimmed(list(audio.values()), samples)
        voices: dict[str, Voiced] = {}
        for one in plan.renderings:
            if one.warp is None:
                cut = audio[one.name][begin * samples : end * samples]
                voices[one.name] = leveled(cut, f0s[one.name][2 * begin : 2 * end], samples)
        add_warps(voices, plan.renderings, self.rate)
        spoken = np.repeat(np.array([SILENCE, *tokens, SILENCE]), durations)
        labels = plain_labels(spoken, self.vocabulary).astype(np.int16)[begin:end]
        return RenderedSet(plan, phones, self.rate, end - begin, labels, voices)


def moved_to(f0: Floats, register: float) -> Floats:
    """A contour whose voiced part is moved to a register (the geometric mean of its F0, Hz)."""
    voiced = f0 > VOICED_HZ
    own = float(np.exp(np.log(f0[voiced]).mean())) if voiced.any() else register
    return np.where(voiced, f0 * register / own, f0).astype(np.float32)


def heard_f0(f0: Floats, voiced: npt.NDArray[np.bool_]) -> Floats:
    """F0 as it is heard in the middle of each frame, where the decoder is given a contour.

    Kokoro's source interpolates phases, so the F0 of frame ``j`` is heard about ``j / 80`` s, and the middle of a frame
    lies between two of them. Held against WORLD's F0 of 29 renderings, the median deviation is 0.023 octaves; it is
    0.029 where the contour is taken as it is.

    Args:
        f0: the contour, Hz at 80 Hz.
        voiced: where it is one.
    """
    following = np.append(f0[1:], 0)
    both = np.append(voiced[1:], False)
    return np.where(voiced, np.where(both, (f0 + following) / 2, f0), 0).astype(np.float32)


def trimmed(renderings: list[Floats], samples: int) -> tuple[int, int]:
    """First and last frame of what is audible in any rendering, with a little around it: the same cut for all.

    Args:
        renderings: of one length.
        samples: of a frame.

    Raises:
        UnfitError: where all are silent.
        CorpusError: where samples are not finite.
    """
    frames = len(renderings[0]) // samples
    if any(not np.isfinite(one).all() for one in renderings):
        raise CorpusError("came out with samples that are not finite")
    peaks = np.max([np.abs(one[: frames * samples]).reshape(frames, samples).max(1) for one in renderings], axis=0)
    heard = np.flatnonzero(peaks > AUDIBLE)
    if not len(heard):
        raise UnfitError(f"came out silent: its peak is {peaks.max(initial=0.0):.2g}")
    return max(0, int(heard[0]) - LEAD), min(frames, int(heard[-1]) + TAIL)


def leveled(audio: Floats, f0: Floats, samples: int) -> Voiced:
    """Brought to -23 dBFS of what is spoken in it, or less where its peak would be above 0.98."""
    gain = min(SPOKEN / sounding_rms(audio, samples), PEAK / np.abs(audio).max())
    return Voiced((audio * gain).astype(np.float32), f0, float(gain))


def add_warps(voices: dict[str, Voiced], renderings: tuple[Rendering, ...], rate: int) -> None:
    """Add the pseudo-speakers, which are made of renderings that are there."""
    for one in renderings:
        if one.warp is not None:
            of = voices[one.warp.of]
            audio, f0 = warped(of.audio, of.f0, rate, one.warp.stretch, one.warp.pitch)
            voices[one.name] = leveled(audio, f0, rate // PHONE_RATE)
