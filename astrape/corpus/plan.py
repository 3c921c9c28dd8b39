"""Plans of sets, drawn from the seed and the set's number alone: who speaks, how fast, and which warps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astrape.corpus.sentences import Sentences
from astrape.corpus.voices import Voices

__all__ = [
    "FLITE",
    "KOKORO",
    "RECORDINGS",
    "Rendering",
    "SetPlan",
    "Warp",
    "draw_flite",
    "draw_set",
    "estimated_seconds",
]

KOKORO, FLITE, RECORDINGS = "kokoro", "flite", "recordings"

SPEED = (0.85, 1.2)
MIXED = {"train": 0.45, "held": 0.3}
"""Share of the renderings that are mixtures."""

RENDERINGS = {"train": (0.75, 0.2, 0.05), "held": (0.0, 0.6, 0.4)}
"""Chances of 1, 2 and 3 voices. A sentence costs as much as a further voice of it, and it is sentences that are learned
by heart, as the model card measures. Sets of two and three teach to convert."""

SPREAD = 1.5
"""Concentration of the Dirichlet distribution of shares: above 1, so that parts are heard."""

LEAST_SHARE = 20
"""Thousandths of a mixture."""

DETUNED = 1.0
"""Standard deviation in semitones of a rendering's register around its voice's own."""

STRETCH = (0.8, 1.25)
"""Range of the factor on formants. Below 0.8 and above 1.25 nobody sounds human."""

PITCH_EXPONENT = 2.0
"""Formants that lie 1.17 times higher, as women's do against men's, come with a pitch 1.4 to 1.7 times as high."""

REGISTERS = (65.0, 400.0)
"""Hz, least and most of a warped voice."""

FLITE_VOICES = {"slt": 180.0, "rms": 100.0, "awb": 130.0, "kal16": 110.0}
"""flite's voices of 16 kHz, and their registers in Hz."""

FLITE_STRETCH = (0.8, 1.25)
FLITE_SPREAD = 2.4
"""Semitones."""


@dataclass(frozen=True)
class Warp:
    """A pseudo-speaker: another rendering with its formants moved.

    Attributes:
        of: the rendering.
        stretch: of its envelope along frequency.
        pitch: times its F0.
    """

    of: str
    stretch: float
    pitch: float


@dataclass(frozen=True)
class Rendering:
    """One voice of a set.

    Attributes:
        name: of its files, and of the speaker.
        parts: shares by voice, which add up to 1; one voice for itself.
        register: F0 that its contour is moved to, Hz.
        warp: where it is made of another rendering.
    """

    name: str
    parts: dict[str, float]
    register: float
    warp: Warp | None = None


@dataclass(frozen=True)
class SetPlan:
    """The plan that a set is rendered from.

    Attributes:
        source: ``kokoro``, ``flite`` or ``recordings``.
        number: of the set.
        text: what is said.
        split: ``train`` or ``held``.
        prosody: the voice whose durations and contour all renderings share.
        speed: times its own.
        renderings: those with a warp last.
        phones: where they are known before, as in a repair.
    """

    source: str
    number: int
    text: str
    split: str
    prosody: str
    speed: float
    renderings: tuple[Rendering, ...]
    phones: str | None = None


def estimated_seconds(text: str, speed: float = 1.0) -> float:
    """Seconds that a text takes in one voice: right within a few per cent over an hour of them."""
    return (0.41 + 0.0556 * len(text)) / speed


def draw_set(
    seed: int, number: int, sentences: Sentences, voices: Voices, registers: dict[str, float], warps: float
) -> SetPlan | None:
    """The plan of a set of Kokoro's voices; ``None`` where the sentence is a held one in other signs.

    Args:
        seed, number: the draw depends on these alone.
        sentences: of which the set takes the one of its number.
        voices: all voices; held sets take held ones only, and other sets none of them.
        registers: of each voice, Hz.
        warps: share of the sets that have a pseudo-speaker more.
    """
    split = sentences.split(number)
    if split is None:
        return None
    draw = np.random.default_rng([seed, number])
    pool = voices.of_split(split)
    prosody = str(draw.choice(voices.prosodies(split)))
    speed = round(float(draw.uniform(*SPEED)), 4)
    count = 1 + int(draw.choice(3, p=RENDERINGS[split]))
    chosen: dict[str, Rendering] = {}
    while len(chosen) < min(count, len(pool)):
        mixed = draw.random() < MIXED[split] and len(pool) > 1
        parts = _mixture(draw, pool) if mixed else {str(draw.choice(pool)): 1.0}
        register = float(np.exp(sum(share * np.log(registers[voice]) for voice, share in parts.items())))
        register *= 2 ** (DETUNED * float(draw.standard_normal()) / 12)
        name = _name(parts)
        chosen.setdefault(name, Rendering(name, parts, round(register, 3)))
    renderings = _with_warp(draw, list(chosen.values()), warps)
    return SetPlan(KOKORO, number, sentences.texts[number], split, prosody, speed, renderings)


def draw_flite(seed: int, number: int, sentences: Sentences, warps: float) -> SetPlan | None:
    """The plan of a set of one of flite's voices, which takes sentences from the end; ``None`` for a held one."""
    sentence = len(sentences) - 1 - number
    if sentences.split(sentence) != "train":
        return None
    draw = np.random.default_rng([seed, number, 1])
    voice = str(draw.choice(list(FLITE_VOICES)))
    speed = round(1 / float(draw.uniform(*FLITE_STRETCH)), 4)
    register = round(FLITE_VOICES[voice] * 2 ** (FLITE_SPREAD * float(draw.standard_normal()) / 12), 3)
    name = f"flite_{voice}"
    renderings = _with_warp(draw, [Rendering(name, {name: 1.0}, register)], warps)
    return SetPlan(FLITE, number, sentences.texts[sentence], "train", name, speed, renderings)


def _mixture(draw: np.random.Generator, pool: Sequence[str]) -> dict[str, float]:
    """Shares of two or three voices in thousandths, which add up to 1000."""
    count = min(2 + int(draw.integers(2)), len(pool))
    names = [str(name) for name in draw.choice(pool, count, replace=False)]
    shares = np.maximum(LEAST_SHARE, np.round(1000 * draw.dirichlet([SPREAD] * count)).astype(int))
    shares[int(np.argmax(shares))] += 1000 - int(shares.sum())
    return {name: int(share) / 1000 for name, share in zip(names, shares, strict=True)}


def _name(parts: dict[str, float]) -> str:
    if len(parts) == 1:
        return next(iter(parts))
    return "mix-" + "-".join(f"{voice}_{round(1000 * share):03d}" for voice, share in parts.items())


def _with_warp(draw: np.random.Generator, renderings: list[Rendering], share: float) -> tuple[Rendering, ...]:
    # All numbers are drawn whether they are needed or not: the share does not move what comes before.
    wanted, which = draw.random() < share, int(draw.integers(len(renderings)))
    stretch = float(np.exp(draw.uniform(*np.log(STRETCH))))
    if not wanted:
        return tuple(renderings)
    one = renderings[which]
    stretch = round(stretch, 3)
    register = float(np.clip(one.register * stretch**PITCH_EXPONENT, *REGISTERS))
    pitch = round(register / one.register, 4)
    warp = Warp(one.name, stretch, pitch)
    name = f"warp_{round(1000 * stretch):04d}-{one.name}"
    return (*renderings, Rendering(name, one.parts, round(one.register * pitch, 3), warp))
