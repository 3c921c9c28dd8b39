"""Input that reaches a block in its graph when somebody speaks, to check blocks with that make nothing of noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from astrape.blocks.base import Stream
from astrape.graph.graph import Graph
from astrape.graph.hosted import SLOWEST_AUDIO, is_audio_stream
from astrape.measure.subject import LEVELS, Draw

__all__ = ["draws_behind_transforms"]

SECONDS = 2


def draws_behind_transforms(graph: Graph) -> dict[str, Draw]:
    """A way to draw input for each block with one input that is not audio, by the block's name.

    A pitch shifter on spectra does nothing on noise: it takes spectra of a voice. The graph hears a hum between 110 and
    140 Hz with all its harmonics, and a little noise so that no frame is quite like another, and each block is drawn
    excerpts of what came to it.
    """
    heard: dict[str, Tensor] = {}
    hooks = [
        node.block.register_forward_pre_hook(_keeper(heard, name))
        for name, node in graph.nodes.items()
        if len(node.block.inputs) == 1 and node.block.rate_in < SLOWEST_AUDIO
    ]
    if not hooks:
        return {}
    try:
        with torch.no_grad():
            controls = {
                name: 0.5 * torch.ones(spec.channels)
                for name, spec in graph.control_specs.items()
                if spec.default is None
            }
            inputs = {name: _hum(stream) for name, stream in graph.inputs.items()}
            graph(inputs, **controls)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _excerpts(x) for name, x in heard.items() if x.shape[-1] > 1}


def _keeper(heard: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any], None]:
    def keep(block: nn.Module, given: Any) -> None:
        x = given[0]
        heard[name] = (next(iter(x.values())) if isinstance(x, dict) else x).double()

    return keep


def _hum(stream: Stream) -> Tensor:
    rate = float(stream.rate)
    generator = torch.Generator().manual_seed(0)
    frames = max(1, int(SECONDS * stream.rate))
    noise = torch.randn(1, stream.channels, frames, generator=generator)
    if not is_audio_stream(stream):
        return noise
    time = torch.arange(frames, dtype=torch.float64) / rate
    turns = 125 * time - 15 / (2 * math.pi) * torch.cos(2 * math.pi * time)
    return (0.4 * (turns % 1 - 0.5)).float() + 0.01 * noise


def _excerpts(x: Tensor) -> Draw:
    def draw(stream: Stream, frames: int, batch: int, generator: torch.Generator) -> Tensor:
        period = x.shape[-1]
        begins = torch.randint(period, (batch,), generator=generator).tolist()
        places = torch.arange(frames)
        rows = [LEVELS[row % len(LEVELS)] * x[0][:, (begin + places) % period] for row, begin in enumerate(begins)]
        return torch.stack(rows) if rows else x.new_zeros(0, stream.channels, frames)

    return draw
