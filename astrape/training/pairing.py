"""Pairing of a target's frames with the graph's: exact, from latencies and rates, never typed in.

A frame stands for a time: frame ``n`` of a stream at rate ``r`` and latency ``L`` for ``(n + 1/2) / r - L`` seconds of
what the microphone heard, its middle less its age. Its partner is the target's frame that this time falls into.
Example: the student at 25 Hz, 20.5 ms old, and a teacher at 25 Hz of no age: frame 10 stands for 399.5 ms, which is in
the teacher's frame 9, that of 360 to 400 ms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Clock", "delay_of", "delayed", "frame_weights", "partners", "pitch_at", "said"]


@dataclass(frozen=True)
class Clock:
    """The clock of a stream: its rate, and how old its frames are.

    Attributes:
        rate: frames a second.
        latency: seconds that a frame is older than its place says, counted from the microphone.
    """

    rate: Fraction
    latency: Fraction = Fraction(0)


def partners(count: int, own: Clock, target: Clock, ahead: int = 0) -> Tensor:
    """The target's frame that stands for the same time as each of ``count`` frames, or for ``ahead`` frames later.

    Some lie before the target's first frame (negative) or beyond its last: what nobody has heard has no partner.

    Returns:
        int64, ``(count,)``.
    """
    step = target.rate / own.rate
    start = (1 / (2 * own.rate) - own.latency + target.latency) * target.rate
    common = math.lcm(step.denominator, start.denominator)
    places = torch.arange(count, dtype=torch.int64) * int(step * common) + int(start * common)
    return torch.div(places, common, rounding_mode="floor") + ahead


def said(name: str, own: Clock, target: Clock, ahead: int = 0) -> str:
    """The pairing in words, with what is left over: for the log."""
    frame = Fraction(partners(1, own, target)[0].item())
    rest = (1 / (2 * own.rate) - own.latency) - ((frame + Fraction(1, 2)) / target.rate - target.latency)
    beside = f", {ahead} ahead" if ahead else ""
    return (
        f"'{name}', {float(own.latency * 1000):.4g} ms old at {own.rate} Hz: frame 0 is paired with the target's frame "
        f"{int(frame) + ahead} at {target.rate} Hz{beside} (nearest, {float(abs(rest) * 1000):.3g} ms apart)"
    )


def frame_weights(at: Tensor, frames: Tensor, heard: Tensor, extra: Tensor | None = None) -> Tensor:
    """Weights ``(batch, 1, count)`` of frames: 0 where a frame or its partner is not there.

    Args:
        at: the partners, ``(count,)``.
        frames: valid frames of the target, ``(batch,)``.
        heard: valid frames of the graph's signal, ``(batch,)``.
        extra: factors by frame of the target, ``(batch, 1, any)``.
    """
    places = torch.arange(len(at), device=at.device)
    there = (at >= 0) & (at < frames[:, None]) & (places < heard[:, None])
    weights = there.to(torch.get_default_dtype()).unsqueeze(1)
    if extra is not None and extra.shape[-1]:
        weights = weights * extra[..., at.clamp(0, extra.shape[-1] - 1)].to(weights)
    return weights


def pitch_at(table: Tensor, count: int, own: Clock, target: Clock) -> Tensor:
    """A table's fundamental as another stream's frames would have it, ``(..., frames)`` to ``(..., count)``, Hz.

    Between two voiced frames of the table it lies on the line through their logarithms; beside an unvoiced one it is
    that of the nearest. What the table does not reach is unvoiced, 0.

    Args:
        table: Hz, 0 where there is none.
        count: frames of the stream.
        own: the stream's clock.
        target: the table's.
    """
    step = target.rate / own.rate
    start = (1 / (2 * own.rate) - own.latency + target.latency) * target.rate - Fraction(1, 2)
    common = math.lcm(step.denominator, start.denominator)
    places = torch.arange(count, dtype=torch.int64) * int(step * common) + int(start * common)
    first = torch.div(places, common, rounding_mode="floor")
    share = ((places - first * common).to(torch.float64) / common).to(table.dtype).to(table.device)
    first = first.to(table.device)
    frames = table.shape[-1]
    near = [table[..., at.clamp(0, frames - 1)] * ((at >= 0) & (at < frames)) for at in (first, first + 1)]
    both = (near[0] > 0) & (near[1] > 0)
    line = torch.lerp(near[0].clamp(min=1.0).log(), near[1].clamp(min=1.0).log(), share).exp()
    return torch.where(both, line, torch.where(share < 0.5, near[0], near[1]))


def delay_of(latency: Fraction, rate: Fraction) -> tuple[int, Fraction]:
    """A latency in whole samples, and the seconds by which that is too much: 0 where it is exact."""
    samples = math.floor(latency * rate + Fraction(1, 2))
    return samples, samples / rate - latency


def delayed(wave: Tensor, samples: int, count: int) -> Tensor:
    """A waveform ``(batch, 1, any)`` later by that many samples, ``count`` of them, silence where there is nothing."""
    late = functional.pad(wave, (samples, 0))[..., :count]
    return functional.pad(late, (0, count - late.shape[-1]))
