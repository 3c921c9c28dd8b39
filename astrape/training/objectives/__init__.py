"""Losses. Each gives a sum and its weight, and is known to recipes by name."""

from astrape.training.objectives.content import L1, MSE, Cosine, InfoNCE, SecondDifference, SmoothL1Delta
from astrape.training.objectives.objective import (
    PAIRING,
    LossContext,
    Objective,
    Total,
    build_loss,
    loss_class,
    loss_names,
    register_loss,
)
from astrape.training.objectives.speaker import SpeakerAdversary, reversal_strength, reverse_gradient

__all__ = [
    "L1",
    "MSE",
    "PAIRING",
    "Cosine",
    "InfoNCE",
    "LossContext",
    "Objective",
    "SecondDifference",
    "SmoothL1Delta",
    "SpeakerAdversary",
    "Total",
    "build_loss",
    "loss_class",
    "loss_names",
    "register_loss",
    "reversal_strength",
    "reverse_gradient",
]
