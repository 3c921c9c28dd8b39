"""A run and what stands beside it as columns of a table, a condition at a time."""

from __future__ import annotations

from collections.abc import Iterator

from astrape.voice.evaluation.conditions import CLEAN
from astrape.voice.evaluation.numbers import number
from astrape.voice.evaluation.published import GOALS_IN, REFERENCES
from astrape.voice.evaluation.result import Evaluation

__all__ = ["cells", "conditions_of", "headings"]

NONE = "-"


def conditions_of(evaluation: Evaluation) -> tuple[str, ...]:
    """Conditions that were measured, the clean one first."""
    return tuple(dict.fromkeys((CLEAN, *(column.condition for column in evaluation.beside))))


def headings(evaluation: Evaluation, condition: str) -> list[str]:
    """Systems, then references, which were written down and not measured."""
    return [name for name, _ in _measured(evaluation, condition)] + [
        REFERENCES[name].system for name in _references(evaluation)
    ]


def cells(evaluation: Evaluation, condition: str) -> Iterator[tuple[str, list[str]]]:
    """A row for each quantity that a column has: its label with the unit, and a value for each heading."""
    columns = [found for _, found in _measured(evaluation, condition)]
    for _, quantity in evaluation.quantities:
        values = [
            number(found.aggregate[quantity.name].value, quantity) if quantity.name in found.aggregate else NONE
            for found in columns
        ]
        if any(value != NONE for value in values):
            known = [_figures(name, condition).get(quantity.name, NONE) for name in _references(evaluation)]
            yield f"{quantity.label}{f', {quantity.unit}' if quantity.unit else ''}", values + known


def _measured(evaluation: Evaluation, condition: str) -> list[tuple[str, Evaluation]]:
    own = [(str(evaluation.system.get("recipe") or "converted"), evaluation)] if condition == CLEAN else []
    return own + [(one.name, one.evaluation) for one in evaluation.beside if one.condition == condition]


def _references(evaluation: Evaluation) -> list[str]:
    named = evaluation.settings.get("references") or []
    return [name for name in named if name in REFERENCES]


def _figures(name: str, condition: str) -> dict[str, str]:
    """References hold of clean sources, but for goals of another condition."""
    if condition == CLEAN:
        return dict(REFERENCES[name].figures)
    return dict(GOALS_IN.get(condition, {})) if name == "goal" else {}
