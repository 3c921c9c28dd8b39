"""A layer norm whose scale and shift a control sets: how a speaker enters a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.parameters import LARGEST_COUNT, bounded
from astrape.blocks.registry import register

__all__ = ["EPSILON", "AdaLN", "add_gated"]

EPSILON = 1e-5


@register("adaln")
class AdaLN(StreamBlock):
    """Adaptive layer norm, starting at zero (AdaLN-Zero, Peebles & Xie, arXiv:2212.09748).

    ``(batch, channels, frames)``, each frame normalised over its channels without learned scale or shift, then
    ``LN(x) * (1 + scale) + shift``, where ``shift, scale`` (and ``gate``, in that order) come from
    ``Linear(SiLU(control))``. Weights and bias are zero at first, so it begins as a plain norm, and a residual branch
    multiplied by the gate begins at nothing.

    What the control yields is computed in ``prepare``, once per change: ``shift``, ``1 + scale`` and the gate, each
    ``(batch, 1, channels)``. A block that holds an ``AdaLN`` passes them to ``step`` and takes the gate from them.

    Args:
        source: any stream.
        condition: name of the control.
        condition_channels: the control's channels; 128, as voicebank embeddings have.
        gated: whether a gate is computed too, for a block that uses it.

    Raises:
        ValueError: for a condition that is not a name, or a number of channels out of range.
    """

    def __init__(self, source: Stream, *, condition: str, condition_channels: int = 128, gated: bool = False) -> None:
        if not isinstance(condition, str) or not condition:
            raise ValueError(f"condition must be the name of a control, not {condition!r}")
        super().__init__(source)
        self.condition = condition
        self.controls[condition] = bounded("condition_channels", condition_channels, 1, LARGEST_COUNT)
        self.parts = 3 if gated else 2
        projection = nn.Linear(condition_channels, self.parts * source.channels)
        nn.init.zeros_(projection.weight)
        nn.init.zeros_(projection.bias)
        self.condition_proj = nn.Sequential(nn.SiLU(), projection)

    def prepare(self, controls: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        shift, scale, *gate = self.condition_proj(controls[self.condition]).unsqueeze(1).chunk(self.parts, dim=-1)
        return tuple(part.contiguous() for part in (shift, 1 + scale, *gate))

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        shift, scale = controls[:2]
        frames = x.transpose(1, 2)
        if shift.shape[0] == 1:
            # One speaker: what scales and shifts all frames alike is a layer norm's own weight and bias.
            y = F.layer_norm(frames, frames.shape[-1:], scale.flatten(), shift.flatten(), EPSILON)
        else:
            y = torch.addcmul(shift, F.layer_norm(frames, frames.shape[-1:], eps=EPSILON), scale)
        return y.transpose(1, 2), state


def add_gated(x: Tensor, branch: Tensor, prepared: tuple[Tensor, ...]) -> Tensor:
    """``x + gate * branch``, with the gate that an :class:`AdaLN` with ``gated`` has prepared."""
    return torch.addcmul(x, prepared[2].transpose(1, 2), branch)
