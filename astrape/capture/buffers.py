"""Buffers that captured steps read and write: laid out as what they were made from, and filled in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.state import state_leaves
from astrape.capture.record import Unrecordable, addresses

__all__ = ["assign", "equal", "held_copy", "laid_out", "overwrite"]

ALIGNMENT = 64
"""Bytes: where allocators begin, and the widest vectors."""


def held_copy(tree: Any, name: str) -> Any:
    """A copy of what an actor prepared, to be written to."""
    if isinstance(tree, Tensor):
        return _copy_as_it_lies(tree.detach())
    if isinstance(tree, dict):
        return {key: held_copy(item, name) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        items = [held_copy(item, name) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise Unrecordable(f"'{name}' prepares a {type(tree).__name__}, whose values may change unseen")


def assign(held: Any, new: Any, name: str) -> None:
    """Write what an actor prepared anew to where the captured steps read it."""
    if isinstance(held, Tensor) and isinstance(new, Tensor) and _form(held) == _form(new):
        _spread_once(held).copy_(_spread_once(new))
    elif isinstance(held, dict) and isinstance(new, dict) and held.keys() == new.keys():
        for key, item in held.items():
            assign(item, new[key], name)
    elif isinstance(held, (list, tuple)) and isinstance(new, (list, tuple)) and len(held) == len(new):
        for one, other in zip(held, new, strict=True):
            assign(one, other, name)
    elif isinstance(held, Tensor) or isinstance(new, Tensor) or held != new:
        raise Unrecordable(f"'{name}' takes another form with other values of its controls")


def _form(tensor: Tensor) -> tuple[Any, ...]:
    """Type, shape, strides and alignment: all that kernels depend on beside the values."""
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset() * tensor.element_size() % ALIGNMENT


def _spread_once(tensor: Tensor) -> Tensor:
    """A tensor without its repetitions: where it stands still in memory along a dimension, one entry of that."""
    return tensor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride())]


def _copy_as_it_lies(tensor: Tensor) -> Tensor:
    """A copy with the same strides, which ``clone`` does not keep of what is repeated, or a part of something."""
    once = _spread_once(tensor)
    begin = tensor.storage_offset() % ALIGNMENT
    needed = begin + 1 + sum((size - 1) * stride for size, stride in zip(once.shape, once.stride(), strict=True))
    memory = torch.empty(max(0, needed), dtype=tensor.dtype, device=tensor.device)
    copy = memory.as_strided(once.shape, once.stride(), begin)
    copy.copy_(once)
    return memory.as_strided(tensor.shape, tensor.stride(), begin)


def overwrite(own: State, new: State) -> None:
    """Copy a state to where captured steps write it; it may be made of that very memory, in other places."""
    mine = set(addresses(own))
    pairs = [(place, leaf) for (_, place), (_, leaf) in zip(state_leaves(own), state_leaves(new), strict=True)]
    moved = [
        (place, leaf.clone() if mine.intersection(addresses(leaf)) else leaf)
        for place, leaf in pairs
        if place.data_ptr() != leaf.data_ptr() or place.stride() != leaf.stride()
    ]
    for place, leaf in moved:
        place.copy_(leaf)


def equal(one: State, other: State) -> bool:
    """Whether two states have the same values to the last bit; NaN equals NaN."""
    pairs = zip(state_leaves(one), state_leaves(other), strict=True)
    return all(
        torch.equal(a, b) or (a.is_floating_point() and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
        for (_, a), (_, b) in pairs
    )


def laid_out(x: Tensor) -> Tensor:
    """``x`` in the one form in which actors are given frames and states: contiguous, beginning where vectors do.

    Kernels take another way through a strided view, or one that begins amid a vector, and round otherwise on it. What
    actors compute would depend, in its last bits, on how the frames before them happened to be cut.
    """
    if not x.is_contiguous() or x.storage_offset() * x.element_size() % ALIGNMENT:
        return x.clone(memory_format=torch.contiguous_format)
    # Where a dimension is 1, its stride may be anything and still be contiguous.
    stride = 1
    for size, own in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if own != stride:
            return x.view(-1).view(x.shape)
        stride *= max(1, size)
    return x
