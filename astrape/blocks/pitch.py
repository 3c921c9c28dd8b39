"""Pitch tracking: periodicity by autocorrelation, octave errors kept away by a causal search over candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.product import frame_product
from astrape.blocks.ops.recurrence import Recurrence
from astrape.blocks.ops.sections import chebyshev_highpass
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import bounded
from astrape.blocks.policy import policy
from astrape.blocks.registry import register
from astrape.blocks.state import map_state
from astrape.errors import RateError

__all__ = ["UPPER_SHARE", "PitchSearch", "PitchTracker", "lag_grid"]

CANDIDATES = 8
OCTAVE_COST = 0.01
JUMP_COST = 0.35
VOICING_COST = 0.2
VOICING_THRESHOLD = 0.5
GRID_ERROR = 0.01
"""The most by which a parabola through three of eight points to a period understates a peak."""
NEVER = -10.0
"""The score of an empty candidate."""
HIGHPASS_ORDER = 5
HIGHPASS_DB = 40.0
LARGEST_BLOCK = 96
"""Samples of a hop that the high-pass takes at once: a larger matrix costs more than another product."""
UPPER_SHARE = 0.2
"""Share of the energy above the search band that counts against periodicity: the part of a fricative below 3 kHz may
look like a high voice, yet a voiced fricative has a pitch."""


def lag_grid(fmin: float, band: float) -> Float64:
    """Lags, in seconds, on which the periods of ``fmin`` to ``band`` Hz show as peaks with a neighbour on each side.

    Eight lags to a period of the highest frequency ``band``, so that a parabola through three finds a peak to a few
    parts in ten thousand. All periods are there, not only those of a range: a tone above it repeats itself after
    several of its periods as well, and only the first tells what it is.
    """
    spacing = 1 / (8 * band)
    end = math.ceil(1 / fmin / spacing) + 3
    return np.arange(min(6, end - CANDIDATES - 2), end).astype(np.float64) * spacing


class Pitch(NamedTuple):
    """The result of :class:`PitchSearch` for each frame.

    Attributes:
        lag, height: the candidates, ``(batch, frames, CANDIDATES)``, seconds and periodicity.
        above: periodicity of the best explanation by a pitch above the range, 0 where there is none,
            ``(batch, frames, 1)``.
        best: which of the candidates is on the best path, ``(batch, frames, 1)``; ``CANDIDATES`` where none is.
    """

    lag: Tensor
    height: Tensor
    above: Tensor
    best: Tensor

    def f0(self) -> Tensor:
        """Hz, 0 where there is none, ``(batch, frames)``."""
        return F.pad(self.lag, (0, 1), value=math.inf).gather(-1, self.best).reciprocal()[..., 0]

    def periodicity(self) -> Tensor:
        """Periodicity at the pitch, 0 to 1, ``(batch, frames)``.

        Where there is none it is the highest of a candidate, and no more than a pitch above the range leaves
        unexplained: a tone of 2 kHz repeats itself after 4 ms too, and is not a voice of 250 Hz.
        """
        most, left = highest(self.height), 1 - self.above
        silent = torch.where(most < left, most, left)
        return torch.cat([self.height, silent], dim=-1).gather(-1, self.best).clamp(0, 1)[..., 0]


class PitchSearch(ExactTables):
    """Causal tracking of one pitch per frame through autocorrelations on a grid of lags.

    The candidates of a frame are the highest peaks of its autocorrelation within the range, a little less worth the
    longer their lag, and the possibility that there is no pitch. That is worth as much as the best peak above the range
    if that is more than silence: so a tone above the range is not taken for a fraction of it. A path over the frames
    gains the worth of its candidates and pays for jumps in pitch, in octaves, and for starting and stopping:
    P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a sampled
    sound" (IFA Proceedings 17, 1993), with costs near to his. The path is followed forward only: a frame's answer is
    the end of the best path up to it, and never changes afterwards. What a path can gain on another is bounded by the
    cost of a jump, so that a wrong octave is left within a few frames.

    Args:
        lags: the grid, seconds, evenly spaced and rising; the search is for peaks inside of it.
        fmax: end of the range, Hz. Peaks at shorter lags are there to be told from those within it.
        frame_seconds: time between frames; costs are meant for 10 ms and are scaled to it.
    """

    places: Tensor
    """The lags of the grid between its ends."""

    jumps: Tensor
    """Cost of an octave from candidate to candidate, ``(to, from)``; the last of them is silence."""

    turns: Tensor
    """Cost of voice that starts or stops, ``(to, from)``."""

    def __init__(self, lags: Sequence[float], fmax: float, frame_seconds: float) -> None:
        super().__init__()
        self.grid = np.asarray(lags, dtype=np.float64)
        self.spacing, self.longest = float(self.grid[1] - self.grid[0]), math.log2(self.grid[-1])
        # A tone at the end of the range is found to a few parts in a thousand.
        self.shortest = 0.99 / fmax
        self.scale = 0.01 / frame_seconds
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        voiced = np.array([1.0] * CANDIDATES + [0.0])
        return {
            "places": self.grid[1:-1],
            "jumps": JUMP_COST * self.scale * np.outer(voiced, voiced),
            "turns": VOICING_COST * self.scale * abs(voiced[:, None] - voiced),
        }

    def init_state(self, batch_size: int, device: Any = None, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Silence, as all paths come from it: ``score`` and ``octave`` of each candidate, ``(batch, any)``."""
        score = torch.full((batch_size, CANDIDATES + 1), -1e6, device=device, dtype=dtype)
        score[:, CANDIDATES:] = 0
        return {"score": score, "octave": torch.zeros_like(score)}

    def follow(self, correlation: Tensor, audible: Tensor, state: State) -> tuple[Pitch, State]:
        """The pitch of each frame.

        Args:
            correlation: normalised autocorrelation ``(batch, frames, lags)``, 1 where a frame repeats itself exactly.
            audible: ``(batch, frames)``, false where a frame is too quiet to have a pitch.
            state: as ``init_state`` or the last call gave it.

        Returns:
            The pitch, and the next state.
        """
        lag, height = self.peaks(correlation, audible[..., None])
        octave = self.longest - lag.detach().log2()
        # A height of 0 says that there is no peak: it is never worth a path.
        worth = torch.where(height > 0, height.detach() + octave * OCTAVE_COST, NEVER)
        within = lag.detach() >= self.shortest
        outside = torch.where(within, NEVER, worth)
        first = outside.argmax(dim=-1, keepdim=True)
        beyond = outside.gather(-1, first)
        above = torch.where(beyond > 0, height.gather(-1, first), 0.0)
        worth, index = torch.where(within, worth, NEVER).topk(CANDIDATES, dim=-1)
        lag, octave = lag.gather(-1, index), F.pad(octave.gather(-1, index), (0, 1))
        height = torch.where(worth > 0, height.gather(-1, index), 0.0)
        worth = torch.cat([worth, (beyond + GRID_ERROR).clamp(min=VOICING_THRESHOLD)], dim=-1)
        before = frame_before(state["octave"], octave)
        costs = (octave[..., :, None] - before[..., None, :]).abs() * self.jumps + self.turns
        score = state["score"]
        scores = []
        # Viterbi: the best path to each candidate, frame by frame.
        for frame in range(worth.shape[1]):
            score = worth[:, frame] + highest(score[:, None] - costs[:, frame])[..., 0]
            # Relative to the path without a pitch: only differences count, and sums would grow without bound.
            score = score - score[:, CANDIDATES:]
            scores.append(score)
        best = torch.stack(scores, dim=1).argmax(dim=-1, keepdim=True)
        return Pitch(lag, height, above, best), {"score": score, "octave": octave[:, -1].clone()}

    def peaks(self, correlation: Tensor, audible: Tensor) -> tuple[Tensor, Tensor]:
        """Lag in seconds and height of the local maxima, by a parabola through three points.

        Both have a value at each inner point of the grid. Where that is not a maximum, or not audible, the height is 0.
        """
        left, middle, right = correlation[..., :-2], correlation[..., 1:-1], correlation[..., 2:]
        is_peak = (middle > left.clamp(min=0)) & (middle >= right) & audible
        slope = left - right
        curve = ((left - middle) + (right - middle)).clamp(max=-1e-9)
        offset = (slope / curve * 0.5).clamp(-0.5, 0.5)
        # Energy at the edge of the band makes long lags exceed 1.
        height = torch.where(is_peak, (middle - slope * offset * 0.25).clamp(max=1), 0.0)
        return offset * self.spacing + self.places, height


