"""The whole contract, in order: the first property that breaks is the one that is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch

from astrape.blocks.base import StreamBlock
from astrape.blocks.state import state_bytes
from astrape.measure.causality import (
    check_declared_lookahead,
    check_lookahead,
    check_lookahead_gradient,
    measure_lookahead,
)
from astrape.measure.compare import guarded
from astrape.measure.measurement import Measured, measure_subject
from astrape.measure.subject import ControlValues, Draw, Subject
from astrape.measure.timing import check_latency, check_newest_input, check_oldest_input, check_receptive_field
from astrape.testing.controls import check_controls
from astrape.testing.declarations import check_declarations
from astrape.testing.endurance import check_counters, check_long_run
from astrape.testing.framing import check_framing
from astrape.testing.precision import check_device, check_finite, check_precision
from astrape.testing.purity import check_purity
from astrape.testing.rows import check_nan_isolation, check_row_isolation
from astrape.testing.session import (
    check_constant_latency,
    check_control_position,
    check_flush,
    check_session_chunks,
    check_session_faults,
    check_session_replay,
    check_session_reset,
    check_session_snapshot,
    check_session_state,
)
from astrape.testing.states import check_reset, check_row_reset, check_state
from astrape.testing.streaming import (
    check_empty_step,
    check_gradients,
    check_right_padding,
    check_snapshot,
    check_step_equals_forward,
)

__all__ = ["check_block", "check_graph", "check_sessions"]

FOUNDATIONS: tuple[Callable[[Subject], None], ...] = (
    check_state,
    check_reset,
    check_purity,
    check_snapshot,
    check_lookahead,
    check_lookahead_gradient,
    check_row_isolation,
    check_nan_isolation,
    check_empty_step,
)
"""Properties that the later checks stand on: until a block is pure and causal, comparing two runs of it says little."""

BEHAVIOUR: tuple[Callable[[Subject], None], ...] = (
    check_row_reset,
    check_controls,
    check_finite,
    check_gradients,
    check_precision,
    check_device,
    check_counters,
    check_long_run,
)

SESSIONS: tuple[Callable[[Subject], None], ...] = (
    check_framing,
    check_flush,
    check_constant_latency,
    check_session_reset,
    check_session_snapshot,
    check_session_faults,
    check_session_state,
    check_session_replay,
    check_control_position,
)

MOST_PROBED = 1 << 15
"""Input frames of a graph's receptive field that are still measured; each layer of a deep graph costs as much again."""


def check_block(
    block: StreamBlock,
    *,
    controls: ControlValues | Sequence[ControlValues] | None = None,
    draw: Draw | None = None,
    tolerance: float = 1e-10,
    examples: int = 25,
) -> Measured:
    """Check that a block keeps the contract; one line is a block's whole test::

        def test_my_block():
            check_block(MyBlock(Stream(16000, 4)))

    The block is copied and run in float64 (and, for its dtypes, in float32), in evaluation mode, save for causality and
    row isolation, which are checked in training mode too. Nothing in it is random: a failure comes back as it was.

    A block that runs in training only, which it says by a look-ahead above 0 or ``None``, is checked for being what it
    declares, for rows that do not meet, and for reaching ahead exactly as far as it says.

    Args:
        block: the block under test; left as it is.
        controls: values for its controls, ``{"gain": 0.5}``, or a list of two such settings. Made up when left out:
            a number from 0.2 to 0.8, or noise where a control has several channels.
        draw: makes test input, ``(stream, frames, batch, generator) -> (batch, channels, frames)`` in float64, for a
            block that does not take noise, such as one that looks up indices.
        tolerance: greatest difference of equal things in float64, relative to the larger of 1 and the greatest value.
        examples: chunkings to draw, on top of the fixed ones.

    Returns:
        What was measured on the way: look-ahead, latency, receptive field, state.

    Raises:
        ContractError: naming in ``property_name`` the first property that broke, and in the message what happened
            where, by how much, and what would fix it.
    """
    subject = Subject(block, controls=controls, draw=draw, tolerance=tolerance)
    check_declarations(subject)
    if not subject.streams:
        check_row_isolation(subject)
        check_nan_isolation(subject)
        check_declared_lookahead(subject)
        return _measured(subject)
    for check in FOUNDATIONS:
        check(subject)
    check_step_equals_forward(subject, examples)
    measured = _measured(subject)
    check_receptive_field(subject, measured)
    check_oldest_input(subject, measured)
    check_latency(subject, measured)
    check_right_padding(subject)
    for check in BEHAVIOUR:
        check(subject)
    return measured


