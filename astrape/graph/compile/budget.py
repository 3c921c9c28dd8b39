"""A limit to the memory that building a graph takes: more is refused before it is allocated.

A recipe is a small text that can name large numbers. A linear layer of 60,000 by 60,000 channels would take 14 GB, and
a machine that starts to swap cannot report an error any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["MemoryBudget", "memory_budget"]

SINGLE = 2 << 30
TOTAL = 4 << 30

_active: ContextVar[MemoryBudget | None] = ContextVar("memory budget", default=None)

_MAKERS: frozenset[Any] = frozenset(
    getattr(owner, name)
    for owner, names in (
        (torch, "empty zeros ones full rand randn randint randperm arange linspace logspace eye empty_strided"),
        (
            torch,
            "empty_like zeros_like ones_like full_like rand_like randn_like randint_like tril_indices triu_indices",
        ),
        (torch, "hann_window hamming_window blackman_window bartlett_window kaiser_window"),
        (torch.Tensor, "new_empty new_zeros new_ones new_full new_empty_strided"),
    )
    for name in names.split()
)
_GROWERS: frozenset[Any] = frozenset(
    getattr(owner, name)
    for owner, names in (
        (torch, "tile diag diag_embed diagflat"),
        (torch.Tensor, "repeat tile diag diag_embed diagflat"),
        (nn.functional, "pad"),
    )
    for name in names.split()
)


class MemoryBudget(TorchFunctionMode):
    """While active, refuses tensors that would be too large, or too much together with what was made before.

    The size is found before anything is allocated, by running the same call on the meta device. What a block leaves
    behind, parameters and buffers, stays on account; what it made on the way is forgotten when it is built.

    Args:
        single: bytes of the largest tensor. 2 GiB: half a billion weights in one layer.
        total: bytes of everything. 4 GiB: a billion weights, far above what runs in real time.

    Raises:
        MemoryError: from the call that would exceed either.
    """

    def __init__(self, single: int = SINGLE, total: int = TOTAL) -> None:
        super().__init__()
        self.single = single
        self.total = total
        self.kept = 0
        self.made = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            options = {key: item for key, item in kwargs.items() if key not in ("out", "pin_memory", "generator")}
            counted = _counted(func, args, options)
            if counted is not None:
                self.made += self._size(lambda: torch.empty(counted, dtype=torch.float64, device="meta"))
            else:
                self.made += self._size(lambda: func(*args, **{**options, "device": "meta"}))
            if self.kept + self.made > self.total:
                raise MemoryError(f"it takes the graph above {self.total >> 20} MiB")
        elif func in _GROWERS or self._may_outgrow(args):
            self._size(lambda: func(*map(_on_meta, args), **{key: _on_meta(item) for key, item in kwargs.items()}))
        return func(*args, **kwargs)

    def keep(self, block: nn.Module) -> None:
        """Close the account of one block: forget what it made, and remember what it holds."""
        self.made = 0
        self.kept += sum(tensor.numel() * tensor.element_size() for tensor in (*block.parameters(), *block.buffers()))

    def _size(self, trial: Callable[[], Any]) -> int:
        """Bytes of what a call would make; 0 where the call itself will fail, or cannot be tried."""
        try:
            result = trial()
        except (RuntimeError, TypeError, ValueError, OverflowError, NotImplementedError):
            return 0
        if not isinstance(result, Tensor):
            return 0
        size = result.numel() * result.element_size()
        if size > self.single:
            shape = " x ".join(map(str, result.shape))
            raise MemoryError(f"a tensor of {shape} takes {size >> 20} MiB, more than {self.single >> 20}")
        return size

    def _may_outgrow(self, args: tuple[Any, ...]) -> bool:
        """Whether a call on these tensors could make one of more than ``single``, were it their outer product."""
        numbers = 1
        for arg in args:
            if isinstance(arg, Tensor):
                numbers *= arg.numel()
        return numbers * 8 > self.single


def _on_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


@contextmanager
def memory_budget(single: int = SINGLE, total: int = TOTAL) -> Iterator[MemoryBudget]:
    """One account for all blocks that are built inside: ``with memory_budget(): ...`` around a whole graph.

    Inside another budget, that one counts.
    """
    known = _active.get()
    if known is not None:
        yield known
        return
    budget = MemoryBudget(single, total)
    token = _active.set(budget)
    try:
        yield budget
    finally:
        _active.reset(token)


def _counted(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """The number of elements that ``arange`` or ``eye`` makes, ``None`` for any other call and for one that will fail.

    On the meta device these two are not built in: the first call loads torch's compiler, which takes seconds.
    """
    try:
        if func is torch.eye:
            rows, *columns = args
            return int(rows) * int(columns[0] if columns else kwargs.get("m") or rows)
        if func is torch.arange:
            start, end, step = (0, *args, 1) if len(args) == 1 else (*args, 1)[:3]
            if not {"start", "end", "step"} & kwargs.keys():
                return int(max(0, math.ceil((end - start) / step)))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        pass
    return None
