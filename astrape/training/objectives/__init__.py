"""Losses. Each gives a sum and its weight, and is known to recipes by name."""

from astrape.training.objectives.adversarial import LSGAN, FeatureMatching, Judgement, LSGANDiscriminator
from astrape.training.objectives.content import L1, MSE, Cosine, InfoNCE, SecondDifference, SmoothL1Delta
from astrape.training.objectives.fundamental import Fundamental
from astrape.training.objectives.labels import CrossEntropy
from astrape.training.objectives.likeness import SpeakerLikeness
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
from astrape.training.objectives.phase import AntiWrappingPhase, GroupDelay
from astrape.training.objectives.reconstruction import LogMagnitude, LogMel, MultiResolutionSTFT
from astrape.training.objectives.speaker import SpeakerAdversary, reversal_strength, reverse_gradient

__all__ = [
    "L1",
    "LSGAN",
    "MSE",
    "PAIRING",
    "AntiWrappingPhase",
    "Cosine",
    "CrossEntropy",
    "FeatureMatching",
    "Fundamental",
    "GroupDelay",
    "InfoNCE",
    "Judgement",
    "LSGANDiscriminator",
    "LogMagnitude",
    "LogMel",
    "LossContext",
    "MultiResolutionSTFT",
    "Objective",
    "SecondDifference",
    "SmoothL1Delta",
    "SpeakerAdversary",
    "SpeakerLikeness",
    "Total",
    "build_loss",
    "loss_class",
    "loss_names",
    "register_loss",
    "reversal_strength",
    "reverse_gradient",
]
