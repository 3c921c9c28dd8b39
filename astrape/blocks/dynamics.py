"""Dynamics: a noise gate and a compressor, sample by sample and without look-ahead.

Attack and release make a gain fall and rise at different speeds, which as usually written is a branch per sample. Both
blocks use the decoupled form instead (D. Giannoulis, M. Massberg, J. Reiss, "Digital Dynamic Range Compressor Design",
J. Audio Eng. Soc. 60(6), 2012, equation 16): the release acts first and at once on a rise, the attack smooths what
comes of it. Each half runs in parallel over any number of samples: the release is a running maximum of decayed values,
the attack a linear recurrence. So a quantum is one sample, and a host pays no framing.

The channels of a stream share one gain, led by the loudest, so that a stereo image stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.ops.recurrence import Recurrence
from astrape.blocks.policy import policy
from astrape.blocks.registry import register

__all__ = ["Compressor", "Gate", "decaying_maximum", "one_pole", "peak", "samples", "within"]

MAX_MS = 60_000
NEVER = 2**40
"""Samples since an event that has not happened: more than any hold, and a sum with the position never overflows."""
SILENCE = 1e-6
"""Amplitude below which a level, in dB, is not followed any further: -120 dB."""


class GateSettings(NamedTuple):
    """Prepared controls of the gate: the amplitudes that open it and keep it open, ``(batch, 1)``."""

    opens: Tensor
    keeps: Tensor
    smoother: Recurrence


@register("gate")
class Gate(StreamBlock):
    """A noise gate: passes a signal whose peaks reach the threshold, and turns the rest down to a floor.

    It opens at the first sample at or above ``threshold_db``. It stays open as long as some sample of the last
    ``hold_ms`` lies above ``threshold_db - hysteresis_db``, so that it does not chatter on a voice that hovers at the
    threshold, then closes. Its gain moves in dB between the floor and 0: ``gain = floor_db (1 - openness)``, where
    the openness is 1 while open and decays by ``exp(-1 / release)`` a sample afterwards, smoothed by a one-pole of the
    attack time. There is no look-ahead: the first ``attack_ms`` of a word are faded in, which 2 ms keep inaudible.

    The gradient is that of the gain: the decisions have none.

    Args:
        source: audio; the channels share the gain.
        threshold_db: peak level that opens the gate, dB relative to 1.0; a number or a control's name. Live values
            are held within -120 and 0. Default -45: above the noise of a room, below soft speech.
        floor_db: gain when closed, -120 to 0 dB. Default -60.
        attack_ms, release_ms: time constants, 0 to 60000 ms. Default 2 and 80.
        hold_ms: how long the gate stays open after the last loud sample, 0 to 60000 ms. Default 50, which bridges the
            closure of a plosive and every period of a voice.
        hysteresis_db: how far the level must fall below the threshold to close, 0 to 60 dB. Default 6.

    Raises:
        ValueError: for a number out of its range.
    """

    like: Tensor

    def __init__(
        self,
        source: Stream | Mapping[str, Stream],
        *,
        threshold_db: float | str = -45.0,
        floor_db: float = -60.0,
        attack_ms: float = 2.0,
        release_ms: float = 80.0,
        hold_ms: float = 50.0,
        hysteresis_db: float = 6.0,
    ) -> None:
        super().__init__(source)
        if not isinstance(threshold_db, str):
            within("threshold_db", threshold_db, -120, 0, "dB")
        self.threshold_db = self.live(threshold_db)
        self.floor_db = within("floor_db", floor_db, -120, 0, "dB")
        self.hysteresis_db = within("hysteresis_db", hysteresis_db, 0, 60, "dB")
        self.hold = round(within("hold_ms", hold_ms, 0, MAX_MS, "ms") * float(self.rate_in) / 1000)
        self.release = samples("release_ms", release_ms, self)
        self.attack = samples("attack_ms", attack_ms, self)
        # Stands for the type and the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1, 1), persistent=False)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        return {
            "since": torch.full((batch_size, 2), NEVER, device=device, dtype=torch.int64),
            "openness": torch.zeros(batch_size, 1, 1, device=device, dtype=dtype),
        }

    def prepare(self, controls: Mapping[str, Tensor]) -> GateSettings:
        if isinstance(self.threshold_db, str):
            threshold = controls[self.threshold_db].clamp(-120, 0)
        else:
            threshold = self.like + self.threshold_db
        keeps = 10 ** ((threshold - self.hysteresis_db) / 20)
        return GateSettings(10 ** (threshold / 20), keeps, one_pole(self.attack).to(threshold))

    def step(self, x: Signal, state: State, controls: GateSettings) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.clone(), {name: tensor.clone() for name, tensor in state.items()}
        gain, state = self.gain(peak(x.detach()), state, controls)
        return x * gain, state

    def gain(self, level: Tensor, state: State, controls: GateSettings) -> tuple[Tensor, State]:
        """The gain ``(batch, 1, frames)`` that a level ``(batch, frames)``, of one frame or more, leads to."""
        position = torch.arange(level.shape[-1], device=level.device)
        before_loud, before_open = state["since"].unbind(dim=1)
        since_loud = since_last(level >= controls.keeps, position, before_loud[:, None])
        # A sample that opens the gate is an odd event, one that lets it fall shut an even one, and no sample does both:
        # where the newest event is odd, the gate is open.
        event = torch.where(since_loud > self.hold, 2 * position, -2 + (before_open[:, None] == 0).long())
        event = policy().running_maximum(torch.where(level >= controls.opens, 2 * position + 1, event))
        since_open = since_last((event & 1).bool(), position, before_open[:, None])
        target = torch.exp(since_open.to(level.dtype) * (-1 / self.release))[:, None]
        openness, smoothed = controls.smoother.run(target, state["openness"])
        gain = torch.exp((openness - 1) * (-self.floor_db * math.log(10) / 20))
        since = torch.cat([since_loud[:, -1:], since_open[:, -1:]], dim=1).clamp(max=NEVER)
        return gain, {"since": since, "openness": smoothed}


class CompressorSettings(NamedTuple):
    """Prepared controls of the compressor, each ``(batch, 1)``.

    Attributes:
        foot_db: the level at which the knee starts.
    """

    foot_db: Tensor
    slope: Tensor
    makeup_db: Tensor
    smoother: Recurrence


@register("compressor")
class Compressor(StreamBlock):
    """A feed-forward compressor with a soft knee: levels above the threshold rise ``ratio`` times more slowly.

    The static curve is that of Giannoulis et al. (2012), equation 4, on the peak level of each sample; what it takes
    off, in dB, is released by ``exp(-1 / release)`` a sample and smoothed by a one-pole of the attack time. A steady
    tone at -8 dB with a threshold of -20 dB and a ratio of 4 comes out at -20 + 12 / 4 = -17 dB.

    Args:
        source: audio; the channels share the gain.
        threshold_db: level at which it starts, dB relative to 1.0; a number or a control's name; held within -120
            and 0. Default -20.
        ratio: 1 to 1000; a number or a control's name. Default 3; 1000 is a limiter with the overshoot of its attack.
        attack_ms, release_ms: time constants, 0 to 60000 ms. Default 5, short enough for plosives, and 120, long
            enough not to follow the periods of a voice.
        knee_db: width of the knee, 0 to 40 dB. Default 6.
        makeup_db: gain afterwards, -60 to 60 dB; a number or a control's name. Default 0.

    Raises:
        ValueError: for a number out of its range.
    """

    like: Tensor

    def __init__(
        self,
        source: Stream | Mapping[str, Stream],
        *,
        threshold_db: float | str = -20.0,
        ratio: float | str = 3.0,
        attack_ms: float = 5.0,
        release_ms: float = 120.0,
        knee_db: float = 6.0,
        makeup_db: float | str = 0.0,
    ) -> None:
        super().__init__(source)
        for name, value, low, high, unit in (
            ("threshold_db", threshold_db, -120, 0, "dB"),
            ("ratio", ratio, 1, 1000, "to 1"),
            ("makeup_db", makeup_db, -60, 60, "dB"),
        ):
            if not isinstance(value, str):
                within(name, value, low, high, unit)
        self.threshold_db, self.compression = self.live(threshold_db), self.live(ratio)
        self.makeup_db = self.live(makeup_db)
        self.knee_db = within("knee_db", knee_db, 0, 40, "dB")
        self.release = samples("release_ms", release_ms, self)
        self.attack = samples("attack_ms", attack_ms, self)
        # Stands for the type and the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1, 1), persistent=False)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        return {name: torch.zeros(batch_size, 1, 1, device=device, dtype=dtype) for name in ("held", "reduction")}

    def prepare(self, controls: Mapping[str, Tensor]) -> CompressorSettings:
        def value(of: float | str, low: float, high: float) -> Tensor:
            return controls[of].clamp(low, high) if isinstance(of, str) else self.like + of

        slope = 1 - 1 / value(self.compression, 1, 1000)
        threshold, makeup = value(self.threshold_db, -120, 0), value(self.makeup_db, -60, 60)
        return CompressorSettings(threshold - self.knee_db / 2, slope, makeup, one_pole(self.attack).to(threshold))

    def step(self, x: Signal, state: State, controls: CompressorSettings) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.clone(), {name: tensor.clone() for name, tensor in state.items()}
        gain, state = self.gain(peak(x), state, controls)
        return x * gain, state

    def gain(self, level: Tensor, state: State, controls: CompressorSettings) -> tuple[Tensor, State]:
        """The gain ``(batch, 1, frames)`` that a level ``(batch, frames)``, of one frame or more, leads to."""
        level = level.clamp(min=SILENCE).log10() * 20
        over = (level - controls.foot_db).clamp(min=0)
        if self.knee_db:
            # bent^2 / (2 knee) within the knee, and all that is above it.
            bent = over.clamp(max=self.knee_db)
            over = torch.addcmul(over, bent, bent / (2 * self.knee_db) - 1)
        wanted = controls.slope * over
        held = decaying_maximum(wanted[:, None], state["held"], self.release)
        reduction, smoothed = controls.smoother.run(held, state["reduction"])
        gain = torch.exp((controls.makeup_db[..., None] - reduction) * (math.log(10) / 20))
        return gain, {"held": held[..., -1:].clone(), "reduction": smoothed}


def within(name: str, value: float, low: float, high: float, unit: str) -> float:
    """``value`` as a float, if it lies within ``low`` and ``high``."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g} {unit}, not {value}")
    return float(value)


