"""Snapshots of sessions, read back: everything is checked and copied before a session takes any of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.state import map_state
from astrape.errors import StreamError
from astrape.graph.network import Network
from astrape.graph.session.faults import FaultGuard

__all__ = ["Snapshot", "read_snapshot"]


class Snapshot(NamedTuple):
    """A snapshot that was checked, for a session to go on from; see ``Session``."""

    state: State
    waiting: dict[str, Tensor]
    late: dict[str, Tensor]
    controls: dict[str, Tensor]
    positions: dict[str, int]
    given: dict[str, int]
    faults: FaultGuard


def read_snapshot(
    saved: dict[str, Any], graph: Network[Any], like: Tensor, places: Iterable[str], constant_latency: bool
) -> Snapshot:
    """Copy what ``Session.snapshot`` gave.

    Args:
        saved: as it was given, or loaded from a file.
        graph: what is streamed.
        like: ``(batch, 1, 1)``, of the session's device and precision; the snapshot's may be others.
        places: where frames may wait.
        constant_latency: of the session.

    Raises:
        StreamError: for a snapshot of another graph, batch size or mode, and for what does not fit the graph.
    """
    batch = len(like)
    for key, value in (("graph", graph.name), ("batch_size", batch), ("constant_latency", constant_latency)):
        if saved.get(key) != value:
            raise StreamError(f"the snapshot has {key} {saved.get(key)!r} and this session {value!r}")
    try:
        fresh = graph.init_state(batch, like.device, like.dtype)
        waiting, late, controls = (
            {name: _as(like, tensor, same_shape=False) for name, tensor in saved[part].items()}
            for part in ("waiting", "late", "controls")
        )
        strange = waiting.keys() - set(places)
        if strange:
            raise ValueError(f"nothing waits at '{min(strange)}': amid a quantum, backends differ in what waits")
        faults = FaultGuard(batch)
        faults.load(saved["faults"])
        return Snapshot(
            state=map_state(_as, fresh, saved["state"]),
            waiting=waiting,
            late=late,
            controls=controls,
            positions={name: int(saved["positions"][name]) for name in graph.inputs},
            given={name: int(saved["given"][name]) for name in graph.outputs},
            faults=faults,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StreamError(
            f"the snapshot does not fit '{graph.name}' ({error}): take it from a session of the same recipe"
        ) from error


def _as(like: Tensor, saved: Tensor, same_shape: bool = True) -> Tensor:
    """A copy of ``saved`` where ``like`` is, and in its precision where it is a real number."""
    if same_shape and saved.shape != like.shape:
        raise ValueError(f"{tuple(saved.shape)} where {tuple(like.shape)} is kept")
    dtype = like.dtype if saved.is_floating_point() and like.is_floating_point() else saved.dtype
    return saved.detach().to(device=like.device, dtype=dtype, copy=True)
