"""Comparing what should be equal, and saying where and by how much it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from astrape.errors import ContractError
from astrape.measure.subject import Ports

__all__ = ["guarded", "identical", "require_close", "rows_of", "tensors_of"]


@contextmanager
def guarded(name: str, doing: str) -> Iterator[None]:
    """Turn whatever a block raises while a property is checked into a ``ContractError`` of that property."""
    try:
        yield
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(name, f"{doing} raised {type(error).__name__}: {error}") from error


def require_close(name: str, got: Ports, want: Ports, tolerance: float, what: str, hint: str) -> None:
    """Raise a ``ContractError`` unless two signals agree within ``tolerance * max(1, greatest value)``.

    A NaN or an infinity agrees only with the same one.
    """
    for port, expected in want.items():
        actual = got[port]
        if actual.shape != expected.shape:
            raise ContractError(
                name, f"{what}: output '{port}' is {tuple(actual.shape)} and not {tuple(expected.shape)}: {hint}"
            )
        if expected.numel() == 0 or _near(actual, expected, tolerance):
            continue
        actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
        same = (actual == expected) | (actual.isnan() & expected.isnan())
        error = torch.where(same, 0.0, (actual - expected).abs()).nan_to_num(nan=torch.inf, posinf=torch.inf)
        finite = expected[expected.isfinite()]
        allowed = tolerance * max(1.0, float(finite.abs().max()) if finite.numel() else 1.0)
        worst = int(error.argmax())
        if float(error.flatten()[worst]) > allowed:
            place = [int(index) for index in torch.unravel_index(torch.tensor(worst), error.shape)]
            names = ("row", "channel", "frame") if error.dim() == 3 else tuple(f"dim {d}" for d in range(error.dim()))
            where = ", ".join(f"{label} {index}" for label, index in zip(names, place, strict=True))
            count = int((error > allowed).sum())
            raise ContractError(
                name,
                f"{what}: '{port}' at {where} is {float(actual.flatten()[worst]):.9g} and not "
                f"{float(expected.flatten()[worst]):.9g} ({count} of {error.numel()} values are off by more than "
                f"{allowed:.3g}): {hint}",
            )


def _near(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether all differences are within the tolerance itself: the cheap test before the exact one."""
    if actual.device != expected.device or not (actual.is_floating_point() and expected.is_floating_point()):
        return False
    return bool(((actual.detach() - expected.detach()).abs() <= tolerance).all())


def rows_of(ports: Ports, rows: Sequence[int]) -> Ports:
    """Some rows of the batch, of every port."""
    return {port: tensor[list(rows)] for port, tensor in ports.items()}


def tensors_of(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in anything a block may prepare or return: containers and dataclasses, to any depth."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_of(item, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from tensors_of(item, f"{path}[{index}]")
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name), f"{path}.{field.name}")


def identical(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors agree in shape, dtype and every value, with NaN equal to NaN."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    same = first == second
    if first.is_floating_point():
        same = same | (first.isnan() & second.isnan())
    return bool(same.all())
