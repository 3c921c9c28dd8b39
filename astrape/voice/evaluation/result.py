"""Results of an evaluation, in memory and as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from astrape.audio.atomic import atomic_path
from astrape.audio.places import Place, below
from astrape.voice.evaluation.metric import Quantity, Score
from astrape.voice.evaluation.pairs import Pair
from astrape.voice.evaluation.statistics import Aggregate
from astrape.voice.evaluation.systems import ConvertedFile

__all__ = ["FORMAT", "Evaluation", "PairResult", "ScoreColumn", "write_json"]

FORMAT = 1
"""Version of the JSON; it changes when something that is there is called otherwise or means another thing."""


@dataclass(frozen=True)
class PairResult:
    """One pair.

    Attributes:
        rendering: the converted file; ``None`` where there is none.
        error: why there is none.
        seconds: length of the source.
        scores: by quantity.
        unavailable: quantities that this pair can't have, and why.
        failures: families that failed on this pair, and why.
        notes: what metrics said beside numbers.
        warnings: what speaks against trusting the numbers.
        parts: by family, what its values of all pairs together are made of.
    """

    pair: Pair
    rendering: ConvertedFile | None = None
    error: str | None = None
    seconds: float = 0.0
    scores: dict[str, Score] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    parts: dict[str, Any] = field(default_factory=dict, repr=False)

    def to_dict(self, shown: Callable[[Path | Place], str] = os.fspath) -> dict[str, Any]:
        pair, target = self.pair, self.pair.target
        conversion = None if self.rendering is None else self.rendering.conversion
        voice = None if target is None else {"name": target.name, "files": [shown(file) for file in target.files]}
        return {
            "name": pair.name,
            "source": shown(pair.source.path),
            "speaker": pair.source.speaker,
            "target": voice,
            "target_audio": None if target is None or target.audio is None else shown(target.audio),
            "own_voice": pair.own_voice,
            "transcript": pair.source.text,
            "converted": None if self.rendering is None else shown(self.rendering.path),
            "error": self.error,
            "seconds": self.seconds,
            "scores": {name: score.value for name, score in self.scores.items()},
            "weights": {name: score.weight for name, score in self.scores.items()},
            "unavailable": self.unavailable,
            "failures": self.failures,
            "notes": self.notes,
            "warnings": list(self.warnings),
            "conversion": None if conversion is None else conversion.to_dict(),
        }


@dataclass(frozen=True)
class Evaluation:
    """A run.

    Attributes:
        system: what converted.
        settings: of the run, seeds among them.
        packages: versions.
        quantities: what was to be measured, with the family of each.
        skipped: families that could not be measured at all, and what to install.
        results: pair by pair.
        aggregate: over all pairs, by quantity.
        created_utc: when, ISO 8601.
        beside: what was measured beside it in the same run: baselines, and worse conditions.
    """

    system: dict[str, Any]
    settings: dict[str, Any]
    packages: dict[str, str]
    quantities: tuple[tuple[str, Quantity], ...]
    skipped: dict[str, str]
    results: tuple[PairResult, ...]
    aggregate: dict[str, Aggregate]
    created_utc: str
    beside: tuple[ScoreColumn, ...] = ()

    @property
    def failed(self) -> tuple[PairResult, ...]:
        """Pairs without a converted file."""
        return tuple(result for result in self.results if result.error is not None)

    @property
    def measured(self) -> tuple[Quantity, ...]:
        """Quantities that at least one pair has."""
        return tuple(quantity for _, quantity in self.quantities if quantity.name in self.aggregate)

    def why_missing(self, name: str) -> str | None:
        """The reason why no pair has a quantity; ``None`` where one has it."""
        if name in self.aggregate:
            return None
        family = next(family for family, quantity in self.quantities if quantity.name == name)
        if family in self.skipped:
            return self.skipped[family]
        reasons = [result.unavailable.get(name) or result.failures.get(family) for result in self.results]
        given = list(dict.fromkeys(reason for reason in reasons if reason))
        if not given:
            return "no pair was converted"
        return given[0] if len(given) == 1 else f"{given[0]} (and {len(given) - 1} other reasons)"

    @property
    def missing(self) -> dict[str, list[Quantity]]:
        """Quantities that no pair has, by the reason: what one package is for is named with it once."""
        found: dict[str, list[Quantity]] = {}
        for _, quantity in self.quantities:
            reason = self.why_missing(quantity.name)
            if reason is not None:
                found.setdefault(reason, []).append(quantity)
        return found

    def to_dict(self, base: Path | Place | None = None) -> dict[str, Any]:
        """The result as plain values; files below ``base`` are relative to it."""

        def shown(path: Path | Place) -> str:
            return os.fspath(path) if base is None else below(path, base)

        return {
            "astrape_evaluation": FORMAT,
            "created_utc": self.created_utc,
            "system": self.system,
            "settings": self.settings,
            "packages": self.packages,
            "quantities": [_described(family, quantity) for family, quantity in self.quantities],
            "skipped": self.skipped,
            "missing": {
                quantity.name: self.why_missing(quantity.name)
                for _, quantity in self.quantities
                if quantity.name not in self.aggregate
            },
            "aggregate": {name: asdict(found) for name, found in self.aggregate.items()},
            "pairs": [result.to_dict(shown) for result in self.results],
            "beside": [
                {"name": column.name, "condition": column.condition} | column.evaluation.to_dict(base)
                for column in self.beside
            ],
        }


@dataclass(frozen=True)
class ScoreColumn:
    """A baseline, or a condition, beside a run.

    Attributes:
        name: of the system.
        condition: how the sources were given to it.
        evaluation: of the same sources, by the same metrics.
    """

    name: str
    condition: str
    evaluation: Evaluation


def write_json(evaluation: Evaluation, path: Path | Place) -> None:
    """Write a run's JSON. Files below its folder are named relative to it, so that the folder can be moved.

    Raises:
        AstrapeError: when it cannot be written.
    """
    content = json.dumps(_finite(evaluation.to_dict(path.parent)), indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8", errors="backslashreplace")


def _described(family: str, quantity: Quantity) -> dict[str, Any]:
    package = None if quantity.package is None else quantity.package.name
    return {"family": family} | asdict(quantity) | {"needs": sorted(quantity.needs), "package": package}


def _finite(content: Any) -> Any:
    """Numbers that JSON has no form for become null."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