def samples(name: str, milliseconds: float, block: StreamBlock) -> float:
    """A time constant in samples, at least so short that nothing of it is left after one sample."""
    return max(within(name, milliseconds, 0, MAX_MS, "ms") * float(block.rate_in) / 1000, 0.02)


def one_pole(time_constant: float) -> Recurrence:
    """The smoother ``y[n] = a y[n-1] + (1 - a) x[n]`` with ``a = exp(-1 / time_constant)``, in float64."""
    a = torch.tensor([math.exp(-1 / time_constant)], dtype=torch.float64)
    return Recurrence.unroll(a[:, None, None], (1 - a)[:, None], a[:, None], 1 - a)


def peak(x: Tensor) -> Tensor:
    """The level of the loudest channel at each sample, ``(batch, frames)``."""
    level = x.abs()
    return level.amax(dim=1) if x.shape[1] > 1 else level[:, 0]


def since_last(happened: Tensor, position: Tensor, since_before: Tensor) -> Tensor:
    """Samples since something happened, 0 where it does; ``since_before`` is the count at the sample before these."""
    return position - policy().running_maximum(torch.where(happened, position, -1 - since_before))


def decaying_maximum(x: Tensor, before: Tensor, time_constant: float) -> Tensor:
    """``y[n] = max(x[n], a y[n-1])`` with ``a = exp(-1 / time_constant)``, for ``x`` of zero and more.

    Over a stretch of a few time constants it is a running maximum of samples that are the more weighted the newer they
    are. Where the time constant is so short that stretches were, too, the maximum over all ages k of ``a^k x[n - k]``
    is found by doubling the ages that are covered instead; nothing is left of ages beyond 750 time constants.
    """
    stretch = int(16 * time_constant)
    if stretch < 1024:
        y = torch.cat([before, x], dim=-1)
        span = 1
        while span <= min(x.shape[-1], 750 * time_constant):
            decayed = y[..., :-span] * math.exp(-span / time_constant)
            y = torch.cat([y[..., :span], torch.maximum(y[..., span:], decayed)], dim=-1)
            span *= 2
        return y[..., 1:]
    rise = torch.exp(torch.arange(min(stretch, x.shape[-1]) + 1, device=x.device).to(x) / time_constant)
    pieces = []
    for piece in torch.split(x, stretch, dim=-1):
        weight = rise[: piece.shape[-1] + 1]
        y = policy().running_maximum(torch.cat([before, piece], dim=-1) * weight) / weight
        before = y[..., -1:]
        pieces.append(y[..., 1:])
    return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]
