"""Codebooks that are fixed: points for a few axes, one number for each, and counts of how they are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from astrape.blocks.ops.planar import GRIDS
from astrape.blocks.parameters import check_choice, check_elements

__all__ = [
    "LARGEST_CODEBOOK",
    "LevelGrid",
    "MixedRadix",
    "PairGrid",
    "check_codes",
    "count_codes",
    "perplexity",
    "usage",
]

LARGEST_CODEBOOK = 1 << 24
"""Codes travel as float32 numbers, and from 2^24 on float32 skips whole numbers."""


MARGIN = 1 + 1e-3
"""Ratio of the bound to the outermost level, so that tanh reaches the level without saturating."""


class MixedRadix(nn.Module):
    """Digits of several sizes as one number, the first digit least significant.

    Sizes 145, 145, 145 and digits 3, 0, 2 make ``3 + 145 (0 + 145 * 2) = 42053``. Numbers are whole ones in a float
    type; all arithmetic on them is exact.

    Args:
        sizes: number of values of each digit. Their product is at most 2^24.
        hint: what the error proposes to do about a product that is larger.

    Attributes:
        size: the product: how many numbers there are.

    Raises:
        ValueError: for a product above 2^24.
    """

    sizes: Tensor
    strides: Tensor

    def __init__(self, sizes: Sequence[int], hint: str = "take fewer levels") -> None:
        super().__init__()
        self.size = math.prod(sizes)
        if self.size > LARGEST_CODEBOOK:
            raise ValueError(
                f"levels make {' x '.join(map(str, sizes))} = {self.size} codes, and codes are float32 numbers, which "
                f"are exact only up to {LARGEST_CODEBOOK}: {hint}"
            )
        strides = [math.prod(sizes[:index]) for index in range(len(sizes))]
        # Integers, so that converting the block to half precision leaves them as they are.
        self.register_buffer("sizes", torch.tensor(sizes).unsqueeze(-1), persistent=False)
        self.register_buffer("strides", torch.tensor(strides).unsqueeze(-1), persistent=False)

    def join(self, digits: Tensor) -> Tensor:
        """Digits ``(batch, count, frames)`` to numbers ``(batch, 1, frames)``."""
        return (digits * self.strides).sum(dim=1, keepdim=True)

    def split(self, numbers: Tensor) -> Tensor:
        """Numbers ``(batch, 1, frames)`` to digits ``(batch, count, frames)``.

        Anything else than a whole number from 0 to ``size - 1`` is taken as the nearest one, since a stream cannot
        stop to complain.
        """
        numbers = numbers.round().clamp(0, self.size - 1)
        # A float quotient below 2^24 by b is at least 1 / b short of the next whole number: more than it rounds.
        above = torch.floor(numbers / self.strides)
        return above - torch.floor(above / self.sizes) * self.sizes


Relaxation = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""A differentiable stand-in for snapping while a model learns: from coordinates ``(batch, groups, axes, frames)`` and
the points of each group, ``(axes, count)``, to values of the coordinates' shape, with a gradient."""


class _Points(nn.Module):
    """Fixed points for groups of axes.

    Attributes:
        relaxation: ``None``, which snaps. Training may put something softer here, for steps in training mode
            only (:func:`astrape.training.relaxation.relaxed` does, and takes it away again). It works frame by frame,
            and codes stay those of the nearest points.
    """

    relaxation: Relaxation | None = None

    def softened(self, place: Tensor) -> Tensor | None:
        """The relaxed values of places ``(batch, groups, axes, frames)``, ``None`` where there is no relaxation."""
        if self.relaxation is None or not self.training:
            return None
        return self.relaxation(place, self.points(place))

    def points(self, like: Tensor) -> list[Tensor]:
        """The points of each group, ``(axes, count)``, in the type of ``like``."""
        raise NotImplementedError


