"""Sounds and small recipes for the tests of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from astrape.cli import cli

IDENTITY = """
recipe: identity
inputs: {mic: {rate: 44100, channels: 1}}
controls: {level: {channels: 1, default: 1.0, min: 0.0, max: 8.0}}
blocks: {same: {use: gain, gain: level, smooth_ms: 0}}
outputs: {wav: same}
"""


def astrape(*words: Any) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, [str(word) for word in words])


def fails(result: Result, *said: str) -> str:
    """Assert that a command failed as it should: a code, one line on stderr, no traceback. Returns the line."""
    assert result.exit_code in (1, 2), result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("astrape: ")
    assert "Traceback" not in result.output
    assert "fault in astrape" not in lines[0]
    for text in said:
        assert text in lines[0], lines[0]
    return lines[0]


def noise(frames: int, channels: int = 1, level: float = 0.1, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return (level * generator.standard_normal((frames, channels))).astype(np.float32)


def write(path: Path, samples: NDArray[np.float32], rate: int, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def read(path: Path) -> tuple[NDArray[np.float32], int]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples, rate
