"""Products and norms in the very order in which PyTorch's own libraries sum them up, as instructions.

Whether a library does so on this machine is not taken on trust: it is tried on noise, for each form of operands once,
and every captured step is compared with its function, bit by bit, besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from astrape.capture.kernels import into, several
from astrape.capture.native.exact import MOST, alike
from astrape.capture.native.instructions import Instruction, codes, operand, written
from astrape.capture.native.library import Library
from astrape.capture.native.near import normed

__all__ = ["LANES", "Ordered", "ordered"]

aten = torch.ops.aten

LANES = 8
"""Numbers of a register, and rows of a matrix that are summed together. ordered.c has the same."""

FEWEST = 128
"""Products of a row with a matrix below which bits may agree by chance."""

FUSED, APART = 0, 1
"""Whether a product is added in one breath, or rounded before. ordered.c has the same."""

Ways = list[list[Instruction]]

DRAWS = 3
"""Noise that an order is tried on."""

ALIGNED = 64
"""Bytes by which operands of products lie evenly, as the noise does: the order of libraries may depend on that."""

_tried: dict[Any, int | None] = {}
"""The index of the order that was found right for a form of operands; ``None``: none is."""


class Ordered(NamedTuple):
    """Instructions that may round as PyTorch's kernel does.

    Attributes:
        ways: instructions by order, of which one may be right.
        form: of the operands, all that the order may depend on.
        again: the same operator on noise in operands of that form: what PyTorch leaves, and for each order where
            instructions leave it.
    """

    ways: list[list[Instruction]]
    form: Any
    again: Callable[[torch.Generator], tuple[Tensor, list[tuple[Tensor, list[Instruction]]]]]

    def right(self, library: Library) -> list[Instruction] | None:
        """The instructions in PyTorch's own order, equal to it to the last bit on this machine; ``None``: none are."""
        key = (library, self.form)
        if key not in _tried:
            left = set(range(len(self.ways)))
            for seed in range(DRAWS):
                left &= self._agreeing(library, seed)
            _tried[key] = min(left, default=None)
        found = _tried[key]
        return None if found is None else self.ways[found]

    def _agreeing(self, library: Library, seed: int) -> set[int]:
        want, ways = self.again(torch.Generator().manual_seed(seed))
        for _, instructions in ways:
            library.program(instructions)()
        return {index for index, (got, _) in enumerate(ways) if torch.equal(got, want)}


def ordered(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: Tensor) -> Ordered | None:
    """An operator in an order that is a library's; ``None`` for one of which none is known."""
    make = ORDERED.get(operator)
    if make is None or kwargs or place.dtype != torch.float32:
        return None
    ways = make(place, *args)
    if not ways:
        return None

    def again(generator: torch.Generator) -> tuple[Tensor, list[tuple[Tensor, list[Instruction]]]]:
        given = tuple(_noise(one, generator) if isinstance(one, Tensor) else one for one in args)
        want, places = _noise(place, generator), [_noise(place, generator) for _ in ways]
        if operator is aten.native_layer_norm.default:
            # Many rows, each by itself: where an order is another, few of them show it.
            count = MOST // place.shape[-1]
            rows = 10 ** torch.randn(count, 1, generator=generator) * torch.randn(count, *args[1], generator=generator)
            given, places = (rows, *given[1:]), [torch.empty_like(rows)]
            several(operator, given, {}, [want := torch.empty_like(rows), None, None])()
        else:
            into(operator, given, {}, want)()
        return want, [(got, make(got, *given)[index]) for index, got in enumerate(places)]

    return Ordered(ways, (operator, *map(_form, args), _form(place)), again)


def _form(given: Any) -> Any:
    if isinstance(given, Tensor):
        return tuple(given.shape), given.stride(), given.dtype
    return tuple(given) if isinstance(given, list) else given


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Noise that lies as a tensor does, over and over in the same memory where that does."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(like.shape, like.stride(), strict=True))
    return torch.randn(span, generator=generator).as_strided(like.shape, like.stride())


def _product(place: Tensor, one: Tensor, other: Tensor, bias: Tensor | None = None) -> Ways:
    """``one @ other + bias`` of ``(batch, rows, sums)`` and ``(batch, sums, 1)``, as the forms of one frame are."""
    given = (one, other) if bias is None else (one, other, bias)
    batch, rows, columns = place.shape
    sums = one.shape[2]
    if rows == 1 and bias is None:
        return _row(place, one, other)
    if not alike(given, place.dtype) or columns != 1 or rows < LANES or not sums or sums % LANES:
        return []
    parts = [operand(tensor, tensor.shape) for tensor in (place, one, other)]
    (ob, om, _), (ab, am, ak), (bb, bk, _) = (part.strides for part in parts)
    cb, cm = (0, 0) if bias is None else operand(bias, place.shape).strides[:2]
    parts += [] if bias is None else [operand(bias, place.shape)]
    size = place.element_size()
    if ak != size or bk != size or one.data_ptr() % ALIGNED or other.data_ptr() % ALIGNED:
        return []
    if bb == 0 and (ob, ab) == (rows * om, rows * am) and (bias is None or cb == rows * cm):
        # One vector with parts of one matrix.
        batch, rows = 1, batch * rows
    strides = [(ob, ab, bb, cb), (om, am, 0, cm), (0, 0, 0, 0), (0, ak, bk, 0)]
    code = codes["product_in_order_f"]
    return [[written(code, (batch, rows, 1, sums), strides, parts, (0, way))] for way in (FUSED, APART)]


def _row(place: Tensor, one: Tensor, other: Tensor) -> Ways:
    """``one @ other`` of ``(batch, 1, sums)`` and ``(batch, sums, columns)``, of a register or more a row."""
    batch, _, columns = place.shape
    parts = [operand(tensor, tensor.shape) for tensor in (place, other, one)]
    (ob, _, on), (bb, bk, bn), (ab, _, ak) = (part.strides for part in parts)
    size, sums = place.element_size(), one.shape[2]
    even = (on, bn) == (size, size) and bk % size == 0 and other.data_ptr() % ALIGNED == 0
    if not alike((one, other), place.dtype) or not even or columns < LANES or columns * sums < FEWEST:
        return []
    strides = [(ob, bb, ab, 0), (0, 0, 0, 0), (on, bn, 0, 0), (0, bk, ak, 0)]
    code = codes["row_in_order_f"]
    return [[written(code, (batch, 1, columns, sums), strides, parts, (0, way))] for way in (FUSED, APART)]


def _added_product(place: Tensor, bias: Tensor, one: Tensor, other: Tensor) -> Ways:
    return _product(place, one, other, bias)


def _norm(place: Tensor, given: Tensor, *rest: Any) -> Ways:
    made = normed(place, given, *rest) if given.stride(-1) == 1 and given.shape[-1] % LANES == 0 else None
    if made is None or None in made:
        return []
    found = [one for one in made if one is not None]
    for one in found:
        one.words[0] = codes["norm_in_order_f"]
    return [found]


ORDERED: dict[Any, Callable[..., Ways]] = {
    aten.baddbmm.default: _added_product,
    aten.bmm.default: _product,
    aten.native_layer_norm.default: _norm,
}
