"""Sets of flite's voices: cheap speech of another synthesiser, with its own labels of what sounds when."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.audio.whole import read_mono
from astrape.corpus.errors import CorpusError, ToolError
from astrape.corpus.phonemes import SILENCE, Vocabulary, flite_token
from astrape.corpus.plan import SetPlan
from astrape.corpus.rendering import PHONE_RATE, PITCH_RATE, RenderedSet, add_warps, leveled, trimmed
from astrape.corpus.warping import fundamental

__all__ = ["FliteStudio", "check_flite"]

FLITE = "flite"
SECONDS = 120
RATE = 16000


class FliteStudio:
    """Renders plans with the program ``flite``.

    Args:
        vocabulary: whose numbers the labels have.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def render(self, plan: SetPlan) -> RenderedSet:
        """The voice, and the pseudo-speaker where the plan has one.

        Raises:
            CorpusError: for audio of another rate, and for what comes out silent.
            ToolError: where flite or pyworld is absent or fails.
        """
        one = plan.renderings[0]
        audio, rate, segments = _spoken(plan.text, plan.prosody.removeprefix("flite_"), 1 / plan.speed, one.register)
        if rate != RATE:
            raise CorpusError(f"flite's voice '{plan.prosody}' came at {rate} Hz and not {RATE} Hz")
        samples = rate // PHONE_RATE
        begin, end = trimmed([audio], samples)
        cut = audio[begin * samples : end * samples]
        tokens = [flite_token(phone, self.vocabulary) for phone, _ in segments]
        ends = np.array([until for _, until in segments])
        f0 = fundamental(cut, rate, (end - begin) * PITCH_RATE // PHONE_RATE)
        voices = {one.name: leveled(cut, f0, samples)}
        add_warps(voices, plan.renderings, rate)
        labels = labels_of(tokens, ends, end)[begin:end]
        return RenderedSet(plan, " ".join(phone for phone, _ in segments), rate, end - begin, labels, voices)


def labels_of(tokens: list[int], ends: npt.NDArray[np.float64], frames: int) -> npt.NDArray[np.int16]:
    """The token that sounds in the middle of each frame of 25 ms; silence after the last.

    Args:
        tokens: of the segments, in order.
        ends: of the segments, seconds.
        frames: how many.
    """
    middles = (np.arange(frames) + 0.5) / PHONE_RATE
    return np.array([*tokens, SILENCE], np.int16)[np.searchsorted(ends, middles, side="right")]


def check_flite() -> None:
    """Refuse a system without flite.

    Raises:
        ToolError: with what to install.
    """
    if shutil.which(FLITE) is None:
        raise ToolError(f"there is no '{FLITE}'; hint: apt-get install flite, or leave its sets out with --flite 0")


def _spoken(
    text: str, voice: str, stretch: float, register: float
) -> tuple[npt.NDArray[np.float32], int, list[tuple[str, float]]]:
    """Audio, its rate, and phones with the seconds at which they end."""
    check_flite()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        words = [FLITE, "-voice", voice, "--setf", f"duration_stretch={stretch:.4f}"]
        words += ["--setf", f"int_f0_target_mean={register:.3f}", "-psdur", "-t", text, "-o", str(path)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolError(f"flite failed: {error}") from error
        if done.returncode or not path.is_file():
            said = done.stderr.strip().splitlines()
            raise ToolError(f"flite failed: {said[-1] if said else f'exit status {done.returncode}'}")
        audio, rate = read_mono(path)
    segments: list[tuple[str, float]] = []
    for word in done.stdout.split():
        phone, colon, until = word.rpartition(":")
        if colon and until.replace(".", "", 1).isdigit():
            segments.append((phone, float(until)))
    if not segments:
        raise ToolError("flite said nothing of its phones; hint: a version with -psdur (2.0 and later) does")
    return audio, int(rate), segments
