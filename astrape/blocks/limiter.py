"""Loudness at its ends: a limiter that nothing exceeds, and a curve that bends what is loud."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.dynamics import SILENCE, decaying_maximum, peak, samples, within
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import check_choice, check_elements
from astrape.blocks.registry import register
from astrape.blocks.state import map_state

__all__ = ["Limiter", "Saturation"]

MAX_LOOKAHEAD_MS = 100
SHAPES = ("tanh", "soft", "hard")


@register("limiter")
class Limiter(StreamBlock, ExactTables):
    """Holds every sample at or below a ceiling, and turns down before the peak comes.

    ``(batch, channels, n)`` to the same shape; the channels share the gain. The signal waits for ``lookahead_ms``,
    which is the block's latency, declared, and the gain has that long to fall. With ``q`` what the loudest channel
    exceeds the ceiling by, in dB, and ``L`` the samples of look-ahead::

        held[n]      = max(q[n - L], ..., q[n], exp(-1 / release) held[n - 1])
        reduction[n] = sum_k w[k] held[n - k],   k = 0 ... L,   w a Hann window of sum 1
        y[n]         = x[n - L] 10^(-reduction[n] / 20)

    Each value in the sum holds ``q[n - L]`` or more, so the sum does, whatever comes: the ceiling is never passed. A
    signal below it is only delayed. Peaks are those of samples: between two of them the wave may reach higher.

    Args:
        source: audio.
        ceiling_db: highest level of a sample, dB relative to 1.0; a number or a control's name; held within -60 and 0.
            Default -1, a margin for what lies between samples.
        lookahead_ms: 0 to 100 ms, rounded to whole samples. Default 3: the gain moves slowly enough not to be heard.
        release_ms: time constant, 0 to 60000 ms. Default 100.

    Raises:
        ValueError: for a number out of its range.
    """

    latency_by = "declared"

    weights: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        ceiling_db: float | str = -1.0,
        lookahead_ms: float = 3.0,
        release_ms: float = 100.0,
    ) -> None:
        super().__init__(source)
        if not isinstance(ceiling_db, str):
            within("ceiling_db", ceiling_db, -60, 0, "dB")
        self.ceiling_db = self.live(ceiling_db)
        ahead = within("lookahead_ms", lookahead_ms, 0, MAX_LOOKAHEAD_MS, "ms")
        self.ahead = round(ahead * float(self.rate_in) / 1000)
        check_elements("the look-ahead of a limiter", source.channels, self.ahead)
        self.release = samples("release_ms", release_ms, self)
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        place = (np.arange(self.ahead + 1) + 0.5) / (self.ahead + 1)
        window = 1 - np.cos(2 * np.pi * place)
        return {"weights": (window / window.sum())[None, None]}

    @property
    def latency(self) -> Fraction:
        return self.ahead / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        shapes = {"waiting": (self.channels_in, self.ahead), "over": (1, self.ahead), "held": (1, self.ahead + 1)}
        return {name: torch.zeros(batch_size, *shape, device=device, dtype=dtype) for name, shape in shapes.items()}

    def prepare(self, controls: Mapping[str, Tensor]) -> Tensor:
        """The ceiling in dB, ``(batch or 1, 1)``."""
        if isinstance(self.ceiling_db, str):
            return controls[self.ceiling_db].clamp(-60, 0)
        return torch.full_like(self.weights[0, :, :1], self.ceiling_db)

    def step(self, x: Tensor, state: State, controls: Tensor) -> tuple[Tensor, State]:
        frames = x.shape[-1]
        if not frames:
            return x.clone(), map_state(torch.clone, state)
        waiting = torch.cat([state["waiting"], x], dim=-1)
        level = peak(x)[:, None].clamp(min=SILENCE).log10() * 20
        over = torch.cat([state["over"], (level - controls[..., None]).clamp(min=0)], dim=-1)
        highest = sliding_maximum(over, self.ahead + 1)
        held = decaying_maximum(highest, state["held"][..., -1:], self.release)
        joined = torch.cat([state["held"][..., 1:], held], dim=-1)
        reduction = functional.conv1d(joined, self.weights)
        y = waiting[..., :frames] * torch.exp(reduction * (-math.log(10) / 20))
        # Room for rounding alone: a few parts in ten million.
        ceiling = (10 ** (controls / 20))[..., None]
        y = torch.maximum(torch.minimum(y, ceiling), -ceiling)
        after = {
            "waiting": waiting[..., frames:],
            "over": over[..., frames:],
            "held": torch.cat([state["held"], held], dim=-1)[..., frames:],
        }
        return y, {name: part.clone(memory_format=torch.contiguous_format) for name, part in after.items()}


def sliding_maximum(x: Tensor, length: int) -> Tensor:
    """The maximum of each ``length`` values beside each other along the last dimension: ``length - 1`` fewer of them.

    By doubling: maxima of 1, 2, 4 values and so on, then of two stretches that overlap.
    """
    span = 1
    while 2 * span <= length:
        x = torch.maximum(x[..., :-span], x[..., span:])
        span *= 2
    rest = length - span
    return torch.maximum(x[..., :-rest], x[..., rest:]) if rest else x


class SaturationSettings(NamedTuple):
    """Prepared controls of the saturation: linear factors, ``(batch or 1, 1, 1)``."""

    drive: Tensor
    output: Tensor


@register("saturation")
class Saturation(StreamBlock):
    """Bends what is loud: soft or hard clipping of every sample by itself.

    ``y = output f(drive x)``, with ``f`` of slope 1 at 0 that never exceeds 1::

        tanh    tanh(u)                    odd harmonics that fade with the level
        soft    1.5 u - 0.5 u^3 at u/1.5   a cubic, straight for longer, clipped where it has reached 1
        hard    u, clipped at -1 and 1

    A memoryless curve makes harmonics without end, and those above half the rate fold back. Where that is heard, put it
    between a ``resampler`` to four times the rate and one back. A sample that is small passes with a gain of ``drive``
    times ``output``.

    Args:
        source: any stream.
        shape: ``tanh``, ``soft`` or ``hard``. Default ``tanh``.
        drive_db: gain before the curve, -60 to 60 dB; a number or a control's name. Default 0.
        output_db: gain after it, -60 to 60 dB; a number or a control's name. Default 0.

    Raises:
        ValueError: for an unknown shape or a number out of its range.
    """

    like: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        shape: Literal["tanh", "soft", "hard"] = "tanh",
        drive_db: float | str = 0.0,
        output_db: float | str = 0.0,
    ) -> None:
        super().__init__(source)
        self.shape = check_choice("shape", shape, SHAPES)
        for name, value in (("drive_db", drive_db), ("output_db", output_db)):
            if not isinstance(value, str):
                within(name, value, -60, 60, "dB")
        self.drive_db, self.output_db = self.live(drive_db), self.live(output_db)
        # Stands for the type and the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1, 1), persistent=False)

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def prepare(self, controls: Mapping[str, Tensor]) -> SaturationSettings:
        def factor(of: float | str) -> Tensor:
            decibels = controls[of].clamp(-60, 60) if isinstance(of, str) else self.like + of
            return (10 ** (decibels / 20))[..., None]

        return SaturationSettings(factor(self.drive_db), factor(self.output_db))

    def step(self, x: Tensor, state: State, controls: SaturationSettings) -> tuple[Tensor, State]:
        u = x * controls.drive
        if self.shape == "tanh":
            bent = u.tanh()
        elif self.shape == "hard":
            bent = u.clamp(-1, 1)
        else:
            third = (u / 1.5).clamp(-1, 1)
            bent = third * 1.5 - third**3 * 0.5
        return bent * controls.output, state
