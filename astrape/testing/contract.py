"""The whole contract, in order: the first property that breaks is the one that is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from astrape.blocks.base import StreamBlock
from astrape.testing.causality import check_declared_lookahead, check_lookahead, check_lookahead_gradient
from astrape.testing.compare import guarded
from astrape.testing.controls import check_controls
from astrape.testing.declarations import check_declarations
from astrape.testing.endurance import check_counters, check_long_run
from astrape.testing.measurement import Measured, measure_subject
from astrape.testing.precision import check_device, check_finite, check_precision
from astrape.testing.purity import check_purity
from astrape.testing.rows import check_nan_isolation, check_row_isolation
from astrape.testing.states import check_reset, check_row_reset, check_state
from astrape.testing.streaming import (
    check_empty_step,
    check_gradients,
    check_right_padding,
    check_snapshot,
    check_step_equals_forward,
)
from astrape.testing.subject import ControlValues, Draw, Subject
from astrape.testing.timing import check_latency, check_oldest_input, check_receptive_field

__all__ = ["check_block"]

FOUNDATIONS: tuple[Callable[[Subject], None], ...] = (
    check_state,
    check_reset,
    check_purity,
    check_lookahead,
    check_lookahead_gradient,
    check_row_isolation,
    check_nan_isolation,
    check_empty_step,
)
"""Properties that the later checks stand on: until a block is pure and causal, comparing two runs of it says little."""

BEHAVIOUR: tuple[Callable[[Subject], None], ...] = (
    check_row_reset,
    check_right_padding,
    check_snapshot,
    check_controls,
    check_finite,
    check_gradients,
    check_precision,
    check_device,
    check_counters,
    check_long_run,
)


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
            where, by how much, and what would mend it.
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
    for check in BEHAVIOUR:
        check(subject)
    return measured


def _measured(subject: Subject) -> Measured:
    with guarded("measurement", f"measuring {subject.name}"):
        return measure_subject(subject)
