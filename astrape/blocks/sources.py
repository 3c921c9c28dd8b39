"""Sources of sound that make their signal themselves: white noise, and the pulses of a voice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.phase import TURN
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_choice, check_elements, wide_type
from astrape.blocks.policy import policy
from astrape.blocks.registry import register
from astrape.blocks.state import map_state
from astrape.errors import RateError

__all__ = ["Noise", "PulseSource"]

GAMMA = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: its multiples are spread evenly over all words."""

MULTIPLIER = 0xD6E8FEB86659FD93
"""The constant of the mixer ``degski64``, found by search for what changes of single bits do to the rest."""

LARGEST_SEED = (1 << 24) - 1
"""The largest whole number that a float32 control holds, as it does all below it."""

IDLE_HZ = 100.0
"""Frequency at which the phase runs before the first voiced frame."""

LOWEST_HZ = 10.0
RAMP_SECONDS = 0.002
FRAMES_AT_ONCE, SAMPLES_AT_ONCE = 32, 8192
"""Frames of pulses, and samples of each row's noise, computed at a time, which stay in the cache."""

STEEPEST = 8.0
"""Octaves a second up to which a change of F0 is a glide; what changes faster is a jump. Speech stays below 6."""


def signed(number: int) -> int:
    """The same 64 bits as an int64."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def mixed(words: Tensor) -> Tensor:
    """int64 words, each mixed so that every bit of it depends on every bit of the word; ``words`` is written over.

    Three times the upper half is laid upon the lower one, and in between the word is multiplied, whose carries bring
    the lower half up again. Each of it can be undone, so no two words become one. Products wrap around.
    """
    for number in range(3):
        if number:
            words = words * signed(MULTIPLIER)
        words = policy().fold(words)
    return words


@register("noise")
class Noise(StreamBlock):
    """White Gaussian noise of unit variance, at the pace of its input, whose values it does not look at.

    ``(batch, any, n)`` to ``(batch, channels, n * hop)``. A sample is a function of its position in the stream, its
    channel and the seed: a whole number made of the three is hashed, and the two halves of the hash become a normal
    number by the transform of Box and Muller (1958). So a stream sounds the same however it is cut, after a week as in
    the first minute. The largest value that can come is 6.7.

    Rows of a batch with the same seed have the same noise, for a stream sounds alone as it does beside others. A seed
    that is a control has a value for each row: training draws them, and so no two examples share their noise.

    Args:
        source: the clock.
        hop: samples per input frame, 1 to 65536. Default 1.
        channels: independent channels; as many as the input has, when left out.
        seed: 0 to 16777215, or the name of a control that sets it, for a seed by row. Different seeds give
            independent noise. Default 0.

    Raises:
        ValueError: for a number out of range.
    """

    like: Tensor

    def __init__(self, source: Stream, *, hop: int = 1, channels: int | None = None, seed: int | str = 0) -> None:
        count = bounded("channels", source.channels if channels is None else channels, 1, LARGEST_COUNT)
        super().__init__(source, ratio=bounded("hop", hop, 1, LARGEST_COUNT), channels=count)
        check_elements("the noise of a frame", count, hop)
        self.hop = hop
        self.seed = seed if isinstance(seed, str) else bounded("seed", seed, 0, LARGEST_SEED)
        if isinstance(self.seed, str):
            self.live(self.seed)
        # Stands for the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1), persistent=False)

    @property
    def receptive_field(self) -> Fraction | None:
        return None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """``(batch, 1)``, samples so far."""
        return torch.zeros(batch_size, 1, device=device, dtype=torch.int64)

    def prepare(self, controls: Mapping[str, Tensor]) -> Tensor:
        """The key of each channel, int64 ``(batch or 1, channels, 1)``."""
        if isinstance(self.seed, str):
            seeds = controls[self.seed].detach().round().clamp(0, LARGEST_SEED).to(torch.int64)
        else:
            seeds = torch.full((1, 1), self.seed, dtype=torch.int64, device=self.like.device)
        channel = torch.arange(self.channels_out, device=seeds.device) * (LARGEST_SEED + 1)
        return mixed((seeds + channel + 1) * signed(GAMMA))[..., None]

    def step(self, x: Tensor, state: Tensor, controls: Tensor) -> tuple[Tensor, State]:
        count = x.shape[-1] * self.hop
        made = []
        for start in range(0, count, SAMPLES_AT_ONCE):
            further = torch.arange(start, min(start + SAMPLES_AT_ONCE, count), device=x.device) * signed(GAMMA)
            made.append(normal(mixed((state * signed(GAMMA) + further)[:, None] + controls), x.dtype))
        if not made:
            return x.new_zeros(x.shape[0], self.channels_out, 0), state.clone()
        return (torch.cat(made, dim=-1) if len(made) > 1 else made[0]), state + count


def normal(words: Tensor, dtype: torch.dtype) -> Tensor:
    """A normal number of each int64 word, whose halves are two uniform ones (Box and Muller)."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    turn, size = (half.to(wide) for half in policy().halves(words))
    # A uniform number from 2^-32 to 1: never 0, whose logarithm is infinite.
    radius = (size.abs() * 2.0**-31 + 2.0**-32).log().mul(-2).clamp(min=0).sqrt()
    return (radius * (turn * (math.pi * 2.0**-31)).cos()).to(dtype)