class PairGrid(_Points):
    """Pairs of axes, each snapped to its planar grid. Without ``radix``, a grid of any size, the points alone."""

    levels: Tensor
    halves: Tensor

    def __init__(self, levels: Sequence[int], grid: str, coded: bool = True) -> None:
        super().__init__()
        self.grid = GRIDS[check_choice("grid", grid, GRIDS)]
        if len(levels) % 2:
            raise ValueError(f"levels must be for an even number of axes, as they are paired, not {len(levels)}")
        for index, count in enumerate(levels):
            if self.grid.odd and count % 2 == 0:
                raise ValueError(
                    f"levels[{index}] must be odd on a {grid} grid, which has a point at 0, not {count}: take "
                    f"{count - 1} or {count + 1}"
                )
        pairs = list(zip(levels[::2], levels[1::2], strict=True))
        sizes = [self.grid.size(*pair) for pair in pairs]
        self.size = math.prod(sizes)
        self.radix = MixedRadix(sizes, "take fewer levels, or codes: false") if coded else None
        # Integers, so that converting the block to half precision leaves them as they are.
        self.register_buffer("levels", torch.tensor(pairs).unsqueeze(-1), persistent=False)
        self.register_buffer("halves", torch.tensor(levels).unsqueeze(-1) // 2, persistent=False)

    def encode(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values from -1 to 1, ``(batch, axes, frames)``, to quantized ones and codes ``(batch, 1, frames)``."""
        levels = self.levels.to(z.dtype)
        place = z.reshape(len(z), len(levels), 2, z.shape[-1]) * ((levels - 1) * (MARGIN / 2))
        point, index = self.grid.nearest(place.detach(), levels)
        codes = None if self.radix is None else self.radix.join(index.squeeze(2))
        soft = self.softened(place)
        quantized = _straight_through(point.flatten(1, 2), z) if soft is None else soft.flatten(1, 2)
        return quantized / self.halves, codes

    def points(self, like: Tensor) -> list[Tensor]:
        levels = self.levels.to(like)
        numbers = [self.grid.size(*pair) for pair in self.levels.squeeze(-1).tolist()]
        indices = [torch.arange(count, device=like.device, dtype=like.dtype) for count in numbers]
        return [self.grid.point(index[None], pair) for index, pair in zip(indices, levels, strict=True)]

    def decode(self, codes: Tensor) -> Tensor:
        """The quantized values of codes, as ``encode`` gave them."""
        if self.radix is None:
            raise ValueError("this quantizer has no codes to decode: build it with codes: true")
        index = self.radix.split(codes).unsqueeze(2)
        return self.grid.point(index, self.levels.to(codes.dtype)).flatten(1, 2) / self.halves


class LevelGrid(_Points):
    """Each axis rounded to its own levels; an even count has one level more below 0 than above."""

    levels: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.radix = MixedRadix(levels)
        self.size = self.radix.size
        self.register_buffer("levels", torch.tensor(levels).unsqueeze(-1), persistent=False)

    def encode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Any values, ``(batch, axes, frames)``, to quantized ones from -1 to 1 and codes ``(batch, 1, frames)``."""
        levels = self.levels.to(z.dtype)
        half = torch.floor(levels / 2)
        reach = (levels - 1) * (MARGIN / 2)
        lift = 0.5 - 0.5 * torch.remainder(levels, 2)
        place = torch.tanh(z + torch.atanh(lift / reach)) * reach - lift
        level = place.detach().round()
        soft = self.softened(place.unsqueeze(2))
        quantized = _straight_through(level, place) if soft is None else soft.squeeze(2)
        return quantized / half, self.radix.join(level + half)

    def points(self, like: Tensor) -> list[Tensor]:
        counts = self.levels.squeeze(-1).tolist()
        return [torch.arange(count, device=like.device, dtype=like.dtype)[None] - count // 2 for count in counts]

    def decode(self, codes: Tensor) -> Tensor:
        """The quantized values of codes, as ``encode`` gave them."""
        half = torch.floor(self.levels.to(codes.dtype) / 2)
        return (self.radix.split(codes) - half) / half


def _straight_through(quantized: Tensor, z: Tensor) -> Tensor:
    """``quantized`` to the last bit, with the gradient of ``z``."""
    return quantized.detach() + (z - z.detach()) if z.requires_grad else quantized


def check_codes(codes: Tensor, size: int) -> Tensor:
    """``codes`` if all are whole numbers from 0 to ``size - 1``; for stored codes, before they are decoded.

    Raises:
        ValueError: if not, naming the first that is none, and where it stands.
    """
    wrong = ~((codes >= 0) & (codes < size) & (codes == codes.round()))
    if bool(wrong.any()):
        place = tuple(int(index) for index in wrong.nonzero()[0])
        raise ValueError(f"codes must be whole numbers from 0 to {size - 1}, not {codes[place].item()!r} at {place}")
    return codes


def count_codes(codes: Tensor, size: int) -> Tensor:
    """Counts of each code: ``(size,)``, int64, for codes of any shape.

    Counts of parts add up to the count of the whole, so a corpus or a live stream is counted piece by piece::

        counts = counts + count_codes(block(x)["codes"], block.codebook_size)

    Args:
        codes: whole numbers from 0 to ``size - 1``, in any type. Padding has to be cut off before.
        size: number of codes there are.

    Raises:
        ValueError: for a code out of range.
    """
    check_elements("the counts", size)
    return torch.bincount(check_codes(codes, size).flatten().to(torch.int64), minlength=size)


def usage(counts: Tensor) -> float:
    """Share of the codes that occur at all, 0 to 1. A corpus of ``n`` frames can't use more than ``n`` codes."""
    return int((counts > 0).sum()) / counts.numel()


def perplexity(counts: Tensor) -> float:
    """``exp(entropy)`` of the codes: how many equally frequent ones would say as much; 1 for none or only one."""
    seen = counts[counts > 0].to("cpu", torch.float64)
    share = seen / seen.sum()
    return math.exp(float(-(share * share.log()).sum()))
