"""The table of operators that PyTorch's exporter to ONNX reads from onnxscript's sources again for every model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import pytest

__all__ = ["read_once"]


@contextmanager
def read_once() -> Iterator[None]:
    """Make the table once, and not in a second of CPU for each model. Nothing changes it."""
    with pytest.MonkeyPatch.context() as patch:
        with suppress(ImportError, AttributeError):
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield
