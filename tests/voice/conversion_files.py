"""Recipes, recordings, voices and the command for tests of conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from click.testing import CliRunner, Result
from numpy.typing import NDArray

import astrape
from astrape.cli import cli
from astrape.voice.metadata import Metadata
from astrape.voice.voicebank import Voicebank

SMALL = "astrape-vc-small"
SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"


def delaying(rate: int, frames: int) -> str:
    """A recipe that only delays.

    A fresh adaptive convolution passes its input through, whatever the speaker; the delay is latency to make up for.
    """
    return f"""
recipe: through
inputs: {{mic: {{rate: {rate}, channels: 1}}}}
controls: {{speaker: {{channels: 128}}}}
blocks:
  late: {{use: delay, frames: {frames}}}
  voiced: {{use: adaptive_conv, condition: speaker, kernel: 3}}
outputs: {{wav: voiced}}
"""


THROUGH = delaying(44100, 1234)

SILENT_VOICE = """
recipe: no-voice
inputs: {mic: {rate: 44100, channels: 1}}
blocks: {same: {use: gain, gain: 1.0}}
outputs: {wav: same}
"""


def run(*words: Any) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="astrape")


def succeeds(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def fails(result: Result, *said: str) -> None:
    """Failed with a code and one line on stderr that says so; warnings may stand before it."""
    assert result.exit_code in (1, 2), result.output
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("astrape: warning: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("astrape: ")
    assert "fault in astrape" not in lines[0]
    for text in said:
        assert text in lines[0], lines[0]


def sines(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float32]:
    time = np.arange(round(seconds * rate)) / rate
    mono = sum(0.2 * np.sin(2 * np.pi * f * time + f) for f in (230.0, 970.0, 2900.0))
    return np.repeat(np.asarray(mono, np.float32)[:, None], channels, axis=1)


def write(path: Path, samples: NDArray[Any], rate: int, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def read(path: Path) -> NDArray[np.float32]:
    samples: NDArray[np.float32] = soundfile.read(path, dtype="float32", always_2d=True)[0]
    return samples


def voicebank(seed: int) -> Voicebank:
    embedding = np.random.default_rng(seed).standard_normal(128).astype(np.float32)
    return Voicebank(embedding, Metadata(6.0, 44100, "elsewhere.wav", embedding_model="learned elsewhere"))
