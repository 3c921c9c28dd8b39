"""Levels as signals: an envelope follower, and a compressor and a gate that another signal leads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.dynamics import (
    Compressor,
    CompressorSettings,
    Gate,
    GateSettings,
    decaying_maximum,
    one_pole,
    peak,
    samples,
)
from astrape.blocks.ops.recurrence import Recurrence
from astrape.blocks.parameters import check_choice
from astrape.blocks.registry import register
from astrape.blocks.state import map_state
from astrape.errors import RateError

__all__ = ["Envelope", "SidechainCompressor", "SidechainGate"]


@register("envelope")
class Envelope(StreamBlock):
    """Follows the level of each channel: a linear amplitude at every sample.

    ``(batch, channels, n)`` to the same shape, 0 or more. ``peak`` is what moves the gate and the compressor: the
    magnitude, released by ``exp(-1 / release)`` a sample and smoothed by a one-pole of the attack time, equation 16 of
    D. Giannoulis, M. Massberg, J. Reiss (J. Audio Eng. Soc. 60(6), 2012). ``rms`` is the root of the mean square under
    a one-pole of the release time, which rises and falls at one speed; ``attack_ms`` is not looked at. A steady tone of
    amplitude 1 has a peak of 1, within the ripple of its release, and an RMS of 0.707.

    Args:
        source: any stream.
        kind: ``peak`` or ``rms``. Default ``peak``.
        attack_ms, release_ms: time constants, 0 to 60000 ms. Default 5 and 120, as of the compressor.

    Raises:
        ValueError: for an unknown kind or a number out of its range.
    """

    like: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        kind: Literal["peak", "rms"] = "peak",
        attack_ms: float = 5.0,
        release_ms: float = 120.0,
    ) -> None:
        super().__init__(source)
        self.kind = check_choice("kind", kind, ("peak", "rms"))
        # A peak follows the newest sample where that is the loudest; where it is not, no gradient shows it.
        self.latency_by = "declared" if self.kind == "peak" else "newest"
        self.attack, self.release = samples("attack_ms", attack_ms, self), samples("release_ms", release_ms, self)
        # Stands for the type and the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1, 1), persistent=False)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        names = ("held", "smoothed") if self.kind == "peak" else ("smoothed",)
        return {name: torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype) for name in names}

    def prepare(self, controls: Mapping[str, Tensor]) -> Recurrence:
        return one_pole(self.attack if self.kind == "peak" else self.release).to(self.like)

    def step(self, x: Tensor, state: State, controls: Recurrence) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.clone(), map_state(torch.clone, state)
        if self.kind == "rms":
            power, smoothed = controls.run(x.square(), state["smoothed"])
            # Rounding may leave a little less than nothing, and a root has no slope at 0.
            return power.clamp(min=torch.finfo(x.dtype).tiny).sqrt(), {"smoothed": smoothed}
        held = decaying_maximum(x.abs(), state["held"], self.release)
        level, smoothed = controls.run(held, state["smoothed"])
        return level, {"held": held[..., -1:].clone(), "smoothed": smoothed}


@register("sidechain_compressor")
class SidechainCompressor(Compressor):
    """A compressor that another signal leads: what sounds in the second input turns the first one down.

    Two inputs at one rate, in this order: the signal, ``(batch, channels, n)``, and the sidechain, of any channels; the
    output is as the signal. The gain is the one by which ``compressor`` would turn the sidechain itself down. Music
    that ducks under a voice, or a de-esser that hears the sibilants only::

        ducked: {use: sidechain_compressor, from: [music, voice], threshold_db: -35, ratio: 6, release_ms: 400}

    Args:
        sources: the signal and the sidechain.
        threshold_db, ratio, attack_ms, release_ms, knee_db, makeup_db: as of ``compressor``; the level is that of the
            loudest channel of the sidechain.

    Raises:
        ValueError: for a number of inputs other than two, or a number out of its range.
        RateError: for inputs at different rates.
    """

    variadic = True

    def __init__(
        self,
        sources: Mapping[str, Stream],
        *,
        threshold_db: float | str = -20.0,
        ratio: float | str = 3.0,
        attack_ms: float = 5.0,
        release_ms: float = 120.0,
        knee_db: float = 6.0,
        makeup_db: float | str = 0.0,
    ) -> None:
        two_inputs("sidechain_compressor", sources)
        super().__init__(
            sources,
            threshold_db=threshold_db,
            ratio=ratio,
            attack_ms=attack_ms,
            release_ms=release_ms,
            knee_db=knee_db,
            makeup_db=makeup_db,
        )
        self.signal, self.leader = self.inputs

    def step(self, x: Signal, state: State, controls: CompressorSettings) -> tuple[Tensor, State]:
        signal: Tensor = x[self.signal]
        if not signal.shape[-1]:
            return signal.clone(), map_state(torch.clone, state)
        gain, state = self.gain(peak(x[self.leader]), state, controls)
        return signal * gain, state


@register("sidechain_gate")
class SidechainGate(Gate):
    """A gate that another signal opens: the first input is heard while the second is loud.

    Two inputs at one rate, in this order: the signal, ``(batch, channels, n)``, and the sidechain, of any channels; the
    output is as the signal. A gate on a voice that breath does not open hears the voice through a band-pass::

        speech: {use: biquad, from: mic, kind: bandpass, frequency: 500.0}
        gated:  {use: sidechain_gate, from: [mic, speech], threshold_db: -50}

    Args:
        sources: the signal and the sidechain.
        threshold_db, floor_db, attack_ms, release_ms, hold_ms, hysteresis_db: as of ``gate``; the level is that of the
            loudest channel of the sidechain.

    Raises:
        ValueError: for a number of inputs other than two, or a number out of its range.
        RateError: for inputs at different rates.
    """

    variadic = True

    def __init__(
        self,
        sources: Mapping[str, Stream],
        *,
        threshold_db: float | str = -45.0,
        floor_db: float = -60.0,
        attack_ms: float = 2.0,
        release_ms: float = 80.0,
        hold_ms: float = 50.0,
        hysteresis_db: float = 6.0,
    ) -> None:
        two_inputs("sidechain_gate", sources)
        super().__init__(
            sources,
            threshold_db=threshold_db,
            floor_db=floor_db,
            attack_ms=attack_ms,
            release_ms=release_ms,
            hold_ms=hold_ms,
            hysteresis_db=hysteresis_db,
        )
        self.signal, self.leader = self.inputs

    def step(self, x: Signal, state: State, controls: GateSettings) -> tuple[Tensor, State]:
        signal: Tensor = x[self.signal]
        if not signal.shape[-1]:
            return signal.clone(), map_state(torch.clone, state)
        gain, state = self.gain(peak(x[self.leader].detach()), state, controls)
        return signal * gain, state


def two_inputs(name: str, sources: Mapping[str, Stream]) -> None:
    """Refuse any number of inputs but two."""
    if len(sources) != 2:
        raise RateError(f"{name} takes two inputs, the signal and the sidechain, not {len(sources)}")
