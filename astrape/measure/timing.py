"""Declared times against measured ones: latency, receptive field, and the oldest input of each output frame."""

from __future__ import annotations

from fractions import Fraction

import torch

from astrape.blocks.base import StreamBlock
from astrape.blocks.state import map_state, state_leaves
from astrape.errors import ContractError
from astrape.measure.causality import gradient
from astrape.measure.compare import guarded
from astrape.measure.measurement import Measured, measure_subject
from astrape.measure.subject import Subject

__all__ = [
    "LATENCY",
    "OLDEST_INPUT",
    "RECEPTIVE_FIELD",
    "check_latency",
    "check_newest_input",
    "check_oldest_input",
    "check_receptive_field",
    "latency_tolerance",
]

LATENCY = "latency"
"""Name of the property: the declared algorithmic latency is the measured one."""

RECEPTIVE_FIELD = "receptive field"
"""Name of the property: the declared receptive field is the measured one."""

OLDEST_INPUT = "oldest input"
"""Name of the property: each output frame reaches back as far as ``oldest_input`` says."""


def check_latency(subject: Subject, measured: Measured | None = None) -> None:
    """Latency by output port: exactly the age of the newest input used, or within a frame that of the support's centre.

    The centre is compared within one frame of the faster of the two rates: the first or last weight of a window may be
    zero, which moves its centre by half a frame. A frame of the slower rate would be a whole hop of an STFT, and would
    let a latency of nothing pass. A frame counts as the interval that it covers; where a block hands on the same
    channels at another rate, as a resampler does, its frames may as well be instants, and are taken as either. A
    latency that is ``"declared"``, such as an echo's, is taken at its word.

    Raises:
        ContractError: ``"latency"``.
    """
    block = subject.block
    measured = measured or _measured(subject, LATENCY)
    for port, seen in measured.latencies.items():
        declared = block.latencies[port]
        allowed, instants = _allowance(block, port)
        if min(abs(declared - seen), abs(declared - (seen - instants))) > allowed:
            how = "centre of the input it depends on" if block.latency_by == "centre" else "newest input it depends on"
            raise ContractError(
                LATENCY,
                f"{subject.name} declares {_time(declared, block)} for '{port}' and measures {_time(seen, block)} by "
                f"the {how}: declare that, or fix the alignment",
            )


def _measured(subject: Subject, name: str) -> Measured:
    with guarded(name, f"measuring {subject.name}"):
        return measure_subject(subject)


def latency_tolerance(block: StreamBlock, port: str) -> Fraction:
    """The most by which an output's measured latency may differ from the declared one, for :func:`check_latency`."""
    allowed, instants = _allowance(block, port)
    return allowed + abs(instants)


def _allowance(block: StreamBlock, port: str) -> tuple[Fraction, Fraction]:
    """The difference that passes, and by how much a latency changes where frames are instants and no intervals."""
    if block.latency_by != "centre":
        return Fraction(0), Fraction(0)
    out = block.outputs[port]
    instants = (1 / out.rate - 1 / block.rate_in) / 2 if block.channels_in == out.channels else Fraction(0)
    return 1 / max(out.rate, *(stream.rate for stream in block.inputs.values())), instants


def check_newest_input(subject: Subject, measured: Measured) -> None:
    """No output of a graph, whose latency adds up centres and newest inputs, is older than its declared latency.

    Raises:
        ContractError: ``"latency"``.
    """
    block = subject.block
    for port, seen in measured.latencies.items():
        if seen > block.latencies[port]:
            raise ContractError(
                LATENCY,
                f"'{port}' of {subject.name} declares {_time(block.latencies[port], block)}, and the newest input it "
                f"uses is {_time(seen, block)} old",
            )


