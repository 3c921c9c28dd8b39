"""The errors astrape raises. Each message names the thing, the numbers and the mend."""

from __future__ import annotations

__all__ = [
    "AlignmentError",
    "AstrapeError",
    "CausalityError",
    "ContractError",
    "RateError",
    "RecipeError",
    "StreamError",
]


class AstrapeError(Exception):
    """Base of every error that astrape raises on purpose."""


class RecipeError(AstrapeError):
    """A recipe that cannot be parsed, validated or built."""


class CausalityError(RecipeError):
    """Something in a streaming graph would need input that has not been heard yet."""


class RateError(RecipeError):
    """Rates or channel counts that do not fit together."""


class AlignmentError(RecipeError):
    """Two paths that meet, and whose latencies differ by no whole number of frames."""


class StreamError(AstrapeError):
    """Input that a running block, graph or session cannot take."""


class ContractError(AstrapeError, AssertionError):
    """A block or graph that breaks its contract.

    Attributes:
        property_name: the property that broke, such as ``"look-ahead"`` or ``"purity"``.
    """

    def __init__(self, property_name: str, message: str) -> None:
        super().__init__(f"{property_name}: {message}")
        self.property_name = property_name
