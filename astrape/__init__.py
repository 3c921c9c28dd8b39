"""Composable, strictly causal audio blocks, and the voice conversion built of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from astrape.errors import (
    AlignmentError,
    AstrapeError,
    CausalityError,
    ContractError,
    ExportError,
    RateError,
    RecipeError,
    StreamError,
)

if TYPE_CHECKING:
    from astrape.graph import Graph, Recipe, Report, Session, compile, load

__all__ = [
    "AlignmentError",
    "AstrapeError",
    "CausalityError",
    "ContractError",
    "ExportError",
    "Graph",
    "RateError",
    "Recipe",
    "RecipeError",
    "Report",
    "Session",
    "StreamError",
    "__version__",
    "compile",
    "load",
]

__version__ = "0.1.0"

_OF_GRAPH = ("Graph", "Recipe", "Report", "Session", "compile", "load")
_PACKAGES = ("blocks", "corpus", "graph", "portable", "runtime", "testing", "training", "voice")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # PyTorch takes seconds to load, and is loaded with the first name that needs it: `astrape --help` needs none.
        if name in _PACKAGES:
            return import_module(f"astrape.{name}")
        if name in _OF_GRAPH:
            return getattr(import_module("astrape.graph"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
