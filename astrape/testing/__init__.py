"""The contract of a block, as checks that anyone can run on a block of their own.

    >>> from astrape.blocks import Stream, StreamBlock
    >>> from astrape.testing import check_block
    >>> class Double(StreamBlock):
    ...     def step(self, x, state, controls):
    ...         return 2 * x, state
    >>> check_block(Double(Stream(16000, 4))).state_bytes
    0

Every property has a function and a name of its own, in the module that its subject gives it: ``causality``, ``states``,
``purity``, ``rows``, ``streaming``, ``timing``, ``controls``, ``precision``, ``endurance``, and, for graphs,
``session`` and ``framing``. They take a :class:`astrape.measure.subject.Subject`. :func:`measure` only measures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from astrape.errors import ContractError
from astrape.measure.measurement import Measured, measure
from astrape.measure.subject import Subject

if TYPE_CHECKING:
    from astrape.testing import strategies
    from astrape.testing.contract import check_block, check_graph

__all__ = ["ContractError", "Measured", "Subject", "check_block", "check_graph", "measure", "strategies"]


def __getattr__(name: str) -> Any:
    # Hypothesis is loaded with what needs it: measuring a graph for its report does not.
    if name in ("check_block", "check_graph"):
        return getattr(import_module("astrape.testing.contract"), name)
    if name == "strategies":
        return import_module("astrape.testing.strategies")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
