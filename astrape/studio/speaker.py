"""One browser's voice: its session, its controls, and its own sound as late as the converted one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from astrape.errors import StreamError
from astrape.graph.backends.native import quickest
from astrape.graph.report.plot import waterfall
from astrape.voice.live import LiveVoice
from astrape.voice.voicebank import Voicebank

__all__ = ["RATES", "Changing", "Speaker"]

Samples = npt.NDArray[np.float32]

RATES = (8000, 192_000)
"""Hz, least and most of a browser's sound."""

WARM_UP = 3
"""Pushes of silence before the first."""

REMEMBERED = 0.02
"""Share of the newest push in the mean load: half a second of pushes of 10 ms."""


class Changing:
    """The voice and its settings, as a page changes them.

    Args:
        live: the recipe and its voices.
    """

    dry: bool
    """Whether one's own sound comes out."""

    def __init__(self, live: LiveVoice) -> None:
        self._live = live

    def set(self, name: str, value: float) -> None:
        """Set a control from the next frame on.

        Raises:
            StreamError: for an unknown one, or a value out of range.
        """
        if name not in self._live.sliders:
            raise StreamError(
                f"'{self._live.graph.name}' has no slider '{name}': hint: {', '.join(self._live.sliders)}"
            )
        self._live.set(name, value)

    def speak_as(self, voice: str, bank: Voicebank | None = None) -> None:
        """Turn to another voice; ``bank`` where it is not one that ships.

        Raises:
            AstrapeError: for a voice that is not known or does not fit the weights.
        """
        if bank is not None:
            self._live.add(voice, bank)
        elif voice not in self._live.voices:
            raise StreamError(f"no voice '{voice[:40]}': hint: {', '.join(self._live.voices)}")
        self._live.speak_as(voice)


class Speaker(Changing):
    """Samples in, as many samples out: converted, or one's own, both late by the same number of frames.

    Args:
        live: the recipe and its voices.
        rate: of the browser's sound in Hz.
        block: frames of a usual push, which are captured and fastest.

    Attributes:
        latency: frames by which all that comes out is late: the graph's host latency, and nothing else.
        parts: names and seconds of what adds to it, in order, as in the report's picture.
        dry: whether one's own sound comes out.
        load: mean share of real time that pushes take; worst: the worst of them.

    Raises:
        StreamError: for a rate or block out of range.
    """

    def __init__(self, live: LiveVoice, rate: int, block: int) -> None:
        if not RATES[0] <= rate <= RATES[1]:
            raise StreamError(f"a browser's rate of {rate} Hz: it must be {RATES[0]} to {RATES[1]}")
        if not 1 <= block <= rate:
            raise StreamError(f"blocks of {block} frames: they must be 1 to a second long, {rate}")
        graph: Any = live.graph.hosted(rate)
        (self._input,) = graph.inputs
        self._output: str = graph.main
        ends = graph.inputs[self._input], graph.outputs[self._output]
        if any((stream.rate, stream.channels) != (rate, 1) for stream in ends):
            raise StreamError(f"'{graph.name}' has no sound of one channel in and out: hint: name another --recipe")
        super().__init__(live)
        self.rate, self.block = rate, block
        self._session = graph.stream(constant_latency=True, chunk=block, backend=quickest(graph))
        self._controls: dict[str, Any] = dict(live.controls)
        # The first push is slow, and must not be heard.
        for _ in range(WARM_UP):
            with torch.no_grad():
                self._session.push(torch.zeros(1, 1, block), **self._controls)
        self._session.reset()
        self.latency: int = graph.host_latencies[self._output]
        self._heard = np.zeros(self.latency, np.float32)
        self._stale = 0
        """Frames that are still to come of what the graph holds from before a block that was left out."""
        self.dry = False
        self.load = self.worst = 0.0
        self.algorithmic: Fraction = graph.latencies[self._output]
        bars = waterfall(graph, self._output, graph.report().critical_path(self._output))
        self.parts = [[name, float(seconds)] for name, _, seconds, _ in bars if seconds]

    def push(self, x: Samples) -> Samples:
        """Convert a block: as many frames come back, all finite.

        Raises:
            StreamError: for samples that are not numbers.
        """
        if not np.isfinite(x).all():
            raise StreamError("the browser sent samples that are not finite: they are left out")
        begin = time.perf_counter()
        with torch.no_grad():
            found = self._session.push(torch.from_numpy(x.copy())[None, None], **self._controls)
        self._controls = {}
        wet = (found[self._output] if isinstance(found, Mapping) else found)[0, 0].numpy()
        stale = min(self._stale, len(x))
        self._stale -= stale
        if stale:
            wet = np.concatenate((np.zeros(stale, np.float32), wet[stale:]))
        dry = self._own(x)
        if len(x):
            took = (time.perf_counter() - begin) * self.rate / len(x)
            self.load += (took - self.load) * REMEMBERED
            self.worst = max(self.worst, took)
        return np.ascontiguousarray(dry if self.dry else wet, np.float32)

    def leave_out(self, x: Samples) -> Samples:
        """Skip a block that is too late to be heard: as many frames of silence, or of one's own sound, come back.

        What the graph still holds would then be late by a block, so silence follows until that is through.
        """
        own = self._own(np.where(np.isfinite(x), x, np.float32(0.0)))
        self._stale = self.latency
        return own if self.dry else np.zeros(len(x), np.float32)

    def _own(self, x: Samples) -> Samples:
        """One's own sound, as late as the other."""
        heard = np.concatenate([self._heard, x])
        self._heard = heard[len(x) :]
        return heard[: len(x)]

    def set(self, name: str, value: float) -> None:
        super().set(name, value)
        self._controls[name] = value

    def speak_as(self, voice: str, bank: Voicebank | None = None) -> None:
        super().speak_as(voice, bank)
        self._controls |= self._live.controls
