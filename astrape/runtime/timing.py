"""Timing of a session's pushes, on one thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from astrape.graph.session import Session

__all__ = ["one_thread", "push_times"]


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread inside the ``with`` block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def push_times(session: Session, pieces: Iterable[Any], controls: Mapping[str, Tensor | float]) -> Iterator[float]:
    """Push pieces one by one; yields the milliseconds of each.

    Args:
        session: the session.
        pieces: what it takes: a tensor, or a dict of them.
        controls: values by name, given with the first piece and held from then on.
    """
    for piece in pieces:
        begin = time.perf_counter()
        session.push(piece, **controls)
        yield (time.perf_counter() - begin) * 1000
        controls = {}
