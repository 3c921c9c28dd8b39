"""Declarations of a block: exact types, and as many frames and channels as it promises."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import torch

from astrape.blocks.base import Stream, StreamBlock
from astrape.errors import ContractError
from astrape.graph.compile.clocks import strange_time
from astrape.measure.compare import guarded
from astrape.measure.subject import BATCH, Ports, Subject

__all__ = ["DECLARATIONS", "check_declarations"]

DECLARATIONS = "declarations"
"""Name of the property: numbers are exact and of the right type, and outputs are what was declared."""


def check_declarations(subject: Subject) -> None:
    """Quantum, ratio, streams and times are exact, and ``y`` has the channels, frames and dtype they promise.

    Raises:
        ContractError: ``"declarations"``.
    """
    block = subject.block
    _require_exact(block)
    with guarded(DECLARATIONS, f"running {subject.name} on three quanta"), torch.no_grad():
        x = subject.signal(3)
        _require_shape(subject, subject.forward(x), 3, "forward")
        if not subject.streams:
            return
        if type(block).step is StreamBlock.step:
            raise ContractError(
                DECLARATIONS,
                f"{subject.name} declares look-ahead 0 and has no step: implement it, or declare a look-ahead",
            )
        for quanta in (1, 3):
            given = subject.cut(x, 0, quanta)
            result = block.step(subject.given(given), subject.fresh(), subject.prepared())
            if not isinstance(result, tuple) or len(result) != 2:
                raise ContractError(DECLARATIONS, f"step returned a {type(result).__name__}: return (y, state)")
            if len(block.outputs) > 1 and not isinstance(result[0], Mapping):
                raise ContractError(
                    DECLARATIONS, f"step returned one tensor for outputs {', '.join(block.outputs)}: return a dict"
                )
            _require_shape(subject, subject.by_port(result[0]), quanta, "step")


def _require_exact(block: StreamBlock) -> None:
    name = type(block).__name__
    if type(block.quantum) is not int or block.quantum < 1:
        raise ContractError(DECLARATIONS, f"{name}.quantum is {block.quantum!r}: it must be a whole number of frames")
    for port, stream in (*block.inputs.items(), *block.outputs.items()):
        if not isinstance(stream, Stream):
            raise ContractError(DECLARATIONS, f"port '{port}' of {name} is {stream!r}: it must be a Stream")
    for port, count in (*block.consumes.items(), *block.produces.items()):
        if type(count) is not int or count < 1:
            raise ContractError(DECLARATIONS, f"port '{port}' of {name} moves {count!r} frames a step, not 1 or more")
    times = {"lookahead": block.lookahead, "latency": block.latency, "receptive_field": block.receptive_field}
    times |= {f"latencies[{port!r}]": value for port, value in block.latencies.items()}
    for label, value in times.items():
        if value is None and label in ("lookahead", "receptive_field"):
            continue
        if not isinstance(value, Fraction):
            raise ContractError(
                DECLARATIONS, f"{name}.{label} is {value!r}, a {type(value).__name__}: give a Fraction of seconds"
            )
        if value < 0:
            raise ContractError(DECLARATIONS, f"{name}.{label} is {value} s: no time is negative")
    if wrong := strange_time(block):
        raise ContractError(DECLARATIONS, wrong)
    if set(block.latencies) != set(block.outputs):
        raise ContractError(DECLARATIONS, f"{name}.latencies names {list(block.latencies)}, not {list(block.outputs)}")
    if block.latency_by not in ("newest", "centre", "declared"):
        raise ContractError(DECLARATIONS, f"{name}.latency_by is {block.latency_by!r}: use 'newest' or 'centre'")
    for control, channels in block.controls.items():
        if type(channels) is not int or channels < 1:
            raise ContractError(DECLARATIONS, f"control '{control}' of {name} has {channels!r} channels, not 1 or more")


def _require_shape(subject: Subject, y: Ports, quanta: int, face: str) -> None:
    block = subject.block
    if set(y) != set(block.outputs):
        raise ContractError(DECLARATIONS, f"{face} returned outputs {sorted(y)}, not {sorted(block.outputs)}")
    for port, stream in block.outputs.items():
        want = (BATCH, stream.channels, quanta * block.produces[port])
        if tuple(y[port].shape) != want:
            raise ContractError(
                DECLARATIONS,
                f"{face} on {quanta} quanta gave '{port}' as {tuple(y[port].shape)} and {want} is declared "
                f"(batch, channels, quanta * {block.produces[port]}): fix the output, or quantum, ratio and channels",
            )
