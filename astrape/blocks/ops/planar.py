"""Finite planar point sets, and the nearest of their points in closed form.

A grid of ``X`` by ``Y`` levels spans ``[-(X - 1) / 2, (X - 1) / 2]`` by the same of ``Y``, in steps of 1:

- ``rectangular``: the ``X * Y`` points of both axes' levels. Index ``x Y + y``.
- ``rhombic``: those, then the ``(X - 1)(Y - 1)`` centres of their cells. Index ``x Y + y``, then
  ``X Y + x (Y - 1) + y``. Both levels are odd, so that the origin is a point.
- ``hexagonal``: ``Y`` rows of ``X`` points, the even rows a quarter step to the right, the odd ones to the left. Index
  ``y X + x``: row by row.

The nearest point is that of least Euclidean distance, the one of lowest index where several are as near (Shuster &
Nachmani, arXiv:2512.01537, search all points; Conway & Sloane, IEEE Trans. Inf. Theory 28(2), 1982, decode a union of
cosets by the nearest of each). It is found without rounding error: what is compared are multiples of 1/4 against exact
remainders, and sums whose error is taken into account. So float32 and float64 agree on every float32 point.

Coordinates are ``(batch, pairs, 2, frames)``, indices ``(batch, pairs, 1, frames)`` and levels ``(pairs, 2, 1)``, all
in one float type, where indices and levels are whole numbers: no step needs integers, and a NaN stays one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["GRIDS", "Grid"]


class Grid(ABC):
    """One family of point sets."""

    odd: bool = False
    """Whether levels must be odd."""

    @abstractmethod
    def size(self, x_levels: int, y_levels: int) -> int:
        """Number of points."""

    @abstractmethod
    def nearest(self, z: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest point, which may lie far off, and its index."""

    @abstractmethod
    def point(self, index: Tensor, levels: Tensor) -> Tensor:
        """The point with an index from 0 to ``size - 1``."""


