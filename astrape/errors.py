"""The errors astrape raises. Each message names the thing, the numbers and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "AlignmentError",
    "AstrapeError",
    "AudioError",
    "CausalityError",
    "ContractError",
    "ExportError",
    "PlaceError",
    "RateError",
    "RecipeError",
    "StreamError",
    "WriteError",
    "told_as",
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
    """Two paths that meet, and whose latencies do not differ by a whole number of frames."""


class StreamError(AstrapeError):
    """Input that a running block, graph or session cannot take."""


class ExportError(AstrapeError):
    """A graph that cannot be exported, or a folder that is not an export."""


class AudioError(AstrapeError):
    """An audio file that cannot be read.

    Attributes:
        kind: ``missing``, ``irregular``, ``unopened``, ``empty``, ``format`` (not a readable audio file), ``decoder``
            (a package that decodes it is missing), ``damaged``, ``cut`` (shorter or longer than its header says),
            ``non-finite``, ``cancelled`` (its channels cancel each other) or ``channel`` (there is no such channel).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class WriteError(AstrapeError):
    """A file that cannot be written.

    Attributes:
        full: whether that is for want of space: a full disk, a quota, or the largest file that is allowed.
    """

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class PlaceError(AstrapeError):
    """A file, a folder or a store that cannot be read or written where it is.

    Attributes:
        missing: there is no such file, as the disk or store has answered.
    """

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@contextmanager
def told_as(kind: type[AstrapeError], *, hint: str = "") -> Iterator[None]:
    """Raise what goes wrong with a file inside the ``with`` block as an error of another kind, with the same message.

    Args:
        kind: of the error to raise; its one argument is the message.
        hint: appended to the message.
    """
    try:
        yield
    except (AudioError, PlaceError, WriteError) as error:
        raise kind(f"{error}{hint}") from error


class ContractError(AstrapeError, AssertionError):
    """A block or graph that breaks its contract.

    Attributes:
        property_name: the property that broke, such as ``"look-ahead"`` or ``"purity"``.
    """

    def __init__(self, property_name: str, message: str) -> None:
        super().__init__(f"{property_name}: {message}")
        self.property_name = property_name
