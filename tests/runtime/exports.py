"""A small graph that has what an export may stumble over, and streams to run it on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import astrape
from astrape.audio.whole import read_mono
from astrape.blocks import Stream
from astrape.blocks.resample import Resampler
from astrape.errors import ExportError
from astrape.graph.backends.aoti_packages import need_compiler
from astrape.graph.graph import Graph
from astrape.portable.session import ExportedSession

SPOKEN = {"condition": "speaker", "condition_channels": 4}

SMALL: dict[str, Any] = {
    "recipe": "small",
    "inputs": {"mic": {"rate": 8000, "channels": 1}},
    "controls": {
        "level": {"channels": 1, "default": 0.5, "min": 0.0, "max": 2.0, "unit": "x"},
        "speaker": {"channels": 4},
    },
    "blocks": {
        "down": {"use": "resampler", "rate": 4000, "zeros": 24},
        "loud": {"use": "gain", "gain": "level", "smooth_ms": 0, "from": "down"},
        "conv": {"use": "conv", "channels": 8, "kernel": 3},
        "tf": {"use": "transformer", "layers": 1, "heads": 2, "window": 5, "ffn": 16, "rotary": "half", **SPOKEN},
        "hiss": {"use": "noise", "from": "down"},
        "slow": {"use": "conv", "from": "tf", "channels": 3, "kernel": 4, "stride": 4},
    },
    "outputs": {"wav": "tf", "hiss": "hiss", "slow": "slow"},
}

STATED_DB = -110.0
"""The documentation's bound for graphs that sum up no phase."""

SPEAKER = [0.3, -0.2, 0.1, 0.9]


def small() -> Graph[dict[str, torch.Tensor]]:
    torch.manual_seed(5)
    graph: Graph[dict[str, torch.Tensor]] = astrape.compile(SMALL)
    for parameter in graph.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.1)
    return graph.eval()


def skip_without_compiler() -> None:
    """Skip a test that compiles a graph ahead of time where there is nothing to do it with."""
    try:
        need_compiler()
    except ExportError as error:
        pytest.skip(str(error))


def sizes(total: int, most: int, seed: int) -> Iterator[int]:
    """Chunk sizes at random, 0 among them, that come to ``total``."""
    generator = np.random.default_rng(seed)
    while total:
        count = min(total, int(generator.integers(0, most)))
        yield count
        total -= count


def streamed(session: Any, x: npt.NDArray[Any], most: int, seed: int = 0, **controls: Any) -> dict[str, Any]:
    """All of ``x``, ``(batch, channels, frames)``, through a session of either kind, as NumPy arrays."""
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    at = 0
    tensors = not isinstance(session, ExportedSession)
    for count in sizes(x.shape[-1], most, seed):
        piece = x[..., at : at + count]
        y = session.push(torch.from_numpy(piece) if tensors else piece, **controls)
        controls, at = {}, at + count
        for name, part in y.items() if isinstance(y, Mapping) else [("wav", y)]:
            parts.setdefault(name, []).append(np.asarray(part))
    return {name: np.concatenate(found, axis=-1) for name, found in parts.items()}


def minute_of_speech() -> npt.NDArray[Any]:
    """A minute of people who read, one recording after the other, ``(1, 1, frames)`` at 44.1 kHz."""
    parts, frames = [], 0
    for path in sorted((Path(__file__).parents[1] / "audio" / "speech").rglob("*.flac")):
        samples, rate = read_mono(path)
        parts.append(Resampler(Stream(rate, 1), rate=44100)(torch.from_numpy(samples)[None, None]).numpy())
        frames += parts[-1].shape[-1]
        if frames >= 60 * 44100:
            break
    assert frames >= 60 * 44100
    return np.concatenate(parts, axis=-1)[..., : 60 * 44100]


def decibels(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> float:
    """The power of the difference over that of what was wanted."""
    power = float(np.square(want, dtype=np.float64).sum())
    return float(10 * np.log10(float(np.square(got.astype(np.float64) - want).sum()) / power + 1e-30))
