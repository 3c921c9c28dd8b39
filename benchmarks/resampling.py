"""Resampling from 44.1 to 16 kHz, in pieces of 10 ms and whole."""

from __future__ import annotations

from importlib.metadata import version
from itertools import cycle

import numpy as np
import torch

from astrape.blocks import Stream
from astrape.blocks.resample import Resampler
from astrape.graph import compile
from benchmarks.contest import Contest, Contestant, Frames
from benchmarks.streams import pushed

__all__ = ["pieces", "whole"]

RATE, TARGET, PIECE = 44100, 16000, 441
FILTER = "other filter"

RECIPE = {
    "recipe": "resampling",
    "inputs": {"mic": {"rate": RATE, "channels": 1}},
    "blocks": {"down": {"use": "resampler", "rate": TARGET}},
    "outputs": {"wav": "down"},
}


def noise(frames: int) -> Frames:
    return (0.1 * np.random.default_rng(0).standard_normal(frames)).astype(np.float32)


def pieces() -> Contest:
    """Resampling of a stream, piece by piece."""
    import soxr

    x = noise(100 * PIECE).reshape(-1, PIECE)
    graph, theirs, others = compile(RECIPE).eval(), soxr.ResampleStream(RATE, TARGET, 1, dtype="float32"), cycle(x)
    return Contest(
        "resample 44.1 to 16 kHz, 10 ms at a time",
        PIECE / RATE,
        [
            Contestant("astrape", pushed(graph, x[:, None, None], chunk=PIECE)),
            Contestant("astrape, compiled", pushed(graph, x[:, None, None], chunk=PIECE, backend="compiled")),
            Contestant(f"soxr {version('soxr')}, HQ", lambda: theirs.resample_chunk(next(others))[None], FILTER),
        ],
    )


def whole(seconds: int = 10) -> Contest:
    """Resampling of a whole file at once."""
    import julius
    import scipy.signal
    import soxr

    x = noise(seconds * RATE)
    tensor = torch.from_numpy(x)[None, None]
    block = Resampler(Stream(RATE, 1), rate=TARGET)
    other = julius.ResampleFrac(RATE, TARGET, zeros=32)
    up, down = 160, 441
    return Contest(
        f"resample 44.1 to 16 kHz, {seconds} s at once",
        seconds,
        [
            Contestant("astrape", lambda: block(tensor)[0].numpy()),
            Contestant(f"soxr {version('soxr')}, HQ", lambda: soxr.resample(x, RATE, TARGET)[None], FILTER),
            Contestant(f"julius {version('julius')}, zeros 32", lambda: other(tensor)[0].numpy(), FILTER),
            Contestant(
                f"scipy {version('scipy')}, polyphase",
                lambda: scipy.signal.resample_poly(x, up, down)[None].astype(np.float32),
                FILTER,
            ),
        ],
    )