class Rectangular(Grid):
    """Levels of both axes."""

    def size(self, x_levels: int, y_levels: int) -> int:
        return x_levels * y_levels

    def nearest(self, z: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        at = _nearest_level(z, levels)
        return at - (levels - 1) / 2, _index(at, levels)

    def point(self, index: Tensor, levels: Tensor) -> Tensor:
        return _levels_of(index, levels[..., 1:, :]) - (levels - 1) / 2


class Rhombic(Grid):
    """Levels of both axes, and a centre in every cell between four of them."""

    odd = True

    def size(self, x_levels: int, y_levels: int) -> int:
        return x_levels * y_levels + (x_levels - 1) * (y_levels - 1)

    def nearest(self, z: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        # On each axis z lies between two multiples of a half, one a level and one the middle between levels, which make
        # a regular point and a centre. Both are nearest of their kind, and the centre is the nearer one where the
        # distances from the regular point exceed 1/2 in sum. Beyond the border one of them is 0, and they do not. From
        # 1/4 on a distance less 1/2 is exact, and so is the sign of the sum with the smaller one.
        reach = (levels - 1) / 2
        held = torch.clamp(z, -reach, reach)
        upper = torch.ceil(held * 2)
        regular = torch.floor(upper * 0.5)
        x, y = _halves((held - regular).abs())
        closer = torch.minimum(x, y) + (torch.maximum(x, y) - 0.5) > 0
        point = torch.where(closer, upper - regular - 0.5, regular)
        x_levels, y_levels = _halves(levels)
        x, y = _halves(torch.floor(point + reach))
        return point, x * y_levels + y + closer * (x_levels * y_levels - x)

    def point(self, index: Tensor, levels: Tensor) -> Tensor:
        is_centre = index >= _count(levels)
        levels = torch.where(is_centre, levels - 1, levels)
        return RECTANGULAR.point(torch.where(is_centre, index - _count(levels + 1), index), levels)


class Hexagonal(Grid):
    """Rows one level apart, every other one shifted by half a level."""

    def size(self, x_levels: int, y_levels: int) -> int:
        return x_levels * y_levels

    def nearest(self, z: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        # The two rows around z are those of which it is nearest to the middle. Farther rows repeat their shifts at a
        # greater distance, or at an equal one with a higher index.
        x, y = _halves(z)
        x_levels, y_levels = _halves(levels)
        row = _nearest_level(y, y_levels - 1)
        shift = _shift(row)
        lower, upper = _nearest_level(x, x_levels, shift), _nearest_level(x, x_levels, -shift)
        height = row - (y_levels - 1) / 2
        left = (x_levels - 1) / 2
        low = torch.cat([lower - left + shift, height], dim=-2)
        high = torch.cat([upper - left - shift, height + 1], dim=-2)
        closer = _strictly_nearer(z, high, low)
        index = torch.where(closer, (row + 1) * x_levels + upper, row * x_levels + lower)
        return torch.where(closer, high, low), index

    def point(self, index: Tensor, levels: Tensor) -> Tensor:
        row, column = _halves(_levels_of(index, levels[..., :1, :]))
        return torch.cat([column + _shift(row), row], dim=-2) - (levels - 1) / 2


RECTANGULAR = Rectangular()
GRIDS: dict[str, Grid] = {"rhombic": Rhombic(), "rectangular": RECTANGULAR, "hexagonal": Hexagonal()}
"""The families by the names recipes know."""


def _nearest_level(z: Tensor, levels: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """The nearest of the ``levels`` positions ``i - (levels - 1) / 2 + shift`` on one axis, the lower one of two.

    ``shift`` is a multiple of 1/4. Adding the offset to ``z`` would round (-0.49999997 - 0.5 gives -1 in float32);
    the remainder ``z - round(z)`` is exact, and is what the offset's fraction is compared with.
    """
    offset = (levels - 1) / 2 - shift
    whole = torch.floor(offset)
    fraction = offset - whole
    near = torch.round(z)
    rest = z - near
    up = (rest > 0.5 - fraction).to(z.dtype)
    down = (rest <= -0.5 - fraction).to(z.dtype)
    return torch.minimum((near + whole + up - down).clamp(min=0), levels - 1)


def _strictly_nearer(z: Tensor, candidate: Tensor, incumbent: Tensor) -> Tensor:
    """Whether ``candidate`` is nearer to ``z`` than ``incumbent``, which keeps a tie.

    ``|z - p|^2 > |z - q|^2`` is ``2 (q - p) z > |q|^2 - |p|^2``. With steps of 1/2 or 1 from p to q and quarters in
    both, the products and the right side are exact. What the sum of the products rounds off is added again (Knuth's
    two-sum), which decides where the rounded sum ties.
    """
    step = candidate - incumbent
    a, b = _halves(2 * step * z)
    bound = (step * (candidate + incumbent)).sum(dim=-2, keepdim=True)
    total = a + b
    partner = total - a
    error = (a - (total - partner)) + (b - partner)
    return (total > bound) | ((total == bound) & (error > 0))


def _shift(row: Tensor) -> Tensor:
    """A quarter step to the right in even rows, to the left in odd ones."""
    return 0.25 - 0.5 * row.remainder(2)


def _index(at: Tensor, levels: Tensor) -> Tensor:
    x, y = _halves(at)
    return x * levels[..., 1:, :] + y


def _levels_of(index: Tensor, fastest: Tensor) -> Tensor:
    """Quotient and remainder of an index by the number of levels of the faster axis.

    Below 2^24 a float quotient is at least 1 / fastest short of the next whole number, which is more than it rounds.
    """
    quotient = torch.floor(index / fastest)
    return torch.cat([quotient, index - quotient * fastest], dim=-2)


def _count(levels: Tensor) -> Tensor:
    x_levels, y_levels = _halves(levels)
    return x_levels * y_levels


def _halves(pair: Tensor) -> tuple[Tensor, Tensor]:
    """The x and the y of pairs, each with the dimension kept."""
    return pair.narrow(-2, 0, 1), pair.narrow(-2, 1, 1)