@register("pulse_source")
class PulseSource(StreamBlock, ExactTables):
    """The pulses of a voice: from F0, frame by frame, to a train of band-limited pulses.

    ``(batch, 1, n)``, Hz, 0 where there is no voice, to ``(batch, 1, n * hop)`` at ``hop`` times the rate: the sum of
    all harmonics below half the sample rate, as cosines of equal amplitude::

        y = 2 sqrt(f / rate) sum_k a_k cos(2 pi k p),     a_k = min(1, rate / 2 f - k),   k = 1, 2, ... while a_k > 0

    with ``f`` the frequency and ``p`` the phase, in turns, of each sample. The highest harmonic fades as it nears half
    the sample rate, so that their number changes without a step. Nothing aliases. The power spectral density of
    the train is that of white noise of unit variance whatever F0 is, so that an envelope means the same for every voice
    and for noise. The sum is taken in closed form, Dirichlet's kernel, of phases that are counted in float64.

    The phase goes on without a step over frames, whatever F0 does, and while there is no voice at the last voiced
    frame's frequency. It is kept in int64 fixed point, 2^48 units a turn, so that it neither drifts nor depends on how
    the stream is cut. Voice starts and ends by a ramp of 2 ms at the start of its frame.

    Within a frame the frequency moves on a line. ``contour`` says on which:

    * ``"slope"``: through the frame's F0 in its middle, as steep as from the frame before to this one, so that a glide
      is followed with no delay. A voice glides no faster than 8 octaves a second, a semitone in 10 ms, and the slope is
      held to that where F0 jumps.
    * ``"between"``: from the F0 of the frame before to this frame's: no corner anywhere, half a frame late.

    No gradient goes to F0, which is a clock here.

    Args:
        source: F0 in Hz. It is held within 10 Hz and a quarter of the sample rate.
        hop: samples per frame, 1 to 65536.
        contour: ``"slope"`` or ``"between"``. Default ``"slope"``.

    Raises:
        ValueError: for a hop out of range or an unknown contour.
        RateError: for an input of more than one channel.
    """

    latency_by = "declared"

    basis: Tensor
    ramp: Tensor

    def __init__(self, source: Stream, *, hop: int, contour: str = "slope") -> None:
        if source.channels != 1:
            raise RateError(f"pulse_source takes one channel, F0 in Hz, not {source.channels}: split them before it")
        super().__init__(source, ratio=bounded("hop", hop, 1, LARGEST_COUNT), channels=1)
        self.hop = hop
        self.contour = check_choice("contour", contour, ("slope", "between"))
        self.sample_rate = float(self.rate_out)
        self.steepest = 2 ** min(STEEPEST / float(self.rate_in), 0.5)
        n = torch.arange(1, hop + 1)
        # The shares of this frame's frequency, and of the one before, in phase and frequency by sample.
        phases = (n * (hop + n), n * (hop - n)) if contour == "slope" else (n * n, n * (2 * hop - n))
        rates = (hop + 2 * n, hop - 2 * n) if contour == "slope" else (2 * n, 2 * (hop - n))
        start = torch.cat([torch.ones_like(n), torch.zeros_like(n)])
        basis = torch.stack([start, *(torch.cat(pair) for pair in zip(phases, rates, strict=True))])
        # Whole numbers, which no change of type can round.
        self.register_buffer("basis", basis, persistent=False)
        self.unit = 1 / (2 * hop * self.sample_rate)
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        """The progress of a voice that starts or ends, at each sample of its frame."""
        length = max(1, min(self.hop, round(RAMP_SECONDS * self.sample_rate)))
        return {"ramp": (np.arange(1, self.hop + 1) / length).clip(max=1)}

    @property
    def latency(self) -> Fraction:
        return Fraction(1, 2) / self.rate_in if self.contour == "between" else Fraction(0)

    @property
    def receptive_field(self) -> Fraction | None:
        return None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """``turns`` of phase, fixed point; ``f0``, that of the last voiced frame; ``voiced``, of the last frame."""
        return {
            "turns": torch.zeros(batch_size, 1, device=device, dtype=torch.int64),
            "f0": torch.full((batch_size, 1), IDLE_HZ, device=device, dtype=wide_type(device)),
            "voiced": torch.zeros(batch_size, 1, device=device, dtype=wide_type(device)),
        }

    def step(self, x: Tensor, state: State, controls: object) -> tuple[Tensor, State]:
        batch, _, frames = x.shape
        if not frames:
            return x.new_zeros(batch, 1, 0), map_state(torch.clone, state)
        given = x[:, 0].detach().to(state["f0"].dtype)
        sounds = given > 0
        voiced, held = sounds.to(given.dtype), given.clamp(LOWEST_HZ, self.sample_rate / 4)
        if frames == 1:
            f0, before, voiced_before = torch.where(sounds, held, state["f0"]), state["f0"], state["voiced"]
        else:
            f0 = last_voiced(held, sounds, state["f0"])
            before = torch.cat([state["f0"], f0[:, :-1]], dim=-1)
            voiced_before = torch.cat([state["voiced"], voiced[:, :-1]], dim=-1)
        # Where the voice comes from; from where it is, when it starts.
        here, there = f0 * self.unit, torch.where(voiced_before > 0, before, f0) * self.unit
        if self.contour == "slope":
            there = (there / here).clamp(1 / self.steepest, self.steepest) * here
            advance = here * float(2 * self.hop**2 * TURN)
        else:
            advance = (here + there) * float(self.hop**2 * TURN)
        advance = advance.to(torch.int64)
        ends = state["turns"] + (advance.cumsum(dim=-1) if frames > 1 else advance)
        start = ((ends - advance if frames > 1 else state["turns"]) & (TURN - 1)).to(f0.dtype) * (1 / TURN)
        made = torch.stack([start, here, there], dim=-1).view(-1, 3)
        loudness = (voiced - voiced_before).to(x.dtype)[..., None] * self.ramp + voiced_before.to(x.dtype)[..., None]
        parts = zip(*(torch.split(rows, FRAMES_AT_ONCE) for rows in (made, loudness.view(-1, self.hop))), strict=True)
        y = [pulses(part @ self.basis.to(part.dtype), x.dtype) * gain.to(x.dtype) for part, gain in parts]
        after = {"turns": ends[:, -1:].clone(), "f0": f0[:, -1:].clone(), "voiced": voiced[:, -1:].clone()}
        return (torch.cat(y) if len(y) > 1 else y[0]).view(batch, 1, frames * self.hop), after


