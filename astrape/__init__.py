"""Composable, strictly causal audio blocks, and the voice conversion built of them."""

from astrape.errors import (
    AlignmentError,
    AstrapeError,
    CausalityError,
    ContractError,
    RateError,
    RecipeError,
    StreamError,
)
from astrape.graph import Graph, Recipe, Report, Session, compile, load

__all__ = [
    "AlignmentError",
    "AstrapeError",
    "CausalityError",
    "ContractError",
    "Graph",
    "RateError",
    "Recipe",
    "RecipeError",
    "Report",
    "Session",
    "StreamError",
    "compile",
    "load",
]
