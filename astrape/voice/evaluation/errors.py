"""Errors of evaluation."""

from __future__ import annotations

from astrape.errors import AstrapeError

__all__ = ["EvaluationError", "MetricError"]


class EvaluationError(AstrapeError):
    """An evaluation that cannot start: sources, targets or settings that are wrong. It says what to do."""


class MetricError(EvaluationError):
    """A metric that has no value for one file, and why. The others go on."""
