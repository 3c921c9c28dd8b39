"""Composable, strictly causal audio blocks, and the voice conversion built of them."""

from astrape.errors import AlignmentError, AstrapeError, CausalityError, ContractError, RateError, RecipeError, StreamError

__all__ = [
    "AlignmentError",
    "AstrapeError",
    "CausalityError",
    "ContractError",
    "RateError",
    "RecipeError",
    "StreamError",
]
