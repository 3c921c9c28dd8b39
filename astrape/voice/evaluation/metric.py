"""The protocol of metrics.

A metric is a family of quantities that one package measures together. It is in the registry by name, loads its
models once a run, in each worker, and only when they are first asked, and scores one conversion at a time. Conversions
of a run may be scored by several workers, so what is of all of them together comes from what each has left in
``Context.parts``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from astrape.voice.evaluation.packages import Package

if TYPE_CHECKING:
    from astrape.voice.evaluation.context import Context

__all__ = ["NEEDS", "Better", "Metric", "Quantity", "Score"]

NEEDS = ("transcript", "target_audio", "reference", "codes", "conversion")
"""Inputs that a quantity may need beside source and result. ``Context.lacks`` says why one is not there."""

Better = Literal["higher", "lower"]


class Score(NamedTuple):
    """A value, and how much it counts in the mean over files: a word error rate by its words, for instance."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Quantity:
    """A number that is measured.

    Attributes:
        name: as results have it.
        label: as people read it.
        unit: of the value, empty for a pure number.
        better: which direction is better; ``None`` where neither is.
        about: what it is, in a sentence.
        needs: of ``NEEDS``.
        digits: decimals worth showing.
        package: what it takes beside the family's packages. Where it is absent, the rest of the family is measured.
    """

    name: str
    label: str
    unit: str
    better: Better | None
    about: str
    needs: frozenset[str] = frozenset()
    digits: int = 3
    package: Package | None = None


class Metric(Protocol):
    """A family of quantities.

    Attributes:
        name: of the family.
        quantities: what it measures.
        packages: what it takes.
    """

    @property
    def name(self) -> str: ...

    @property
    def quantities(self) -> tuple[Quantity, ...]: ...

    @property
    def packages(self) -> tuple[Package, ...]: ...

    def score(self, context: Context) -> Mapping[str, float | Score]:
        """Values by name. A quantity whose needs are not met is left out.

        Raises:
            MetricError: when there is no value for this file, and why.
        """
        ...

    def pooled(self, parts: Sequence[Any]) -> Mapping[str, float]:
        """Values of all files together that are not means over them; mostly none.

        Args:
            parts: what :meth:`score` left in ``context.parts[self.name]``, in the order of the pairs.
        """
        ...
