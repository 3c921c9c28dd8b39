"""Weights in half of the bytes: products whose matrix float16 holds to the last bit are told to read that."""

from __future__ import annotations

from collections.abc import Collection

import torch

from astrape.capture.native.instructions import Instruction, Operand, codes, written
from astrape.capture.native.near import FEW

__all__ = ["narrowed"]

PRODUCT = codes["product_f"]


def narrowed(given: Instruction, weights: Collection[int]) -> Instruction:
    """A product of a few frames with a matrix whose numbers float16 holds, as one that reads them as such.

    Weights that were stored as float16, those that ship are, take half of the bytes so, and lose nothing.

    Args:
        given: any instruction; what is not such a product comes back as it is.
        weights: addresses of the memory of what stays as it is: the matrix has to be of them.
    """
    words = given.words
    if int(words[0]) != PRODUCT:
        return given
    batch, rows, columns, sums = (int(size) for size in words[1:5])
    strides = [[int(stride) for stride in row] for row in words[5:21].reshape(4, 4)]
    at = [int(address) for address in words[21:25]]
    for matrix, vector, row, count in ((1, 2, 1, columns), (2, 1, 2, rows)):
        own = next((one for one in given.held if one.data_ptr() == at[matrix]), None)
        if own is not None and own.untyped_storage().data_ptr() in weights and count <= FEW and (rows, columns) != (1, 1):
            break
    else:
        return given
    along = 3 - row
    rows = (rows, columns)[row - 1]
    shape = (batch, rows, sums)
    lies = tuple(strides[matrix][dim] // 4 for dim in (0, row, 3))
    values = own.as_strided(shape, lies, own.storage_offset())
    narrow = values.to(torch.float16).contiguous()
    if not torch.equal(narrow.to(torch.float32), values):
        return given
    parts = [Operand(address, (), own) for address in (at[0], narrow.data_ptr(), at[vector], at[3])]
    by_dimension = [
        (strides[0][0], rows * sums * 2, strides[vector][0], strides[3][0]),
        (strides[0][row], sums * 2, 0, strides[3][row]),
        (strides[0][along], 0, strides[vector][along], strides[3][along]),
        (0, 2, strides[vector][3], 0),
    ]
    made = written(codes["halves_f"], (batch, rows, count, sums), by_dimension, parts, words[25:26])
    return Instruction(made.words, (*given.held, narrow))
