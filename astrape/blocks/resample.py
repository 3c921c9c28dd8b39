"""Sample-rate conversion by any rational ratio, with a linear-phase filter and an exact delay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.history import empty_history, join_history
from astrape.blocks.parameters import bounded, check_real, exact_number
from astrape.blocks.policy import policy
from astrape.blocks.registry import register

__all__ = ["Resampler"]

LARGEST_TABLE = 1 << 24
"""Filter weights, 64 MiB in float32."""

WINDOWS_AT_ONCE = 1 << 21
"""Gathered input values that a long pass holds at a time: 8 MiB in float32, whatever the length of the input."""

MOST_SLACK = 4
"""Frames by which windows may grow for their starts to be equally far apart."""

GATHER_COST = 8.0
"""Cost of gathering one value of a window, in multiplications."""


@register("resampler")
class Resampler(StreamBlock):
    """Polyphase resampling with a Kaiser-windowed sinc: ``(batch, channels, n)`` at any rate to any other.

    With ``rate / source.rate = up / down`` in lowest terms, a quantum is ``down`` input frames and yields ``up`` output
    frames. Output ``m`` is the band-limited input at the instant ``(m - d) / rate``, where the delay ``d``, half the
    filter, is a whole number of *output* frames, unless ``shift`` adds a part of one; so paths that meet behind
    resamplers can be aligned exactly. No output needs input after its own instant, and each phase passes a constant
    unchanged (its weights sum to 1 in float64). Before time zero the input is silence. Equal rates pass the input
    through, without delay.

    Latency buys steepness, and nothing else does. ``zeros`` periods of the lower rate on either side of the centre are
    the delay; the transition from pass to stop is ``(stopband_db - 7.95) / (14.36 * zeros)`` of the lower Nyquist
    frequency wide (Kaiser 1974). Measured from 44.1 kHz to 16 kHz, with ``stopband_db`` 85:

    ======  =======  ================================  ===================================
    zeros   delay    within 0.1 dB                     85 dB down
    ======  =======  ================================  ===================================
    48      3 ms     to 0.90 of Nyquist (7.2 kHz)      from Nyquist on: no alias
    40      2.5 ms   to 0.88 (7.0 kHz)                 from Nyquist on
    32      2 ms     to 0.85 (6.8 kHz)                 from Nyquist on
    24      1.5 ms   to 0.91 with ``rolloff`` 1        from 1.11: aliases stay above 0.89
    16      1 ms     to 0.87 with ``rolloff`` 1        from 1.17: aliases stay above 0.83
    ======  =======  ================================  ===================================

    The default, 48, leaves speech untouched up to 7.2 kHz. A tone comes out as the same tone, later by the delay::

        >>> half = Resampler(Stream(48000, 1), rate=24000).double()
        >>> half.delay, half.latency
        (48, Fraction(1, 500))
        >>> tone = lambda frames, rate: (2 * math.pi * 1000 / rate * frames).sin()
        >>> y = half(tone(torch.arange(9600.0, dtype=torch.float64), 48000)[None, None])[0, 0]
        >>> late = tone(torch.arange(len(y), dtype=torch.float64) - half.delay, 24000)
        >>> bool((y - late)[2 * half.delay :].abs().max() < 1e-4)
        True

    A quantum's outputs are computed in groups of neighbours that share one window of input. Windows equally far apart,
    as between 44.1 kHz and 16 kHz, are read where they lie, others are gathered by a table of indices; one batched
    matrix product applies the weights. Groups of one are the textbook polyphase filter; one group for all is a strided
    convolution, and runs as such. The size in between is chosen for the least work.

    Args:
        source: the input stream.
        rate: output rate in Hz, exact: an ``int``, a ``Fraction`` or a string such as ``"16000/3"``.
        zeros: half the filter's length in periods of the lower of the two rates, 1 to 4096.
        stopband_db: attenuation of aliases and images, 20 to 160 dB.
        rolloff: where the response has fallen by 6 dB, as a share of the lower Nyquist frequency. Left out, it is
            the highest with which the stop band begins at Nyquist. 1 lets the transition straddle Nyquist: half the
            delay for the same pass band, at the price of aliases within the transition.
        shift: a part of an output frame, from 0 to below 1, exact, by which everything is later still. The filter is
            the same around another centre. A path that is 104.49 frames late can so be made 105 late.

    Raises:
        RateError: for a rate that is not exact or not positive.
        ValueError: for a parameter out of range, a filter too short for its attenuation, or two rates whose ratio
            takes a table of more than 64 MiB, as 44100 to 44101.0001 would.
    """

    latency_by = "centre"

    def __init__(
        self,
        source: Stream,
        *,
        rate: Fraction | int | str,
        zeros: int = 48,
        stopband_db: float = 85.0,
        rolloff: float | None = None,
        shift: Fraction | int | str = 0,
    ) -> None:
        target = Stream(rate, source.channels).rate
        ratio = target / source.rate
        super().__init__(source, quantum=ratio.denominator, ratio=ratio)
        bounded("zeros", zeros, 1, 4096)
        self.delay = half_filter(ratio, zeros)
        self.shift = _shift(shift, ratio)
        self.history = 0
        self._oldest = [0]
        if ratio == 1:
            return
        self._check_table()
        cutoff, shape = self._design(zeros, check_real("stopband_db", stopband_db, 20, 160), rolloff)
        table = _build_table(ratio.numerator, ratio.denominator, self.delay, self.shift, cutoff, shape)
        self.history = max(0, -int(table.index.min()))
        self._oldest = table.oldest.tolist()
        apart = set(np.diff(table.index[:, 0]).tolist())
        self._hop = apart.pop() if len(apart) == 1 else 0
        self._start = int(table.index.min()) + self.history
        dtype = torch.get_default_dtype()
        self.register_buffer("index", torch.from_numpy(table.index + self.history), persistent=False)
        self.register_buffer("weight", torch.from_numpy(table.weight).to(dtype), persistent=False)

    index: Tensor
    """Positions of each group's window in history and quantum, ``(groups, window)``, int64."""

    weight: Tensor
    """``(groups, window, outputs of the group)``."""

    def _check_table(self) -> None:
        window = int(2 * self.delay / self.ratio) + 2
        weights = self.ratio.numerator * window
        if weights > LARGEST_TABLE:
            raise ValueError(
                f"rate {self.rate_out} Hz from {self.rate_in} Hz is a ratio of {self.ratio}, whose table would take "
                f"{weights * 4 // 2**20} MiB (at most 64): choose rates with a larger common divisor, or fewer zeros"
            )

    def _design(self, zeros: int, stopband_db: float, rolloff: float | None) -> tuple[float, float]:
        """Cutoff in cycles per input frame, and Kaiser's shape parameter (Kaiser 1974; Oppenheim & Schafer, ch. 7)."""
        if stopband_db > 50:
            shape = 0.1102 * (stopband_db - 8.7)
        else:
            shape = 0.5842 * (stopband_db - 21) ** 0.4 + 0.07886 * (stopband_db - 21) if stopband_db > 21 else 0.0
        nyquist = 0.5 * float(min(Fraction(1), self.ratio))
        width = max(0.0, stopband_db - 7.95) / (14.357 * 2 * float(self.delay / self.ratio))
        if width > nyquist:
            needed = math.ceil((stopband_db - 7.95) / 14.357)
            raise ValueError(f"zeros must be {needed} or more for a stopband_db of {stopband_db:g}, not {zeros}")
        if rolloff is None:
            return nyquist - width / 2, shape
        return check_real("rolloff", rolloff, 0.05, 1.0) * nyquist, shape

    @property
    def latency(self) -> Fraction:
        return (self.delay + self.shift) / self.rate_out

    @property
    def receptive_field(self) -> Fraction:
        return (self.quantum - min(self._oldest)) / self.rate_in

    def oldest_input(self, frame: int) -> int:
        return self._oldest[frame]

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return empty_history(batch_size, self.channels_in, self.history, device, dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if self.ratio == 1 or x.shape[-1] == 0:
            return x, state
        batch, channels, frames = x.shape
        joined, state = join_history(state, x)
        rows = joined.reshape(batch * channels, -1)
        at_once = max(1, WINDOWS_AT_ONCE // (rows.shape[0] * self.index.numel())) * self.quantum
        parts = [
            self._filter(rows[:, start : min(start + at_once, frames) + self.history])
            for start in range(0, frames, at_once)
        ]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return y.reshape(batch, channels, -1), state

    def _filter(self, rows: Tensor) -> Tensor:
        """Output of every quantum in ``rows``, ``(n, history + k * quantum)``: ``(n, k * quantum * ratio)``."""
        groups, window, size = self.weight.shape
        if groups == 1:
            kernel = self.weight[0].t().unsqueeze(1)
            end = rows.shape[-1] - self.history - self.quantum + window
            y = functional.conv1d(rows[:, None, :end], kernel, stride=self.quantum)
            return y.transpose(1, 2).flatten(1)
        spans = policy().windows(rows, self.history + self.quantum, self.quantum)
        if self._hop:
            # Windows that lie equally far apart are a view: nothing is gathered for a live quantum.
            windows = policy().windows(spans[..., self._start :], window, self._hop)[..., :groups, :]
        else:
            windows = spans.index_select(-1, self.index.flatten()).view(*spans.shape[:2], *self.index.shape)
        windows = windows.permute(2, 0, 1, 3).flatten(1, 2)
        y = torch.bmm(windows, self.weight).reshape(groups, rows.shape[0], -1, size).permute(1, 2, 0, 3)
        return y.flatten(2)[..., : self.ratio.numerator].flatten(1)


def half_filter(ratio: Fraction, zeros: int) -> int:
    """Half of the filter in output frames, which is the delay without a shift."""
    return 0 if ratio == 1 else math.ceil(zeros * max(Fraction(1), ratio))


def _shift(given: Fraction | int | str, ratio: Fraction) -> Fraction:
    shift = exact_number("shift", given)
    if not 0 <= shift < 1 or shift.denominator > 1 << 32:
        raise ValueError(f"shift must be from 0 to below 1 frame, such as '49/160', not {given!r}")
    if shift and ratio == 1:
        raise ValueError(f"shift must be 0 between equal rates, which pass the input through, not {given!r}")
    return shift


@dataclass(frozen=True)
class _Table:
    """A polyphase filter by groups; frames are counted from the start of the quantum, earlier ones negative.

    Attributes:
        index: input frames of each group's window, ``(groups, window)``.
        weight: ``(groups, window, outputs of a group)``, float64; outputs past the quantum's last weigh nothing.
        oldest: the oldest input frame with a non-zero weight, for each output frame.
    """

    index: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    oldest: npt.NDArray[np.int64]


def _build_table(up: int, down: int, delay: int, shift: Fraction, cutoff: float, shape: float) -> _Table:
    """Groups of outputs, the window of input frames that each group shares, and the weights of :func:`_weights` in it.

    The window of a filter is open: frames at exactly ``delay`` from the centre have no weight, so the filter stays
    symmetric and no output needs an input frame at its own instant or after.
    """
    part, parts = shift.numerator, shift.denominator
    outputs = np.arange(up, dtype=np.int64)
    first = ((outputs - 2 * delay) * parts - part) * down // (up * parts) + 1
    last = -(-(outputs * parts - part) * down // (up * parts)) - 1
    size = _group_size(up, down, int((last - first).max()) + 1)
    groups = -(-up // size)
    start = first[::size]
    end = last[np.minimum(np.arange(1, groups + 1) * size, up) - 1]
    window = int((end - start).max()) + 1
    needed, start = start, np.minimum(start, down - window)
    if groups > 1:
        hop = (needed[-1] - needed[0]) // (groups - 1)
        even = needed[0] + hop * np.arange(groups, dtype=np.int64)
        even -= max(0, int((even - needed).max()))
        wider = int((end - even).max()) + 1
        if wider <= window + MOST_SLACK and even[-1] + wider <= down:
            start, window = even, wider
    weight = np.zeros((groups, window, size))
    oldest = np.empty(up, dtype=np.int64)
    for group in range(groups):
        frames = start[group] + np.arange(window, dtype=np.int64)
        members = outputs[group * size : (group + 1) * size]
        phase = _weights(frames[:, None], members[None, :], up, down, delay, shift, cutoff, shape)
        weight[group, :, : len(members)] = phase / phase.sum(axis=0)
        oldest[members] = frames[(phase != 0).argmax(axis=0)]
    return _Table(start[:, None] + np.arange(window, dtype=np.int64), weight, oldest)


def _weights(
    frames: npt.NDArray[np.int64],
    outputs: npt.NDArray[np.int64],
    up: int,
    down: int,
    delay: int,
    shift: Fraction,
    cutoff: float,
    shape: float,
) -> npt.NDArray[np.float64]:
    """Weights of input frames ``n`` in output frames ``j`` of the first quantum, up to a factor per output.

    With time in input frames and a cutoff of ``c`` cycles per frame, the input as a continuous signal is

        y(t) = sum over n of x[n] h(t - n),    h(u) = 2c sinc(2c u) bell(u)

    and output ``m`` is ``y`` at ``t = (m - late) down / up``, where ``late`` is ``delay + shift``. Write ``m = up k +
    j``: then ``t = down k + (j - late) down / up``, the same instant in every quantum ``k`` but for ``down k`` whole
    input frames. So there are only ``up`` rows of weights, ``h((j - late) down / up - n)``, each over a window that
    moves on by ``down`` frames a quantum. ``2c`` is left out, since each row is scaled to sum to 1 afterwards.

    From 2 Hz to 3 Hz with a delay of 3 output frames, output 1 is the input at ``t = (1 - 3) * 2 / 3``::

        >>> n = np.arange(-3, 1)
        >>> row = _weights(n, np.array(1), 3, 2, 3, Fraction(0), cutoff=0.5, shape=0.0)
        >>> np.allclose(row, np.sinc(-4 / 3 - n))
        True
    """
    # Distances in units of 1/(up parts) input frames are whole: no rounding moves a frame across the edge.
    part, parts = shift.numerator, shift.denominator
    distance = frames * up * parts - ((outputs - delay) * parts - part) * down
    inside = np.abs(distance) < delay * down * parts
    offset = np.where(inside, distance, 0) / (up * parts)
    bell = np.i0(shape * np.sqrt(1 - (offset * up / (delay * down)) ** 2))
    weights = np.where(inside, np.sinc(2 * cutoff * offset) * bell, 0.0)
    # A zero of the sinc comes out as some 1e-17; it has no influence, and must not count as receptive field.
    weights[np.abs(weights) < 1e-14 * np.i0(shape)] = 0.0
    return weights


def _group_size(up: int, down: int, taps: int) -> int:
    """Outputs per group for the least work: large groups multiply by zeros, small ones gather each frame too often."""

    def work(size: int) -> float:
        window = taps + -(-(size - 1) * down // up)
        return -(-up // size) * window * (size + GATHER_COST)

    return min(range(1, min(up, 64) + 1), key=work)
