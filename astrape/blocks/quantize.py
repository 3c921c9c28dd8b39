"""Quantizers without a codebook to learn: pairs of dimensions on planar grids (Q2D2), and single ones on levels (FSQ).

Both bound a few dimensions, snap them to fixed points, and say which point it was as one number. Each comes with a
block that goes the way back, from stored codes to content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.codebook import LevelGrid, PairGrid, check_codes
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_elements
from astrape.blocks.registry import register
from astrape.errors import RateError

__all__ = ["FSQ", "Q2D2", "FSQDecode", "Q2D2Decode"]

MOST_LEVELS = 512
"""Levels of an axis. From 1001 on the bound, a thousandth wider than the levels, would reach one more of them."""

MOST_AXES = 64

Result = TypeVar("Result")


class PairQuantizer(nn.Module):
    """The pairs' grids, with ``project_in`` before them and, if axes and dimensions differ in number, a way back."""

    def __init__(self, dim: int, levels: Sequence[int], grid: str, *, coded: bool = True, encodes: bool = True) -> None:
        super().__init__()
        self.pairs = PairGrid(levels, grid, coded)
        if encodes:
            self.project_in = nn.Sequential(nn.Linear(dim, len(levels)), nn.Tanh())
        self.project_out = None if dim == len(levels) else nn.Linear(len(levels), dim)


class _Quantizer(StreamBlock):
    """Base of quantizers and their decoders: each frame by itself, in float32 at least, autocast or not."""

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        return self.points.size

    def decode(self, codes: Tensor) -> Tensor:
        """Content of stored codes: ``(batch, 1, n)``, of any type, to ``(batch, channels, n)``.

        Raises:
            ValueError: for a code that is not a whole number from 0 to ``codebook_size - 1``. A streaming decoder,
                which cannot stop, takes the nearest one that is.
        """
        return _widely(self._from_codes, check_codes(codes, self.codebook_size))

    @property
    def points(self) -> PairGrid | LevelGrid:
        """The points that the quantizer snaps to, and their codes."""
        raise NotImplementedError

    def content_of(self, quantized: Tensor) -> Tensor:
        """Content of quantized values, ``(batch, axes, n)`` to ``(batch, channels, n)``."""
        raise NotImplementedError

    def _from_codes(self, codes: Tensor) -> Tensor:
        return self.content_of(self.points.decode(codes))


