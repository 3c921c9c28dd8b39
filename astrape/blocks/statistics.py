"""Statistics of everything heard so far, frame by frame."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.norm import sum_dtype
from astrape.blocks.parameters import check_real
from astrape.blocks.registry import register
from astrape.errors import RateError

__all__ = ["RunningStatistics"]


@register("running_statistics")
class RunningStatistics(StreamBlock):
    """Weighted mean and standard deviation of each channel over all frames so far, the present one included.

    ``(batch, channels + 1, n)`` to ``(batch, 2 * channels, n)``: means, then standard deviations. A network decides
    with the last input channel how much a frame counts: its weight is the logistic function of it, 0 to 1, so that
    pauses need not dilute what speech says. Frame ``n`` is what attentive statistics pooling (Okabe et al.,
    arXiv:1803.10963) gives over the first ``n`` frames, but for the logistic function in place of a softmax, which
    needs no maximum over the future. The last frame of a recording describes the whole of it.

    Sums are float64 (float32 on MPS), so that a day at 100 Hz costs no accuracy. There is no latency. A value that is
    not a number stays until the state is reset; a session faults such a stream.

    Args:
        source: the input stream, 2 channels or more: values, and the logit of their weight.
        eps: added to the variance before its root, 0 to 1. 1e-5 by default, which keeps the gradient at a constant
            channel finite.

    Raises:
        RateError: for a single input channel, which leaves no values.
        ValueError: for a number out of range.
    """

    def __init__(self, source: Stream, *, eps: float = 1e-5) -> None:
        if source.channels < 2:
            raise RateError(
                "running_statistics takes values and a weight, and 1 channel has only one of them: widen it"
            )
        super().__init__(source, channels=2 * (source.channels - 1))
        self.eps = check_real("eps", eps, 0, 1)

    @property
    def receptive_field(self) -> Fraction | None:
        return None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        values, wide = self.channels_in - 1, sum_dtype(device)
        return {
            "weight": torch.zeros(batch_size, 1, device=device, dtype=wide),
            "sum": torch.zeros(batch_size, values, device=device, dtype=wide),
            "square": torch.zeros(batch_size, values, device=device, dtype=wide),
        }

    def whole(self, x: Tensor) -> Tensor:
        """The last frame alone, ``(batch, 2 * channels, 1)``, of a sequence from its beginning: for training.

        Two thirds of the work of all frames is saved, and sums are as wide as ``x``.
        """
        weight = x[:, -1:].sigmoid().clamp(min=1e-12)
        share = weight / weight.sum(dim=-1, keepdim=True)
        mean = (share * x[:, :-1]).sum(dim=-1, keepdim=True)
        variance = (share * (x[:, :-1] - mean).square()).sum(dim=-1, keepdim=True)
        return torch.cat((mean, (variance + self.eps).sqrt()), dim=1)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.channels_out, 0), state
        wide = state["sum"].dtype
        # The smallest weight is far below any that matters, and keeps the first frame's mean from being 0 / 0.
        weight = x[:, -1:].to(wide).sigmoid().clamp(min=1e-12)
        values = x[:, :-1].to(wide)
        weights = state["weight"][..., None] + weight.cumsum(dim=-1)
        sums = state["sum"][..., None] + (weight * values).cumsum(dim=-1)
        squares = state["square"][..., None] + (weight * values.square()).cumsum(dim=-1)
        mean = sums / weights
        deviation = ((squares / weights - mean.square()).clamp(min=0) + self.eps).sqrt()
        last = {"weight": weights[..., -1], "sum": sums[..., -1], "square": squares[..., -1]}
        return torch.cat((mean, deviation), dim=1).to(x.dtype), {name: one.clone() for name, one in last.items()}