def check_receptive_field(subject: Subject, measured: Measured | None = None, *, exact: bool = True) -> None:
    """The receptive field is neither longer nor shorter than declared; without bound only if it has no end in sight.

    Args:
        subject: the block.
        measured: what was measured of it; measured now when left out.
        exact: refuse a declaration that is too long, too. A graph adds up worst cases, so its own may be.

    Raises:
        ContractError: ``"receptive field"``.
    """
    block = subject.block
    measured = measured or _measured(subject, RECEPTIVE_FIELD)
    declared, seen = block.receptive_field, measured.receptive_field
    if declared is None:
        if seen is not None and exact and not _silent(measured) and not _discrete_memory(subject):
            raise ContractError(
                RECEPTIVE_FIELD,
                f"{subject.name} declares no bound, and outputs reach back {_time(seen, block)} and no further in a "
                f"probe of {_time(measured.probe, block)}: declare that receptive_field",
            )
        return
    if seen is None:
        if measured.probe > declared:
            raise ContractError(
                RECEPTIVE_FIELD,
                f"{subject.name} declares {_time(declared, block)}, and outputs reach back all of a probe of "
                f"{_time(measured.probe, block)}: declare more, or None if there is no bound",
            )
        return
    if seen > declared or (exact and seen < declared and not _silent(measured)):
        raise ContractError(
            RECEPTIVE_FIELD,
            f"{subject.name} declares {_time(declared, block)} and outputs reach back {_time(seen, block)} from the "
            "end of their quantum: declare that",
        )


def check_oldest_input(subject: Subject, measured: Measured | None = None) -> None:
    """``oldest_input`` names, for each output frame of a quantum, the oldest input frame that it depends on.

    Raises:
        ContractError: ``"oldest input"``.
    """
    block = subject.block
    measured = measured or _measured(subject, OLDEST_INPUT)
    with guarded(OLDEST_INPUT, f"oldest_input of {subject.name}"):
        oldest: dict[int, int] = {}
        for supports in measured.support.values():
            for frame, support in supports.items():
                oldest[frame] = min(oldest.get(frame, support.oldest), support.oldest)
        for frame, seen in oldest.items():
            declared = block.oldest_input(frame)
            if (declared is None) != (block.receptive_field is None):
                raise ContractError(
                    OLDEST_INPUT,
                    f"oldest_input({frame}) is {declared} where receptive_field is {block.receptive_field}: both are "
                    "None, or neither",
                )
            if declared is None or measured.receptive_field is None:
                continue
            if declared != seen:
                raise ContractError(
                    OLDEST_INPUT,
                    f"oldest_input({frame}) is {declared} and output frame {frame} of a quantum reaches back to input "
                    f"frame {seen} (0 is the first of the quantum): override oldest_input",
                )


def _silent(measured: Measured) -> bool:
    """Whether nothing was found that any output depends on, as for a generator; then there is nothing to compare."""
    return not any(measured.support.values())


def _discrete_memory(subject: Subject) -> bool:
    """Whether some of the state acts without a gradient: counts, or the paths of a search.

    How far back such a memory can reach is decided by inputs that noise need not hold, so nothing is said against a
    block that calls it unbounded.
    """
    history = 3
    prepared = subject.prepared()
    with torch.no_grad():
        x = subject.signal(history + 4, seed=27)
        _, state = subject.run(x, [history], subject.fresh(), prepared)
    leaves = [leaf for _, leaf in state_leaves(state)]
    if any(not leaf.is_floating_point() for leaf in leaves):
        return True
    with torch.enable_grad():
        state = map_state(lambda leaf: leaf.detach().clone().requires_grad_(), state)
        y, _ = subject.run(x, [4], state, prepared, history)
        slopes = gradient(y, dict(state_leaves(state)))
    return any(slope.numel() > 0 and not bool(slope.any()) for slope in slopes.values())


def _time(seconds: Fraction, block: StreamBlock) -> str:
    frames = seconds * block.rate_in
    return f"{seconds} s ({float(frames):.6g} input frames, {float(seconds) * 1000:.4g} ms)"
