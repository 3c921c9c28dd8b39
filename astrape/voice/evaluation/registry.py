"""The metrics there are, in the order that tables have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from astrape.errors import AstrapeError
from astrape.voice.evaluation.codes import QuantizerUse
from astrape.voice.evaluation.context import Tools
from astrape.voice.evaluation.errors import EvaluationError
from astrape.voice.evaluation.fidelity import PESQ, STOI
from astrape.voice.evaluation.intelligibility import Intelligibility
from astrape.voice.evaluation.metric import Metric
from astrape.voice.evaluation.pitch import Melody
from astrape.voice.evaluation.predicted import PredictedQuality
from astrape.voice.evaluation.speakers import Similarity
from astrape.voice.evaluation.spectra import SpectralDistance
from astrape.voice.evaluation.speed import Speed

__all__ = ["available", "choose", "register_metric"]

Factory = Callable[[Tools], Metric]

_OWN = (Intelligibility, Similarity, Melody, PredictedQuality, PESQ, STOI, SpectralDistance, QuantizerUse, Speed)
_FACTORIES: dict[str, Factory] = {str(factory.name): factory for factory in _OWN}


def register_metric(name: str) -> Callable[[Factory], Factory]:
    """Decorator: puts a metric in reach of ``metrics=``. What it decorates is called with the run's ``Tools``.

    Raises:
        AstrapeError: for a name that is taken.
    """

    def register(factory: Factory) -> Factory:
        if name in _FACTORIES:
            raise AstrapeError(f"there is a metric '{name}' already: choose another name")
        _FACTORIES[name] = factory
        return factory

    return register


def available(tools: Tools) -> dict[str, Metric]:
    """All metrics, made for a run, by the name of the family."""
    return {name: factory(tools) for name, factory in _FACTORIES.items()}


def choose(metrics: Mapping[str, Metric], names: Iterable[str] | None) -> list[Metric]:
    """The families that are named, or of which a quantity is; all of them for ``None``.

    Raises:
        EvaluationError: for a name that is neither, and for none at all.
    """
    if names is None:
        return list(metrics.values())
    family = {quantity.name: metric.name for metric in metrics.values() for quantity in metric.quantities}
    wanted = set()
    for name in names:
        if name not in metrics and name not in family:
            raise EvaluationError(f"there is no metric '{name}' (choose from: {', '.join(metrics)})")
        wanted.add(name if name in metrics else family[name])
    if not wanted:
        raise EvaluationError(f"there is no metric to measure: name at least one (choose from: {', '.join(metrics)})")
    return [metric for name, metric in metrics.items() if name in wanted]
