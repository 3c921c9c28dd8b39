"""Framing latency: a graph declares what a session shows."""

from __future__ import annotations

import torch

from astrape.errors import ContractError
from astrape.graph import Graph, Session
from astrape.measure.compare import guarded
from astrape.measure.framing import measure_framings
from astrape.measure.subject import Subject

__all__ = ["FRAMING", "check_framing"]

FRAMING = "framing"
"""Name of the property: the declared framing latency is what one sample at a time measures."""


def check_framing(subject: Subject) -> None:
    """Fed one frame at a time, every output frame appears as late as ``framings`` says, and not later or sooner.

    Raises:
        ContractError: ``"framing"``.
    """
    graph = subject.block
    assert isinstance(graph, Graph)
    with guarded(FRAMING, f"measuring the framing of {subject.name}"), torch.no_grad():
        for port, seen in measure_framings(subject, lambda: Session(graph, dtype=subject.dtype)).items():
            declared = graph.framings[port].seconds
            if seen != declared:
                raise ContractError(
                    FRAMING,
                    f"'{port}' declares a framing of {declared} s ({float(declared) * 1000:.4g} ms), and its latest "
                    f"frame came {seen} s ({float(seen) * 1000:.4g} ms) late",
                )
