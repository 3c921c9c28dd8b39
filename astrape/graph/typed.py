"""The type of a graph's result, for type checkers: one tensor, or a dict of them by output."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from typing_extensions import TypeVar

__all__ = ["Out", "Result", "SeveralOutputs"]

Out = TypeVar("Out", bound=Tensor | dict[str, Tensor], default=Any)
"""The result of a graph and its sessions: ``Tensor``, or ``dict[str, Tensor]`` where there are several outputs."""

Result = TypeVar("Result", bound=Tensor | dict[str, Tensor], default=Tensor)
"""The same of a recipe that a type checker cannot read: a tensor, unless an annotation says otherwise."""

SeveralOutputs = Literal[
    "astrape-mini",
    "astrape-vc",
    "astrape-vc-encoder",
    "astrape-vc-lowlatency",
    "astrape-vc-lowlatency-encoder",
    "astrape-vc-original",
    "astrape-vc-small",
    "multirate",
]
"""Shipped recipes with several outputs."""
