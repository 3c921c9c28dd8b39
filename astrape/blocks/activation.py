"""Pointwise nonlinearities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.parameters import check_choice
from astrape.blocks.registry import register

__all__ = ["Activation", "exact_gelu"]


def exact_gelu(x: Tensor) -> Tensor:
    """``functional.gelu``.

    On a CPU torch hands contiguous input to oneDNN and computes all other by itself, which is faster: 3 us and not 12
    for 2 frames of 512 channels, and 80 ms and not 105 there and back for 25 600 of them in training. Two halves side
    by side are not contiguous.
    """
    if x.is_cpu and x.is_contiguous() and x.numel() % 2 == 0:
        return functional.gelu(x.view(2, x.numel() // 2).t()).t().view(x.shape)
    return functional.gelu(x)


PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": exact_gelu,
    "silu": functional.silu,
    "relu": functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@register("activation")
class Activation(StreamBlock):
    """A nonlinearity at each value: ``(batch, channels, n)`` to the same shape.

    ``gelu`` is the exact one, ``x * Phi(x)`` (Hendrycks & Gimpel, arXiv:1606.08415). ``snake_beta`` is
    ``x + sin(a x)^2 / (b + 1e-9)`` with ``a = exp(alpha)`` and ``b = exp(beta)`` learned for each channel, which lets
    a network carry on a periodic signal (Ziyin et al., arXiv:2006.08195; the magnitude apart from the frequency as in
    BigVGAN, arXiv:2206.04658).

    Args:
        source: the input stream.
        kind: ``gelu``, ``silu``, ``relu``, ``tanh``, ``sigmoid`` or ``snake_beta``.

    Attributes:
        alpha, beta: of ``snake_beta`` alone, ``(channels,)``, zero at first, so that ``a = b = 1``.

    Raises:
        ValueError: for an unknown kind.
    """

    alpha: nn.Parameter
    beta: nn.Parameter

    def __init__(self, source: Stream, *, kind: str) -> None:
        super().__init__(source)
        self.kind = check_choice("kind", kind, (*PLAIN, "snake_beta"))
        if kind == "snake_beta":
            self.alpha = nn.Parameter(torch.zeros(source.channels))
            self.beta = nn.Parameter(torch.zeros(source.channels))

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def prepare(self, controls: Mapping[str, Tensor]) -> Any:
        """``a`` and ``1 / (b + 1e-9)`` of ``snake_beta``, ``(channels, 1)`` each; nothing for other kinds."""
        if self.kind != "snake_beta":
            return ()
        return self.alpha.exp()[:, None], (self.beta.exp()[:, None] + 1e-9).reciprocal()

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if self.kind != "snake_beta":
            return PLAIN[self.kind](x), state
        frequency, share = controls
        return torch.addcmul(x, torch.sin(frequency * x).square(), share), state
