"""Instructions: what a kernel of the library is told, made of tensors that stay where they are."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.capture.native.building import SOURCES

__all__ = [
    "WORDS",
    "Instruction",
    "Operand",
    "along",
    "bits",
    "codes",
    "constant",
    "elementwise",
    "instruction",
    "operand",
]

DIMENSIONS = 4
OPERANDS = 4
FIRST_ADDRESS = 1 + DIMENSIONS + OPERANDS * DIMENSIONS
WORDS = FIRST_ADDRESS + OPERANDS + 4
"""64-bit words of an instruction: code, sizes, strides, addresses, and four of its own."""


class Operand(NamedTuple):
    """A tensor, or a part of one: its address, and a stride in bytes for each dimension."""

    at: int
    strides: tuple[int, ...]
    held: Tensor


class Instruction(NamedTuple):
    """The words of an instruction, and the tensors that have to outlast it. Its parts are views of the words."""

    words: npt.NDArray[np.int64]
    held: tuple[Tensor, ...] = ()

    @property
    def code(self) -> int:
        """The kernel's number in the library."""
        return int(self.words[0])

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Lengths of the four dimensions, 1 for those that are not needed."""
        return self.words[1 : 1 + DIMENSIONS]

    @property
    def strides(self) -> npt.NDArray[np.int64]:
        """Bytes from one element to the next, ``(operand, dimension)``; operand 0 is written."""
        return self.words[1 + DIMENSIONS : FIRST_ADDRESS].reshape(OPERANDS, DIMENSIONS)

    @property
    def addresses(self) -> npt.NDArray[np.int64]:
        """Addresses of the operands, 0 for those that are not needed."""
        return self.words[FIRST_ADDRESS : FIRST_ADDRESS + OPERANDS]

    @property
    def more(self) -> npt.NDArray[np.int64]:
        """Four words that mean something to the kernel alone, such as the bits of a factor."""
        return self.words[FIRST_ADDRESS + OPERANDS :]


def _codes() -> dict[str, int]:
    exact = re.findall(r"TABLE_ENTRY\((\w+)\)", (SOURCES / "codes.h").read_text())
    near = re.findall(r"NEAR_ENTRY\((\w+)\)", (SOURCES / "near_codes.h").read_text())
    return {name: code for code, name in enumerate([*exact, *(f"{name}_{kind}" for name in near for kind in "fd")])}


codes = _codes()
"""Kernels of the library by name, as its own tables have them."""


def operand(tensor: Tensor, shape: Sequence[int]) -> Operand:
    """A tensor as it is repeated to ``shape``."""
    spread = tensor.detach().expand(tuple(shape))
    size = tensor.element_size()
    return Operand(tensor.data_ptr(), tuple(stride * size for stride in spread.stride()), tensor)


def constant(value: float | bool, like: Tensor) -> Tensor:
    """A number as a tensor without dimensions."""
    return torch.tensor(value, dtype=like.dtype)


def bits(value: float) -> int:
    """A float64 as the whole number that has its bits."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def elementwise(name: str, place: Tensor, *operands: Operand, more: Sequence[int] = ()) -> Instruction | None:
    """An instruction whose operands all have the shape of ``place``; ``None`` where it takes too many dimensions."""
    return instruction(name, tuple(place.shape), (operand(place, place.shape), *operands), more)


def along(
    name: str, dim: int, place: Operand, given: Operand, shape: Sequence[int], more: Sequence[int] = ()
) -> Instruction | None:
    """An instruction that goes through one dimension of ``shape``, and has it last."""
    rest = [index for index in range(len(shape)) if index != dim % len(shape)]
    turned = [
        Operand(one.at, (*(one.strides[index] for index in rest), one.strides[dim]), one.held) for one in (place, given)
    ]
    return instruction(name, [*(shape[index] for index in rest), shape[dim]], turned, more, last=True)


def instruction(
    name: str,
    shape: Sequence[int],
    operands: Sequence[Operand],
    more: Sequence[int] = (),
    last: bool = False,
    moves: bool = False,
) -> Instruction | None:
    """The words of an instruction; ``None`` where more than four dimensions are left after those that lie one in the
    other have been joined, and where an operand is overwritten while it is read.

    Args:
        last: whether the last dimension stays what it is.
        moves: whether operands may share memory.
    """
    if name not in codes or (not moves and any(_overlap(shape, operands[0], other) for other in operands[1:])):
        return None
    dims = [index for index in range(len(shape)) if shape[index] != 1 and not (last and index == len(shape) - 1)]
    dims.sort(key=lambda index: -abs(operands[0].strides[index]))
    sizes: list[int] = []
    strides: list[list[int]] = []
    for index in dims:
        here = [one.strides[index] for one in operands]
        if sizes and all(outer == inner * shape[index] for outer, inner in zip(strides[-1], here, strict=True)):
            sizes[-1] *= shape[index]
            strides[-1] = here
        else:
            sizes.append(shape[index])
            strides.append(here)
    if last:
        sizes.append(shape[-1])
        strides.append([one.strides[-1] for one in operands])
    if len(sizes) > DIMENSIONS:
        return None
    return written(codes[name], sizes, strides, operands, more)


def written(
    code: int,
    sizes: Sequence[int],
    strides: Sequence[Sequence[int]],
    operands: Sequence[Operand | None],
    more: Sequence[int] = (),
) -> Instruction:
    """An instruction as it is; sizes and strides by dimension; there may be fewer than four."""
    made = Instruction(np.zeros(WORDS, dtype=np.int64), tuple(one.held for one in operands if one is not None))
    lead = DIMENSIONS - len(sizes)
    made.words[0] = code
    made.sizes[:] = [1] * lead + list(sizes)
    for dim, entries in enumerate(strides):
        made.strides[: len(entries), lead + dim] = entries
    for index, one in enumerate(operands):
        made.addresses[index] = 0 if one is None else one.at
    made.more[: len(more)] = more
    return made


def _overlap(shape: Sequence[int], place: Operand, other: Operand) -> bool:
    """Whether two operands share memory without lying alike."""
    if place.held.untyped_storage().data_ptr() != other.held.untyped_storage().data_ptr():
        return False
    if place.at == other.at and place.strides == other.strides:
        return False
    (low, high), (begin, end) = _reach(shape, place), _reach(shape, other)
    if low >= end or begin >= high:
        return False
    # Two halves of pairs, say: they take turns in the same memory and never meet.
    steps = [one for size, *both in zip(shape, place.strides, other.strides, strict=True) if size > 1 for one in both]
    step, size = math.gcd(*steps), place.held.element_size()
    apart = (place.at - other.at) % step if step else 0
    return not size <= apart <= step - size


def _reach(shape: Sequence[int], one: Operand) -> tuple[int, int]:
    spans = [(size - 1) * stride for size, stride in zip(shape, one.strides, strict=True)]
    low = one.at + sum(min(0, span) for span in spans)
    return low, one.at + sum(max(0, span) for span in spans) + one.held.element_size()
