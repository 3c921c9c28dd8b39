"""Audio from one rate to another, as a stream: the library's own resampler as a graph of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from torch import Tensor

from astrape.blocks.base import Stream
from astrape.graph import compile
from astrape.graph.graph import Graph

__all__ = ["resampled", "resampling", "resampling_to"]


def resampling(rate: int, stream: Stream) -> Graph | None:
    """The resampler from a file's rate to a stream's, as a graph of its own; ``None`` where the rates are equal."""
    return None if rate == stream.rate else _resampler(Fraction(rate), stream.rate, stream.channels)


def resampling_to(stream: Stream, rate: int) -> Graph | None:
    """The resampler from a stream to a file's rate."""
    return None if rate == stream.rate else _resampler(stream.rate, Fraction(rate), stream.channels)


def resampled(graph: Graph | None, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """``(1, channels, n)`` pieces through such a graph, aligned to the sample; as they are where there is none."""
    yield from pieces if graph is None else graph.stream().compensated(pieces)


def _resampler(rate_in: Fraction, rate_out: Fraction, channels: int) -> Graph:
    return compile(
        {
            "recipe": "resampling",
            "inputs": {"in": {"rate": str(rate_in), "channels": channels}},
            "blocks": {"resampled": {"use": "resampler", "rate": str(rate_out)}},
            "outputs": {"out": "resampled"},
        }
    )
