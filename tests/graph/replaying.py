"""Input for sessions that replay, and what they give beside one that does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from astrape.graph.graph import Graph

__all__ = ["assert_equal", "noise"]


def _named(graph: Graph, y: Any) -> dict[str, Tensor]:
    return y if isinstance(y, dict) else {graph.main: y}


def noise(graph: Graph, frames: dict[str, int], seed: int, batch: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    ports = {
        name: 0.1 * torch.randn(batch, stream.channels, frames[name], generator=generator).to(graph.dtype)
        for name, stream in graph.inputs.items()
    }
    return ports if len(ports) > 1 else next(iter(ports.values()))


def assert_equal(graph: Graph, got: Any, want: Any) -> None:
    for name, tensor in _named(graph, want).items():
        assert torch.equal(_named(graph, got)[name], tensor), name
