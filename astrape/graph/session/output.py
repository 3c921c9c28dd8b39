"""Output of a session: to the end, held back for a constant latency, without its first frames; a session in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, cast

import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.graph.network import Network
from astrape.graph.text import many, ms, size
from astrape.graph.typed import Out

__all__ = ["frames_to_the_end", "hold_back", "session_text", "without_first"]


def frames_to_the_end(
    graph: Network[Any],
    positions: Mapping[str, int],
    given: Mapping[str, int],
    late: Mapping[str, int],
    framings: Mapping[str, Fraction],
) -> tuple[dict[str, int], dict[str, int]]:
    """Frames that are missing at the end of a stream.

    Args:
        graph: what is streamed.
        positions: frames heard, by input.
        given: frames handed out, by output.
        late: latency of each output, in its frames.
        framings: of each output, seconds.

    Returns:
        Frames that each output still has to give, and of silence that each input has to hear for them.
    """
    heard = max(positions[name] / stream.rate for name, stream in graph.inputs.items())
    missing = {
        name: max(0, math.ceil(heard * stream.rate) + late[name] - given[name])
        for name, stream in graph.outputs.items()
    }
    until = heard
    for name, stream in graph.outputs.items():
        last = (given[name] + missing[name]) / stream.rate
        until = max(until, last + framings[name])
    silence = {name: max(0, math.ceil(until * stream.rate) - positions[name]) for name, stream in graph.inputs.items()}
    return missing, silence


def hold_back(
    outputs: Mapping[str, Tensor],
    queues: dict[str, Tensor],
    streams: Mapping[str, Stream],
    heard: Fraction,
    given: Mapping[str, int],
) -> dict[str, Tensor]:
    """Pass outputs through queues that began with the frames a host waits for, so that the latency is constant.

    Args:
        outputs: new frames by output; an output may be missing.
        queues: what is held back, by output; it is updated.
        streams: the outputs' rates.
        heard: seconds of input so far.
        given: frames handed out so far, by output.

    Returns:
        As many frames of each output as are due.
    """
    due: dict[str, Tensor] = {}
    for name, stream in streams.items():
        held = queues[name]
        if name in outputs:
            held = torch.cat((held, outputs[name]), dim=-1)
        frames = int(heard * stream.rate) - given[name]
        due[name], queues[name] = held[..., :frames], held[..., frames:].clone()
    return due


def without_first(y: Out, skip: dict[str, int]) -> Out:
    """Output without its first frames; ``skip``, how many are still to be dropped by output, is counted down."""
    named: dict[str, Tensor] = y if isinstance(y, dict) else {next(iter(skip)): y}
    kept = {}
    for name, tensor in named.items():
        dropped = min(skip[name], tensor.shape[-1])
        skip[name] -= dropped
        kept[name] = tensor[..., dropped:]
    return cast("Out", kept if isinstance(y, dict) else next(iter(kept.values())))


def session_text(
    graph: Network[Any],
    batch_size: int,
    positions: Mapping[str, int],
    late: Mapping[str, int],
    controls: Mapping[str, Tensor],
    kept: int,
    faults: int,
) -> str:
    """A session at the prompt: how much it has heard, how late it is, its controls, state (bytes) and faults."""
    heard = ", ".join(
        f"{positions[name]} frames of {name} ({float(positions[name] / stream.rate):.3f} s)"
        for name, stream in graph.inputs.items()
    )
    delays = ", ".join(
        f"{late[name]} frames of {name} late ({ms(late[name] / stream.rate, '')})"
        for name, stream in graph.outputs.items()
    )
    parts = [f"{many(batch_size, 'stream')} at {heard}", delays]
    if controls:
        parts.append(", ".join(f"{name} = {_shown(value)}" for name, value in controls.items()))
    parts.append(f"state {size(kept)}")
    if faults:
        parts.append(many(faults, "fault"))
    return f"<Session of '{graph.name}': {'; '.join(parts)}>"


def _shown(value: Tensor) -> str:
    """A control's values: the number where all are the same, else how many there are."""
    if value.numel() and bool((value == value.flatten()[0]).all()):
        return f"{float(value.flatten()[0]):g}"
    return many(value.shape[-1], "value") + (" a stream" if value.shape[0] > 1 else "")
