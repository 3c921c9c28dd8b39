"""Small corpora of real and synthesised speech, and a small recipe, for tests of caches and windows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

import astrape
from astrape.training.caches import CacheJob

RECIPE = """
recipe: small
inputs: {mic: {rate: 44100, channels: 1}}
blocks:
  down: {use: resampler, rate: 16000}
  front: {use: wavlm_cnn, layers: 3, channels: 8}
  adapter: {use: linear, channels: 4}
outputs: {content: adapter}
training:
  outputs: {features: front}
  features: features
  teacher: {use: spectral}
"""

SPEECH = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"


def speech(begin: float, seconds: float, rate: int = 16000) -> NDArray[np.float32]:
    """A part of the sample that ships with the package, read at another rate than its own: another voice."""
    samples, own = soundfile.read(SPEECH, dtype="float32")
    first = int(begin * own)
    return samples[first : first + int(seconds * rate)].copy()


def write(path: Path, samples: NDArray[np.float32], rate: int = 16000, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def vctk(root: Path, speakers: int = 3, utterances: int = 3) -> Path:
    """VCTK's layout, with voices at different rates."""
    rates = (16000, 22050, 44100, 48000)
    for who in range(speakers):
        name = f"p{225 + who}"
        for number in range(1, utterances + 1):
            samples = speech(0.4 * number, 1.1 + 0.1 * number, rate := rates[who % 4])
            write(root / "wav48_silence_trimmed" / name / f"{name}_{number:03d}_mic1.flac", samples, rate)
            text = root / "txt" / name / f"{name}_{number:03d}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(f"Sentence {number}.\n")
    return root


def recipe(root: Path, text: str = RECIPE) -> str:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "small.yaml"
    path.write_text(text)
    return str(path)


def order(root: Path, what: str = "wavlm", **changes: object) -> CacheJob:
    given = {"recipe": recipe(root.parent), "what": what, "root": root} | changes
    return CacheJob(**given)  # type: ignore[arg-type]


def arrays(folder: Path) -> dict[str, bytes]:
    """All arrays below a folder, by their paths in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


class LevelTeacher:
    """A teacher whose content is the level of each frame and its square, with the level in steps as codes."""

    name = "level"
    sample_rate = 8000
    content_rate = Fraction(20)
    content_channels = 2
    speaker_channels = 3
    code_count = 16
    decodes = False

    def __init__(self, steps: int = 16) -> None:
        self.steps = steps

    def content(self, audio: Tensor) -> Tensor:
        framed = audio[:, 0].unfold(1, 400, 400)
        level = framed.square().mean(2).sqrt()
        return torch.stack((level, level**2), dim=1)

    def codes(self, audio: Tensor) -> Tensor:
        level = self.content(audio)[:, :1]
        return (level * self.steps).long().clamp(0, 15)

    def speaker(self, audio: Tensor) -> Tensor:
        level = audio.square().mean((1, 2)).sqrt()
        return torch.stack((level, level.log(), torch.full_like(level, audio.shape[2] / self.sample_rate)), dim=1)

    def decode(self, content: Tensor, speaker: Tensor) -> Tensor:
        raise NotImplementedError
