"""Streaming from a generator, in pieces of any size, with controls that change on the way.

    python examples/stream_generator.py                 # a second and a half of the shipped speech sample
    python examples/stream_generator.py in.wav out.wav

The voice changer works at 44.1 kHz. A resampler before it, in the same graph, makes it take a file of any rate.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from fractions import Fraction
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

import astrape


def voice_changer(rate: int) -> astrape.Graph:
    """The shipped voice changer, nested behind a resampler from `rate`."""
    return astrape.compile(
        {
            "recipe": "any-rate",
            "inputs": {"mic": {"rate": rate, "channels": 1}},
            "controls": {name: {"default": 0.0, "min": -12.0, "max": 12.0} for name in ("pitch", "formant")},
            "blocks": {
                "up": {"use": "resampler", "rate": 44100},
                "voice": {"use": "graph", "recipe": "voice-changer"},  # its pitch and formant are the two from here
            },
            "outputs": {"wav": "voice"},
        }
    )


def pieces(path: Path, seconds: float, largest: int = 900) -> Iterator[Tensor]:
    """A file as a live source would give it: pieces of no particular size, `(1, 1, frames)` each."""
    sizes = np.random.default_rng(0)
    with soundfile.SoundFile(path) as file:
        left = min(file.frames, int(seconds * file.samplerate))
        while left > 0:
            block = file.read(min(left, int(sizes.integers(1, largest))), dtype="float32", always_2d=True)
            left -= len(block)
            yield torch.from_numpy(block.mean(axis=1)).reshape(1, 1, -1)


def stream(path: Path, seconds: float) -> tuple[Tensor, int]:
    """Stream a file in both ways; return what the first one yields, and its rate."""
    graph = voice_changer(soundfile.info(path).samplerate)
    rate = int(graph.rate_out)
    given = sum(piece.shape[-1] for piece in pieces(path, seconds))
    expected = math.ceil(Fraction(given) * graph.ratio)

    # The short way: what is yielded is aligned with the input and has its length, to the sample.
    wav = torch.cat(list(graph.stream().compensated(pieces(path, seconds), pitch=5.0, formant=2.0)), dim=-1)
    print(f"{given} samples at {graph.rate_in} Hz in, {wav.shape[-1]} at {rate} Hz out, latency removed")
    assert wav.shape[-1] == expected

    # By hand: push what has arrived, take what is ready, change a control whenever something happens. A control is held
    # until it is changed; a change takes effect at the next quantum that has not been computed yet.
    session = graph.stream()
    parts, heard = [], 0
    for piece in pieces(path, seconds):
        heard += piece.shape[-1]
        parts.append(session.push(piece, pitch=-4.0 if heard < given // 2 else 7.0))
    parts.append(session.flush())
    late = sum(part.shape[-1] for part in parts) - expected
    print(f"by hand: {late} samples more, the algorithmic latency of {float(graph.latency) * 1000:.2f} ms")
    assert late == session.latency_frames("wav") == math.ceil(graph.latency * rate)
    return wav, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="an audio file; the shipped speech sample when left out")
    parser.add_argument("target", nargs="?", type=Path, help="where to write; nowhere when left out")
    parser.add_argument("--seconds", type=float, help="of the file; 1.5 of the shipped sample, all of another")
    arguments = parser.parse_args()
    with as_file(files("astrape") / "recipes" / "audio" / "sense-and-sensibility.flac") as sample:
        seconds = arguments.seconds or (1.5 if arguments.source is None else math.inf)
        if seconds == math.inf:
            seconds = soundfile.info(arguments.source).duration
        wav, rate = stream(arguments.source or sample, seconds)
    if arguments.target:
        soundfile.write(arguments.target, wav[0, 0].numpy(), rate)
        print(f"wrote {arguments.target}")


if __name__ == "__main__":
    main()