def highest(values: Tensor) -> Tensor:
    """The highest along the last dimension, which stays: as ``amax``, whose way to a few values is the longer one."""
    return values.gather(-1, values.argmax(dim=-1, keepdim=True))


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

    What lies below ``fmin`` is taken out first, at least 40 dB, by a high-pass: an offset, rumble and the hum of mains
    would leak through the window into the band and hide the voice. A voice near ``fmin`` loses its fundamental with
    that and is known by its harmonics; a pure tone 3 % above ``fmin`` is left with 35 dB less of its level. A pitch
    above ``fmax`` is none: it is not taken for a fraction of itself.

    The window ends with its hop and all of it counts, so the latency is ``(window - hop) / 2`` samples: with the
    defaults at 44.1 kHz, (2206 - 441) / 2 = 882.5, or 20.0 ms. Raising ``fmin`` shortens the window.

    Output: two channels, F0 in Hz, 0 where unvoiced, and periodicity 0 to 1, at one frame per ``hop``.

    Args:
        source: one channel of audio.
        fmin, fmax: range of F0 that is looked for, Hz, 20 to 4000 with ``fmax`` at least 1.5 times ``fmin``. The
            default of 60 to 800 holds every speaking voice, children's too, who exceed 500 Hz.
        hop: samples per frame; left out, as near to 10 ms as whole samples come.
        window_ms: length of the window, 1 to 1000 ms; left out, three periods of ``fmin``, the fewest from which an
            autocorrelation in a Hann window tells the longest period.
        silence_db: frames of a lower RMS level above ``fmin`` are unvoiced with periodicity 0, -200 to 0 dB. Default
            -60.

    Raises:
        ValueError: for a number out of its range.
        RateError: for an input of more than one channel.
    """

    latency_by = "centre"

    at_rest: Tensor
    to_parts: Tensor
    to_lags: Tensor
    to_levels: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        fmin: float = 60.0,
        fmax: float = 800.0,
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
        self.lags = lag_grid(fmin, min(3000.0, rate / 2))
        self.search = PitchSearch(self.lags.tolist(), fmax, hop / rate)
        self.fmin = float(fmin)
        # Padded so that no lag that is looked for wraps around.
        self.length = 2 * half + math.ceil(rate / fmin) + 1
        self.rumble = max(1, round(0.5 * fmin * self.length / rate))
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        rate, half, length = float(self.rate_in), self.window // 2, self.length
        # A window without zeros at its ends. Folding it in the middle halves the product: cosines see the even part of
        # a frame, sines the odd.
        place = np.arange(half) + 0.5
        taper = 0.5 + 0.5 * np.cos(np.pi * place / half)
        band = min(3000.0, rate / 2)
        bins = np.arange(int(band * length / rate) + 1)
        # The band ends softly, over four main lobes of the window: a tone whose lobe is cut in half would seem
        # to repeat itself for longer than the window lets it.
        edge = min(band / 2, max(band / 10, 16 * rate / self.window))
        passed = np.sin(np.pi / 2 * np.clip((band - bins * rate / length) / edge, 0, 1))
        angles = 2 * np.pi * np.outer(place, bins) / length
        spectrum = 4 * (taper @ np.cos(2 * np.pi * np.outer(place, np.arange(length // 2 + 1)) / length)) ** 2
        spectrum[0] /= 2
        turns = 2 * np.pi * rate / length
        own = spectrum @ np.cos(turns * np.outer(np.arange(len(spectrum)), self.lags)) / spectrum.sum()
        to_lags = np.cos(turns * np.outer(bins, self.lags)) / own
        to_lags[: self.rumble] = 0
        # Two sums with them: what lies in the band, and below it.
        below = (bins < self.rumble).astype(np.float64)[:, None]
        taper = np.concatenate([taper[::-1], taper])
        highpass = chebyshev_highpass(HIGHPASS_ORDER, self.fmin, HIGHPASS_DB, rate)
        # A hop is one block, or a few of equal size.
        unrolled = highpass.unroll(-(-self.quantum // -(-self.quantum // LARGEST_BLOCK)))._asdict()
        return {
            **{f"highpass_{name}": table.numpy() for name, table in unrolled.items()},
            "at_rest": highpass.at_rest(),
            "to_parts": (np.stack([np.cos(angles), np.sin(angles)]) * taper[half:, None] * passed).swapaxes(1, 2),
            "to_lags": np.hstack([to_lags, 1 - below, below]).T,
            "to_levels": np.stack([taper**2 * (length / 2), np.full(self.window, 1 / self.window)]),
        }

    def transform(self, parts: Tensor) -> Tensor:
        """The even and the odd part of each frame, ``(2, batch, frames, window / 2)``, by bins."""
        _, batch, frames, half = parts.shape
        # Turned round as rows: columns that are written out are read far more slowly (see `frame_product`).
        columns = parts.view(2, batch * frames, half).mT
        return torch.bmm(self.to_parts, columns).mT.reshape(2, batch, frames, -1)

    @property
    def latency(self) -> Fraction:
        return Fraction(self.window - self.quantum, 2) / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, State]:
        heard = torch.zeros(batch_size, self.window - self.quantum, device=device, dtype=dtype)
        below = torch.zeros(batch_size, 1, HIGHPASS_ORDER, device=device, dtype=dtype)
        fresh = torch.ones(batch_size, 1, 1, device=device, dtype=dtype)
        return {
            "fresh": fresh,
            "below": below,
            "heard": heard,
            "search": self.search.init_state(batch_size, device, dtype),
        }

    def step(self, x: Tensor, state: State, controls: object) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.new_zeros(x.shape[0], 2, 0), map_state(torch.clone, state)
        highpass = Recurrence(*(getattr(self, f"highpass_{name}") for name in Recurrence._fields))
        # A stream begins as if its first sample had been there before: an offset is not a step then.
        before = state["below"] + state["fresh"] * x[..., :1] * self.at_rest
        above, below = highpass.run(x, before)
        joined = torch.cat([state["heard"], above[:, 0]], dim=-1)
        heard = joined[:, x.shape[-1] :].clone(memory_format=torch.contiguous_format)
        frames = policy().windows(joined, self.window, self.quantum)
        before, after = frames[..., : self.window // 2].flip(-1), frames[..., self.window // 2 :]
        parts = self.transform(torch.stack([after + before, after - before])).square()
        levels = F.linear(frames.square(), self.to_levels)
        sums = frame_product(parts[0] + parts[1], self.to_lags)
        within, rumble = sums[..., -2:-1], sums[..., -1:]
        total = within + (levels[..., :1] - within - rumble).clamp(min=0) * UPPER_SHARE
        correlation = sums[..., :-2] / total.clamp(min=torch.finfo(x.dtype).tiny)
        audible = levels[..., 1] > self.silence
        found, search = self.search.follow(correlation, audible, state["search"])
        return torch.stack([found.f0(), found.periodicity()], dim=1), {
            "fresh": torch.zeros_like(state["fresh"]),
            "below": below,
            "heard": heard,
            "search": search,
        }
