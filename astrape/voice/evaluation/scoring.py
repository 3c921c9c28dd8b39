"""The work on one pair, by this process or by a worker of a job: it is converted, and measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from astrape.errors import AstrapeError
from astrape.progress import Progress
from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import EvaluationError, MetricError
from astrape.voice.evaluation.metric import NEEDS, Metric, Score
from astrape.voice.evaluation.packages import absence
from astrape.voice.evaluation.pairs import Pair
from astrape.voice.evaluation.recording import Recording
from astrape.voice.evaluation.registry import available, choose
from astrape.voice.evaluation.result import PairResult
from astrape.voice.evaluation.systems import Conversions, ConvertedFile, System

__all__ = ["PairItem", "begin", "evaluated"]

LENGTHS_DIFFER = 0.1
"""Seconds, from which on a result of another length is pointed out: it may be late."""

FOREIGN = 50.0
"""Percent of the source's words that the recogniser gets wrong, from which on it may not be English."""


@dataclass(frozen=True)
class PairItem:
    """A pair to convert and measure.

    Attributes:
        system: which of the run's systems converts it.
        index: of the pair among those of its system.
        pair: what to what.
    """

    system: int
    index: int
    pair: Pair


def begin(
    systems: Sequence[System], families: Sequence[str], language: str, tracker: str | None
) -> Callable[[PairItem], PairResult]:
    """Load what a worker needs: the graph now, and each metric's models when they are first asked.

    Raises:
        AstrapeError: for a graph that cannot be loaded here.
        EvaluationError: for a package that is absent here, and a metric that nothing here has registered.
    """
    # Workers share the cores.
    torch.set_num_threads(1)
    metrics = choose(available(Tools(language, tracker)), families) if families else []
    for metric in metrics:
        if reason := absence(metric.packages):
            raise EvaluationError(f"a worker cannot measure '{metric.name}': {reason}, there too")
    for system in systems:
        if isinstance(system, Conversions):
            system.load()
    return lambda item: evaluated(item.pair, systems[item.system], metrics)


def evaluated(pair: Pair, system: System, metrics: Sequence[Metric], progress: Progress | None = None) -> PairResult:
    """Convert a pair and measure the result; what fails is noted with the reason."""
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
        # Codes are as long as the source, and a run has many.
        rendering=replace(rendering, codes=None),
        seconds=context.source.seconds,
        scores=scores,
        unavailable=unavailable,
        failures=failures,
        notes=context.notes,
        parts=context.parts,
        warnings=tuple(_warnings(context, scores)),
    )


def _context(pair: Pair, rendering: ConvertedFile, elsewhere: bool) -> Context:
    source = Recording(pair.source.path)
    target = pair.target
    audio = None if target is None or target.audio is None else Recording(target.audio)
    same = audio is not None and audio.path.samefile(source.path)
    no_audio = "no target was named"
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


def _one_line(error: Exception, kind: str | None = None) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return text if kind is None else f"{kind}: {text}"
