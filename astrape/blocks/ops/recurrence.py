"""Linear recurrences in parallel: a state-space filter as matrix products over short blocks of samples.

A filter ``s[n+1] = A s[n] + B x[n]``, ``y[n] = C s[n] + D x[n]`` is sequential as written. Over a block of N samples
it is the matrix product ``Y = T X + O s`` and ``s' = A^N s + K X``, with ``T`` the lower triangular Toeplitz matrix of
the impulse response, ``O`` the rows ``C A^n`` and ``K`` the columns ``A^(N-1-n) B``. What is left to scan is one state
per block, and that scan has the same form (input and output matrices the identity), so it is done in blocks again: a
sequence of T samples takes log_N T rounds of matrix products, and a chunk of N samples or fewer takes one.

Where a chunk is not a whole number of blocks, zeros fill its last one. What they add is cut off the output, and the
state after the chunk is taken from the start of that block, which they do not reach.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

__all__ = ["BLOCK", "Recurrence"]

BLOCK = 64
"""Samples per matrix product: 64 multiplications a sample cost less than starting more, shorter products would."""


class Recurrence(NamedTuple):
    """The matrices of a state-space filter, unrolled over a block of ``size`` samples.

    All have a leading dimension for the batch, which is 1 where every row has the same filter.

    Attributes:
        response: ``(batch, size, size)``, the Toeplitz matrix of the impulse response.
        observe: ``(batch, size, order)``, what a state adds to the next outputs.
        drive: ``(batch, order, size)``, what a block's inputs add to the state after it; the last ``n`` columns do so
            for a block of ``n``.
        powers: ``(batch, size + 1, order, order)``, the powers 0 to ``size`` of the transition matrix.
        mix, carry: the scan over blocks, see :func:`scan_matrices`.
    """

    response: Tensor
    observe: Tensor
    drive: Tensor
    powers: Tensor
    mix: Tensor
    carry: Tensor

    @classmethod
    def unroll(cls, a: Tensor, b: Tensor, c: Tensor, d: Tensor, size: int = BLOCK) -> Recurrence:
        """Unroll a filter with one input and one output.

        Args:
            a: transition ``(batch, order, order)``.
            b, c: input and output vectors ``(batch, order)``.
            d: direct path ``(batch,)``.
            size: samples per block; a filter that always meets chunks of one length takes it in one block.
        """
        powers = matrix_powers(a, size)
        reached = powers[:, :size] @ b[:, None, :, None]
        impulse = torch.cat([d[:, None], (reached[..., 0] @ c[:, :, None])[:, :-1, 0]], dim=1)
        age = torch.arange(size, device=a.device)
        age = age[:, None] - age[None, :]
        response = impulse[:, age.clamp(min=0)].masked_fill(age < 0, 0.0)
        observe = (c[:, None, None, :] @ powers[:, :size])[:, :, 0]
        drive = reached[..., 0].flip(1).transpose(1, 2)
        return cls(response, observe.contiguous(), drive.contiguous(), powers, *scan_matrices(powers[:, size]))

    def to(self, like: Tensor) -> Recurrence:
        """The same matrices in the type and on the device of ``like``."""
        return Recurrence(*(table.to(like) for table in self))

    def run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Filter ``x`` of ``(batch, channels, frames)`` from ``state`` of ``(batch, channels, order)``.

        Returns:
            The filtered signal and the state after it, both new tensors.
        """
        batch, channels, frames = x.shape
        if not frames:
            return x.clone(), state.clone()
        size = self.response.shape[-1]
        count = -(-frames // size)
        last = frames - (count - 1) * size
        # One table serves all rows, or each row of the batch has its own.
        tables = self.response.shape[0]
        blocks = (F.pad(x, (0, size - last)) if last < size else x).reshape(tables, -1, size)
        if count > 1:
            driven = torch.bmm(blocks, self.drive.transpose(1, 2)).view(batch, channels, count, -1)
            starts = scan_states(driven[:, :, :-1], state, self.mix, self.carry)
            state = starts[:, :, -1]
        else:
            starts = state
        order = state.shape[-1]
        seen = torch.bmm(starts.reshape(tables, -1, order), self.observe.transpose(1, 2))
        y = torch.baddbmm(seen, blocks, self.response.transpose(1, 2)).view(batch, channels, count * size)
        kept = torch.bmm(state.reshape(tables, -1, order), self.powers[:, last].transpose(1, 2))
        tail = x[..., frames - last :].reshape(tables, -1, last)
        after = torch.baddbmm(kept, tail, self.drive[:, :, size - last :].transpose(1, 2))
        return y[..., :frames], after.view(batch, channels, order)


def matrix_powers(a: Tensor, most: int = BLOCK) -> Tensor:
    """Powers 0 to ``most`` of ``a``, stacked as dimension 1, by doubling: few roundings and few products."""
    # Not torch.eye: where a recipe is compiled, its size is asked of the meta device, and it alone loads what takes
    # seconds for that. Nor written in place, which exporters have no operator for.
    place = torch.arange(a.shape[-1], device=a.device)
    identity = (place[:, None] == place).to(a.dtype)
    powers = torch.stack([identity.expand_as(a), a], dim=1)
    while powers.shape[1] <= most:
        powers = torch.cat([powers, powers[:, 1:] @ powers[:, -1:]], dim=1)
    return powers[:, : most + 1].contiguous()


def scan_matrices(transition: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices that scan ``BLOCK`` steps of ``s' = transition s + driven`` at once.

    Returns:
        ``mix``, ``(batch, (BLOCK + 1) * order, BLOCK * order)``, from the drives to the states before each step and
        after the last, and ``carry``, ``(batch, (BLOCK + 1) * order, order)``, from the first state to the same.
    """
    powers = matrix_powers(transition)
    steps = torch.arange(BLOCK + 1, device=transition.device)
    age = steps[:, None] - 1 - steps[None, :BLOCK]
    # Steps that are still to come find a matrix of zeros after the last power.
    none = torch.zeros_like(powers[:, :1])
    mix = torch.cat([powers, none], dim=1)[:, age.masked_fill(age < 0, BLOCK + 1)]
    mix = rearrange(mix, "b to of row column -> b (to row) (of column)")
    return mix, rearrange(powers, "b to row column -> b (to row) column")


def scan_states(driven: Tensor, state: Tensor, mix: Tensor, carry: Tensor) -> Tensor:
    """The states before each of ``count`` steps and after the last, ``(batch, channels, count + 1, order)``.

    Args:
        driven: what each step adds, ``(batch, channels, count, order)``.
        state: ``(batch, channels, order)``.
        mix, carry: as :func:`scan_matrices` gives them.
    """
    batch, channels, count, order = driven.shape
    tables = mix.shape[0]
    if count <= BLOCK:
        flat = driven.reshape(tables, -1, count * order)
        carried = torch.bmm(state.reshape(tables, -1, order), carry[:, : (count + 1) * order].transpose(1, 2))
        mixed = mix[:, : (count + 1) * order, : count * order].transpose(1, 2)
        return torch.baddbmm(carried, flat, mixed).view(batch, channels, count + 1, order)
    # As many groups of steps as hold a state more than there are steps: zeros drive the rest.
    groups = count // BLOCK + 1
    flat = F.pad(driven, (0, 0, 0, groups * BLOCK - count)).reshape(tables, -1, BLOCK * order)
    own = torch.bmm(flat, mix.transpose(1, 2))
    ends = own.view(batch, channels, groups, -1)[:, :, :-1, -order:]
    starts = scan_states(ends, state, *scan_matrices(carry[:, -order:]))
    states = torch.baddbmm(own, starts.reshape(tables, -1, order), carry.transpose(1, 2))
    states = states.view(batch, channels, groups, BLOCK + 1, order)[:, :, :, :BLOCK]
    return states.reshape(batch, channels, groups * BLOCK, order)[:, :, : count + 1]
