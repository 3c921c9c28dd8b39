"""State trees: tensors in dicts, lists and tuples, with the batch as dimension 0 of every tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State

__all__ = ["clone_state", "map_state", "replace_rows", "state_bytes", "state_leaves"]


def map_state(function: Callable[..., Any], state: State, *others: State) -> Any:
    """Apply ``function`` to the tensors at the same place in one or more trees of the same structure."""
    if isinstance(state, Tensor):
        return function(state, *others)
    if isinstance(state, dict):
        return {key: map_state(function, state[key], *(other[key] for other in others)) for key in state}
    if isinstance(state, (list, tuple)):
        return type(state)(map_state(function, *items) for items in zip(state, *others, strict=True))
    raise TypeError(f"a state holds tensors, dicts, lists and tuples, not {type(state).__name__}")


def state_leaves(state: State, path: str = "state") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a tree with their paths, such as ``state['keys'][0]``."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict):
        for key, item in state.items():
            yield from state_leaves(item, f"{path}[{key!r}]")
    elif isinstance(state, (list, tuple)):
        for index, item in enumerate(state):
            yield from state_leaves(item, f"{path}[{index}]")
    else:
        kind = type(state).__name__
        raise TypeError(f"{path} is a {kind}: a state holds tensors, dicts, lists and tuples, () for none")


def clone_state(state: State) -> State:
    """A copy that shares no memory with ``state``."""
    return map_state(lambda tensor: tensor.detach().clone(), state)


def state_bytes(state: State) -> int:
    """Bytes of all tensors of the tree."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in state_leaves(state))


def replace_rows(state: State, fresh: State, rows: Tensor) -> State:
    """``state`` with the batch rows where the boolean ``rows`` is true taken from ``fresh``, which may have one row."""

    def choose(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(rows.reshape(-1, *(1,) * (old.dim() - 1)), new, old)

    return map_state(choose, state, fresh)
