"""A run with what stands beside it: baselines and worse conditions, on the same sources and by the same metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from astrape.audio.places import Place
from astrape.voice.evaluation.baselines import SourceItself, WorldShift, in_own_voices
from astrape.voice.evaluation.conditions import CLEAN, CONDITIONS, degraded
from astrape.voice.evaluation.errors import EvaluationError
from astrape.voice.evaluation.pairs import Pair
from astrape.voice.evaluation.result import Evaluation, ScoreColumn
from astrape.voice.evaluation.run import evaluate_all
from astrape.voice.evaluation.systems import Conversions, System
from astrape.voice.names import BASELINES

__all__ = ["check_beside", "compare"]


def compare(
    pairs: Sequence[Pair],
    system: System,
    folder: Path | Place,
    *,
    baselines: Iterable[str] = (),
    conditions: Iterable[str] = (),
    **settings: Any,
) -> Evaluation:
    """Evaluate a system, and beside it baselines, first on clean sources and then in each condition.

    Args:
        pairs, system: as for :func:`~astrape.voice.evaluation.run.evaluate`.
        settings: as for :func:`~astrape.voice.evaluation.run.evaluate_all`.
        folder: what baselines convert and degraded sources go to folders of their names below it.
        baselines: of ``source``, ``own-voice`` (the system, to the source's own voice) and ``world``.
        conditions: of ``CONDITIONS``.

    Returns:
        The system on clean sources, everything else in ``beside``.

    Raises:
        EvaluationError: for an unknown name, and an own voice of what was converted elsewhere.
    """
    wanted, given = list(dict.fromkeys(baselines)), list(dict.fromkeys(conditions))
    check_beside(wanted, given, system)
    work: list[tuple[str, str, System, Sequence[Pair]]] = []
    name = str(system.describe().get("recipe") or "converted")
    for condition in (CLEAN, *given):
        place = folder if condition == CLEAN else folder / condition
        heard = pairs if condition == CLEAN else degraded(pairs, condition, place / "sources")
        work.append((name, condition, _placed(system, condition, place), heard))
        for baseline in wanted:
            if baseline == "source":
                work.append((baseline, condition, SourceItself(), heard))
            elif baseline == "world":
                work.append((baseline, condition, WorldShift(place / baseline), heard))
            else:
                work.append((baseline, condition, _placed(system, condition, place), in_own_voices(heard)))
    found = evaluate_all([(converting, chosen) for _, _, converting, chosen in work], **settings)
    columns = [ScoreColumn(label, condition, one) for (label, condition, _, _), one in zip(work, found, strict=True)]
    return replace(columns[0].evaluation, beside=tuple(columns[1:]))


def check_beside(baselines: Iterable[str], conditions: Iterable[str], system: System) -> None:
    """Refuse what cannot stand beside a run, before anything is converted.

    Raises:
        EvaluationError: as :func:`compare` does.
    """
    for name in baselines:
        if name not in BASELINES:
            raise EvaluationError(f"there is no baseline '{name}' (choose from: {', '.join(BASELINES)})")
        if name == "own-voice" and not isinstance(system, Conversions):
            raise EvaluationError("baseline 'own-voice' converts each source again, and --converted converts nothing")
    for name in conditions:
        if name not in CONDITIONS:
            raise EvaluationError(f"there is no condition '{name}' (choose from: {', '.join(CONDITIONS)})")
        if not system.converts:
            raise EvaluationError(f"condition '{name}' converts each source again, and --converted converts nothing")


def _placed(system: System, condition: str, place: Path | Place) -> System:
    """The same system, whose files of a condition do not overwrite those of another."""
    if condition == CLEAN or not isinstance(system, Conversions):
        return system
    return system.into(place / "converted")
