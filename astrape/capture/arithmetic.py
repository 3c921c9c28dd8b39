"""Kernels of exact arithmetic by NumPy's loops, which take a quarter of the way that PyTorch's operators take.

A sum, a product, a quotient, a comparison and a copy come out the same wherever they are computed: IEEE 754 has them
rounded correctly. Most operators of a live step are such, on a few hundred numbers, and what they cost is the way to
them. One core, us, 354 numbers of float32::

    torch.add(x, y, out=)             1.05      numpy.add(x, y, z)                        0.33
    torch.clamp(x, 0, 1, out=)        1.68      numpy.maximum, then numpy.minimum         0.8
    torch.Tensor.copy_(x, y)          0.79      x[...] = y                                0.20
    torch.cat((x, y), out=)           1.2       two copies                                0.4

Whatever is rounded otherwise here and there stays with PyTorch: functions such as ``exp``, sums of many terms, the
square root, of which libraries have faster ones than the correct one, and products that are added in the same breath
(``addcmul``). So do larger tensors, other devices than the processor and types that it does not compute in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Kernel", "exact", "exact_copy", "exact_in_place", "quiet"]

aten = torch.ops.aten
Kernel = Callable[[], Any]
Array = npt.NDArray[Any]

MOST = 1 << 14
"""Elements up to which the way to a kernel is what counts."""

REAL = (torch.float32, torch.float64)
WHOLE = (torch.int32, torch.int64)
TYPES = (*REAL, *WHOLE, torch.bool)

ONE: dict[Any, tuple[np.ufunc, tuple[torch.dtype, ...]]] = {
    aten.abs.default: (np.absolute, REAL),
    aten.bitwise_not.default: (np.invert, (*WHOLE, torch.bool)),
    aten.ceil.default: (np.ceil, REAL),
    aten.floor.default: (np.floor, REAL),
    aten.neg.default: (np.negative, REAL),
    aten.reciprocal.default: (np.reciprocal, REAL),
    aten.round.default: (np.rint, REAL),
}
"""Functions of one tensor, and the types in which they are the same."""

TWO: dict[Any, tuple[np.ufunc, tuple[torch.dtype, ...]]] = {
    aten.add.Tensor: (np.add, (*REAL, *WHOLE)),
    aten.sub.Tensor: (np.subtract, (*REAL, *WHOLE)),
    aten.mul.Tensor: (np.multiply, (*REAL, *WHOLE)),
    aten.div.Tensor: (np.divide, REAL),
    **{
        getattr(getattr(aten, name), form): (function, (*WHOLE, torch.bool))
        for name, function in (
            ("bitwise_and", np.bitwise_and),
            ("bitwise_or", np.bitwise_or),
            ("bitwise_xor", np.bitwise_xor),
        )
        for form in ("Scalar", "Tensor")
    },
    **{
        getattr(getattr(aten, name), form): (function, TYPES)
        for name, function in (
            ("eq", np.equal),
            ("ge", np.greater_equal),
            ("gt", np.greater),
            ("le", np.less_equal),
            ("lt", np.less),
            ("ne", np.not_equal),
        )
        for form in ("Scalar", "Tensor")
    },
}
"""Functions of two tensors, or of a tensor and a number."""

IN_PLACE: dict[Any, np.ufunc] = {
    aten.add_.Tensor: np.add,
    aten.bitwise_xor_.Tensor: np.bitwise_xor,
    aten.mul_.Tensor: np.multiply,
}

quiet = partial(np.errstate, all="ignore")
"""Context in which NumPy does not warn of a division by 0, as PyTorch never does."""


def exact(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: Tensor) -> Kernel | None:
    """The kernel that leaves an operator's result in ``place``, or ``None`` where it is PyTorch's to compute."""
    if not _small(place):
        return None
    if operator in TWO and not kwargs and len(args) == 2:
        return _two(*TWO[operator], args, place)
    if operator is aten.rsub.Scalar and not kwargs and len(args) == 2:
        return _two(np.subtract, (*REAL, *WHOLE), args, place, swapped=True)
    if operator is aten.pow.Tensor_Scalar and args[1] == 2:
        return _two(np.multiply, REAL, (args[0], args[0]), place)
    if operator in ONE and not kwargs and len(args) == 1:
        function, types = ONE[operator]
        fits = place.dtype in types and _alike(args, place.dtype)
        return partial(function, _array(args[0]), _array(place)) if fits else None
    made = MADE.get(operator)
    return None if made is None else made(place, *args, **kwargs)


def exact_copy(place: Tensor, given: Tensor) -> Kernel | None:
    """The kernel that copies a tensor, in ``place``'s type and repeated where that is larger."""
    if not (_small(place) and given.device.type == "cpu" and given.dtype in TYPES):
        return None
    if given.is_floating_point() and not place.is_floating_point():
        return None  # what is out of range becomes anything
    return partial(_array(place).__setitem__, ..., _array(given))


