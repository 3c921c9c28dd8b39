"""Training data of the speaker encoder: mel spectra of recordings and warped copies, with the teacher's answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import resample_poly

from astrape.audio.atomic import atomic_path
from astrape.audio.places import Place, local_file
from astrape.audio.whole import read_mono
from astrape.graph import load
from astrape.training.speaker.sources import Speech
from astrape.training.teachers.resemblyzer import WHO, ResemblyzerTeacher

__all__ = ["RECIPE", "Example", "examples", "played", "read_examples"]

Floats = npt.NDArray[np.float32]

RECIPE = "astrape-speaker"
RATE = 16000
WARPS = 2
"""Copies of each recording beside itself."""

NARROWEST, WIDEST = 0.8, 1.25
"""Speeds of the copies. A faster tape has higher formants, higher pitch and shorter sounds: another speaker of another
size, whom the teacher hears as one."""

SHORTEST = 1.0
"""Seconds, below which the teacher knows little."""


@dataclass(frozen=True)
class Example:
    """A recording or a warped copy.

    Attributes:
        mel: natural logarithm of mel magnitudes, ``(bins, frames)`` float16.
        vector: the teacher's 96 numbers.
        speaker: whose it is, copies apart.
    """

    mel: npt.NDArray[np.float16]
    vector: Floats
    speaker: str


def examples(speech: Iterable[Speech], folder: Path, say: Callable[[str], None]) -> None:
    """Write ``folder/NAME.npz`` for each recording and warped copy, unless it is there. Takes Resemblyzer."""
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    teacher: ResemblyzerTeacher | None = None
    graph = load(RECIPE, training=True)
    mel = graph.nodes["mel"].block
    for one in speech:
        for speed in _speeds(one.path):
            out = folder / f"{_digest(one.path, speed)}.npz"
            if out.is_file():
                continue
            samples = played(one.path, speed)
            if len(samples) < SHORTEST * RATE:
                continue
            if one.vector is not None and speed == 1:
                vector = np.load(local_file(one.vector))[:WHO]
            else:
                teacher = teacher or ResemblyzerTeacher()
                vector = teacher.who(samples)
            with torch.no_grad():
                whole = torch.from_numpy(samples[: len(samples) // 320 * 320]).reshape(1, 1, -1)
                bands = mel(whole)[0].numpy().astype(np.float16)
            held = np.bool_(one.held)
            name = one.speaker if speed == 1 else f"{one.speaker} at {speed:.2f}"
            with atomic_path(out) as temporary, temporary.open("wb") as file:
                np.savez(file, mel=bands, vector=vector.astype(np.float32), speaker=np.str_(name), held=held)
            done += 1
            if done % 200 == 0:
                say(f"  {done} examples written")


def read_examples(folder: Path, *, held: bool = False) -> list[Example]:
    """All examples of a folder: those to train on, or those that are held."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            if bool(arrays["held"]) == held:
                found.append(Example(arrays["mel"], arrays["vector"], str(arrays["speaker"])))
    return found


def _speeds(path: Path | Place) -> Iterator[float]:
    yield 1.0
    random = np.random.default_rng(list(hashlib.sha256(_key(path).encode()).digest()))
    for _ in range(WARPS):
        yield round(float(np.exp(random.uniform(np.log(NARROWEST), np.log(WIDEST)))), 2)


def _digest(path: Path | Place, speed: float) -> str:
    return hashlib.sha256(f"{_key(path)} {speed}".encode()).hexdigest()[:24]


def _key(path: Path | Place) -> str:
    """A recording's name wherever its corpus lies: file, speaker or set, and what is above it."""
    return "/".join(os.fspath(path).split("/")[-3:])


def played(path: Path | Place, speed: float = 1.0) -> Floats:
    """A recording at 16 kHz, played that many times as fast."""
    samples, rate = read_mono(path)
    # To a hundredth of the rate, so that the filter stays short.
    faster = round(rate * speed / 100) * 100
    common = gcd(faster, RATE)
    return np.asarray(resample_poly(samples, RATE // common, faster // common), dtype=np.float32)
