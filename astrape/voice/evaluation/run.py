"""An evaluation: every pair converted and measured, whatever fails on the way named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from astrape.errors import AstrapeError
from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import EvaluationError, MetricError
from astrape.voice.evaluation.metric import NEEDS, Metric, Score
from astrape.voice.evaluation.packages import Package, absence, versions
from astrape.voice.evaluation.pairs import Pair
from astrape.voice.evaluation.recording import Recording
from astrape.voice.evaluation.registry import available, choose
from astrape.voice.evaluation.result import Evaluation, PairResult
from astrape.voice.evaluation.statistics import RESAMPLES, Aggregate, aggregate
from astrape.voice.evaluation.systems import Rendering, System

__all__ = ["evaluate"]

LENGTHS_DIFFER = 0.1
"""Seconds, from which on a result of another length is pointed out: it may be late."""

FOREIGN = 50.0
"""Percent of the source's words that the recogniser gets wrong, from which on it may not be English."""

Progress = Callable[[float, float | None], None]


def evaluate(
    pairs: Sequence[Pair],
    system: System,
    *,
    metrics: Iterable[str] | None = None,
    language: str = "en",
    tracker: str | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    tools: Tools | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Convert pairs and measure the results.

    A pair that cannot be converted, and a metric that fails on one, are noted with the reason and the others go on. A
    metric whose package is absent is skipped by name.

    Args:
        pairs: at least one.
        system: what converts.
        metrics: families or quantities to measure; all when left out.
        language: of the sources, an ISO 639 code.
        tracker: of pitch, ``swift-f0`` or ``pyworld``.
        seed: of the bootstrap.
        settings: further settings, for the record.
        tools: shared with other runs of the same language and tracker, so that what is known of a recording is not
            computed again; of this run alone when left out.
        progress: called with pairs done, fractions included, and in all.

    Raises:
        EvaluationError: for no pair, and an unknown metric or tracker.
    """
    if not pairs:
        raise EvaluationError("there is no pair to evaluate: name at least one source and one target")
    tools = tools or Tools(language, tracker)
    chosen = choose(available(tools), metrics)
    skipped = {metric.name: reason for metric in chosen if (reason := absence(metric.packages))}
    running = [metric for metric in chosen if metric.name not in skipped]
    described = system.describe()
    results = []
    for index, pair in enumerate(pairs):
        results.append(_evaluated(pair, system, running, _within(progress, index, len(pairs))))
        if progress is not None:
            progress(index + 1, len(pairs))
    packages: list[Package] = [package for metric in chosen for package in metric.packages]
    packages += [quantity.package for metric in chosen for quantity in metric.quantities if quantity.package]
    pitch = next((vars(metric).get("tracker") for metric in chosen if metric.name == "pitch"), None)
    return Evaluation(
        system=described,
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
        results=tuple(results),
        aggregate=_aggregated(running, results, seed),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _evaluated(pair: Pair, system: System, metrics: Sequence[Metric], progress: Progress) -> PairResult:
    try:
        rendering = system.render(pair, progress)
        context = _context(pair, rendering, not system.converts)
    except AstrapeError as error:
        return PairResult(pair, error=_one_line(error))
    scores: dict[str, Score] = {}
    unavailable: dict[str, str] = {}
    failures: dict[str, str] = {}
    for metric in metrics:
        try:
            found = _checked(metric, metric.score(context))
        except AstrapeError as error:
            failures[metric.name] = _one_line(error)
            continue
        # Models of others fail on odd sound in whatever way; the other metrics and files go on.
        except Exception as error:
            failures[metric.name] = _one_line(error, type(error).__name__)
            continue
        scores |= found
        for quantity in metric.quantities:
            if quantity.name not in found:
                reasons = [context.lacks(need) for need in NEEDS if need in quantity.needs]
                reasons += [absence([quantity.package])] if quantity.package else []
                unavailable[quantity.name] = next((why for why in reasons if why), "it has no value here")
    return PairResult(
        pair=pair,
        rendering=rendering,
        seconds=context.source.seconds,
        scores=scores,
        unavailable=unavailable,
        failures=failures,
        notes=context.notes,
        warnings=tuple(_warnings(context, scores)),
    )


def _context(pair: Pair, rendering: Rendering, elsewhere: bool) -> Context:
    source = Recording(pair.source.path)
    target = pair.target
    audio = None if target is None or target.audio is None else Recording(target.audio)
    same = audio is not None and audio.path.samefile(source.path)
    no_audio = "nobody said who the target is"
    if target is not None:
        no_audio = f"'{target.files[0].name}' holds no sound to compare with: name a recording (--target-audio)"
    return Context(
        source=source,
        converted=Recording(rendering.path, rendering.late),
        source_key=pair.source.key,
        transcript=pair.source.text,
        target_audio=audio,
        reference=source if pair.own_voice or same else None,
        codes=rendering.codes,
        conversion=rendering.conversion,
        latency=rendering.latency,
        elsewhere=elsewhere or pair.converted is not None,
        no_target_audio=no_audio,
    )


def _checked(metric: Metric, found: Mapping[str, float | Score]) -> dict[str, Score]:
    names = {quantity.name for quantity in metric.quantities}
    scores = {}
    for name, value in found.items():
        if name not in names:
            raise MetricError(f"'{metric.name}' gives '{name}', which is not one of its quantities")
        score = value if isinstance(value, Score) else Score(float(value))
        if not (math.isfinite(score.value) and math.isfinite(score.weight) and score.weight > 0):
            raise MetricError(f"'{name}' came out as {score.value:g}, which is not a number")
        scores[name] = score
    return scores


def _warnings(context: Context, scores: Mapping[str, Score]) -> Iterable[str]:
    apart = context.converted.seconds - context.source.seconds
    if abs(apart) > LENGTHS_DIFFER:
        more = "longer" if apart > 0 else "shorter"
        yield f"the result is {abs(apart):.2f} s {more} than the source: is it late? (--late)"
    understood = scores.get("source_wer")
    if understood is not None and understood.value > FOREIGN:
        yield f"the recogniser gets {understood.value:.0f} % of the source's words wrong: is it English?"


def _aggregated(metrics: Sequence[Metric], results: Sequence[PairResult], seed: int) -> dict[str, Aggregate]:
    found: dict[str, Aggregate] = {}
    for metric in metrics:
        pooled = metric.pooled()
        for quantity in metric.quantities:
            having = [result for result in results if quantity.name in result.scores]
            if quantity.name in pooled:
                found[quantity.name] = Aggregate(pooled[quantity.name], None, None, len(having), pooled=True)
            elif having:
                scores = [result.scores[quantity.name] for result in having]
                found[quantity.name] = aggregate(scores, [result.pair.source.key for result in having], seed)
    return found


def _within(progress: Progress | None, index: int, count: int) -> Progress:
    """Progress of one conversion as progress through all pairs; measuring takes the other half, about."""

    def tell(done: float, total: float | None) -> None:
        if progress is not None:
            progress(index + (0.5 * min(1.0, done / total) if total else 0.0), float(count))

    return tell


def _one_line(error: Exception, kind: str | None = None) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return text if kind is None else f"{kind}: {text}"
