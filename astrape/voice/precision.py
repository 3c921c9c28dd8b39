"""The error of float32: a stream as it runs live, against the same graph in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from astrape.errors import AstrapeError
from astrape.graph.graph import Graph

__all__ = ["Difference", "precision"]


@dataclass
class Difference:
    """The distance of an output in float32 from that in float64.

    Attributes:
        output: its name.
        frames: how many were compared.
        largest: largest absolute difference; ``None`` for codes, whose size means nothing.
        relative_db: power of the difference against that of the output; ``None`` for codes, and for silence.
        flipped: codes that are others; ``None`` for an output that does not hold codes.
        used: how many different codes there were in float64.
    """

    output: str
    frames: int = 0
    largest: float | None = None
    relative_db: float | None = None
    flipped: int | None = None
    used: int | None = None

    @property
    def flip_rate(self) -> float | None:
        """Flipped codes per code."""
        return None if self.flipped is None else self.flipped / max(1, self.frames)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"flip_rate": self.flip_rate}


def precision(
    graph: Graph,
    chunks: Iterable[Tensor],
    controls: Mapping[str, Tensor | float],
    weights: str | None = None,
    most: int | None = None,
) -> list[Difference]:
    """Stream float32 and float64 side by side, and compare all outputs frame by frame.

    In float64 a stream is the whole pass to its last digits, whatever the chunks. In float32 a layer's sums depend on
    how many frames it gets at a time, and a point that lies on the border between two codes falls on either side. A
    flipped code is another neighbour on the grid, so content jumps by a step of it and everything behind follows.

    Args:
        graph: what to run, in float32. It is left as it is.
        chunks: the input, ``(1, channels, frames)`` at a time, as a host would cut it.
        controls: values by name, held throughout.
        weights: precision of the weights of a compiled session, which takes the place of float32 then; float64 keeps
            the graph's own.
        most: frames that most chunks have, for that session.

    Raises:
        AstrapeError: when nothing came out to compare; a ``StreamError`` for an unknown precision.
    """
    if weights is None:
        live = graph.stream(dtype=torch.float32)
    else:
        live = graph.stream(backend="compiled", chunk=most, precision=weights)
    sessions = [live, graph.stream(dtype=torch.float64)]
    coded = {name for name, wire in graph.wiring.items() if wire.port == "codes"}
    found = {name: Difference(name) for name in graph.outputs}
    powers = {name: [0.0, 0.0] for name in graph.outputs}
    seen: dict[str, set[float]] = {name: set() for name in coded}
    values = dict(controls)
    for chunk in chunks:
        near, far = (_named(graph, session.push(chunk.to(like), **values)) for session, like in _typed(sessions))
        values = {}
        for name, difference in found.items():
            exact = far[name]
            difference.frames += exact.shape[-1]
            if not exact.numel():
                continue
            apart = near[name].double() - exact
            if name in coded:
                difference.flipped = (difference.flipped or 0) + int(apart.ne(0).any(dim=1).sum())
                seen[name].update(exact.flatten().tolist())
                continue
            difference.largest = max(difference.largest or 0.0, float(apart.abs().max()))
            powers[name][0] += float(apart.square().sum())
            powers[name][1] += float(exact.square().sum())
    if not any(difference.frames for difference in found.values()):
        raise AstrapeError(f"'{graph.name}' gave nothing to compare: give it a longer recording")
    for name, difference in found.items():
        apart_power, power = powers[name]
        if name in coded:
            difference.used = len(seen[name])
        elif power and apart_power:
            difference.relative_db = 10 * math.log10(apart_power / power)
    return list(found.values())


def _typed(sessions: Iterable[Any]) -> Iterable[tuple[Any, torch.dtype]]:
    return zip(sessions, (torch.float32, torch.float64), strict=True)


def _named(graph: Graph, y: Any) -> dict[str, Tensor]:
    return y if isinstance(y, dict) else {graph.main: y}