def exact_in_place(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kernel | None:
    """The kernel of an operator that writes to its first argument."""
    if operator is aten.copy_.default and len(args) == 2 and not kwargs:
        return exact_copy(*args)
    if operator not in IN_PLACE or kwargs or len(args) != 2 or not _small(args[0]):
        return None
    return _two(IN_PLACE[operator], (*REAL, *WHOLE), args, args[0])


def _small(place: Tensor) -> bool:
    return place.device.type == "cpu" and place.dtype in TYPES and place.numel() <= MOST


def _alike(args: Sequence[Any], dtype: torch.dtype) -> bool:
    return all(isinstance(arg, Tensor) and arg.dtype == dtype and arg.device.type == "cpu" for arg in args)


def _array(tensor: Tensor) -> Array:
    """The same memory."""
    array: Array = tensor.detach().numpy()
    return array


def number(value: Any, dtype: torch.dtype) -> Tensor | None:
    """A number as a tensor without dimensions, as operators on tensors of ``dtype`` take it; ``None`` for others."""
    if isinstance(value, bool) or dtype not in (*REAL, *WHOLE):
        return None
    return torch.tensor(value, dtype=dtype) if isinstance(value, (int, float) if dtype in REAL else int) else None


def _two(
    function: np.ufunc, types: tuple[torch.dtype, ...], args: Sequence[Any], place: Tensor, swapped: bool = False
) -> Kernel | None:
    first, second = args
    if not isinstance(second, Tensor):
        second = number(second, first.dtype)
    if second is None or first.dtype not in types or not _alike((first, second), first.dtype):
        return None
    if place.dtype not in (first.dtype, torch.bool):
        return None
    if swapped:
        first, second = second, first
    return partial(function, _array(first), _array(second), _array(place))


def _clamp(place: Tensor, given: Tensor, low: Any = None, high: Any = None) -> Kernel | None:
    kernels: list[Kernel] = []
    for function, bound in ((np.maximum, low), (np.minimum, high)):
        if bound is None:
            continue
        least = number(bound, place.dtype)
        if least is None or math.isnan(bound) or given.dtype != place.dtype:
            return None
        # In this order, as of 0 and -0 the second is taken where they meet.
        source = _array(place if kernels else given)
        kernels.append(partial(function, _array(least), source, out=_array(place)))
    return _each(kernels) if kernels else None


def _where(place: Tensor, condition: Tensor, chosen: Tensor, other: Tensor) -> Kernel | None:
    if not _alike((chosen, other), place.dtype) or condition.dtype != torch.bool or not place.is_contiguous():
        return None
    target, mask, taken = _array(place), _array(condition), _array(chosen)
    fill = partial(target.__setitem__, ..., _array(other))
    if condition.shape == place.shape and chosen.shape in (place.shape, ()):
        return _each([fill, partial(np.putmask, target, mask, taken)])
    return _each([fill, partial(np.copyto, target, taken, where=mask)])


def _masked(place: Tensor, given: Tensor, mask: Tensor, value: Any) -> Kernel | None:
    filling = number(value, place.dtype)
    return None if filling is None else _where(place, mask, filling, given)


def _joined(place: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Kernel | None:
    parts = [part for part in parts if part.numel()]
    return _laid(place, parts, [part.shape[dim] for part in parts], dim)


def _stacked(place: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Kernel | None:
    dim %= place.dim()
    return _laid(place, [part.unsqueeze(dim) for part in parts], [1] * len(parts), dim)


def _laid(place: Tensor, parts: Sequence[Tensor], sizes: list[int], dim: int) -> Kernel | None:
    """Tensors side by side."""
    if not _alike(parts, place.dtype) or len(parts) > 4:
        return None
    places = torch.split(place, sizes, dim=dim)
    return _each([partial(_array(p).__setitem__, ..., _array(part)) for p, part in zip(places, parts, strict=True)])


def _padded(place: Tensor, given: Tensor, widths: Sequence[int], value: Any = 0) -> Kernel | None:
    if min(widths) < 0 or given.dtype != place.dtype or given.device != place.device:
        return None
    inside = place
    for index in range(len(widths) // 2):
        dim = place.dim() - 1 - index
        inside = inside.narrow(dim, widths[2 * index], given.shape[dim])
    return _each([partial(_array(place).fill, value), partial(_array(inside).__setitem__, ..., _array(given))])


def _flipped(place: Tensor, given: Tensor, dims: Sequence[int]) -> Kernel | None:
    if given.dtype != place.dtype:
        return None
    return partial(_array(place).__setitem__, ..., np.flip(_array(given), tuple(dims)))


def _highest(place: Tensor, given: Tensor, dim: int | None = None, keepdim: bool = False) -> Kernel | None:
    if dim is None or given.dtype not in REAL or not given.dim():
        return None
    return partial(_array(given).argmax, dim, _array(place.squeeze(dim) if keepdim else place))


MADE: dict[Any, Callable[..., Kernel | None]] = {
    aten.argmax.default: _highest,
    aten.cat.default: _joined,
    aten.clamp.default: _clamp,
    aten.constant_pad_nd.default: _padded,
    aten.flip.default: _flipped,
    aten.masked_fill.Scalar: _masked,
    aten.stack.default: _stacked,
    aten.where.self: _where,
}


def _each(kernels: list[Kernel]) -> Kernel:
    """Some kernels as one."""
    if len(kernels) == 1:
        return kernels[0]
    if len(kernels) == 2:
        return partial(_both, *kernels)
    return partial(_all, tuple(kernels))


def _both(first: Kernel, second: Kernel) -> None:
    first()
    second()


def _all(kernels: tuple[Kernel, ...]) -> None:
    for kernel in kernels:
        kernel()
