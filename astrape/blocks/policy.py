"""Policies that turn blocks into operators: one for a live session, one for compilers, one for exported graphs.

A block says what it computes, once: products at each frame, windows of frames, a ring that is written to. Which
operators that comes down to is decided here, since what is fastest for one runtime is in the way of another:

============  ==========================  =======================  =========================  ================
policy        products of 1 or 2 frames   convolutions' weights    windows of frames          ring of keys
============  ==========================  =======================  =========================  ================
`plain`       halves of a weight          as they are              a view (``unfold``)        copied
`recorded`    the same; more in oneDNN's  tap by tap, kept         a view                     written in place
`compiler`    linear layers               tap by tap, constant     slices, or one gather      written in place
`portable`    linear layers               tap by tap, constant     slices, or one gather      chosen by a mask
============  ==========================  =======================  =========================  ================

A running maximum is an operator of PyTorch's, and for ``portable`` the largest of two, four, eight values and so on.
All give the same numbers up to rounding. ``plain`` holds wherever nothing else was asked for: in training, in
``graph(x)`` and ``graph.step``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional

from astrape.blocks.split import FEW, Layer, split_products

__all__ = ["COMPILER", "PLAIN", "PORTABLE", "Compiler", "Policy", "Portable", "lowered", "policy"]

FEW_WINDOWS = 4
"""Windows up to which they are slices put together; more are gathered by a table of places."""


class Policy:
    """The default policy, and the base of the others.

    Attributes:
        name: as tables and manifests call it.
        writes_state: callers of ``step`` never look again at the state they passed, so that a block may hand back the
            same memory, changed.
    """

    name = "plain"
    writes_state = False

    def products(self, x: Tensor, layers: tuple[Layer, ...]) -> list[Tensor]:
        """``weight x + bias`` of each layer at each frame, ``(batch, n, channels_in)`` to ``(batch, n, channels)``."""
        rows = x.shape[0] * x.shape[1]
        narrow = x.is_cpu and x.dtype == torch.float32 and layers[0][0].dtype == torch.float32
        if narrow and 1 <= rows <= FEW:
            return split_products(x, layers)
        return [self.wide_product(x, layer, narrow) for layer in layers]

    def wide_product(self, x: Tensor, layer: Layer, narrow: bool) -> Tensor:
        """The product of one layer with more than a few frames; ``narrow``: in float32 on a CPU."""
        return functional.linear(x, *layer)

    def rows_of_taps(self, taps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A convolution as a product.

        Args:
            taps: windows, ``(batch, channels, n, kernel)``.
            weight: ``(channels_out, channels, kernel)``.

        Returns:
            Rows ``(batch, n, channels * kernel)`` and the matrix ``(channels_out, channels * kernel)`` that fits them.
        """
        return taps.transpose(1, 2).flatten(2), weight.flatten(1)

    def windows(self, x: Tensor, size: int, hop: int) -> Tensor:
        """Windows over the last dimension, ``(..., n)`` to ``(..., (n - size) // hop + 1, size)``."""
        return x.unfold(-1, size, hop)

    def running_maximum(self, x: Tensor) -> Tensor:
        """The largest value so far, over the last dimension."""
        return x.cummax(dim=-1).values

    def halves(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and the upper half of each int64 word, as signed numbers of 32 bits."""
        pairs = words.view(torch.int32).view(*words.shape, 2)
        return pairs[..., 0], pairs[..., 1]

    def fold(self, words: Tensor) -> Tensor:
        """int64 words with their upper half laid upon the lower (exclusive or); ``words`` may be written over."""
        lower, upper = self.halves(words)
        lower.bitwise_xor_(upper)
        return words

    def write_ring(self, ring: Tensor, slots: Tensor, new: Tensor, lone: bool) -> Tensor:
        """A ring ``(batch, heads, window, width)`` with new frames in it.

        Args:
            slots: int64 ``(batch, n)``, where in the window they belong.
            new: ``(batch, heads, n, width)``.
            lone: the ring is not read again but for its new self, so that it may be written to.
        """
        ring = ring if lone and self.writes_state else ring.clone()
        if ring.shape[0] == 1:
            return ring.index_copy_(2, slots[0], new)
        return ring.scatter_(2, slots[:, None, :, None].expand(new.shape), new)


class Compiler(Policy):
    """Policy for ``torch.compile`` and AOTInductor, which fuse by themselves and know plain linear layers best.

    Split products take twice their time there (1.89 of the recorded session's, plain ones 0.72, on astrape-vc).
    """

    name = "compiler"
    writes_state = True

    def products(self, x: Tensor, layers: tuple[Layer, ...]) -> list[Tensor]:
        return [functional.linear(x, *layer) for layer in layers]

    def rows_of_taps(self, taps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        # The weight is a constant of the graph: what is done to it is done once, when it is compiled.
        return taps.permute(0, 2, 3, 1).flatten(2), weight.transpose(1, 2).flatten(1)

    def windows(self, x: Tensor, size: int, hop: int) -> Tensor:
        count = (x.shape[-1] - size) // hop + 1
        if count == 1:
            return x[..., None, :size]
        if size == hop:
            return x[..., : count * size].reshape(*x.shape[:-1], count, size)
        if count <= FEW_WINDOWS:
            return torch.stack([x[..., start * hop : start * hop + size] for start in range(count)], dim=-2)
        places = torch.arange(count)[:, None] * hop + torch.arange(size)
        return x.index_select(-1, places.flatten().to(x.device)).reshape(*x.shape[:-1], count, size)

    def halves(self, words: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = low_and_high(words)
        return lower - (lower >= 1 << 31).to(lower.dtype) * (1 << 32), upper

    def fold(self, words: Tensor) -> Tensor:
        return words ^ low_and_high(words)[1].remainder(1 << 32)


class Portable(Compiler):
    """Policy for exported graphs: every operator is a function of tensors that ONNX and small runtimes have."""

    name = "portable"
    writes_state = False

    def running_maximum(self, x: Tensor) -> Tensor:
        # ONNX has no such operator: the largest of two, of four, of eight values, and so on until all are covered.
        span = 1
        while span < x.shape[-1]:
            x = torch.cat([x[..., :span], torch.maximum(x[..., span:], x[..., :-span])], dim=-1)
            span *= 2
        return x

    def write_ring(self, ring: Tensor, slots: Tensor, new: Tensor, lone: bool) -> Tensor:
        if new.shape[2] != 1:
            return ring.scatter(2, slots[:, None, :, None].expand(new.shape), new)
        here = torch.arange(ring.shape[2], device=ring.device) == slots
        return torch.where(here[:, None, :, None], new, ring)


PLAIN, COMPILER, PORTABLE = Policy(), Compiler(), Portable()

_CURRENT: ContextVar[Policy] = ContextVar("policy", default=PLAIN)


def policy() -> Policy:
    """The policy by which blocks are to make operators now."""
    return _CURRENT.get()


@contextmanager
def lowered(by: Policy) -> Iterator[None]:
    """Context in which blocks make operators by another policy."""
    before = _CURRENT.get()
    try:
        _CURRENT.set(by)
        yield
    finally:
        # Without a token: what an interrupt left open is closed in another context than it began in.
        if _CURRENT.get() is by:
            _CURRENT.set(before)


def low_and_high(words: Tensor) -> tuple[Tensor, Tensor]:
    """The lower half of int64 words, from 0 to 2^32 - 1, and the upper, with its sign, as int64.

    By arithmetic alone: neither views as another type nor shifts are in every runtime. A multiple of 2^32 is exact in
    float64, and whole numbers are not divided, which exporters do in float32.
    """
    lower = words.remainder(1 << 32)
    return lower, ((words - lower).to(torch.float64) * 2.0**-32).to(torch.int64)