class _Encoder(_Quantizer):
    """Content, and codes where they are wanted."""

    def encode(self, x: Tensor) -> Tensor:
        """Codes to store: ``(batch, channels_in, n)`` to int64 ``(batch, 1, n)``."""
        with torch.no_grad():
            _, codes = _widely(self._to_content, x)
        if codes is None:
            raise ValueError("this quantizer gives no codes: build it with codes: true")
        return codes.to(torch.int64)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[dict[str, Tensor], State]:
        content, codes = _widely(self._to_content, x)
        # Codes are not narrowed: half precision holds whole numbers up to 2048 only.
        return {"content": content.to(x.dtype)} | ({} if codes is None else {"codes": codes}), state

    def _to_content(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


class _Decoder(_Quantizer):
    """Content from codes, the same that the quantizer gave with them."""

    def __init__(self, source: Stream, channels: int) -> None:
        if source.channels != 1:
            raise RateError(f"codes are 1 channel, not {source.channels}: read the quantizer's output 'codes'")
        super().__init__(source, channels=bounded("channels", channels, 1, LARGEST_COUNT))

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return _widely(self._from_codes, x).to(x.dtype), state


class _Paired(_Quantizer):
    """Content of pairs on planar grids."""

    quantizer: PairQuantizer
    proj_out: nn.Linear

    @property
    def points(self) -> PairGrid:
        return self.quantizer.pairs

    def content_of(self, quantized: Tensor) -> Tensor:
        if self.quantizer.project_out is not None:
            quantized = _project(quantized, self.quantizer.project_out)
        return _project(quantized, self.proj_out)


@register("q2d2")
class Q2D2(_Paired, _Encoder):
    """Two-dimensional quantization (Shuster & Nachmani, arXiv:2512.01537): pairs of dimensions snapped to a grid.

    ``(batch, channels_in, n)`` to ``content``, ``(batch, channels, n)``, and ``codes``, ``(batch, 1, n)``::

        latent  = latent_head(x)                                 dim channels
        z       = tanh(quantizer.project_in.0(latent))           a channel for each axis
        point   = nearest grid point to z (L - 1)(1 + 1e-3) / 2, pair by pair
        content = proj_out(point / (L // 2))
        codes   = index of the first pair + size of its grid * (index of the second + ...)

    The grids and their indices are described in :mod:`astrape.blocks.ops.planar`. The gradient passes from the point to
    ``z`` as if the two were the same; codes have none. With 9 levels on each of 6 axes, a pair's rhombic grid has 81
    points and 64 centres: 145^3 = 3,048,625 codes, 21.5 bits a frame, 538 bit/s at 25 Hz. 7 levels make 85^3 = 614,125.

    Everything is computed in float32 or better, under autocast and in a model of half precision too. Two float32 runs
    that differ in their last bits, as runs in other chunks may, can still fall on two sides of a border and give
    another code there.

    Args:
        source: the input stream.
        levels: grid levels of each axis, 2 to 512, for an even number of axes, at most 64; or one number for all. Odd
            on the rhombic grid. 9 by default.
        grid: ``"rhombic"``, ``"rectangular"`` or ``"hexagonal"``.
        dim: width of the latent: as many as there are axes when left out, and 6 when ``levels`` is one number. If
            levels are listed for another number of axes, ``quantizer.project_out`` leads from them back to ``dim``.
        channels: channels of the content. 768 by default, the width of the speech models it is to resemble.
        codes: ``False`` leaves that output out, and with it the limit on their number: codes are float32 numbers, and
            whole ones are exact up to 2^24 only.

    Raises:
        ValueError: for sizes out of range, an odd number of axes, even levels on a rhombic grid, an unknown grid, or
            more than 2^24 codes.

    >>> Q2D2(Stream(25, 512), levels=9).codebook_size
    3048625
    """

    def __init__(
        self,
        source: Stream,
        *,
        levels: Sequence[int] | int = 9,
        grid: str = "rhombic",
        dim: int | None = None,
        channels: int = 768,
        codes: bool = True,
    ) -> None:
        outputs = {"content": bounded("channels", channels, 1, LARGEST_COUNT)}
        super().__init__(source, outputs=outputs | {"codes": 1} if codes else outputs)
        axes, width = _axes(levels, dim)
        check_elements("latent_head", source.channels, width)
        self.latent_head = nn.Linear(source.channels, width)
        self.quantizer = PairQuantizer(width, axes, grid, coded=bool(codes))
        self.proj_out = nn.Linear(width, channels)

    def _to_content(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        project_in = cast(nn.Linear, self.quantizer.project_in[0])
        z = torch.tanh(_project(_project(x, self.latent_head), project_in))
        quantized, codes = self.quantizer.pairs.encode(z)
        return self.content_of(quantized), codes


@register("q2d2_decode")
class Q2D2Decode(_Paired, _Decoder):
    """The ``codes`` of a :class:`Q2D2` decoded to its ``content``: ``(batch, 1, n)`` to ``(batch, channels, n)``.

    Parameters are named as in :class:`Q2D2` (``proj_out``, and ``quantizer.project_out`` if it has one), so its weights
    fit. A number that is not a code is taken as the nearest one; :meth:`decode` refuses it.

    Args:
        source: the stream of codes, one channel.
        levels, grid, dim, channels: as the quantizer has them.

    Raises:
        ValueError: as :class:`Q2D2`.
        RateError: for more than one channel.
    """

    def __init__(
        self,
        source: Stream,
        *,
        levels: Sequence[int] | int = 9,
        grid: str = "rhombic",
        dim: int | None = None,
        channels: int = 768,
    ) -> None:
        super().__init__(source, channels)
        axes, width = _axes(levels, dim)
        self.quantizer = PairQuantizer(width, axes, grid, encodes=False)
        self.proj_out = nn.Linear(width, channels)


class _Levelled(_Quantizer):
    """Content of axes on levels."""

    axes: LevelGrid
    project_out: nn.Linear | None

    @property
    def points(self) -> LevelGrid:
        return self.axes

    def content_of(self, quantized: Tensor) -> Tensor:
        return quantized if self.project_out is None else _project(quantized, self.project_out)


@register("fsq")
class FSQ(_Levelled, _Encoder):
    """Finite scalar quantization (Mentzer et al., arXiv:2309.15505): each axis rounded to its own levels.

    ``(batch, channels_in, n)`` to ``content``, ``(batch, channels, n)``, and ``codes``, ``(batch, 1, n)``::

        bound   = tanh(z + shift) (L - 1)(1 + 1e-3) / 2 - offset,   z = project_in(x)
        content = project_out(round(bound) / (L // 2))
        codes   = sum of (round(bound) + L // 2) * product of the levels before

    An even ``L`` has an offset of 1/2 and levels from -L/2 to L/2 - 1, an odd one none; ``shift``, the inverse
    hyperbolic tangent of ``offset`` over the reach, keeps 0 at 0. The gradient passes through the rounding as if it
    were not there; codes have none. Levels [8, 8, 8, 5, 5] make 12,800 codes, 13.6 bits a frame.

    Everything is computed in float32 or better, as in :class:`Q2D2`.

    Args:
        source: the input stream.
        levels: levels of each axis, 2 to 512, for at most 64 axes.
        channels: channels of the content; as many as the input has when left out.
        project_in: a linear layer from the input to the axes. Without one, the input has a channel for each axis.
        project_out: a linear layer from the axes to the content. Without one, the content has a channel for each axis.

    Raises:
        ValueError: for sizes out of range, channels that are not as many as the axes where nothing projects, or more
            than 2^24 codes, from where on float32 numbers are no longer exact.

    >>> FSQ(Stream(25, 768), levels=[8, 8, 8, 5, 5]).codebook_size
    12800
    """

    def __init__(
        self,
        source: Stream,
        *,
        levels: Sequence[int],
        channels: int | None = None,
        project_in: bool = True,
        project_out: bool = True,
    ) -> None:
        counts, width = _axes(levels, None)
        count = _content_channels(channels, source.channels if project_out else width, width, project_out)
        super().__init__(source, outputs={"content": count, "codes": 1})
        if not project_in and source.channels != width:
            raise ValueError(f"project_in must be true to bring {source.channels} channels to {width} levels")
        check_elements("project_in", source.channels, width)
        self.axes = LevelGrid(counts)
        self.project_in = nn.Linear(source.channels, width) if project_in else None
        self.project_out = nn.Linear(width, count) if project_out else None

    def _to_content(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, codes = self.axes.encode(x if self.project_in is None else _project(x, self.project_in))
        return self.content_of(quantized), codes


@register("fsq_decode")
class FSQDecode(_Levelled, _Decoder):
    """The ``codes`` of an :class:`FSQ` decoded to its ``content``: ``(batch, 1, n)`` to ``(batch, channels, n)``.

    ``project_out`` is named as in :class:`FSQ`, so its weights fit. A number that is not a code is taken as the nearest
    one; :meth:`decode` refuses it.

    Args:
        source: the stream of codes, one channel.
        levels, project_out: as the quantizer has them.
        channels: channels of the content; needed where there is a projection.

    Raises:
        ValueError: as :class:`FSQ`.
        RateError: for more than one channel.
    """

    def __init__(
        self, source: Stream, *, levels: Sequence[int], channels: int | None = None, project_out: bool = True
    ) -> None:
        counts, width = _axes(levels, None)
        super().__init__(source, _content_channels(channels, None if project_out else width, width, project_out))
        self.axes = LevelGrid(counts)
        self.project_out = nn.Linear(width, self.channels_out) if project_out else None


def _axes(levels: Sequence[int] | int, dim: int | None) -> tuple[list[int], int]:
    """Levels axis by axis, and the width of the latent."""
    width = None if dim is None else bounded("dim", dim, 1, LARGEST_COUNT)
    if isinstance(levels, int):
        bounded("dim", 6 if width is None else width, 1, MOST_AXES)
        levels = [levels] * (6 if width is None else width)
    if not isinstance(levels, (list, tuple)) or not 1 <= len(levels) <= MOST_AXES:
        raise ValueError(f"levels must be a list of 1 to {MOST_AXES} numbers, such as [9, 9], not {levels!r}")
    counts = [bounded(f"levels[{index}]", count, 2, MOST_LEVELS) for index, count in enumerate(levels)]
    return counts, len(counts) if width is None else width


def _content_channels(channels: int | None, default: int | None, width: int, projected: bool) -> int:
    count = bounded("channels", default if channels is None else channels, 1, LARGEST_COUNT)
    if not projected and count != width:
        raise ValueError(f"project_out must be true to bring {width} levels to {count} channels")
    return count


def _project(x: Tensor, layer: nn.Linear) -> Tensor:
    """A linear layer on ``(batch, channels, frames)``, in the precision of ``x`` whatever the weights' is."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x.transpose(1, 2), layer.weight.to(x.dtype), bias).transpose(1, 2)


def _widely(function: Callable[[Tensor], Result], x: Tensor) -> Result:
    """``function(x)`` in float32 or better, with autocast off."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return function(wide)
    return function(wide)
