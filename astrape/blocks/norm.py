"""Normalisations that keep to the past, and the utterance-wide one that does not."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.parameters import bounded, check_choice, check_real
from astrape.blocks.registry import register

__all__ = ["Norm"]


@register("norm")
class Norm(StreamBlock):
    """Bring frames or channels to mean 0 and variance 1, then to a learned mean and spread.

    ``(batch, channels, n)`` to the same shape. What the mean ``m`` and the variance ``v`` in
    ``weight * (x - m) / sqrt(v + eps) + bias`` are taken over is the ``kind``:

    ``layer``
        The channels of each frame (Ba et al., arXiv:1607.06450). No memory.
    ``rms``
        The same without a mean and a bias: ``weight * x / sqrt(mean(x^2) + eps)`` (Zhang & Sennrich, arXiv:1910.07467).
    ``cumulative``
        Every frame heard so far, the present one included; frame ``n`` of a stream is normalised by ``n + 1`` frames
        in a session and in training alike. The last frame of a sequence comes out as under ``utterance``. Statistics
        are an int64 count, a mean and a sum of squared deviations in float64, merged as in Chan, Golub & LeVeque
        (1983): sums run over distances from the mean so far, so neither an offset nor a week of input costs accuracy.
    ``utterance``
        The whole sequence, past and future, as a group norm does. It looks ahead without bound: it has ``forward``
        alone, and the compiler refuses it in a streaming graph.

    **Warm-up** of ``cumulative``. Statistics of few frames are rough: the first frame alone has no variance, so per
    channel it comes out as the bias, and the second as plus or minus the weight. The standard deviation is known to
    about ``1 / sqrt(2 n)`` after ``n`` independent frames: 10 % after 50, 1 % after 5000. ``warmup`` begins the count
    with that many virtual frames of mean 0 and variance 1, which leave the start almost unnormalised and fade as
    ``warmup / (warmup + n)``. ``floor`` is the least variance to divide by: after digital silence a first sound is
    amplified by no more than ``1 / sqrt(floor + eps)``.

    **Mutes** of ``cumulative``. Frames of a muted microphone count like any other: after ten seconds of zeros the
    spread of one second before is known as a third of it. With ``skip_silence``, a frame that is 0 in all channels is
    normalised by what was heard before it and counts for nothing, so that a mute of any length leaves the rest as it
    would be without it.

    A value that is not a number stays in cumulative statistics until they are reset; a session faults such a stream.

    Args:
        source: the input stream.
        kind: ``layer``, ``rms``, ``cumulative`` or ``utterance``.
        eps: added to the variance, 0 to 1.
        affine: whether ``weight`` and ``bias`` are there; ``rms`` has a weight alone.
        group: of ``cumulative`` and ``utterance``: ``channel``, each channel by its own statistics, or ``all``, all
            channels by common ones.
        warmup: of ``cumulative``: virtual frames to begin with, 0 to 2^30. 0 by default, since what variance is to
            be expected depends on the signal.
        floor: of ``cumulative``: least variance, 0 to 1e6.
        skip_silence: of ``cumulative``: whether frames of zeros count for nothing. False by default: where features
            have an offset, as log-mel bands have, silence is not zero.

    Attributes:
        weight, bias: ``(channels,)``, one and zero at first.

    Raises:
        ValueError: for an unknown kind or group, or a number out of range.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        source: Stream,
        *,
        kind: str = "layer",
        eps: float = 1e-5,
        affine: bool = True,
        group: str = "channel",
        warmup: int = 0,
        floor: float = 0.0,
        skip_silence: bool = False,
    ) -> None:
        super().__init__(source)
        self.kind = check_choice("kind", kind, ("layer", "rms", "cumulative", "utterance"))
        self.eps = check_real("eps", eps, 0, 1)
        self.group = check_choice("group", group, ("channel", "all"))
        self.warmup = bounded("warmup", warmup, 0, 1 << 30)
        self.floor = check_real("floor", floor, 0, 1e6)
        self.skip_silence = bool(skip_silence)
        self.weight = nn.Parameter(torch.ones(source.channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(source.channels)) if affine and kind != "rms" else None

    @property
    def lookahead(self) -> Fraction | None:
        return None if self.kind == "utterance" else Fraction(0)

    @property
    def receptive_field(self) -> Fraction | None:
        return 1 / self.rate_in if self.kind in ("layer", "rms") else None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        if self.kind != "cumulative":
            return ()
        means = self.channels_in if self.group == "channel" else 1
        # Each frame of a common group brings as many values as there are channels.
        values = self.warmup * (self.channels_in // means)
        wide = sum_dtype(device)
        return {
            "count": torch.full((batch_size, 1, 1), values, device=device, dtype=torch.int64),
            "mean": torch.zeros(batch_size, means, 1, device=device, dtype=wide),
            "deviation": torch.full((batch_size, means, 1), float(values), device=device, dtype=wide),
        }

    def forward(self, x: Tensor, **controls: Tensor | float) -> Tensor:
        if self.kind != "utterance":
            y: Tensor = super().forward(x, **controls)
            return y
        self.read_controls(controls, x)
        x = self.whole_quanta(x)
        over = (2,) if self.group == "channel" else (1, 2)
        variance, mean = torch.var_mean(x, dim=over, correction=0, keepdim=True)
        return self._shape((x - mean) * torch.rsqrt(variance + self.eps))

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if self.kind == "layer":
            y = functional.layer_norm(x.transpose(1, 2), (x.shape[1],), self.weight, self.bias, self.eps)
            return y.transpose(1, 2), state
        if self.kind == "rms":
            return self._shape(x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + self.eps)), state
        if self.kind == "cumulative":
            return self._cumulate(x, state)
        return super().step(x, state, controls)

    def _cumulate(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            return x, state
        count, mean, deviation = state["count"], state["mean"], state["deviation"]
        common = self.group == "all"
        values = x.shape[1] if common else 1
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        # Sums run over distances from the mean so far, or from the first frame where nothing has been heard: they stay
        # of the size of the signal's spread, and no wide number is needed but for the mean itself.
        head = x[..., :1].mean(dim=1, keepdim=True) if common else x[..., :1]
        origin = torch.where(count > 0, mean, head)
        distance = (x - origin).to(dtype)
        counted = (x != 0).any(dim=1, keepdim=True) if self.skip_silence else None
        # One over the values heard before each frame, and over those heard with the last.
        if counted is None:
            before = torch.arange(0, (x.shape[-1] + 1) * values, values, device=x.device)
        else:
            before = functional.pad(counted.cumsum(dim=-1) * values, (1, 0))
        # From here on whole numbers again only in the state: a share has the type of what it divides.
        share = (count + before).clamp(min=1).to(dtype).reciprocal()
        added = distance.sum(dim=1, keepdim=True) if common else distance
        sums = self._running(added if counted is None else added * counted)
        rest = torch.addcmul(distance, sums, share[..., 1:], value=-1)
        # Chan et al., equation 1.5b: v values with rests r, which join n values, add sum(r^2) + sum(r)^2 / n to the
        # squared deviation. Nothing is subtracted, so that rounding stays a share of each term.
        square = rest.square()
        if common:
            total = rest.sum(dim=1, keepdim=True).square()
            square = square.sum(dim=1, keepdim=True)
        else:
            total = square
        spread = torch.addcmul(square, total, share[..., :-1])
        grown = self._running(spread if counted is None else spread * counted)
        variance = (grown + deviation.to(dtype)) * share[..., 1:]
        if self.floor:
            variance = variance.clamp(min=self.floor)
        y = rest * torch.rsqrt(variance + self.eps)
        state = {
            "count": count + before[..., -1:],
            "mean": (origin[..., 0] + sums[..., -1] * share[..., -1]).unsqueeze(-1),
            "deviation": (deviation[..., 0] + grown[..., -1]).unsqueeze(-1),
        }
        return self._shape(y.to(x.dtype)), state

    def _running(self, x: Tensor) -> Tensor:
        """Sums over the frames so far, in the memory order of ``x``. On a CPU they are wide until they are stored."""
        wide = None if x.is_cpu else sum_dtype(x.device)
        if x.stride(1) == 1 < x.shape[1]:
            return x.transpose(1, 2).cumsum(dim=1, dtype=wide).to(x.dtype).transpose(1, 2)
        return x.cumsum(dim=-1, dtype=wide).to(x.dtype)

    def _shape(self, y: Tensor) -> Tensor:
        if self.weight is not None and self.bias is not None:
            return torch.addcmul(self.bias[:, None], y, self.weight[:, None])
        return y if self.weight is None else y * self.weight[:, None]


def sum_dtype(device: torch.device | str | None) -> torch.dtype:
    """The widest float that the device has, for sums that run as long as the stream: float32 on MPS alone."""
    where = torch.get_default_device() if device is None else torch.device(device)
    return torch.float32 if where.type == "mps" else torch.float64
