"""Speed and latency, of conversions that were made here."""

from __future__ import annotations

from collections.abc import Sequence

from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.metric import Quantity, Score
from astrape.voice.evaluation.packages import Package

__all__ = ["Speed"]

CONVERSION = frozenset({"conversion"})


class Speed:
    """The time that conversion took, as measured here on one thread, and the latency that the graph's report states."""

    name = "speed"
    packages: tuple[Package, ...] = ()
    quantities = (
        Quantity(
            "real_time_factor",
            "Real-time factor",
            "s/s",
            "lower",
            "time that the graph took for a second of audio; below 1 is faster than real time",
            CONVERSION,
        ),
        Quantity(
            "latency_algorithmic",
            "Algorithmic latency",
            "ms",
            "lower",
            "delay by filters and windows, from the latency report",
            CONVERSION,
            1,
        ),
        Quantity(
            "latency_host",
            "Host latency",
            "ms",
            "lower",
            "delay in a live host, framing included, from the latency report",
            CONVERSION,
            1,
        ),
    )

    def __init__(self, tools: Tools) -> None:
        del tools

    def score(self, context: Context) -> dict[str, float | Score]:
        if context.conversion is None:
            return {}
        if not context.conversion.seconds:
            raise MetricError("the source has no length")
        scores: dict[str, float | Score] = {
            "real_time_factor": Score(context.conversion.real_time_factor, context.conversion.seconds)
        }
        if context.latency is not None:
            scores["latency_algorithmic"] = context.latency.algorithmic_ms
            scores["latency_host"] = context.latency.host_ms
        return scores

    def pooled(self, parts: Sequence[object]) -> dict[str, float]:
        return {}
