"""The long run: a session that has gone on for a week must sound like its first minute."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from astrape.blocks.state import clone_state, state_bytes, state_leaves
from astrape.errors import ContractError
from astrape.measure.compare import guarded, require_close
from astrape.measure.effort import effort
from astrape.measure.subject import Subject, concatenate

__all__ = ["COUNTERS", "LONG_RUN", "check_counters", "check_long_run"]

LONG_RUN = "long run"
"""Name of the property: after thousands of quanta outputs are finite, as at first, and the state is no larger."""

COUNTERS = "counters"
"""Name of the property: what grows with time is an int64, or a float64 sum, and no float32."""

EXACT_IN_FLOAT32 = 1 << 24

MOST_CALLS = 6000
"""Steps of one quantum in a row: a minute of 10 ms frames."""

CALLS_BUDGET = 40_000
"""Operators that these come to at most."""


def long_quanta(subject: Subject) -> int:
    """Quanta of a long run: 2048 small ones, fewer large ones, and more than the state holds."""
    return max(64, min(2048, 65536 // max(subject.block.consumes.values())), subject.memory() + 64)


def check_long_run(subject: Subject) -> None:
    """Late steps, one quantum each, give what a fresh run over the receptive field gives, or the full-sequence pass.

    The fresh run starts two quanta before the receptive field does, where blocks that see nothing before time zero,
    and not zeros, have left their beginning behind.

    Raises:
        ContractError: ``"long run"``.
    """
    quanta, last = long_quanta(subject), 4
    with guarded(LONG_RUN, f"a long run of {subject.name}"), subject.inference():
        x, prepared, state = subject.signal(quanta + last, batch=1, seed=25), subject.prepared(1), subject.fresh(1)
        size = state_bytes(state)
        for at in range(0, quanta, 256):
            y, state = subject.run(x, [min(256, quanta - at)], state, prepared, at)
            if any(not bool(tensor.isfinite().all()) for tensor in y.values()):
                raise ContractError(LONG_RUN, f"outputs are not finite after quantum {at}: let nothing build up")
        late, state = subject.run(x, [1] * last, state, prepared, quanta)
        if state_bytes(state) != size:
            now = state_bytes(state)
            raise ContractError(LONG_RUN, f"the state went from {size} to {now} bytes over {quanta} quanta")
        reach = subject.reach()
        if reach is not None and reach + 2 < quanta:
            back = reach + 2
            again, _ = subject.run(x, [back, last], subject.fresh(1), prepared, quanta - back)
            want = subject.cut_output(again, back, back + last)
            what = f"quantum {quanta} of a long run differs from a fresh run over the receptive field before it"
            hint = "depend on nothing older than the receptive field; where a clock in the state is meant, declare None"
        else:
            want = subject.cut_output(subject.forward(x), quanta, quanta + last)
            what = f"step at quantum {quanta} differs from forward"
            hint = "keep sums in float64 and positions in integers"
        # Sums over the run round differently by its length.
        require_close(LONG_RUN, late, want, subject.tolerance * 10, what, hint)
        _check_many_calls(subject)


def _check_many_calls(subject: Subject) -> None:
    """Thousands of calls of one quantum: what counts calls, and not frames, shows here."""
    calls = effort(subject, batch=1).calls(CALLS_BUDGET, MOST_CALLS)
    x, prepared, state = subject.signal(calls, batch=1, seed=27), subject.prepared(1), subject.fresh(1)
    size, parts = state_bytes(state), []
    for at in range(calls):
        y, state = subject.step(subject.cut(x, at, at + 1), state, prepared)
        parts.append(y)
        if (at % 256 == 0 or at == calls - 1) and state_bytes(state) != size:
            raise ContractError(LONG_RUN, f"the state went from {size} to {state_bytes(state)} bytes in {at + 1} steps")
    what = f"{calls} steps of one quantum differ from forward"
    hint = "count frames and not calls, and let nothing change after some time"
    require_close(LONG_RUN, concatenate(parts), subject.forward(x), subject.tolerance * 10, what, hint)


def check_counters(subject: Subject) -> None:
    """Under a constant input, whatever in the state still grows by the same amount at every look is counting.

    Counting is for int64, summing for float64: a float32 that grows by one a step stands still at 2^24.

    Raises:
        ContractError: ``"counters"``.
    """
    looks, stride = 4, max(4, long_quanta(subject) // 16)
    with guarded(COUNTERS, f"a long run of {subject.name}"), torch.no_grad():
        frame = {p: t[..., :1].abs() + 0.5 for p, t in subject.signal(1, batch=1, seed=26).items()}
        x = {p: t.expand(-1, -1, stride * subject.block.consumes[p]).contiguous() for p, t in frame.items()}
        prepared, state = subject.prepared(1), subject.fresh(1)
        seen: list[dict[str, Tensor]] = []
        for _ in range(looks):
            _, state = subject.step(x, state, prepared)
            seen.append({path: leaf.double() for path, leaf in state_leaves(clone_state(state))})
        asked = dict(state_leaves(subject.block.init_state(1, subject.device, torch.float32)))
        for path, leaf in asked.items():
            rises = [after[path] - before[path] for before, after in pairwise(seen)]
            if not rises[0].numel():
                continue
            # A long average also rises almost evenly at first, but not to one part in a million.
            even = torch.stack([(rise - rises[0]).abs() <= 1e-6 * rises[0].abs() for rise in rises]).all(dim=0)
            growing = even & (rises[0].abs() > 1e-9)
            if bool(growing.any()) and leaf.dtype not in (torch.int64, torch.float64):
                rise = float(rises[0][growing].abs().max()) / stride
                raise ContractError(
                    COUNTERS,
                    f"{path} is {leaf.dtype} and grows by {rise:.4g} a quantum: float32 stops counting at "
                    f"{EXACT_IN_FLOAT32}, {_when(subject, rise)} from the start: count in int64, sum in float64",
                )


def _when(subject: Subject, rise: float) -> str:
    port, count = next(iter(subject.block.consumes.items()))
    seconds = EXACT_IN_FLOAT32 / rise * count / float(subject.block.inputs[port].rate)
    return f"{seconds:.3g} s"
