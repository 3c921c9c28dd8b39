"""The precision of a session's weights, where another than theirs is asked for."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from astrape.capture.native.narrow import Weights
from astrape.errors import StreamError
from astrape.graph.network import Network
from astrape.graph.typed import Out

__all__ = ["PRECISIONS", "check_precision", "read_as", "with_halves"]

PRECISIONS = ("float32", "float16", "int8")


def check_precision(precision: str | None, backend: str | None, like: Tensor) -> None:
    """Refuse an unknown precision, or one that this backend lacks.

    Args:
        precision: what was asked for; ``None`` for nothing.
        backend: what was asked for to run the session.
        like: of a session's device and precision.

    Raises:
        StreamError: what is wrong, and what to take.
    """
    if precision is None:
        return
    if precision not in PRECISIONS:
        raise StreamError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "int8":
        raise StreamError(
            "precision 'int8' is not there: it saves too little for what it costs, by the figures in docs/speed.md; "
            "hint: precision='float16' with backend='compiled'"
        )
    if like.dtype != torch.float32:
        raise StreamError(
            f"precision '{precision}' is of the weights of a session in torch.float32, not in {like.dtype}: "
            "hint: leave precision or dtype out"
        )
    if precision == "float16" and backend != "compiled":
        named = f"backend '{backend}'" if backend else "a session without a backend"
        raise StreamError(f"{named} reads weights as float32 alone: hint: backend='compiled' for precision 'float16'")


def with_halves(graph: Network[Out]) -> Network[Out]:
    """A copy of a graph whose parameters are rounded to float16, and float32 as before. Buffers stay as they are.

    Raises:
        StreamError: for a parameter beyond float16; it is named.
    """
    made = copy.deepcopy(graph)
    for name, parameter in made.named_parameters():
        if not parameter.is_floating_point():
            continue
        held: Any = parameter.detach().to(torch.float16)
        if not bool(held.isfinite().all()):
            most = float(parameter.detach().abs().max())
            raise StreamError(
                f"precision 'float16': '{name}' has a weight of {most:g}, and float16 ends at 65504: "
                "hint: precision='float32'"
            )
        parameter.data = held.to(parameter.dtype)
    return made


def read_as(weights: Weights, precision: str | None) -> str:
    """The precision in which captured steps read their weights, and the reason."""
    half, full = weights.half_bytes / 1e6, weights.full_bytes / 1e6
    why = "rounded to it, as asked for" if precision else "which holds them to the last bit"
    parts = [f"{half:.1f} MB as float16, {why}"] if half else []
    parts += [f"{full:.1f} MB as float32"] if full else []
    return f"; weights: {', and '.join(parts)}" if parts else ""