def check_graph(
    graph: StreamBlock,
    *,
    controls: ControlValues | Sequence[ControlValues] | None = None,
    draw: Draw | None = None,
    tolerance: float = 1e-10,
    examples: int = 25,
) -> Measured:
    """Check that a compiled graph keeps the contract, as a block, and that its sessions do, whatever the buffers.

    A graph with training-only nodes is checked as it streams: without them. Its declared receptive field may be longer
    than the measured one, since it adds up the worst cases of its blocks, and its latency adds up centres and newest
    inputs, so that the newest input it uses is at most that old. The receptive field is measured where it has at most
    ``MOST_PROBED`` frames.

    Args:
        graph: what ``astrape.load`` or ``astrape.compile`` returned; left as it is.
        controls: values for its controls, or a list of two such settings. Made up within their ranges when left out.
        draw, tolerance, examples: as in :func:`check_block`; ``examples`` chunkings for steps, and as many for pushes.

    Returns:
        What was measured on the way.

    Raises:
        ContractError: naming in ``property_name`` the first property that broke.
    """
    streaming: Any = graph
    if getattr(graph, "training_only", False):
        streaming = streaming.deploy()
    settings = _settings_within_range(streaming) if controls is None else controls
    subject = Subject(streaming, controls=settings, draw=draw, tolerance=tolerance)
    check_declarations(subject)
    for check in FOUNDATIONS:
        check(subject)
    check_step_equals_forward(subject, examples)
    measured = _measured_graph(subject)
    check_receptive_field(subject, measured, exact=False)
    check_newest_input(subject, measured)
    check_right_padding(subject, partial=True)
    for check in BEHAVIOUR:
        check(subject)
    check_sessions(subject, examples)
    return measured


def check_sessions(subject: Subject, examples: int = 25) -> None:
    """Check that the sessions of a graph do what it does, whatever the buffers: the last part of ``check_graph``.

    Raises:
        ContractError: naming in ``property_name`` the first property that broke.
    """
    check_session_chunks(subject, examples)
    for check in SESSIONS:
        check(subject)


def _measured(subject: Subject) -> Measured:
    with guarded("measurement", f"measuring {subject.name}"):
        return measure_subject(subject)


def _measured_graph(subject: Subject) -> Measured:
    with guarded("measurement", f"measuring {subject.name}"):
        if subject.reach(MOST_PROBED) is not None:
            return measure_subject(subject, limit=2 * MOST_PROBED, frames=8, exact=False)
        with torch.no_grad():
            size = state_bytes(subject.block.init_state(1, subject.device, torch.float32))
        return Measured(measure_lookahead(subject), {}, None, size, Fraction(0))


def _settings_within_range(graph: StreamBlock) -> list[ControlValues] | None:
    """Two settings within the ranges that a graph gives its controls; none where it gives none."""
    specs = getattr(graph, "control_specs", {})
    if not specs:
        return None
    generator = torch.Generator().manual_seed(1000)
    found: list[ControlValues] = []
    for part in (0.2, 0.7):
        setting = {}
        for name, channels in graph.controls.items():
            low, high = specs[name].minimum, specs[name].maximum
            noise = torch.rand(channels, generator=generator, dtype=torch.float64)
            if low is None and high is None:
                setting[name] = 0.2 + 0.6 * noise if channels == 1 else 4 * noise - 2
            else:
                low = min(0.0, high - 1) if low is None else low
                high = max(1.0, low + 1) if high is None else high
                setting[name] = low + (high - low) * (part + 0.2 * noise)
        found.append(setting)
    return found
