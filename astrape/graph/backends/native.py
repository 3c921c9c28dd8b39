"""The native kernels that ``backend="compiled"`` needs."""

from __future__ import annotations

import torch
from torch import Tensor

from astrape.capture.native.library import library
from astrape.errors import StreamError

__all__ = ["need_library"]


def need_library(like: Tensor) -> None:
    """See to it that the native kernels are there: those that came with the package, or were built before, or now.

    Args:
        like: of a session's device and precision.

    Raises:
        StreamError: for another place than the CPU, another precision than float32 and float64, and where the kernels
            are missing and cannot be built.
    """
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
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
