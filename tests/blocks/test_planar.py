"""Nearest points in closed form against the search over all points."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrape.blocks.ops.planar import GRIDS
from tests.blocks.planar_oracle import all_points, search

KINDS = ("rhombic", "rectangular", "hexagonal")


def closed_form(kind: str, nx: int, ny: int, z: Tensor) -> tuple[Tensor, Tensor]:
    """Point and index of ``(n, 2)`` coordinates through the grid's own face."""
    levels = torch.tensor([nx, ny], dtype=z.dtype).reshape(1, 2, 1)
    point, index = GRIDS[kind].nearest(z.T.reshape(1, 1, 2, -1), levels)
    assert index.dtype == point.dtype == z.dtype
    torch.testing.assert_close(GRIDS[kind].point(index, levels), point, rtol=0, atol=0)
    return point[0, 0].T, index.flatten().long()


def assert_nearest(kind: str, nx: int, ny: int, parts: Tensor, dtype: torch.dtype, unit: int = 2**22) -> None:
    z = parts.to(dtype) / unit
    assert bool((z.double() * unit == parts).all()), "the points are not exact in this type"
    point, index = closed_form(kind, nx, ny, z)
    expected = search(kind, nx, ny, parts, unit)
    wrong = (index != expected).nonzero().flatten()
    assert not len(wrong), f"{len(wrong)} wrong, the first at {z[wrong[0]].tolist()}"
    torch.testing.assert_close(point.double(), torch.tensor(all_points(kind, nx, ny), dtype=torch.float64)[expected])


SIZES = [("rhombic", 9, 9), ("rhombic", 7, 7), ("rhombic", 3, 5), ("rectangular", 9, 9), ("rectangular", 4, 7)]
SIZES += [("rectangular", 2, 2), ("hexagonal", 9, 9), ("hexagonal", 8, 8), ("hexagonal", 2, 2), ("hexagonal", 5, 4)]


@pytest.mark.parametrize(("kind", "nx", "ny"), SIZES)
def test_nearest_is_that_of_the_search_on_ties(kind: str, nx: int, ny: int) -> None:
    # Steps of an eighth hold every point, middle of an edge and corner of a cell, inside the grid and around it.
    axes = [torch.arange(-8 * (n + 3) // 2, 8 * (n + 3) // 2 + 1) * 2**19 for n in (nx, ny)]
    assert_nearest(kind, nx, ny, torch.cartesian_prod(*axes), torch.float32)


@pytest.mark.parametrize(("kind", "nx", "ny"), SIZES)
def test_nearest_is_that_of_the_search_one_bit_from_a_tie(kind: str, nx: int, ny: int) -> None:
    axes = [torch.arange(-4 * (n + 1) // 2, 4 * (n + 1) // 2 + 1) * 2**20 for n in (nx, ny)]
    ties = torch.cartesian_prod(*axes)
    for dx, dy in itertools.product((-1, 0, 1), repeat=2):
        assert_nearest(kind, nx, ny, ties + torch.tensor([dx, dy]), torch.float64)
    # What float32 holds: a bit at one is 2^-23, and coarser farther out.
    for dx, dy in itertools.product((-8, 0, 8), repeat=2):
        assert_nearest(kind, nx, ny, ties + torch.tensor([dx, dy]), torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [4, 5])
def test_nearest_sees_what_a_sum_of_coordinates_rounds_off(kind: str, levels: int) -> None:
    # (1/2, 2^-28) is nearer to the centre at (1/2, 1/2) than to the origin, and 1/2 + 2^-28 is 1/2 in float32.
    levels = levels | 1 if kind == "rhombic" else levels
    axis = torch.cat([torch.arange(-16, 17) * 2**25, torch.tensor([-9, -1, 1, 9])])
    assert_nearest(kind, levels, levels, torch.cartesian_prod(axis, axis), torch.float32, 2**28)


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_that_of_the_search_on_a_million_points(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    for levels, count in ((9, 700_000), (7, 400_000)):
        reach = int((levels - 1) / 2 * 1.001 * 2**22)
        inside = torch.randint(-reach, reach + 1, (count, 2), generator=generator)
        assert_nearest(kind, levels, levels, inside, torch.float64)
        # float32 holds these multiples of 2^-20 as far as 8.
        assert_nearest(kind, levels, levels, inside[: count // 2] // 4 * 4, torch.float32)
        around = torch.randint(-3 * reach, 3 * reach, (50_000, 2), generator=generator)
        assert_nearest(kind, levels, levels, around, torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_decides_as_float64_on_numbers_of_any_size(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    noise_like = torch.randn(400_000, 2, generator=generator) * torch.tensor([3.0, 3.0])
    tiny = noise_like[:100_000] * 10 ** (-8 * torch.rand(100_000, 2, generator=generator))
    near_half = torch.nextafter(torch.tensor([-0.5, 0.5, -1.5, 2.5]), torch.tensor(0.0))
    for z in (noise_like, tiny, torch.cartesian_prod(near_half, near_half)):
        point, index = closed_form(kind, 9, 9, z)
        wide_point, wide_index = closed_form(kind, 9, 9, z.double())
        assert torch.equal(index, wide_index)
        assert torch.equal(point.double(), wide_point)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    nx=st.integers(2, 12),
    ny=st.integers(2, 12),
    seed=st.integers(0, 2**16),
    step=st.sampled_from([1, 2**10, 2**19, 2**20]),
)
def test_nearest_is_that_of_the_search_for_any_levels(kind: str, nx: int, ny: int, seed: int, step: int) -> None:
    if kind == "rhombic":
        nx, ny = nx | 1, ny | 1
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randint(-(2**25), 2**25, (2000, 2), generator=generator) // step * step
    assert_nearest(kind, nx, ny, parts, torch.float64)


@pytest.mark.parametrize(("kind", "nx", "ny"), SIZES)
def test_points_by_index_are_those_of_the_definition(kind: str, nx: int, ny: int) -> None:
    points = torch.tensor(all_points(kind, nx, ny))
    assert GRIDS[kind].size(nx, ny) == len(points)
    levels = torch.tensor([nx, ny], dtype=torch.float32).reshape(1, 2, 1)
    index = torch.arange(len(points), dtype=torch.float32).reshape(1, 1, 1, -1)
    assert torch.equal(GRIDS[kind].point(index, levels)[0, 0].T, points)
