"""Weights in half of the bytes: products whose matrix float16 holds to the last bit are told to read that."""

from __future__ import annotations

from collections.abc import Collection

import torch

from astrape.capture.native.instructions import Instruction, Operand, codes, written

__all__ = ["LONGEST", "narrowed"]

LONGEST = 4096
"""Numbers of a row that a kernel takes."""

PRODUCT = codes["product_f"]


def narrowed(given: Instruction, weights: Collection[int]) -> Instruction:
    """A product of one frame with a matrix whose numbers float16 holds, as one that reads them as such.

    Weights that were stored as float16, those that ship are, take half of the bytes so, and lose nothing.

    Args:
        given: any instruction; what is not such a product comes back as it is.
        weights: addresses of the memory of what stays as it is: the matrix has to be of them.
    """
    words = given.words
    if int(words[0]) != PRODUCT:
        return given
    batch, rows, columns, sums = (int(size) for size in words[1:5])
    strides = words[5:21].reshape(4, 4)
    at = [int(address) for address in words[21:25]]
    if columns == 1:
        matrix, vector, along = 1, 2, 1
    elif rows == 1:
        matrix, vector, along, rows = 2, 1, 2, columns
    else:
        return given
    own = next((one for one in given.held if one.data_ptr() == at[matrix]), None)
    if own is None or own.untyped_storage().data_ptr() not in weights or strides[matrix, 3] != 4 or sums > LONGEST:
        return given
    shape = (batch, rows, sums)
    values = own.as_strided(
        shape, (int(strides[matrix, 0]) // 4, int(strides[matrix, along]) // 4, 1), own.storage_offset()
    )
    narrow = values.to(torch.float16).contiguous()
    if not torch.equal(narrow.to(torch.float32), values):
        return given
    parts = [Operand(address, (), own) for address in (at[0], narrow.data_ptr(), at[vector], at[3])]
    by_dimension = [
        (int(strides[0, 0]), rows * sums * 2, int(strides[vector, 0]), int(strides[3, 0])),
        (int(strides[0, along]), sums * 2, 0, int(strides[3, along])),
        (0, 0, 0, 0),
        (0, 2, int(strides[vector, 3]), 0),
    ]
    made = written(codes["halves_f"], (batch, rows, 1, sums), by_dimension, parts)
    return Instruction(made.words, (*given.held, narrow))
