"""Resemblyzer, a network that tells speakers apart (Wan et al., arXiv:1710.10467): the package, loaded in one place."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any, NamedTuple

from astrape.voice.evaluation.packages import Package

__all__ = ["RESEMBLYZER", "Resemblyzer", "load_resemblyzer"]

RESEMBLYZER = Package("resemblyzer", "resemblyzer", 'resemblyzer "setuptools<81"')


class Resemblyzer(NamedTuple):
    """The network, 1.4 million weights on the CPU, and what is done to audio at 16 kHz before it: level and pauses."""

    network: Any
    prepare: Any


def load_resemblyzer() -> Resemblyzer:
    """Load the network from its wheel.

    Raises:
        ImportError: where the package, or one that it needs, is missing.
    """
    with warnings.catch_warnings():
        # It imports names that SciPy and setuptools have announced to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        package = import_module("resemblyzer")
    return Resemblyzer(package.VoiceEncoder("cpu", verbose=False), package.preprocess_wav)
