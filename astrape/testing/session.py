"""Sessions: a compiled graph run live gives what it gives at once, however the host cuts its buffers.

A graph is taken by its face alone: ``stream()``, ``latencies``, ``host_latencies`` and ``framings``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings

from astrape.errors import ContractError
from astrape.measure.compare import guarded, require_close, rows_of
from astrape.measure.effort import effort
from astrape.measure.subject import BATCH, Ports, Subject, concatenate
from astrape.testing.strategies import chunkings

__all__ = [
    "CONSTANT_LATENCY",
    "CONTROL_POSITION",
    "FLUSH",
    "SESSION_CHUNKS",
    "SESSION_FAULTS",
    "SESSION_REPLAY",
    "SESSION_RESET",
    "SESSION_SNAPSHOT",
    "SESSION_STATE",
    "check_constant_latency",
    "check_control_position",
    "check_flush",
    "check_session_chunks",
    "check_session_faults",
    "check_session_replay",
    "check_session_reset",
    "check_session_snapshot",
    "check_session_state",
]

SESSION_CHUNKS = "session chunks"
"""Name of the property: pushes of any sizes, none and one frame among them, give what ``graph(x)`` gives."""

FLUSH = "flush"
"""Name of the property: ``flush`` returns exactly the missing frames and leaves the session as new."""

CONSTANT_LATENCY = "constant latency"
"""Name of the property: that mode returns as many frames as it is given, each the declared latency late."""

SESSION_RESET = "session reset"
"""Name of the property: a row reset at a period's end goes on as a fresh stream, and the others do not notice."""

SESSION_SNAPSHOT = "session snapshot"
"""Name of the property: a session brought back to a snapshot goes on exactly as it did from there."""

SESSION_FAULTS = "session faults"
"""Name of the property: NaN in one row reaches no other row, and goes with ``reset``."""

SESSION_STATE = "session state"
"""Name of the property: the bytes of a session's state never change."""

SESSION_REPLAY = "session replay"
"""Name of the property: pushes of a length that was named beforehand give the same bits as any others."""

MOST_RECORDED = 1500
"""Operators of a period up to which it is recorded here: twice that of a small voice converter."""

PLAYED = 6
"""Pushes that are compared."""

CONTROL_POSITION = "control position"
"""Name of the property: what a change of a control does depends on its place in the stream, not on the buffers."""


