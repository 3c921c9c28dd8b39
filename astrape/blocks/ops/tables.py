"""Constant tables that are exact in every type that a block is moved to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = ["ExactTables", "Float64"]

Float64 = npt.NDArray[np.float64]


class ExactTables(nn.Module):
    """A module with constant tables that come from a formula, made in float64 and rounded once.

    A buffer that was rounded to float32 and is then widened by ``.double()`` still holds float32 numbers, and a
    transform with its inverse is off by 3e-8 where float64 allows 1e-15. So a change of type makes the tables anew;
    between devices they are copied. They are not part of a checkpoint, since the formula is.

    A subclass implements :meth:`exact_tables` and calls :meth:`register_tables` once at the end of its ``__init__``.
    """

    def exact_tables(self) -> Mapping[str, Float64]:
        """The tables by the names of their buffers, from what ``__init__`` keeps on the module."""
        raise NotImplementedError

    def register_tables(self) -> None:
        """Register what :meth:`exact_tables` gives as buffers of the default type."""
        for name, table in self.exact_tables().items():
            tensor = torch.from_numpy(np.ascontiguousarray(table)).to(torch.get_default_dtype())
            self.register_buffer(name, tensor, persistent=False)
        self._tables_type = torch.get_default_dtype()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        tables = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        types = {buffer.dtype for buffer in tables.values() if buffer.is_floating_point()}
        if types - {self._tables_type}:
            for name, table in self.exact_tables().items():
                self._buffers[name] = torch.from_numpy(np.ascontiguousarray(table)).to(tables[name])
            (self._tables_type,) = types
        return self
