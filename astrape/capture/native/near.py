"""Operators that every library rounds in its own way, as instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from astrape.capture.arithmetic import REAL
from astrape.capture.native.exact import LETTERS, Found, alike, copied, fits, multiplied_on, of, over
from astrape.capture.native.instructions import Instruction, along, bits, codes, constant, operand, written

__all__ = ["FEW", "near", "normed", "topmost"]

aten = torch.ops.aten

MOST_PRODUCT = 1 << 18
"""Multiplications up to which a product of two matrices is worth more here, where neither is a few vectors."""

SMALL, MOST_SMALL = 8192, 1 << 22
"""Numbers of a matrix that stay in the first cache however it lies; and multiplications of a batch of them up to which
it is worth more here."""

FEW = 16
"""Vectors that a matrix is read for at once: with more, oneDNN is as fast, whose weights lie as it wants."""

FEWEST = 6
"""Vectors that are laid beside each other, so that a matrix may lie as it likes. near.c has the same."""

HELD = 6144
"""Numbers of all those vectors that stay in the first cache meanwhile. near.c has the same."""

NEAR_ONE = {
    getattr(aten, name).default: name
    for name in (
        *("exp", "exp2", "log", "log2", "log10", "sin", "cos", "tan", "tanh", "erf"),
        *("sqrt", "rsqrt", "sigmoid", "silu"),
    )
}

NEAR_TWO = {aten.maximum.default: "max", aten.minimum.default: "min"}


def near(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: Tensor) -> Found:
    if place.dtype not in REAL:
        return None
    if operator in NEAR_ONE and not kwargs and len(args) == 1 and alike(args, place.dtype):
        return [of(NEAR_ONE[operator], place, args[0])]
    if operator in NEAR_TWO and not kwargs and alike(args, place.dtype):
        # Of 0 and -0 PyTorch takes now the one and now the other.
        return [of(NEAR_TWO[operator], place, *args)]
    made = NEAR.get(operator)
    return None if made is None else made(place, *args, **kwargs)


def _gelu(place: Tensor, given: Tensor, approximate: str = "none") -> Found:
    return [of("gelu", place, given)] if approximate == "none" and given.dtype == place.dtype else None


def _scaled_on(place: Tensor, first: Tensor, second: Any, alpha: Any = 1, sign: float = 1.0) -> Found:
    """``first + alpha second``, which is left to this where alpha is not 1."""
    if not isinstance(second, Tensor) or not alike((first, second), place.dtype):
        return None
    return multiplied_on(place, first, second, constant(1.0, place), sign * alpha)


def _taken_off(place: Tensor, first: Tensor, second: Any, alpha: Any = 1) -> Found:
    return _scaled_on(place, first, second, alpha, sign=-1.0)


def _total(
    place: Tensor, given: Tensor, dims: Any = None, keepdim: bool = False, mean: bool = False, **rest: Any
) -> Found:
    """A sum over dimensions that follow each other, or their mean."""
    if rest or given.dtype != place.dtype or not dims or not given.numel() or not given.dim():
        return None
    every = sorted(dim % given.dim() for dim in dims)
    if every != list(range(every[0], every[-1] + 1)):
        return None
    # Dimensions that lie one in the other are one.
    first, count = every[0], 1
    for dim in every:
        count *= given.shape[dim]
    for outer, inner in pairwise(every):
        if given.stride(outer) != given.stride(inner) * given.shape[inner]:
            return None
    shape = (*given.shape[:first], count, *given.shape[every[-1] + 1 :])
    strides = (*given.stride()[:first], given.stride(every[-1]), *given.stride()[every[-1] + 1 :])
    flat = given.as_strided(shape, strides, given.storage_offset())
    result = place.view(*given.shape[:first], *given.shape[every[-1] + 1 :]) if keepdim else place
    return [over("sum", result, flat, first, False, (bits(1 / count if mean else 1.0),))]


def _mean(place: Tensor, given: Tensor, dims: Any = None, keepdim: bool = False, **rest: Any) -> Found:
    return _total(place, given, dims, keepdim, True, **rest)


def _softmax(place: Tensor, given: Tensor, dim: int, half: bool = False) -> Found:
    if half or given.dtype != place.dtype or given.stride(dim) != 1 or place.stride(dim) != 1:
        return None
    shape = tuple(given.shape)
    return [along(f"softmax_{LETTERS[given.dtype]}", dim, operand(place, shape), operand(given, shape), shape)]


def normed(
    place: Tensor, given: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Found:
    """A layer norm over the last dimension."""
    parts = [one for one in (weight, bias) if one is not None]
    if not fits(place) or place.dtype not in REAL or not alike((given, *parts), place.dtype) or len(shape) != 1:
        return None
    if any(one.stride(-1) != 1 for one in (place, *parts)):
        return None
    size = tuple(given.shape)
    # Rows that do not lie together are copied, and normed in the copy.
    before = [] if given.stride(-1) == 1 else [copied(place, given)]
    source = place if before else given
    found = along(f"norm_{LETTERS[place.dtype]}", -1, operand(place, size), operand(source, size), size, (bits(eps),))
    if found is None:
        return None
    for index, one in enumerate((weight, bias)):
        # Read as they lie, from the address alone.
        found.addresses[2 + index] = 0 if one is None else one.data_ptr()
    return [*before, Instruction(found.words, (*found.held, *parts))]


def topmost(
    values: Tensor,
    places_of: Tensor,
    given: Tensor,
    count: int,
    dim: int = -1,
    largest: bool = True,
    ordered: bool = True,
) -> Found:
    """The largest values along a dimension, and where they are. Of equal values PyTorch may take others: it is near."""
    if not (largest and ordered and 0 < count <= given.shape[dim]):
        return None
    if not fits(values) or values.dtype not in REAL or given.dtype != values.dtype or given.dim() > 3:
        return None
    if dim % given.dim() != given.dim() - 1 or not (values.is_contiguous() and places_of.is_contiguous()):
        return None
    shape = tuple(given.shape)
    parts = [
        operand(values[..., :1], (*shape[:-1], 1)),
        operand(given, shape),
        operand(places_of[..., :1], (*shape[:-1], 1)),
    ]
    strides = list(zip(*(part.strides for part in parts), strict=True))
    found = written(codes[f"topk_{LETTERS[values.dtype]}"], shape, strides, parts, (0, count))
    return [found]


def _matrices(place: Tensor, one: Tensor, other: Tensor, bias: Tensor | None = None, share: float = 1.0) -> Found:
    """``share one @ other + bias`` of ``(batch, m, k)`` and ``(batch, k, n)``."""
    given = (one, other) if bias is None else (one, other, bias)
    if not alike(given, place.dtype) or not one.numel():
        return None
    batch, rows, columns = place.shape
    sums = one.shape[2]
    added = None if bias is None else operand(bias, place.shape)
    parts = [operand(place, place.shape), operand(one, one.shape), operand(other, other.shape)]
    (ob, om, on), (ab, am, ak), (bb, bk, bn) = (part.strides for part in parts)
    cb, cm, cn = (0, 0, 0) if added is None else added.strides
    if batch > 1 and columns == 1 and ab == 0:
        # One matrix, and a vector in each of the batch: as many vectors.
        batch, columns, on, bn, cn, ob, bb, cb = 1, batch, ob, bb, cb, 0, 0, 0
    few, by_rows = min(rows, columns), (bk if rows <= columns else ak) == place.element_size()
    at_once = few == 1 or (by_rows and few <= FEW and few * sums <= HELD)
    small = few >= FEWEST and max(rows, columns) * sums <= SMALL
    if not at_once and batch * rows * columns * sums > (MOST_SMALL if small else MOST_PRODUCT):
        return None
    strides = [(ob, ab, bb, cb), (om, am, 0, cm), (on, 0, bn, cn), (0, ak, bk, 0)]
    code = codes[f"product_{LETTERS[place.dtype]}"]
    return [written(code, (batch, rows, columns, sums), strides, (*parts, added), (bits(share),))]


def _bmm(place: Tensor, one: Tensor, other: Tensor) -> Found:
    return _matrices(place, one, other)


def _mm(place: Tensor, one: Tensor, other: Tensor) -> Found:
    return _matrices(place[None], one[None], other[None])


def _baddbmm(place: Tensor, bias: Tensor, one: Tensor, other: Tensor, alpha: float = 1.0, **rest: Any) -> Found:
    return None if rest else _matrices(place, one, other, bias, alpha)


def _addmm(place: Tensor, bias: Tensor, one: Tensor, other: Tensor, **rest: Any) -> Found:
    return None if rest else _matrices(place[None], one[None], other[None], bias)


NEAR: dict[Any, Callable[..., Found]] = {
    aten._softmax.default: _softmax,
    aten.add.Tensor: _scaled_on,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _baddbmm,
    aten.bmm.default: _bmm,
    aten.gelu.default: _gelu,
    aten.mean.dim: _mean,
    aten.mm.default: _mm,
    aten.sub.Tensor: _taken_off,
    aten.sum.dim_IntList: _total,
}
