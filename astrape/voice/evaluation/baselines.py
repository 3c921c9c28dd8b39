"""Baselines: what takes no learning, to stand beside a system in the same run, by the same metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.audio.atomic import make_folder
from astrape.audio.places import Place
from astrape.audio.writer import AudioWriter
from astrape.progress import Progress
from astrape.voice.evaluation.errors import EvaluationError
from astrape.voice.evaluation.packages import absence
from astrape.voice.evaluation.pairs import Pair, own_voices
from astrape.voice.evaluation.pitch import WORLD
from astrape.voice.evaluation.recording import Recording
from astrape.voice.evaluation.systems import ConvertedFile
from astrape.voice.voicebank import read_voicebank

__all__ = ["REGISTER_LIMITS", "SourceItself", "WorldShift", "in_own_voices", "register"]

REGISTER_LIMITS = 50.0, 600.0
"""Hz, as for the metric of pitch."""

FRAME_MS = 5.0
FEWEST_VOICED = 20


class SourceItself:
    """The source, untouched: where a conversion starts from."""

    converts = False

    def render(self, pair: Pair, progress: Progress | None = None) -> ConvertedFile:
        return ConvertedFile(pair.heard)

    def describe(self) -> dict[str, Any]:
        return {"recipe": None, "baseline": "the source itself"}


class WorldShift:
    """A weightless shift: the source's pitch moved to the target's register, by WORLD (Morise et al. 2016).

    F0 by Harvest, envelope by CheapTrick, aperiodicity by D4C, at the source's own rate; F0 times the ratio of the
    target's median to the source's. Not causal, and it knows the whole source.

    Args:
        folder: results go to ``folder/TARGET/SPEAKER/NAME.wav``.
    """

    converts = False

    def __init__(self, folder: Path | Place) -> None:
        if reason := absence([WORLD]):
            raise EvaluationError(f"baseline 'world': {reason}")
        self.folder = folder
        self._registers: dict[tuple[Path | Place, ...], float] = {}

    def render(self, pair: Pair, progress: Progress | None = None) -> ConvertedFile:
        import pyworld

        if pair.target is None:
            raise EvaluationError(f"{pair.name}: there is no target to shift to")
        recording = Recording(pair.heard)
        samples = _whole(recording)
        f0, times = _harvest(samples, recording.rate)
        ratio = self._target(pair) / _median(f0, pair.heard)
        envelope = pyworld.cheaptrick(samples, f0, times, recording.rate)
        aperiodicity = pyworld.d4c(samples, f0, times, recording.rate)
        shifted = pyworld.synthesize(f0 * ratio, envelope, aperiodicity, recording.rate, FRAME_MS)[: len(samples)]
        out = self.folder / pair.target.name / f"{pair.source.key}.wav"
        make_folder(out.parent)
        with AudioWriter(out, recording.rate, 1) as written:
            written.write((shifted / max(1.0, float(np.abs(shifted).max())))[:, None])
        return ConvertedFile(out)

    def describe(self) -> dict[str, Any]:
        return {"recipe": None, "baseline": "WORLD, pitch moved to the target's register"}

    def _target(self, pair: Pair) -> float:
        target = pair.target
        assert target is not None
        if target.files not in self._registers:
            self._registers[target.files] = _register_of(target.files, target.audio)
        return self._registers[target.files]


def in_own_voices(pairs: Sequence[Pair]) -> list[Pair]:
    """Each source of the pairs once, to its speaker's own voice, embedded from up to 8 of the speaker's sources."""
    sources = {pair.source.key: pair for pair in pairs}
    own = own_voices([pair.source for pair in sources.values()])
    return [replace(pair, given=sources[pair.source.key].given) for pair in own]


def register(path: Path | Place) -> float:
    """Median F0 of a recording, Hz, by Harvest.

    Raises:
        EvaluationError: for a recording with less than a tenth of a second that is voiced.
    """
    recording = Recording(path)
    return _median(_harvest(_whole(recording), recording.rate)[0], path)


def _register_of(files: Sequence[Path | Place], audio: Path | Place | None) -> float:
    """A target's register: as its voicebank says, or by its recordings."""
    if files[0].suffix.lower() in (".astrape", ".npz"):
        said = read_voicebank(files[0]).metadata.median_f0_hz
        if said is not None:
            return said
        if audio is None:
            raise EvaluationError(
                f"{files[0].name}: says no register and has no recording beside it, so that nothing can be shifted to "
                f"it: name a recording (--target-audio)"
            )
        return register(audio)
    return float(np.median([register(path) for path in files]))


def _whole(recording: Recording) -> npt.NDArray[np.float64]:
    return np.concatenate(list(recording.pieces(recording.rate, 30.0))).astype(np.float64)


def _harvest(samples: npt.NDArray[np.float64], rate: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    import pyworld

    low, high = REGISTER_LIMITS
    f0, times = pyworld.harvest(samples, rate, f0_floor=low, f0_ceil=high, frame_period=FRAME_MS)
    return f0, times


def _median(f0: npt.NDArray[np.float64], path: Path | Place) -> float:
    voiced = f0[f0 > 0]
    if len(voiced) < FEWEST_VOICED:
        raise EvaluationError(f"{path.name}: {len(voiced)} frames are voiced, and a register takes {FEWEST_VOICED}")
    return float(np.median(voiced))