def pulses(made: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of harmonics of :class:`PulseSource`: ``(rows, n)``, of ``n`` phases, in turns, then frequencies.

    The frequencies are in parts of the sample rate. With ``h`` half of the phase's angle and ``m`` the number of the
    highest harmonic, of weight ``r``, the closed form of twice the sum is ``sin(2 m h) / tan(h) + (2 r - 1) cos(2 m h)
    - 1``. A phase of 0 is moved by less than it is known to, so that there is nothing to divide by 0. Turns are counted
    in the type of ``made``, and only what is left of less than one is rounded to ``dtype``: in float32 the result is
    140 dB from that in float64.
    """
    phase, frequency = made.chunk(2, dim=-1)
    narrow = torch.promote_types(dtype, torch.float32)
    turn = phase - phase.round() + 1e-19
    ratio = frequency.reciprocal()
    highest = (ratio * 0.5).floor()
    whole = turn * highest
    top = (whole - whole.round()).to(narrow) * (2 * math.pi)
    share = (torch.sub(ratio, highest, alpha=2) - 1).to(narrow)
    half = turn.to(narrow) * math.pi
    return (torch.addcmul(top.sin() / half.tan(), share, top.cos()).sub(1) * frequency.to(narrow).sqrt()).to(dtype)


def last_voiced(f0: Tensor, sounds: Tensor, before: Tensor) -> Tensor:
    """F0 of the last voiced frame at each frame, ``(batch, n)``; ``before`` ``(batch, 1)`` where there is none yet."""
    place = torch.arange(1, f0.shape[1] + 1, device=f0.device)
    index = policy().running_maximum(torch.where(sounds, place, 0))
    return torch.cat([before, f0], dim=-1).gather(-1, index)
