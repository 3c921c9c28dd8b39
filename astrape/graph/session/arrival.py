"""Frames and controls that arrive with a push, checked against the graph and copied into a session's own memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import Signal, spread_control
from astrape.capture.record import inference
from astrape.errors import StreamError
from astrape.graph.network import Network, Prepared

__all__ = ["checked_controls", "checked_frames", "checked_rows", "sliced"]


def checked_frames(graph: Network[Any], like: Tensor, x: Signal) -> dict[str, Tensor]:
    """New frames by input, as copies of a session's batch size, device and precision (those of ``like``).

    Raises:
        StreamError: for frames of the wrong shape.
    """
    arrived = graph.as_inputs(x)
    for name, tensor in arrived.items():
        if tensor.shape[0] != len(like):
            raise StreamError(f"'{name}' has {tensor.shape[0]} rows and the session {len(like)}")
        _warn_of_gradient(name, tensor, depth=4)
        # A copy in one order, so that last bits do not depend on how the caller's memory lies.
        arrived[name] = tensor.detach().to(
            device=like.device, dtype=like.dtype, copy=True, memory_format=torch.contiguous_format
        )
    return arrived


def checked_controls(
    graph: Network[Any],
    like: Tensor,
    held: tuple[dict[str, Tensor], Prepared | None],
    given: Mapping[str, Tensor | float],
) -> tuple[dict[str, Tensor], Prepared]:
    """All values with new ones among them, and what the actors derive from them. Nothing is taken yet.

    Args:
        held: values and what was derived from them until now, ``None`` where nothing was yet.
        given: new values by name.

    Raises:
        StreamError: for controls that are missing, unknown or out of range.
    """
    before, prepared = held
    if not given and prepared is not None:
        return before, prepared
    values = dict(before)
    changed = []
    for name, value in given.items():
        graph.check_control(name, value)
        _warn_of_gradient(name, value, depth=5)
        new = spread_control(name, value, graph.controls[name], like).detach()
        # The same value again with every push is not a change: actors derive nothing anew.
        if prepared is None or not torch.equal(new, values[name]):
            values[name] = new
            changed.append(name)
    if prepared is not None and not changed:
        return before, prepared
    if prepared is None:
        values = graph.read_controls(values, like)
    # In memory of their own and of one layout, whether they were given, spread or left at their defaults.
    values = {name: value.clone(memory_format=torch.contiguous_format) for name, value in values.items()}
    with inference(True):
        if prepared is None:
            return values, graph.prepare(values)
        prepared = Prepared(prepared)
        graph.prepare_actors(prepared, values, changed)
    return values, prepared


def checked_rows(like: Tensor, rows: Sequence[int] | Tensor) -> Tensor:
    """Rows of a batch, given as indices or as a mask, as a boolean mask.

    Raises:
        StreamError: for an index out of range, or a mask of another length than the batch.
    """
    count = len(like)
    chosen = torch.as_tensor(rows, device=like.device)
    if chosen.dtype != torch.bool:
        if chosen.numel() and not bool(((chosen >= 0) & (chosen < count)).all()):
            raise StreamError(f"rows must be 0 to {count - 1}, not {chosen.tolist()}")
        mask = torch.zeros(count, dtype=torch.bool, device=like.device)
        mask[chosen.long()] = True
        return mask
    if chosen.shape != (count,):
        raise StreamError(f"a mask of rows has {count} entries, not {tuple(chosen.shape)}")
    return chosen


def sliced(arrived: Mapping[str, Tensor], most: int) -> Iterator[dict[str, Tensor]]:
    """Frames of all inputs in step, in pieces of at most ``most``."""
    slices = -(-max(tensor.shape[-1] for tensor in arrived.values()) // most)
    for index in range(slices):
        yield {
            name: x[..., x.shape[-1] * index // slices : x.shape[-1] * (index + 1) // slices]
            for name, x in arrived.items()
        }


def _warn_of_gradient(name: str, value: Any, depth: int) -> None:
    if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
        warnings.warn(
            f"'{name}' requires a gradient, and what a session returns has none: train through graph(x) or graph.step, "
            "or push detach() of it, or under torch.no_grad()",
            stacklevel=depth,
        )
