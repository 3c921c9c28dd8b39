"""Purity: a step changes nothing but what it returns, and depends on nothing but what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from astrape.blocks.state import clone_state, state_leaves
from astrape.errors import ContractError
from astrape.measure.compare import guarded, identical, require_close, tensors_of
from astrape.measure.subject import Subject

__all__ = ["PURITY", "check_purity"]

PURITY = "purity"
"""Name of the property: ``step`` and ``forward`` mutate nothing and hide nothing, and equal calls give equal bits."""


def check_purity(subject: Subject) -> None:
    """Arguments keep their bits, equal calls give equal bits, and two streams through one block do not meet.

    Raises:
        ContractError: ``"purity"``.
    """
    with guarded(PURITY, f"running {subject.name}"), torch.no_grad():
        _check_arguments(subject)
        _check_repeats(subject)
        _check_interleaving(subject)
        _check_module(subject)


def _check_arguments(subject: Subject) -> None:
    x, prepared = subject.signal(8, seed=9), subject.prepared()
    _, state = subject.run(x, [3], subject.fresh(), prepared)
    watched: list[tuple[str, Tensor]] = [
        *((f"input '{port}'", tensor) for port, tensor in x.items()),
        *state_leaves(state, "the incoming state"),
        *tensors_of(prepared, "what prepare returned"),
        *((f"parameter '{name}'", p) for name, p in subject.block.named_parameters()),
        *((f"buffer '{name}'", b) for name, b in subject.block.named_buffers()),
    ]
    before = [(tensor._version, tensor.clone()) for _, tensor in watched]
    subject.run(x, [1, 4], state, prepared, 3)
    subject.forward(x)
    for (name, tensor), (version, copy) in zip(watched, before, strict=True):
        if not identical(tensor, copy) or tensor._version != version:
            raise ContractError(
                PURITY,
                f"step wrote into {name} in place: work on a copy (a runtime may donate memory, a block may not)",
            )


def _check_repeats(subject: Subject) -> None:
    x, prepared = subject.signal(6, seed=10), subject.prepared()
    _, state = subject.run(x, [2], subject.fresh(), prepared)
    first, left = subject.run(x, [1, 3], clone_state(state), prepared, 2)
    second, right = subject.run(x, [1, 3], clone_state(state), prepared, 2)
    hint = "take randomness and memory from the state, not from a global generator or from self"
    require_close(PURITY, second, first, 0.0, "two calls of step with equal arguments differ", hint)
    for (path, old), (_, new) in zip(state_leaves(left), state_leaves(right), strict=True):
        if not identical(old, new):
            raise ContractError(PURITY, f"two calls of step with equal arguments left different {path}: {hint}")
    require_close(PURITY, subject.forward(x), subject.forward(x), 0.0, "two calls of forward differ", hint)


def _check_interleaving(subject: Subject) -> None:
    first_x, second_x, prepared = subject.signal(6, seed=11), subject.signal(6, seed=12), subject.prepared()
    apart, _ = subject.run(first_x, [1] * 6, subject.fresh(), prepared)
    state, other = subject.fresh(), subject.fresh()
    for at in range(6):
        y, state = subject.step(subject.cut(first_x, at, at + 1), state, prepared)
        _, other = subject.step(subject.cut(second_x, at, at + 1), other, prepared)
        require_close(
            PURITY,
            y,
            subject.cut_output(apart, at, at + 1),
            0.0,
            "a stream differs when another runs through the same block in between",
            "keep memory in the state, none on self",
        )


def _check_module(subject: Subject) -> None:
    """A second round of the same shapes leaves no trace on the module: what the first one cached is not memory."""
    saved_keys = set(subject.block.state_dict())
    traces = []
    for seed in (13, 14):
        x, prepared = subject.signal(6, seed=seed), subject.prepared()
        _, state = subject.run(x, [1, 3], subject.fresh(), prepared)
        subject.run(x, [1, 1], state, prepared, 4)
        subject.forward(x)
        traces.append(
            {
                f"{prefix}{name}": _trace(value)
                for prefix, module in _modules(subject.block)
                for name, value in vars(module).items()
                if name not in ("_parameters", "_modules", "_buffers")
            }
        )
    for name in traces[0].keys() | traces[1].keys():
        if traces[0].get(name) != traces[1].get(name):
            raise ContractError(PURITY, f"running changed self.{name}: a block remembers in its state, not on itself")
    if set(subject.block.state_dict()) != saved_keys:
        raise ContractError(PURITY, "running added entries to state_dict: state is passed in and returned, never saved")


def _modules(block: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{name}." if name else "", module) for name, module in block.named_modules()]


def _trace(value: Any, depth: int = 4) -> object:
    """A value's content as far as it is data, to be compared later; code and foreign objects count by identity."""
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return repr(value)
    if isinstance(value, Tensor):
        return (str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes())
    if depth == 0 or isinstance(value, nn.Module):
        return id(value)
    if isinstance(value, Mapping):
        return tuple((repr(key), _trace(item, depth - 1)) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return (type(value).__name__, tuple(_trace(item, depth - 1) for item in value))
    return id(value)
