"""The matrix product at each frame, in the form that is fastest for the few frames of a live step."""

from __future__ import annotations

from torch import Tensor

from astrape.blocks.policy import policy
from astrape.blocks.split import Layer

__all__ = ["frame_product", "frame_products"]


def frame_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``weight x + bias`` at each frame: ``(batch, n, channels_in)`` to ``(batch, n, channels)``.

    The same numbers as ``functional.linear``, up to rounding. One or two frames in all, which is what a live step has,
    are bound by how fast the weights are read, and there libraries differ by the form of the question. Microseconds
    for one frame on one core (AMD EPYC, MKL, weights not in cache), and GB/s, where a mere sum reads at 28::

        weight          linear, or mv     weight @ [x x]     two halves of weight, in a batch
        (1536, 512)     293   11          154   20           109   29
        (512, 512)       95   11           54   20            40   27
        (512, 1024)     137   15          109   19            71   29
        (384, 1536)     150   16          132   18            88   27

    A batch of one is as slow as ``mv``. For two frames ``weight @ x`` reads at 19, and from three on ``linear`` is as
    fast or faster.

    Args:
        x: frames by channels, contiguous or not.
        weight: ``(channels, channels_in)``.
        bias: ``(channels,)``.
    """
    return frame_products(x, (weight, bias))[0]


def frame_products(x: Tensor, *layers: Layer) -> list[Tensor]:
    """:func:`frame_product` of several weights and biases with the same frames, as the policy of the moment has it."""
    return policy().products(x, layers)
