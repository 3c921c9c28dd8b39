"""Weights as products read them best: in half of the bytes where float16 holds them, and row after row."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from astrape.capture.native.instructions import Instruction, Operand, codes, written
from astrape.capture.native.near import FEW
from astrape.capture.native.ordered import LANES

__all__ = ["Weights"]

PRODUCT, IN_ORDER = codes["product_f"], codes["product_in_order_f"]
MULTIPLIED_ON = {codes["muladd_f"]: 4, codes["muladd_d"]: 8}
"""Instructions that add a product, and the bytes of one of their numbers."""

LARGE = 1 << 20
"""Bytes of a matrix from which on it comes from memory in every step, and is worth a copy that lies in order."""

MOST_IN_PLACE = 1 << 14
"""Numbers of a matrix up to which eight rows are read side by side where they lie: those stay in the first cache."""


class _Matrix(NamedTuple):
    """A weight in a product: which operand it is, which dimension its rows are, and how many frames there are."""

    operand: int
    row: int
    frames: int
    values: Tensor


class Weights:
    """Products of a few frames with weights, told to read copies of those that take less time.

    A frame reads every weight once, and bytes are time. A matrix whose numbers float16 holds to the last bit, as those
    of weights that were stored so, is read as float16, and nothing is lost. One that lies column by column is read
    as a copy that lies row by row; a tap of a depthwise convolution, which is a number for each channel, as a copy
    in which these lie side by side; the matrix of a product in PyTorch's order as one that lies as its sums are taken,
    unless it is large and in float32. A copy is made once for all captured steps.

    Args:
        constant: tells the addresses of the memory of what stays as it is; nothing else is copied.
        halves: whether to look for what float16 holds.

    Attributes:
        half_bytes: of matrices that are read as float16.
        full_bytes: of those that are read as float32.
    """

    def __init__(self, constant: Callable[[], Collection[int]], halves: bool = True) -> None:
        self._constant, self._halves = constant, halves
        self._copies: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Tensor | None] = {}
        self.half_bytes = self.full_bytes = 0

    @property
    def copies(self) -> list[Tensor]:
        """The copies of weights made so far."""
        return [copy for copy in self._copies.values() if copy is not None]

    def read(self, given: Instruction) -> Instruction | None:
        """The instruction, told to read the copy of its weight; one that is not such a product comes back unchanged.

        ``None`` for a product in PyTorch's order that PyTorch itself has as fast.
        """
        if given.code in MULTIPLIED_ON:
            return self._side_by_side(given)
        if given.code == IN_ORDER:
            return self._together(given)
        matrix = self._matrix(given) if given.code == PRODUCT else None
        if matrix is None:
            return given
        values = matrix.values
        copy = self._kept(values, self._copy)
        return given if copy is None else _reading(given, matrix, copy)

    def _kept(self, values: Tensor, make: Callable[[Tensor], Tensor | None]) -> Tensor | None:
        key = (values.data_ptr(), tuple(values.shape), values.stride())
        if key not in self._copies:
            copy = self._copies[key] = make(values)
            size = values.numel() * 4
            if copy is not None and copy.dtype == torch.float16:
                self.half_bytes += size // 2
            else:
                self.full_bytes += size
        return self._copies[key]

    def _together(self, given: Instruction) -> Instruction | None:
        """A product in PyTorch's order whose matrix is a copy that lies as it is read."""
        batch, rows, _, sums = given.sizes.tolist()
        own = self._weight(given, 1)
        if own is None:
            return given if batch * rows * sums <= MOST_IN_PLACE else None
        lies = tuple(int(given.strides[1, dim]) // 4 for dim in (0, 1, 3))
        copy = self._kept(own.as_strided((batch, rows, sums), lies, own.storage_offset()), self._by_registers)
        if copy is None:
            return None
        made, size = Instruction(given.words.copy(), (*given.held, copy)), copy.element_size()
        made.words[0] = codes["halves_in_order_f" if size == 2 else "product_in_order_f"]
        made.strides[1, 0], made.addresses[1], made.more[0] = copy.stride(0) * size, copy.data_ptr(), 1
        return made

    def _by_registers(self, values: Tensor) -> Tensor | None:
        """``(batch, rows, sums)`` as a register of each of eight rows, the next of each, and so on; then the rest.

        ``None`` where that would be a large copy for little: PyTorch reads it nearly as fast from memory.
        """
        narrow = self._halved(values)
        if narrow is None and values.numel() * 4 >= LARGE:
            return None
        padded = pad(values if narrow is None else narrow, (0, 0, 0, -values.shape[1] % LANES))
        return rearrange(padded, "b (n r) (k l) -> b n k r l", r=LANES, l=LANES).contiguous()

    def _weight(self, given: Instruction, index: int) -> Tensor | None:
        """An operand, where it is a tensor that stays as it is."""
        own = next((one for one in given.held if one.data_ptr() == int(given.addresses[index])), None)
        return own if own is not None and own.untyped_storage().data_ptr() in self._constant() else None

    def _matrix(self, given: Instruction) -> _Matrix | None:
        batch, rows, columns, sums = (int(size) for size in given.sizes)
        for index, row, size, frames in ((1, 1, rows, columns), (2, 2, columns, rows)):
            own = self._weight(given, index)
            if own is None or frames > FEW or size <= frames:
                continue
            strides = given.strides[index]
            lies = tuple(int(strides[dim]) // 4 for dim in (0, row, 3))
            return _Matrix(index, row, frames, own.as_strided((batch, size, sums), lies, own.storage_offset()))
        return None

    def _side_by_side(self, given: Instruction) -> Instruction:
        """A product that is added, whose second factor lies side by side if it stays as it is."""
        size = MULTIPLIED_ON[given.code]
        strides = [int(stride) for stride in given.strides[3]]
        own = self._weight(given, 3)
        if strides[-1] in (0, size) or own is None:
            return given
        shape = tuple(int(count) if stride else 1 for count, stride in zip(given.sizes, strides, strict=True))
        key = (own.data_ptr(), shape, tuple(strides))
        if key not in self._copies:
            lies = tuple(stride // size for stride in strides)
            self._copies[key] = own.as_strided(shape, lies, own.storage_offset()).contiguous()
        copy = self._copies[key]
        assert copy is not None
        made = Instruction(given.words.copy(), (*given.held, copy))
        made.addresses[3] = copy.data_ptr()
        made.strides[3] = [new * size if old else 0 for old, new in zip(strides, copy.stride(), strict=True)]
        return made

    def _halved(self, values: Tensor) -> Tensor | None:
        """Values as float16, where it holds them to the last bit and may be looked for."""
        narrow = values.to(torch.float16) if self._halves else None
        return narrow if narrow is not None and torch.equal(narrow.to(torch.float32), values) else None

    def _copy(self, values: Tensor) -> Tensor | None:
        narrow = self._halved(values)
        if narrow is not None:
            return narrow.contiguous()
        if values.stride(2) != 1 and values.numel() * 4 >= LARGE:
            return values.contiguous()
        return None


def _reading(given: Instruction, matrix: _Matrix, copy: Tensor) -> Instruction:
    """The same product with a copy of its matrix, which is the first factor then."""
    (batch, rows, sums), size = copy.shape, copy.element_size()
    strides, at = given.strides.tolist(), given.addresses.tolist()
    row, frame, vector = matrix.row, 3 - matrix.row, 3 - matrix.operand
    parts = [Operand(address, (), copy) for address in (at[0], copy.data_ptr(), at[vector], at[3])]
    by_dimension = [
        (strides[0][0], rows * sums * size, strides[vector][0], strides[3][0]),
        (strides[0][row], sums * size, 0, strides[3][row]),
        (strides[0][frame], 0, strides[vector][frame], strides[3][frame]),
        (0, size, strides[vector][3], 0),
    ]
    code = codes["halves_f"] if copy.dtype == torch.float16 else PRODUCT
    made = written(code, (batch, rows, matrix.frames, sums), by_dimension, parts, [int(given.more[0])])
    return Instruction(made.words, (*given.held, copy))
