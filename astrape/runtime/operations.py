"""Floating-point operations of products: PyTorch's, oneDNN's fused linear layers, and native kernels'.

A multiplication that is added is two operations, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from astrape.capture.lowering import Kernel
from astrape.capture.native.instructions import Instruction, codes
from astrape.capture.native.library import Program

__all__ = ["counted", "operations_of"]

PRODUCTS = {codes[name] for name in codes if name.partition("_")[0] in ("product", "halves", "row")}


def counted() -> FlopCounterMode:
    """PyTorch's counter of operations, which does not know oneDNN's linear layer by itself."""
    fused = {torch.ops.mkldnn._linear_pointwise: _linear} if torch._C._has_mkldnn else {}
    return FlopCounterMode(display=False, custom_mapping=fused)


def operations_of(kernel: Kernel) -> int:
    """Operations of the products in a kernel of a captured step. PyTorch's is run for it."""
    if isinstance(kernel, Program):
        products = [one for one in map(Instruction, kernel.words) if one.code in PRODUCTS]
        return sum(2 * math.prod(one.sizes.tolist()) for one in products)
    with counted() as counter:
        kernel()
    return int(counter.get_total_flops())


def _linear(x: Sequence[int], weight: Sequence[int], *rest: Any, **named: Any) -> int:
    return 2 * math.prod(x) * weight[0]
