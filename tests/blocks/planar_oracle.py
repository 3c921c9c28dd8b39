"""Planar grids point by point, and the search over all of them, written from the definitions and in whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def all_points(kind: str, nx: int, ny: int) -> list[tuple[float, float]]:
    """The grid as the definition lists it."""
    xs, ys = ([i - (n - 1) / 2 for i in range(n)] for n in (nx, ny))
    if kind == "hexagonal":
        return [(x + (0.25 if row % 2 == 0 else -0.25), y) for row, y in enumerate(ys) for x in xs]
    points = [(x, y) for x in xs for y in ys]
    if kind == "rhombic":
        points += [(x + 0.5, y + 0.5) for x in xs[:-1] for y in ys[:-1]]
    return points


def search(kind: str, nx: int, ny: int, z: Tensor, unit: int = 2**22) -> Tensor:
    """Index of the nearest point, by whole numbers: ``z`` is ``(n, 2)`` in parts of a ``unit``, as quarters are too."""
    points = (torch.tensor(all_points(kind, nx, ny), dtype=torch.float64) * unit).long()
    found = torch.empty(len(z), dtype=torch.int64)
    chosen = torch.full((len(z),), 2**62)
    for index, point in enumerate(points):
        squared = ((z - point) ** 2).sum(dim=1)
        found = torch.where(squared < chosen, index, found)
        chosen = torch.minimum(chosen, squared)
    return found
