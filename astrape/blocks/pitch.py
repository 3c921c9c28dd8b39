"""Pitch tracking: periodicity by autocorrelation, octave errors kept away by a causal search over candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.parameters import bounded
from astrape.blocks.registry import register
from astrape.blocks.state import map_state
from astrape.blocks.tables import ExactTables, Float64
from astrape.errors import RateError

__all__ = ["UPPER_SHARE", "PitchSearch", "PitchTracker", "lag_grid"]

CANDIDATES = 8
OCTAVE_COST = 0.01
JUMP_COST = 0.35
VOICING_COST = 0.2
VOICING_THRESHOLD = 0.5
UPPER_SHARE = 0.2
"""How much of the energy above the band of the search counts against periodicity: what is left of a fricative below
3 kHz may look like a high voice, yet a voiced fricative has a pitch."""


def lag_grid(fmin: float, fmax: float, band: float) -> Float64:
    """Lags, in seconds, on which the periods of ``fmin`` to ``fmax`` Hz show as peaks with a neighbour on each side.

    Eight lags to a period of the highest frequency ``band``, so that a parabola through three finds a peak to a few
    parts in ten thousand.
    """
    spacing = 1 / (8 * band)
    count = np.arange(math.floor(1 / fmax / spacing) - 2, math.ceil(1 / fmin / spacing) + 3)
    return count.astype(np.float64) * spacing


class Pitch(NamedTuple):
    """What :class:`PitchSearch` found in each frame.

    Attributes:
        lag, height: the candidates, ``(batch, frames, CANDIDATES)``, seconds and periodicity.
        best: which of them is on the best path, ``(batch, frames, 1)``; ``CANDIDATES`` where none is.
    """

    lag: Tensor
    height: Tensor
    best: Tensor

    def f0(self) -> Tensor:
        """Hz, 0 where there is none, ``(batch, frames)``."""
        lag = self.lag.gather(-1, self.best.clamp(max=CANDIDATES - 1))
        return lag.reciprocal().masked_fill(self.best == CANDIDATES, 0.0)[..., 0]

    def periodicity(self) -> Tensor:
        """That of the pitch, or where there is none the highest, 0 to 1, ``(batch, frames)``."""
        height = self.height.gather(-1, self.best.clamp(max=CANDIDATES - 1))
        highest = self.height.amax(dim=-1, keepdim=True)
        return torch.where(self.best < CANDIDATES, height, highest)[..., 0].clamp(0, 1)


class PitchSearch(nn.Module):
    """From autocorrelations on a grid of lags to one pitch per frame, by what is known so far.

    The candidates of a frame are the highest peaks of its autocorrelation, a little less worth the longer their lag,
    and the possibility that there is no pitch. A path over the frames gains the worth of its candidates and pays for
    jumps in pitch, in octaves, and for starting and stopping: P. Boersma, "Accurate short-term analysis of the
    fundamental frequency and the harmonics-to-noise ratio of a sampled sound" (IFA Proceedings 17, 1993), with costs
    near to his. The path is followed forward only: a frame's answer is the end of the best path up to it, and never
    changes afterwards. What a path can gain on another is bounded by the cost of a jump, so that a wrong octave is left
    within a few frames.

    Args:
        lags: the grid, seconds, evenly spaced and rising; the search is for peaks inside of it.
        frame_seconds: time between frames; costs are meant for 10 ms and are scaled to it.
    """

    voiced: Tensor
    """1 for each candidate, 0 for the last, silence."""

    def __init__(self, lags: Sequence[float], frame_seconds: float) -> None:
        super().__init__()
        self.first, self.spacing, self.longest = float(lags[0]), float(lags[1] - lags[0]), float(lags[-1])
        scale = 0.01 / frame_seconds
        self.jump_cost, self.voicing_cost = JUMP_COST * scale, VOICING_COST * scale
        self.register_buffer("voiced", torch.tensor([1.0] * CANDIDATES + [0.0]), persistent=False)

    def init_state(self, batch_size: int, device: Any = None, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        shape = batch_size, CANDIDATES + 1
        return {
            "score": torch.zeros(shape, device=device, dtype=dtype),
            "octave": torch.zeros(shape, device=device, dtype=dtype),
            "voiced": torch.zeros(shape, device=device, dtype=dtype),
        }

    def follow(self, correlation: Tensor, audible: Tensor, state: State) -> tuple[Pitch, State]:
        """The pitch of each frame.

        Args:
            correlation: normalised autocorrelation ``(batch, frames, lags)``, 1 where a frame repeats itself exactly.
            audible: ``(batch, frames)``, false where a frame is too quiet to have a pitch.
            state: as ``init_state`` or the last call gave it.

        Returns:
            What was found, and the next state.
        """
        lag, height = self.peaks(correlation)
        height = height * audible[..., None]
        octave = (self.longest / lag.detach()).log2()
        # A height of 0 says that there was no peak to fill the place: it is never worth a path.
        worth = torch.add(height.detach(), octave, alpha=OCTAVE_COST).masked_fill(height <= 0, -10.0)
        worth = F.pad(worth, (0, 1), value=VOICING_THRESHOLD)
        octave = F.pad(octave, (0, 1))
        octave_before = frame_before(state["octave"], octave)[..., None]
        voiced_before = frame_before(state["voiced"], self.voiced.expand_as(octave))[..., None]
        jumps = (octave[:, :, None] - octave_before).abs() * (voiced_before * (self.voiced * self.jump_cost))
        costs = torch.add(jumps, (self.voiced - voiced_before).abs(), alpha=self.voicing_cost)
        score = state["score"]
        scores = []
        for frame in range(worth.shape[1]):
            score = worth[:, frame] + (score[:, :, None] - costs[:, frame]).amax(dim=1)
            score = score - score.amax(dim=-1, keepdim=True)
            scores.append(score)
        best = torch.stack(scores, dim=1).argmax(dim=-1, keepdim=True)
        after = {"score": score, "octave": octave[:, -1].clone(), "voiced": self.voiced.expand_as(score).clone()}
        return Pitch(lag, height, best), after

    def peaks(self, correlation: Tensor) -> tuple[Tensor, Tensor]:
        """Lag in seconds and height of the highest local maxima, by a parabola through three points.

        Where there are fewer maxima than candidates, the height of the rest is 0.
        """
        left, middle, right = correlation[..., :-2], correlation[..., 1:-1], correlation[..., 2:]
        is_peak = (middle > left.clamp(min=0)) & (middle >= right)
        count = min(CANDIDATES, middle.shape[-1])
        found, index = middle.masked_fill(~is_peak, 0.0).topk(count, dim=-1)
        a, b, c = left.gather(-1, index), middle.gather(-1, index), right.gather(-1, index)
        slope = a - c
        curve = torch.sub(a + c, b, alpha=2).clamp(max=-1e-9)
        offset = (slope / curve * 0.5).clamp(-0.5, 0.5)
        height = torch.addcmul(b, slope, offset, value=-0.25).masked_fill(found <= 0, 0.0)
        return (index + offset) * self.spacing + (self.first + self.spacing), height


def frame_before(first: Tensor, values: Tensor) -> Tensor:
    """``values`` of ``(batch, frames, any)``, a frame later: each frame has those of the one before it."""
    if values.shape[1] == 1:
        return first[:, None]
    return torch.cat([first[:, None], values[:, :-1]], dim=1)


@register("pitch_tracker")
class PitchTracker(StreamBlock, ExactTables):
    """F0 and periodicity of a voice, frame by frame, from the past alone.

    Each frame is an autocorrelation in a Hann window, divided by that of the window itself (Boersma 1993), which makes
    it 1 at the period of a periodic signal whatever the window. It is computed by real matrix products: to the power
    spectrum up to 3 kHz, where a voice is periodic, and back on a grid of lags that is finer than the sample rate needs
    to be. :class:`PitchSearch` then finds the pitch.

    The window ends with its hop and all of it counts, so the latency is ``(window - hop) / 2`` samples: with the
    defaults at 44.1 kHz, (2206 - 441) / 2 = 882.5, or 20.0 ms. Raising ``fmin`` shortens the window.

    Output: two channels, F0 in Hz, 0 where unvoiced, and periodicity 0 to 1, at one frame per ``hop``.

    Args:
        source: one channel of audio.
        fmin, fmax: range of F0 that is looked for, Hz, 20 to 4000 with ``fmax`` at least 1.5 times ``fmin``. The
            default of 60 to 500 holds every speaking voice.
        hop: samples per frame; left out, as near to 10 ms as whole samples come.
        window_ms: length of the window, 1 to 1000 ms; left out, three periods of ``fmin``, the fewest from which an
            autocorrelation in a Hann window tells the longest period.
        silence_db: frames of a lower RMS level are unvoiced with periodicity 0, -200 to 0 dB. Default -60.

    Raises:
        ValueError: for a number out of its range.
        RateError: for an input of more than one channel.
    """

    latency_by = "centre"

    to_even: Tensor
    to_odd: Tensor
    to_lags: Tensor
    taper: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        fmin: float = 60.0,
        fmax: float = 500.0,
        hop: int | None = None,
        window_ms: float | None = None,
        silence_db: float = -60.0,
    ) -> None:
        rate = float(source.rate)
        if source.channels != 1:
            raise RateError(f"pitch_tracker takes one channel, not {source.channels}: mix or split them before it")
        if not 20 <= fmin <= fmax / 1.5 or not fmax <= min(4000, rate / 4):
            raise ValueError(
                f"fmin and fmax must lie within 20 and {min(4000, rate / 4):g} Hz, fmax at least 1.5 times fmin, "
                f"not {fmin} and {fmax}"
            )
        if window_ms is not None and not 1 <= window_ms <= 1000:
            raise ValueError(f"window_ms must be 1 to 1000 ms, not {window_ms}")
        if not -200 <= silence_db <= 0:
            raise ValueError(f"silence_db must be -200 to 0 dB, not {silence_db}")
        seconds = 3 / fmin if window_ms is None else window_ms / 1000
        half = max(8, round(seconds * rate / 2))
        hop = bounded("hop", max(1, round(rate / 100)) if hop is None else hop, 1, 2 * half)
        bounded("window", 2 * half, max(hop, round(1.5 * rate / fmin)), 65536)
        super().__init__(source, quantum=hop, ratio=Fraction(1, hop), channels=2)
        self.window, self.silence = 2 * half, 10 ** (silence_db / 10)
        self.lags = lag_grid(fmin, fmax, min(3000.0, rate / 2))
        self.search = PitchSearch(self.lags.tolist(), hop / rate)
        # Padded so that no lag that is looked for wraps around.
        self.length = 2 * half + math.ceil(rate / fmin) + 1
        self.parseval = self.length / 2
        self.rumble = max(1, round(0.5 * fmin * self.length / rate))
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        rate, half, length = float(self.rate_in), self.window // 2, self.length
        # A window without zeros at its ends. Folding it in the middle halves the product: cosines see the even part of
        # a frame, sines the odd.
        place = np.arange(half) + 0.5
        taper = 0.5 + 0.5 * np.cos(np.pi * place / half)
        bins = np.arange(int(min(3000.0, rate / 2) * length / rate) + 1)
        angles = 2 * np.pi * np.outer(place, bins) / length
        spectrum = 4 * (taper @ np.cos(2 * np.pi * np.outer(place, np.arange(length // 2 + 1)) / length)) ** 2
        spectrum[0] /= 2
        turns = 2 * np.pi * rate / length
        own = spectrum @ np.cos(turns * np.outer(np.arange(len(spectrum)), self.lags)) / spectrum.sum()
        to_lags = np.cos(turns * np.outer(bins, self.lags)) / own
        to_lags[: self.rumble] = 0
        return {
            "to_even": np.cos(angles) * taper[:, None],
            "to_odd": np.sin(angles) * taper[:, None],
            "to_lags": to_lags,
            "taper": np.concatenate([taper[::-1], taper]),
        }

    @property
    def latency(self) -> Fraction:
        return Fraction(self.window - self.quantum, 2) / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, State]:
        heard = torch.zeros(batch_size, self.window - self.quantum, device=device, dtype=dtype)
        return {"heard": heard, "search": self.search.init_state(batch_size, device, dtype)}

    def step(self, x: Tensor, state: State, controls: object) -> tuple[Tensor, State]:
        joined = torch.cat([state["heard"], x[:, 0]], dim=-1)
        heard = joined[:, x.shape[-1] :].clone(memory_format=torch.contiguous_format)
        if not x.shape[-1]:
            return x.new_zeros(x.shape[0], 2, 0), {"heard": heard, "search": map_state(torch.clone, state["search"])}
        frames = joined.unfold(-1, self.window, self.quantum)
        before, after = frames[..., : self.window // 2].flip(-1), frames[..., self.window // 2 :]
        power = ((after + before) @ self.to_even).square() + ((after - before) @ self.to_odd).square()
        within, rumble = power[..., self.rumble :].sum(dim=-1), power[..., : self.rumble].sum(dim=-1)
        full = (frames * self.taper).square().sum(dim=-1) * self.parseval
        total = within + UPPER_SHARE * (full - within - rumble).clamp(min=0)
        correlation = (power @ self.to_lags) / total[..., None].clamp(min=torch.finfo(x.dtype).tiny)
        audible = frames.square().mean(dim=-1) > self.silence
        found, search = self.search.follow(correlation, audible, state["search"])
        return torch.stack([found.f0(), found.periodicity()], dim=1), {"heard": heard, "search": search}
