"""The policy of a live session: state that blocks may write into, and weights in a faster layout."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from astrape.blocks.policy import Policy, lowered, policy
from astrape.blocks.split import Layer

__all__ = ["Live", "current"]

FEWEST_ROWS, MOST_ROWS = 3, 64
"""Rows between which a product with weights laid out anew pays: below, one reading of the weights is all there is to
it, and above, what the library lays out by itself in each call costs little beside the product."""

FEWEST_ELEMENTS = 1 << 15
"""Least size of a weight that is laid out anew, one of 512 by 64: below, calling that product costs more than it saves
(32 rows of 512 by 10: 22 us and not 8)."""

DENORMAL = 5e-324

LAID_OUT = torch._C._has_mkldnn and platform.machine() in ("x86_64", "AMD64")
"""Whether weights are laid out anew: on the processors where that was measured to pay. Others have other libraries."""


class Live(Policy):
    """One session's right to be fast: the policy `recorded`. ``step`` stays a pure function in what it returns.

    **State.** Within :meth:`run`, callers of ``step`` never look at the state they passed again: a block may hand
    back the same memory, changed. A frame writes 32 kB into the 8 MB of keys and values of 8 layers, and copying the
    rest would cost more than all that is computed with them. An interrupted step leaves such a state half written.

    **Weights.** :meth:`laid_out` keeps matrices as oneDNN wants them, which saves it from turning them round in every
    call: 1.2 to 2 times as fast from 3 to 64 rows (8 rows of 512 by 1536: 0.21 ms and not 0.35). They are copies, as
    large as the weights, for the matrices of convolutions and the like; a matrix for single rows is not among them.

    **Denormals.** Numbers below 1.2e-38 in float32 count as 0 within :meth:`run`, in the thread that runs it. After
    speech, the state of a recursive filter decays into them and stays there: rounding keeps it from ever reaching 0.
    Processors compute with them some ten to a hundred times more slowly, and each step of a silent stream would.

    Args:
        fewest_rows: rows from which on weights are laid out anew. Who has kernels of its own for fewer says so.
    """

    name = "recorded"
    writes_state = True

    def __init__(self, fewest_rows: int = FEWEST_ROWS) -> None:
        self._fewest_rows = fewest_rows
        self._made: dict[tuple[str, int, torch.Size], tuple[Tensor, int, Tensor]] = {}
        self._held: dict[int, tuple[object, dict[Any, Any]]] = {}

    @contextmanager
    def run(self) -> Iterator[None]:
        """Blocks that step within this are run live."""
        with denormals_flushed(), lowered(self):
            yield

    def wide_product(self, x: Tensor, layer: Layer, narrow: bool) -> Tensor:
        weight, bias = layer
        layout = self.laid_out(weight, x.shape[0] * x.shape[1]) if narrow else None
        if layout is None:
            return functional.linear(x, weight, bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, layout, bias, "none", [], "")
        return y

    def rows_of_taps(self, taps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        # Tap by tap instead of channel by channel: where frames lie one after the other, a row is in place.
        return taps.permute(0, 2, 3, 1).flatten(2), self.taps_first(weight)

    def laid_out(self, weight: Tensor, rows: int) -> Tensor | None:
        """``weight`` for :func:`~astrape.blocks.ops.product.frame_product`, or ``None`` where that is not faster."""
        if not self._fewest_rows <= rows <= MOST_ROWS or weight.numel() < FEWEST_ELEMENTS or not LAID_OUT:
            return None
        return self._kept("rows", weight, _for_rows)

    def taps_first(self, weight: Tensor) -> Tensor:
        """The weight of a convolution, ``(channels, channels_in, kernel)``, as ``(channels, kernel * channels_in)``."""
        return self._kept("taps", weight, _by_taps)

    def kept(self) -> list[Tensor]:
        """Weights of convolutions as :meth:`taps_first` made them, which stay as they are as long as weights do."""
        return [made for (use, *_), (_, _, made) in self._made.items() if use == "taps"]

    def held_by(self, block: object) -> dict[Any, Any]:
        """A block's own cache for as long as the session lasts, empty at first. No result may depend on it."""
        return self._held.setdefault(id(block), (block, {}))[1]

    def _kept(self, use: str, weight: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        # A weight that is written to counts it in its version; one that is replaced lies elsewhere, since this one is
        # held on to. What was made in inference mode has no version, and is made here only, once.
        version = 0 if weight.is_inference() else weight._version
        key = (use, weight.data_ptr(), weight.shape)
        found = self._made.get(key)
        if found is None or found[1] != version:
            found = self._made[key] = (weight, version, make(weight.detach()))
        return found[2]


def _for_rows(weight: Tensor) -> Tensor:
    layout: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), MOST_ROWS)
    return layout


def _by_taps(weight: Tensor) -> Tensor:
    return weight.transpose(1, 2).flatten(1).contiguous()


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Context in which the thread's arithmetic takes denormal numbers as 0; afterwards it is as before."""
    flushed = denormals_are_zero()
    try:
        flushed = flushed or not torch.set_flush_denormal(True)
        yield
    finally:
        if not flushed:
            torch.set_flush_denormal(False)


def denormals_are_zero() -> bool:
    """Whether this thread's arithmetic takes denormal numbers as 0: Python's own floats show it."""
    return DENORMAL * 1.0 == 0.0


def current() -> Live | None:
    """The session that runs the present ``step``, if it is one."""
    held = policy()
    return held if isinstance(held, Live) else None
