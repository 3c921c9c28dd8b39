"""An evaluation: every pair converted and measured, whatever fails on the way named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from astrape.jobs import IN_PROCESS, Engine, Job, run_job
from astrape.progress import Progress, within
from astrape.voice.evaluation.context import Tools
from astrape.voice.evaluation.errors import EvaluationError
from astrape.voice.evaluation.metric import Metric
from astrape.voice.evaluation.packages import Package, absence, versions
from astrape.voice.evaluation.pairs import Pair
from astrape.voice.evaluation.registry import available, choose
from astrape.voice.evaluation.result import Evaluation, PairResult
from astrape.voice.evaluation.scoring import PairItem, begin, evaluated
from astrape.voice.evaluation.statistics import RESAMPLES, Aggregate, aggregate
from astrape.voice.evaluation.systems import Conversions, System

__all__ = ["evaluate", "evaluate_all"]


def evaluate(pairs: Sequence[Pair], system: System, **settings: Any) -> Evaluation:
    """Convert pairs and measure the results: :func:`evaluate_all` of one system.

    Args:
        pairs: at least one.
        system: what converts.
        settings: as for :func:`evaluate_all`, such as ``metrics=["pitch"]``.

    Raises:
        EvaluationError: as :func:`evaluate_all`.
    """
    (found,) = evaluate_all([(system, pairs)], **settings)
    return found


def evaluate_all(
    columns: Sequence[tuple[System, Sequence[Pair]]],
    *,
    metrics: Iterable[str] | None = None,
    language: str = "en",
    tracker: str | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    engine: Engine = IN_PROCESS,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Evaluate several systems by the same metrics, in one job: what is known of a recording is not computed again.

    A pair that cannot be converted, and a metric that fails on one, are noted with the reason and the others go on. A
    metric whose package is absent is skipped by name.

    Args:
        columns: systems, each with its pairs, at least one.
        metrics: families or quantities to measure; all when left out.
        language: of the sources, an ISO 639 code.
        tracker: of pitch, ``swift-f0`` or ``pyworld``.
        seed: of the bootstrap.
        settings: further settings, for the record.
        engine: what does the work. Workers beside this process load graph and models themselves, once each: one core
            each, and 1 to 2 GB with all metrics.
        progress: called with pairs done, in this process fractions included, and in all.

    Raises:
        EvaluationError: for no pair, an unknown metric or tracker, and a system that workers cannot load.
    """
    if not all(pairs for _, pairs in columns):
        raise EvaluationError("there is no pair to evaluate: name at least one source and one target")
    chosen = choose(available(Tools(language, tracker)), metrics)
    skipped = {metric.name: reason for metric in chosen if (reason := absence(metric.packages))}
    running = [metric for metric in chosen if metric.name not in skipped]
    systems = [system for system, _ in columns]
    described = [system.describe() for system in systems]
    items = [PairItem(of, index, pair) for of, (_, pairs) in enumerate(columns) for index, pair in enumerate(pairs)]
    results = _results(items, systems, running, language, tracker, engine, progress)
    packages: list[Package] = [package for metric in chosen for package in metric.packages]
    packages += [quantity.package for metric in chosen for quantity in metric.quantities if quantity.package]
    pitch = next((vars(metric).get("tracker") for metric in chosen if metric.name == "pitch"), None)
    made = []
    for of, what in enumerate(described):
        own = [results[of, index] for index in range(len(columns[of][1]))]
        made.append(
            Evaluation(
                system=what,
                settings={
                    "metrics": [metric.name for metric in chosen],
                    "language": language,
                    "pitch_tracker": pitch,
                    "bootstrap_seed": seed,
                    "bootstrap_resamples": RESAMPLES,
                    **(settings or {}),
                },
                packages=versions(packages),
                quantities=tuple((metric.name, quantity) for metric in chosen for quantity in metric.quantities),
                skipped=skipped,
                results=tuple(own),
                aggregate=_aggregated(running, own, seed),
                created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
    return made


def _results(
    items: Sequence[PairItem],
    systems: Sequence[System],
    metrics: Sequence[Metric],
    language: str,
    tracker: str | None,
    engine: Engine,
    progress: Progress | None,
) -> dict[tuple[int, int], PairResult]:
    if not engine.in_process:
        for system in systems:
            if isinstance(system, Conversions):
                system.check_portable()
    results: dict[tuple[int, int], PairResult] = {}

    def here(item: PairItem) -> PairResult:
        # Measuring takes the other half, about.
        inside = within(progress, len(results), len(items), share=0.5)
        return evaluated(item.pair, systems[item.system], metrics, inside)

    given = (tuple(systems), tuple(metric.name for metric in metrics), language, tracker)
    for done in run_job(Job(begin, given, here=lambda: here), items, engine):
        item = done.item
        results[item.system, item.index] = done.outcome or PairResult(item.pair, error=f"left out: {done.fault}")
        if progress is not None:
            progress(float(len(results)), float(len(items)))
    return results


def _aggregated(metrics: Sequence[Metric], results: Sequence[PairResult], seed: int) -> dict[str, Aggregate]:
    found: dict[str, Aggregate] = {}
    for metric in metrics:
        pooled = metric.pooled([result.parts[metric.name] for result in results if metric.name in result.parts])
        for quantity in metric.quantities:
            having = [result for result in results if quantity.name in result.scores]
            if quantity.name in pooled:
                found[quantity.name] = Aggregate(pooled[quantity.name], None, None, len(having), pooled=True)
            elif having:
                scores = [result.scores[quantity.name] for result in having]
                found[quantity.name] = aggregate(scores, [result.pair.source.key for result in having], seed)
    return found
