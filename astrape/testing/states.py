"""The state: the same tree, shapes, dtypes and bytes for ever, its own memory, batch first, fresh when asked for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.state import clone_state, replace_rows, state_bytes, state_leaves
from astrape.errors import ContractError
from astrape.measure.compare import guarded, identical, require_close, rows_of
from astrape.measure.subject import BATCH, Ports, Subject

__all__ = ["RESET", "STATE", "check_reset", "check_row_reset", "check_state", "require_own_memory"]

STATE = "state"
"""Name of the property: structure, shapes, dtypes and strides of the state never change, and it owns its memory."""

RESET = "reset"
"""Name of the property: ``init_state`` gives the state of time zero whatever ran before, for all rows or for some."""


def check_state(subject: Subject) -> None:
    """Look at every tensor of the state, fresh and after chunks of several sizes, for batches of one and of three.

    Raises:
        ContractError: ``"state"``.
    """
    with guarded(STATE, f"the state of {subject.name}"), torch.no_grad():
        for batch in (1, BATCH):
            # One long chunk: a block may work otherwise on many frames than on few.
            many = max(7, min(128, 16384 // max(subject.block.consumes.values())))
            x, prepared, state = subject.signal(many + 9, batch=batch), subject.prepared(batch), subject.fresh(batch)
            require_own_memory(subject, state, {}, "a fresh state")
            _require_batch_first(state, batch)
            first = _describe(state)
            size = state_bytes(state)
            at = 0
            for quanta in (1, 2, many, 5, 1):
                given = subject.cut(x, at, at + quanta)
                y, after = subject.step(given, state, prepared)
                when = f"after a step of {quanta} quanta with a batch of {batch}"
                _require_described(first, _describe(after), when)
                if state_bytes(after) != size:
                    raise ContractError(STATE, f"the state went from {size} to {state_bytes(after)} bytes {when}")
                require_own_memory(subject, after, {**given, **{f"output {p}": t for p, t in y.items()}}, when)
                state, at = after, at + quanta
        _require_dtype_and_device(subject)


def check_reset(subject: Subject) -> None:
    """A fresh state taken after use equals one taken before, and one row of it equals one row of a batch.

    Raises:
        ContractError: ``"reset"``.
    """
    with guarded(RESET, f"resetting {subject.name}"), torch.no_grad():
        before = clone_state(subject.fresh())
        subject.run(subject.signal(5), [2, 3], subject.fresh(), subject.prepared())
        subject.forward(subject.signal(3))
        after, single = subject.fresh(), subject.fresh(1)
        for (path, old), (_, new), (_, lone) in zip(
            state_leaves(before), state_leaves(after), state_leaves(single), strict=True
        ):
            if not identical(old, new):
                raise ContractError(
                    RESET,
                    f"init_state gave another {path} after the block had run: make the state anew, keep none on self",
                )
            if not identical(old, lone.expand(old.shape)):
                raise ContractError(
                    RESET, f"rows of a fresh {path} differ from that of a batch of one: start every row equally"
                )


def check_row_reset(subject: Subject) -> None:
    """A row set back to time zero, even one that holds NaN, goes on as a fresh one; the others do not notice.

    Raises:
        ContractError: ``"reset"``.
    """
    with guarded(RESET, f"resetting rows of {subject.name}"), torch.no_grad():
        prepared, x = subject.prepared(), subject.signal(9, seed=8)
        hurt = {port: tensor.clone() for port, tensor in x.items()}
        for port, count in subject.block.consumes.items():
            hurt[port][1, :, count * 4 : count * 5] = torch.nan
        rows = torch.tensor([False, True, False], device=subject.device)
        _, state = subject.run(hurt, [4, 1], subject.fresh(), prepared)
        y, _ = subject.run(x, [1, 3], replace_rows(state, subject.fresh(1), rows), prepared, 5)
        fresh, _ = subject.run(x, [1, 3], subject.fresh(), prepared, 5)
        _, plain = subject.run(x, [4, 1], subject.fresh(), prepared)
        going, _ = subject.run(x, [1, 3], plain, prepared, 5)
        for what, want, kept in (("the row that was reset", fresh, [1]), ("a row beside it", going, [0, 2])):
            require_close(
                RESET,
                rows_of(y, kept),
                rows_of(want, kept),
                subject.tolerance,
                f"{what} went on differently",
                "derive everything from the state tree, row by row",
            )


def _describe(state: State) -> dict[str, tuple[object, ...]]:
    return {
        path: (
            tuple(leaf.shape),
            str(leaf.dtype),
            # The stride of a dimension of one element addresses nothing.
            tuple(s for s, n in zip(leaf.stride(), leaf.shape, strict=True) if n > 1),
            str(leaf.device),
        )
        for path, leaf in state_leaves(state)
    }


def _require_described(first: dict[str, tuple[object, ...]], now: dict[str, tuple[object, ...]], when: str) -> None:
    if first.keys() != now.keys():
        odd = sorted(first.keys() ^ now.keys())
        raise ContractError(STATE, f"{odd[0]} came or went {when}: keep the tree of init_state")
    for path, seen in now.items():
        for label, old, new in zip(("shape", "dtype", "strides", "device"), first[path], seen, strict=True):
            if old != new:
                raise ContractError(STATE, f"{label} of {path} went from {old} to {new} {when}: keep init_state's")


def _require_batch_first(state: State, batch: int) -> None:
    for path, leaf in state_leaves(state):
        if leaf.dim() == 0 or leaf.shape[0] != batch:
            raise ContractError(
                STATE, f"{path} is {tuple(leaf.shape)} for a batch of {batch}: dimension 0 of every tensor is the batch"
            )


def require_own_memory(subject: Subject, state: State, ports: Ports, when: str) -> None:
    """Every tensor of a state is whole, contiguous, and shares no memory with any other, a port or the module."""
    block = subject.block
    others: list[tuple[str, Tensor]] = [*ports.items(), *block.named_parameters(), *block.named_buffers()]
    seen: dict[int, str] = {address: name for name, tensor in others for address in _address(tensor)}
    for path, leaf in state_leaves(state):
        if not leaf.is_contiguous():
            raise ContractError(STATE, f"{path} is not contiguous {when}, strides {leaf.stride()}: make it so")
        held, needed = leaf.untyped_storage().nbytes(), leaf.numel() * leaf.element_size()
        if held != needed:
            raise ContractError(
                STATE, f"{path} is a view {when}: its {needed} bytes keep {held} alive: hand out .clone() of the part"
            )
        for address in _address(leaf):
            if address in seen:
                raise ContractError(STATE, f"{path} shares memory with '{seen[address]}' {when}: hand out a .clone()")
            seen[address] = path


def _address(tensor: Tensor) -> Iterator[int]:
    if tensor.numel() and tensor.device.type != "meta":
        yield tensor.untyped_storage().data_ptr()


def _require_dtype_and_device(subject: Subject) -> None:
    for dtype in (torch.float32, torch.float64):
        for path, leaf in state_leaves(subject.block.init_state(2, subject.device, dtype)):
            if leaf.is_floating_point() and leaf.dtype not in (dtype, torch.float64):
                raise ContractError(
                    STATE,
                    f"{path} is {leaf.dtype} where {dtype} was asked for: pass dtype on (float64 is for running sums)",
                )
    for path, leaf in state_leaves(subject.block.init_state(2, "meta", torch.float32)):
        if leaf.device.type != "meta":
            raise ContractError(STATE, f"{path} is on {leaf.device} where device 'meta' was asked for: pass device on")
