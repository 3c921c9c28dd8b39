"""Operators whose results leave no choice, as instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrape.capture.arithmetic import ONE, REAL, TWO, WHOLE, number
from astrape.capture.native.instructions import (
    Instruction,
    Operand,
    along,
    bits,
    codes,
    constant,
    elementwise,
    instruction,
    operand,
)

__all__ = [
    "LETTERS",
    "MOST",
    "MOST_COPIED",
    "UFUNCS",
    "Found",
    "alike",
    "copied",
    "exact",
    "fits",
    "moved_up",
    "multiplied_on",
    "of",
    "over",
    "two",
]

aten = torch.ops.aten

MOST = 1 << 16
"""Elements up to which an operator is worth more here than on several threads."""

MOST_COPIED = 1 << 20
"""The same of copies."""

LETTERS = {torch.float32: "f", torch.float64: "d", torch.int32: "i", torch.int64: "l", torch.bool: "b"}

UFUNCS = {
    np.absolute: "abs",
    np.add: "add",
    np.bitwise_and: "and",
    np.bitwise_or: "or",
    np.bitwise_xor: "xor",
    np.ceil: "ceil",
    np.divide: "div",
    np.equal: "eq",
    np.floor: "floor",
    np.greater: "gt",
    np.greater_equal: "ge",
    np.invert: "not",
    np.less: "lt",
    np.less_equal: "le",
    np.multiply: "mul",
    np.negative: "neg",
    np.not_equal: "ne",
    np.reciprocal: "rcp",
    np.rint: "rint",
    np.subtract: "sub",
}


def fits(tensor: Tensor, most: int = MOST) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in LETTERS and 0 < tensor.numel() <= most


def alike(args: Sequence[Any], dtype: torch.dtype) -> bool:
    return all(isinstance(arg, Tensor) and arg.dtype == dtype and arg.device.type == "cpu" for arg in args)


Found = list[Instruction | None] | None


def exact(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: Tensor) -> Found:
    if operator in TWO and not kwargs and len(args) == 2:
        function, types = TWO[operator]
        return two(UFUNCS[function], args, place, types)
    if operator is aten.rsub.Scalar and not kwargs and len(args) == 2:
        return two("sub", args, place, (*REAL, *WHOLE), swapped=True)
    if operator is aten.pow.Tensor_Scalar and args[1] == 2 and args[0].dtype in REAL:
        return two("mul", (args[0], args[0]), place)
    if operator in ONE and not kwargs and len(args) == 1 and alike(args, place.dtype):
        function, types = ONE[operator]
        return [of(UFUNCS[function], place, args[0])] if place.dtype in types else None
    made = MADE.get(operator)
    return None if made is None else made(place, *args, **kwargs)


def of(
    name: str, place: Tensor, *given: Tensor, kind: torch.dtype | None = None, more: Sequence[int] = ()
) -> Instruction | None:
    """An instruction of a function of each element; its name is that of the type of what is given."""
    letter = LETTERS.get(given[0].dtype if kind is None else kind)
    return elementwise(f"{name}_{letter}", place, *(operand(one, place.shape) for one in given), more=more)


def two(
    name: str, args: Sequence[Any], place: Tensor, types: Sequence[torch.dtype] = (*REAL, *WHOLE), swapped: bool = False
) -> Found:
    first, second = args
    if not isinstance(second, Tensor):
        second = number(second, first.dtype)
    if second is None or first.dtype not in types or not alike((first, second), first.dtype):
        return None
    if place.dtype not in (first.dtype, torch.bool):
        return None
    return [of(name, place, *((second, first) if swapped else (first, second)))]


def copied(place: Tensor, given: Tensor) -> Instruction | None:
    if place.dtype == given.dtype:
        return elementwise(f"copy_{place.element_size()}", place, operand(given, place.shape))
    if given.dtype not in LETTERS:
        return None
    name = f"{LETTERS[given.dtype]}_to_{LETTERS[place.dtype]}"
    return elementwise(name, place, operand(given, place.shape)) if name in codes else None


def moved_up(place: Tensor, given: Tensor) -> Instruction | None:
    """A copy to memory that is partly the same and begins earlier: one move of bytes, or one for each row."""
    size, shift = place.element_size(), given.data_ptr() - place.data_ptr()
    operands = operand(place, place.shape), operand(given, place.shape)
    made = instruction(f"copy_{size}", place.shape, operands, moves=True)
    if made is None or shift < 0 or place.dtype != given.dtype:
        return None
    *rows, count = made.sizes.tolist()
    to, by = made.strides[:2].tolist()
    apart = [stride for number, stride in zip(rows, to, strict=False) if number > 1]
    return made if to == by and to[-1] == size and all(shift + count * size <= stride for stride in apart) else None


def _clamped(place: Tensor, given: Tensor, low: Any = None, high: Any = None) -> Found:
    bounds = [
        (name, number(bound, place.dtype)) for name, bound in (("atleast", low), ("atmost", high)) if bound is not None
    ]
    if given.dtype != place.dtype or not bounds or any(bound is None or bool(bound.isnan()) for _, bound in bounds):
        return None
    found: list[Instruction | None] = []
    for name, bound in bounds:
        assert bound is not None
        found.append(of(name, place, bound, place if found else given))
    return found


def _where(place: Tensor, condition: Tensor, chosen: Tensor, other: Tensor) -> Found:
    if not alike((chosen, other), place.dtype) or condition.dtype != torch.bool:
        return None
    given = (operand(one, place.shape) for one in (condition, chosen, other))
    return [elementwise(f"where_{place.element_size()}", place, *given)]


def _masked(place: Tensor, given: Tensor, mask: Tensor, value: Any) -> Found:
    filling = number(value, place.dtype)
    return None if filling is None else _where(place, mask, filling, given)


def _joined(place: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Found:
    parts = [part for part in parts if part.numel()]
    return _laid(place, parts, [part.shape[dim] for part in parts], dim)


def _stacked(place: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Found:
    dim %= place.dim()
    return _laid(place, [part.unsqueeze(dim) for part in parts], [1] * len(parts), dim)


def _laid(place: Tensor, parts: Sequence[Tensor], sizes: list[int], dim: int) -> Found:
    if not alike(parts, place.dtype):
        return None
    places = torch.split(place, sizes, dim=dim)
    return [copied(one, part) for one, part in zip(places, parts, strict=True)]


def _padded(place: Tensor, given: Tensor, widths: Sequence[int], value: Any = 0) -> Found:
    if min(widths) < 0 or given.dtype != place.dtype:
        return None
    inside = place
    for index in range(len(widths) // 2):
        dim = place.dim() - 1 - index
        inside = inside.narrow(dim, widths[2 * index], given.shape[dim])
    filled = copied(place, constant(value, place))
    return [filled, copied(inside, given)] if given.numel() else [filled]


def _flipped(place: Tensor, given: Tensor, dims: Sequence[int]) -> Found:
    if given.dtype != place.dtype:
        return None
    at, strides, _ = operand(given, place.shape)
    turned = list(strides)
    for dim in dims:
        at += (given.shape[dim] - 1) * strides[dim]
        turned[dim] = -strides[dim]
    return [elementwise(f"copy_{place.element_size()}", place, Operand(at, tuple(turned), given))]


def _highest(place: Tensor, given: Tensor, dim: int | None = None, keepdim: bool = False) -> Found:
    if dim is None or given.dtype not in REAL or not given.dim() or not given.numel():
        return None
    return [over("argmax", place, given, dim, keepdim)]


def _summed_up(place: Tensor, given: Tensor, dim: int, **rest: Any) -> Found:
    if rest or given.dtype not in REAL or given.dtype != place.dtype or not given.dim():
        return None
    shape = tuple(given.shape)
    name = f"cumsum_{LETTERS[given.dtype]}"
    return [along(name, dim, operand(place, shape), operand(given, shape), shape)]


def over(
    name: str, place: Tensor, given: Tensor, dim: int, keepdim: bool, more: Sequence[int] = ()
) -> Instruction | None:
    """An instruction with one result for each row along ``dim``."""
    result = place if keepdim else place.unsqueeze(dim)
    shape = tuple(given.shape)
    return along(f"{name}_{LETTERS[given.dtype]}", dim, operand(result, shape), operand(given, shape), shape, more)


def _gathered(place: Tensor, given: Tensor, dim: int, index: Tensor, **rest: Any) -> Found:
    if rest or given.dtype != place.dtype or index.dtype != torch.int64 or not given.dim():
        return None
    size = given.element_size()
    strides = [stride * size for stride in given.stride()]
    step, strides[dim] = strides[dim], 0
    source = Operand(given.data_ptr(), tuple(strides), given)
    more = (step, given.shape[dim])
    return [elementwise(f"pick_{size}", place, source, operand(index, place.shape), more=more)]


def _selected(place: Tensor, given: Tensor, dim: int, index: Tensor) -> Found:
    if index.dim() != 1 or not given.dim():
        return None
    dim %= given.dim()
    return _gathered(place, given, dim, index.view(*([1] * dim), -1, *([1] * (given.dim() - dim - 1))))


def multiplied_on(place: Tensor, base: Tensor, one: Tensor, other: Tensor, value: Any = 1) -> Found:
    """``base + value one other``."""
    return (
        [of("muladd", place, base, one, other, more=(bits(float(value)),))]
        if alike((base, one, other), place.dtype)
        else None
    )


MADE: dict[Any, Callable[..., Found]] = {
    aten.addcmul.default: multiplied_on,
    aten.argmax.default: _highest,
    aten.cat.default: _joined,
    aten.clamp.default: _clamped,
    aten.constant_pad_nd.default: _padded,
    aten.cumsum.default: _summed_up,
    aten.flip.default: _flipped,
    aten.gather.default: _gathered,
    aten.index_select.default: _selected,
    aten.masked_fill.Scalar: _masked,
    aten.stack.default: _stacked,
    aten.where.self: _where,
}