def lead_frames(subject: Subject) -> int:
    """Frames of the first input in most checks: some periods and an odd rest."""
    count = next(iter(subject.block.consumes.values()))
    return max(3, min(40, 2048 // count), subject.memory() + 3) * count + count // 3 + (count > 1)


def check_session_chunks(subject: Subject, examples: int = 25) -> None:
    """Chunkings drawn by Hypothesis, in frames and not in quanta, give the frames of ``graph(x)``.

    Raises:
        ContractError: ``"session chunks"``.
    """
    frames = lead_frames(subject)
    with guarded(SESSION_CHUNKS, f"a session of {subject.name}"), torch.no_grad():
        x = _signal(subject, frames, seed=40)
        whole = subject.forward(x)
        few = min(frames, 400)
        start, start_whole = _cut(x, 0, few, frames), subject.forward(_cut(x, 0, few, frames))

        def compare(chunks: Sequence[int], x: Ports = x, want: Ports = whole) -> None:
            y = _push_all(subject, _session(subject), x, chunks)
            what = f"pushes of {list(chunks)} frames differ from graph(x)"
            require_close(SESSION_CHUNKS, y, want, subject.tolerance, what, "carry what waits for a quantum, in order")

        compare([frames])
        compare([0, frames // 2, 0, 0, frames - frames // 2, 0])
        compare([1] * few, start, start_whole)

        @settings(
            max_examples=max(1, examples),
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(chunks=chunkings(frames).filter(lambda chunks: len(chunks) <= 100))
        def drawn(chunks: list[int]) -> None:
            compare(chunks)

        if examples > 0:
            drawn()


def check_flush(subject: Subject) -> None:
    """Pushed and flushed, any number of frames gives as many as it lasts, and the latency more; then all starts anew.

    Raises:
        ContractError: ``"flush"``.
    """
    block = subject.block
    count = next(iter(block.consumes.values()))
    with guarded(FLUSH, f"flushing a session of {subject.name}"), torch.no_grad():
        session = _session(subject)
        for frames in sorted({1, count, 2 * count + count // 2, lead_frames(subject)}):
            x = _signal(subject, frames, seed=41)
            pushed = _push_all(subject, session, x, [frames // 3, frames - frames // 3])
            y = concatenate([pushed, subject.by_port(session.flush())])
            heard = max(tensor.shape[-1] / block.inputs[port].rate for port, tensor in x.items())
            periods = heard / _period(subject)
            drained = math.ceil(periods + max(block.latencies.values()) / _period(subject)) + 2
            padded = {
                port: torch.cat([t, t.new_zeros(*t.shape[:2], drained * block.consumes[port] - t.shape[-1])], dim=-1)
                for port, t in x.items()
            }
            full = subject.forward(padded)
            wanted = {
                port: math.ceil(heard * stream.rate) + math.ceil(block.latencies[port] * stream.rate)
                for port, stream in block.outputs.items()
            }
            require_close(
                FLUSH,
                y,
                {port: tensor[..., : wanted[port]] for port, tensor in full.items()},
                subject.tolerance,
                f"{frames} frames, pushed and flushed",
                "feed exactly the silence that drains the latency, and reset after it",
            )


def check_constant_latency(subject: Subject) -> None:
    """Output in constant-latency mode keeps step with input, and frame *n* is that of *n* less the waiting time.

    Raises:
        ContractError: ``"constant latency"``.
    """
    graph: Any = subject.block
    frames = lead_frames(subject)
    with guarded(CONSTANT_LATENCY, f"a session of {subject.name} in constant-latency mode"), torch.no_grad():
        x = _signal(subject, frames, seed=42)
        whole = subject.forward(x)
        for size in (1, 7, max(2, frames // 5)):
            session = graph.stream(batch_size=BATCH, dtype=subject.dtype, constant_latency=True)
            total = min(frames, 400 * size)
            values: dict[str, Any] = dict(subject.values())
            given, parts = dict.fromkeys(graph.outputs, 0), []
            for at in range(0, total, size):
                y = subject.by_port(session.push(subject.given(_cut(x, at, min(at + size, total), frames)), **values))
                values = {}
                parts.append(y)
                heard = min(
                    Fraction(_scaled(min(at + size, total), frames, tensor.shape[-1])) / graph.inputs[port].rate
                    for port, tensor in x.items()
                )
                for port, tensor in y.items():
                    given[port] += tensor.shape[-1]
                    due = int(heard * graph.outputs[port].rate)
                    waited = graph.framings[port].seconds * graph.outputs[port].rate
                    # A framing that ends within an output frame lets one frame come with the next input.
                    if not due - (waited.denominator > 1) <= given[port] <= due:
                        raise ContractError(
                            CONSTANT_LATENCY,
                            f"after {min(at + size, total)} frames in pushes of {size}, '{port}' gave {given[port]} "
                            f"and {due} were due: hold back what the declared framing waits for",
                        )
            for port, tensor in concatenate(parts).items():
                stream = graph.outputs[port]
                waits = graph.host_latencies[port] - math.ceil(graph.latencies[port] * stream.rate)
                late = torch.cat([tensor.new_zeros(*tensor.shape[:2], waits), whole[port]], dim=-1)
                what = f"pushes of {size} frames, against graph(x) {waits} frames later"
                got, want = {port: tensor}, {port: late[..., : tensor.shape[-1]]}
                require_close(CONSTANT_LATENCY, got, want, subject.tolerance, what, "keep the queue in order")


def check_session_reset(subject: Subject) -> None:
    """One row is reset after some whole periods: it goes on as a fresh stream, the others as if nothing had been.

    Raises:
        ContractError: ``"session reset"``.
    """
    with guarded(SESSION_RESET, f"resetting a row of a session of {subject.name}"), torch.no_grad():
        quanta = max(2, subject.memory() // 2)
        x = subject.signal(quanta + max(4, subject.memory()), seed=43)
        session, undisturbed, fresh = (_session(subject) for _ in range(3))
        values = subject.values()
        first, later = subject.cut(x, 0, quanta), subject.cut(x, quanta, quanta + max(4, subject.memory()))
        for each in (session, undisturbed):
            each.push(subject.given(first), **values)
        session.reset(rows=[1])
        y = subject.by_port(session.push(subject.given(later)))
        going = subject.by_port(undisturbed.push(subject.given(later)))
        new = subject.by_port(fresh.push(subject.given(later), **values))
        for what, want, rows in (("the row that was reset", new, [1]), ("a row beside it", going, [0, 2])):
            require_close(
                SESSION_RESET,
                rows_of(y, rows),
                rows_of(want, rows),
                subject.tolerance,
                f"{what} went on differently",
                "reset everything that the session holds for a row, and only that",
            )


def check_session_snapshot(subject: Subject) -> None:
    """A snapshot amid a quantum, gone back to, and taken over by another session, gives bitwise the same twice.

    Raises:
        ContractError: ``"session snapshot"``.
    """
    frames = lead_frames(subject)
    with guarded(SESSION_SNAPSHOT, f"a snapshot of a session of {subject.name}"), torch.no_grad():
        x = _signal(subject, frames, seed=44)
        middle = frames // 2 + 1
        session, other = _session(subject), _session(subject)
        session.push(subject.given(_cut(x, 0, middle, frames)), **subject.values())
        saved = session.snapshot()
        rest = subject.given(_cut(x, middle, frames, frames))
        first = subject.by_port(session.push(rest))
        for what, one in (("the session", session), ("another session", other)):
            one.restore(saved)
            what = f"{what}, brought back to a snapshot, went on differently"
            require_close(SESSION_SNAPSHOT, subject.by_port(one.push(rest)), first, 0.0, what, "copy all that it holds")


def check_session_faults(subject: Subject) -> None:
    """NaN in a row, and the rows beside it as without; after ``reset`` the row is as new.

    Raises:
        ContractError: ``"session faults"``.
    """
    frames = lead_frames(subject)
    with guarded(SESSION_FAULTS, f"NaN in a session of {subject.name}"), torch.no_grad():
        x = _signal(subject, frames, seed=45)
        hurt = {port: tensor.clone() for port, tensor in x.items()}
        for tensor in hurt.values():
            tensor[1, :, tensor.shape[-1] // 3] = torch.nan
        session = _session(subject)
        y = _push_all(subject, session, hurt, [frames])
        want = _push_all(subject, _session(subject), x, [frames])
        session.reset()
        again = _push_all(subject, session, x, [frames])
        for what, got, rows in (("a row beside one with NaN", y, [0, 2]), ("a session after reset", again, [0, 1, 2])):
            require_close(
                SESSION_FAULTS,
                rows_of(got, rows),
                rows_of(want, rows),
                subject.tolerance,
                f"{what} differs",
                "keep rows apart, and let reset clear everything",
            )


def check_session_state(subject: Subject) -> None:
    """The state has the bytes it began with after pushes of any sizes.

    Raises:
        ContractError: ``"session state"``.
    """
    frames = lead_frames(subject)
    with guarded(SESSION_STATE, f"a session of {subject.name}"), torch.no_grad():
        session, x = _session(subject), _signal(subject, frames, seed=46)
        size, at, values = session.state_bytes, 0, subject.values()
        for count in (1, 0, frames // 4, 2, frames // 2):
            session.push(subject.given(_cut(x, at, at + count, frames)), **values)
            at += count
            if session.state_bytes != size:
                raise ContractError(
                    SESSION_STATE, f"the state went from {size} to {session.state_bytes} bytes after {at} frames"
                )


def check_session_replay(subject: Subject) -> None:
    """A session that was told its chunk gives, to the last bit, what one gives that was not.

    Nothing is done for a graph whose recording would take long.

    Raises:
        ContractError: ``"session replay"``.
    """
    graph: Any = subject.block
    if effort(subject).of(1) > MOST_RECORDED:
        return
    with guarded(SESSION_REPLAY, f"a session of {subject.name} with a chunk"), torch.no_grad():
        for chunk in ({port: max(1, count // 3) for port, count in graph.consumes.items()}, graph.consumes):
            captured = graph.stream(batch_size=BATCH, dtype=subject.dtype, device=subject.device, chunk=dict(chunk))
            plain, values = _session(subject), subject.values()
            x = subject.signal(PLAYED, seed=49)
            for push in range(PLAYED):
                piece = {port: x[port][..., push * count : (push + 1) * count] for port, count in chunk.items()}
                got, want = (subject.by_port(s.push(subject.given(piece), **values)) for s in (captured, plain))
                values = subject.values(setting=1) if push == PLAYED // 2 else {}
                what = f"push {push} of {next(iter(chunk.values()))} frames has other bits than without a chunk"
                hint = "let every run hand blocks the same memory"
                require_close(SESSION_REPLAY, got, want, 0.0, what, hint)


def check_control_position(subject: Subject) -> None:
    """All controls change at one frame: buffers of other sizes before and after it give the same.

    Raises:
        ContractError: ``"control position"``.
    """
    if not subject.block.controls:
        return
    frames = lead_frames(subject)
    change = frames // 2 + 1
    with guarded(CONTROL_POSITION, f"changing controls in a session of {subject.name}"), torch.no_grad():
        x = _signal(subject, frames, seed=47)
        found = []
        for before, after in (([change], [frames - change]), ([1, 0, change - 1], [2, frames - change - 2])):
            session = _session(subject)
            first = _push_all(subject, session, _cut(x, 0, change, frames), before)
            later = _push_all(subject, session, _cut(x, change, frames, frames), after, setting=1)
            found.append(concatenate([first, later]))
        what = f"controls changed at frame {change}, with other buffers"
        require_close(CONTROL_POSITION, found[1], found[0], subject.tolerance, what, "act at quanta, not at buffers")


def _session(subject: Subject) -> Any:
    graph: Any = subject.block
    return graph.stream(batch_size=BATCH, dtype=subject.dtype, device=subject.device)


def _period(subject: Subject) -> Fraction:
    port, count = next(iter(subject.block.consumes.items()))
    return count / subject.block.inputs[port].rate


def _signal(subject: Subject, frames: int, seed: int) -> Ports:
    """A random signal of ``frames`` at the first input, and as long, rounded down, at every other one."""
    block = subject.block
    quanta = -(-frames // next(iter(block.consumes.values())))
    seconds = frames / block.rate_in
    return {
        port: tensor[..., : int(seconds * block.inputs[port].rate)]
        for port, tensor in subject.signal(quanta, seed=seed).items()
    }


def _scaled(at: int, frames: int, own: int) -> int:
    return at * own // frames if frames else 0


def _cut(x: Ports, start: int, stop: int, frames: int) -> Ports:
    """Every input between two moments, given in frames of the first one, which has ``frames`` in all."""
    return {
        port: tensor[..., _scaled(start, frames, tensor.shape[-1]) : _scaled(stop, frames, tensor.shape[-1])]
        for port, tensor in x.items()
    }


def _push_all(subject: Subject, session: Any, x: Ports, chunks: Sequence[int], setting: int = 0) -> Ports:
    frames, at, parts = next(iter(x.values())).shape[-1], 0, []
    values: dict[str, Any] = dict(subject.values(setting=setting))
    for count in chunks:
        parts.append(subject.by_port(session.push(subject.given(_cut(x, at, at + count, frames)), **values)))
        at, values = at + count, {}
    return concatenate(parts)
