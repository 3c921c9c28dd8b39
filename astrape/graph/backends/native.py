"""The native kernels that ``backend="compiled"`` needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from astrape.capture.native.library import library
from astrape.errors import StreamError
from astrape.graph.network import Network

__all__ = ["need_library", "quickest"]


def runs_native(like: Tensor) -> bool:
    """Whether sessions like this are the native kernels' matter."""
    return like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)


def quickest(graph: Network[Any]) -> str | None:
    """The backend by which pushes of one length take the least time: what plays live takes it, and rounding with it.

    Returns:
        ``"compiled"`` where the native kernels are there; ``None``, which leaves it to the session, where they are not.
        Nothing is built for it.
    """
    like = torch.empty(0, dtype=graph.dtype, device=graph.device)
    return "compiled" if runs_native(like) and library() is not None else None


def need_library(like: Tensor) -> None:
    """See to it that the native kernels are there: those that came with the package, or were built before, or now.

    Args:
        like: of a session's device and precision.

    Raises:
        StreamError: for another place than the CPU, another precision than float32 and float64, and where the kernels
            are missing and cannot be built.
    """
    if not runs_native(like):
        found = f"{like.dtype} on {like.device}"
        raise StreamError(f"backend 'compiled' runs in float32 or float64 on the cpu, not in {found}")
    try:
        kernels = library(build=True)
    except OSError as error:
        raise StreamError(
            f"backend 'compiled' needs native kernels, which did not come with this installation, and cannot build "
            f"them: {error}; hint: leave backend out, which needs none"
        ) from error
    if kernels is None:
        raise StreamError("backend 'compiled' has native kernels that this system cannot load: leave backend out")
