"""The discrete Fourier transform of windowed real frames, and its inverse, as two products with small real matrices.

A transform of ``n`` points as one matrix reads ``n (n + 2)`` numbers for every frame, 9.4 MB of float32 for 1536, and a
stream that transforms a frame per step does little else. Cooley and Tukey ("An algorithm for the machine calculation of
complex Fourier series", Math. Comp. 19, 1965) take ``n = inner * outer`` apart. With the sample ``outer a + b`` and the
bin ``k + inner c``, for ``a, k < inner`` and ``b, c < outer``::

    Y[k, b]        = sum_a x[outer a + b] exp(-2 pi i a k / inner)
    X[k + inner c] = sum_b Y[k, b] exp(-2 pi i b (k + inner c) / n)

The first sum is one real matrix, ``2 K`` rows by ``inner`` columns, on the frame written as ``inner`` rows by ``outer``
columns: the samples are real, so ``Y[inner - k]`` is the conjugate of ``Y[k]`` and the ``K = inner // 2 + 1`` rows from
0 on are all that is needed, each as a real and an imaginary part. The second sum, twiddle factors and all, is one real
matrix of ``2 outer`` by ``2 outer`` for each of these rows. It gives bins ``k + inner c`` above the Nyquist frequency,
too, and each stands for its mirror image, whose imaginary part has the other sign. That sign lies in the matrix, and
what is left is to put the bins in order.

Example: 1536 points are 96 * 16, so the first matrix is 98 by 96 and there are 49 of 32 by 32, 0.24 MB in all. Row 1
gives the bins 1, 97, 193, ..., 1441, of which those from 769 up are the mirror images of 767, 671, ..., 95. A frame
takes 25 us instead of 540 us on one core, and rounding errors fall as well, since sums are shorter.

A prime ``n`` leaves ``outer = 1``, and the first matrix is the whole transform. ``exp`` never sees an angle above
``2 pi``: turns are reduced in integers first, so that tables of 8192 points are as accurate as those of 8.

There is no complex tensor and no FFT in it: compilers, ONNX and small runtimes take it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from astrape.blocks.ops.tables import ExactTables, Float64

__all__ = ["WindowedDFT", "WindowedInverseDFT", "factors"]

OUTER_COST = 4
"""Cost of a multiplication in the outer matrices, in terms of one in the inner matrix. For a single frame they are
read for one product of a vector each, while the inner matrix meets ``outer`` columns. Measured on one core."""

FRAMES_AT_ONCE = 256
"""Frames are transformed this many at a time, which stay in the cache: an hour takes no more memory than its result."""


def factors(n: int) -> tuple[int, int]:
    """``inner, outer`` with ``inner * outer = n``: the cheapest pair, of equals that of the larger ``inner``.

    >>> factors(1536), factors(1512), factors(97)
    ((96, 16), (84, 18), (97, 1))
    """
    pairs = [(inner, n // inner) for inner in range(1, n + 1) if n % inner == 0]
    return min(pairs, key=lambda pair: (pair[0] + OUTER_COST * pair[1], pair[1]))


class _Factored(ExactTables):
    """The matrices for ``n`` points, ``n`` the length of the window, and the order of the bins.

    Attributes:
        inner: ``(2 * rows, inner)``, a real and an imaginary row for each ``k``.
        outer: ``(rows, 2 * outer, 2 * outer)``, from ``(part, b)`` to ``(part, c)``.
        window: ``(n,)``.
        places: ``(2 * bins,)``, where in ``(k, part, c)`` each channel of the spectrum lies.
        channels: ``(rows * 2 * outer,)``, the reverse; 0 where a place holds what another one holds already.
    """

    inner: Tensor
    outer: Tensor
    window: Tensor
    places: Tensor
    channels: Tensor

    def __init__(self, window: Float64) -> None:
        super().__init__()
        self.taper = window
        self.n = len(window)
        self.bins = self.n // 2 + 1
        self.split = factors(self.n)
        self.rows = self.split[0] // 2 + 1
        frequency, _, used = self._layout()
        channels = np.stack([frequency, frequency + self.bins], axis=1) * used[:, None]
        places = np.zeros(2 * self.bins, dtype=np.int64)
        taken = np.flatnonzero(np.stack([used, used], axis=1))
        places[channels.reshape(-1)[taken]] = taken
        self.register_buffer("places", torch.from_numpy(places), persistent=False)
        self.register_buffer("channels", torch.from_numpy(channels.reshape(-1)), persistent=False)
        self.register_tables()

    def _layout(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """The bin at each ``(k, c)``, whether it is there as its mirror image, and whether it is there alone."""
        inner, outer = self.split
        row = np.arange(self.rows)[:, None]
        index = row + inner * np.arange(outer)
        mirrored = index > self.n // 2
        # Rows 0 and inner / 2 are their own mirror images: they hold every bin on both sides.
        used = ~mirrored | ((row != 0) & (2 * row != inner))
        return np.where(mirrored, self.n - index, index), mirrored, used

    def exact_tables(self) -> Mapping[str, Float64]:
        inner, outer = self.split
        row = np.arange(self.rows)
        cosine, sine = circle(inner)
        turns = np.outer(row, np.arange(inner)) % inner
        first = np.stack([cosine[turns], -sine[turns]], axis=1).reshape(2 * self.rows, inner)
        cosine, sine = circle(self.n)
        index = row[:, None] + inner * np.arange(outer)
        turns = np.arange(outer)[:, None] * index[:, None] % self.n
        real = np.concatenate([cosine[turns], sine[turns]], axis=1)
        imaginary = np.concatenate([-sine[turns], cosine[turns]], axis=1)
        _, mirrored, used = self._layout()
        imaginary *= np.where(mirrored, -1.0, 1.0)[:, None]
        second = np.stack([real, imaginary], axis=2) * (used[:, None, None] * self.shares())
        return {"inner": first, "outer": second.reshape(self.rows, 2 * outer, 2 * outer), "window": self.taper}

    def inner_product(self, squares: Tensor) -> Tensor:
        """``inner @ squares`` for ``(frames, any, outer)``."""
        if self.split[1] == 1:
            # One column a frame: all frames at once, or the matrix, which is large here, is read again for each.
            return F.linear(squares[..., 0], self.inner)[..., None]
        return torch.bmm(self.inner.expand(squares.shape[0], -1, -1), squares)

    def shares(self) -> Float64:
        """The weight of each value ``(rows, 1, 2, outer)``; 1 unless a subclass says otherwise."""
        return np.ones((1, 1, 1, 1))


class WindowedDFT(_Factored):
    """``X[f] = sum_m w[m] x[m] exp(-2 pi i f m / n)`` of real frames, for the ``bins = n // 2 + 1`` bins of each.

    ``(batch, frames, n)`` becomes ``(batch, 2 * bins, frames)``, real parts, then imaginary parts, in the type of the
    tables even under autocast: bfloat16 is 50 dB short of audio.

    Args:
        window: ``w``, whose length is ``n``.
    """

    def forward(self, frames: Tensor) -> Tensor:
        if torch.is_autocast_enabled(frames.device.type):
            with torch.autocast(frames.device.type, enabled=False):
                return self.forward(frames.to(self.window.dtype))
        if frames.shape[1] > FRAMES_AT_ONCE:
            return torch.cat([self.forward(part) for part in torch.split(frames, FRAMES_AT_ONCE, dim=1)], dim=-1)
        batch, count, _ = frames.shape
        squares = (frames * self.window).reshape(batch * count, *self.split)
        rows = self.inner_product(squares).view(batch * count, self.rows, 2 * self.split[1])
        mixed = torch.bmm(rows.transpose(0, 1), self.outer).transpose(1, 2)
        spectrum = mixed.reshape(flat_shape(len(self.channels), batch * count)).index_select(0, self.places)
        return spectrum.view(len(self.places), batch, count).transpose(0, 1)


class WindowedInverseDFT(_Factored):
    """The real frame of a spectrum, times a window: the transpose of :class:`WindowedDFT`, with each bin's share.

    ``(batch, 2 * bins, frames)`` becomes ``(batch, frames, n)``. Every bin stands for its mirror image, too, and counts
    ``2 / n``; those at 0 Hz and at the Nyquist frequency count ``1 / n``, and their imaginary parts nothing. In the
    type of the tables even under autocast.

    Its ``inner`` and ``outer`` are transposed in place, for a product with a contiguous matrix is the faster one.

    Args:
        window: what the frame is multiplied by; its length is ``n``.
    """

    def exact_tables(self) -> Mapping[str, Float64]:
        tables = super().exact_tables()
        return {**tables, "inner": tables["inner"].T, "outer": tables["outer"].swapaxes(1, 2)}

    def shares(self) -> Float64:
        frequency, _, _ = self._layout()
        alone = (frequency == 0) | (2 * frequency == self.n)
        parts = np.stack([np.where(alone, 1.0, 2.0), np.where(alone, 0.0, 2.0)], axis=1) / self.n
        return parts[:, None]

    def forward(self, spectrum: Tensor) -> Tensor:
        if torch.is_autocast_enabled(spectrum.device.type):
            with torch.autocast(spectrum.device.type, enabled=False):
                return self.forward(spectrum.to(self.window.dtype))
        if spectrum.shape[2] > FRAMES_AT_ONCE:
            return torch.cat([self.forward(part) for part in torch.split(spectrum, FRAMES_AT_ONCE, dim=2)], dim=1)
        batch, channels, count = spectrum.shape
        placed = spectrum.transpose(0, 1).reshape(flat_shape(channels, batch * count)).index_select(0, self.channels)
        mixed = placed.view(self.rows, 2 * self.split[1], batch * count).transpose(1, 2)
        rows = torch.bmm(mixed, self.outer).transpose(0, 1).reshape(batch * count, 2 * self.rows, self.split[1])
        return self.inner_product(rows).view(batch, count, self.n) * self.window


def flat_shape(places: int, frames: int) -> tuple[int, ...]:
    """Places by frames; for a lone frame without a dimension for it, where picking single numbers is twice as fast."""
    return (places,) if frames == 1 else (places, frames)


def circle(n: int) -> tuple[Float64, Float64]:
    """``cos`` and ``sin`` of ``2 pi m / n`` for ``m < n``, the sine of half a turn exactly 0."""
    angles = 2 * np.pi * np.arange(n) / n
    sine = np.sin(angles)
    if n % 2 == 0:
        sine[n // 2] = 0.0
    return np.cos(angles), sine
