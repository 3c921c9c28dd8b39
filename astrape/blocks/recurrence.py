"""Linear recurrences in parallel: a state-space filter as matrix products over short blocks of samples.

A filter ``s[n+1] = A s[n] + B x[n]``, ``y[n] = C s[n] + D x[n]`` is sequential as written. Over a block of N samples
it is the matrix product ``Y = T X + O s`` and ``s' = A^N s + K X``, with ``T`` the lower triangular Toeplitz matrix of
the impulse response, ``O`` the rows ``C A^n`` and ``K`` the columns ``A^(N-1-n) B``. What is left to scan is one state
per block, and that scan has the same form (input and output matrices the identity), so it is done in blocks again: a
sequence of T samples takes log_N T rounds of matrix products, and a chunk of N samples or fewer takes one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["BLOCK", "Recurrence"]

BLOCK = 64
"""Samples per matrix product: 64 multiplications a sample cost less than starting more, shorter products would."""


class Recurrence(NamedTuple):
    """The matrices of a state-space filter, unrolled over ``BLOCK`` samples.

    All have a leading dimension for the batch, which is 1 where every row has the same filter.

    Attributes:
        response: ``(batch, BLOCK, BLOCK)``, the Toeplitz matrix of the impulse response.
        observe: ``(batch, BLOCK, order)``, what a state adds to the next outputs.
        drive: ``(batch, order, BLOCK)``, what a block's inputs add to the state after it; the last ``n`` columns do so
            for a block of ``n``.
        powers: ``(batch, BLOCK + 1, order, order)``, the powers 0 to ``BLOCK`` of the transition matrix.
        mix, carry: the scan over blocks, see :func:`scan_matrices`.
    """

    response: Tensor
    observe: Tensor
    drive: Tensor
    powers: Tensor
    mix: Tensor
    carry: Tensor

    @classmethod
    def unroll(cls, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Recurrence:
        """Unroll a filter with one input and one output.

        Args:
            a: transition ``(batch, order, order)``.
            b, c: input and output vectors ``(batch, order)``.
            d: direct path ``(batch,)``.
        """
        powers = matrix_powers(a)
        reached = powers[:, :BLOCK] @ b[:, None, :, None]
        impulse = torch.cat([d[:, None], (reached[..., 0] @ c[:, :, None])[:, :-1, 0]], dim=1)
        age = torch.arange(BLOCK, device=a.device)
        age = age[:, None] - age[None, :]
        response = torch.where(age >= 0, impulse[:, age.clamp(min=0)], impulse.new_zeros(()))
        observe = (c[:, None, None, :] @ powers[:, :BLOCK])[:, :, 0]
        drive = reached[..., 0].flip(1).transpose(1, 2)
        return cls(response, observe.contiguous(), drive.contiguous(), powers, *scan_matrices(powers[:, BLOCK]))

    def to(self, like: Tensor) -> Recurrence:
        """The same matrices in the type and on the device of ``like``."""
        return Recurrence(*(table.to(like) for table in self))

    def run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Filter ``x`` of ``(batch, channels, frames)`` from ``state`` of ``(batch, channels, order)``.

        Returns:
            The filtered signal and the state after it, both new tensors.
        """
        batch, channels, frames = x.shape
        count, rest = divmod(frames, BLOCK)
        outputs = []
        if count:
            blocks = x[..., : count * BLOCK].reshape(batch, channels, count, BLOCK)
            driven = blocks @ self.drive.transpose(1, 2)[:, None]
            starts, state = scan_states(driven, state, self.mix, self.carry)
            y = blocks @ self.response.transpose(1, 2)[:, None] + starts @ self.observe.transpose(1, 2)[:, None]
            outputs.append(y.reshape(batch, channels, count * BLOCK))
        if rest:
            tail = x[..., count * BLOCK :]
            y = tail @ self.response[:, :rest, :rest].transpose(1, 2)
            outputs.append(y + state @ self.observe[:, :rest].transpose(1, 2))
            state = state @ self.powers[:, rest].transpose(1, 2) + tail @ self.drive[:, :, -rest:].transpose(1, 2)
        if not outputs:
            return x.clone(), state.clone()
        y = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
        return y, state.clone(memory_format=torch.contiguous_format)


def matrix_powers(a: Tensor) -> Tensor:
    """Powers 0 to ``BLOCK`` of ``a``, stacked as dimension 1, by doubling: few roundings and few products."""
    powers = torch.stack([torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a), a], dim=1)
    while powers.shape[1] <= BLOCK:
        powers = torch.cat([powers, powers[:, 1:] @ powers[:, -1:]], dim=1)
    return powers[:, : BLOCK + 1].contiguous()


def scan_matrices(transition: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices that scan ``BLOCK`` steps of ``s' = transition s + driven`` at once.

    Returns:
        ``mix``, ``(batch, (BLOCK + 1) * order, BLOCK * order)``, from the drives to the states before each step and
        after the last, and ``carry``, ``(batch, (BLOCK + 1) * order, order)``, from the first state to the same.
    """
    powers = matrix_powers(transition)
    order = transition.shape[-1]
    steps = torch.arange(BLOCK + 1, device=transition.device)
    age = steps[:, None] - 1 - steps[None, :BLOCK]
    mix = torch.where((age >= 0)[:, :, None, None], powers[:, age.clamp(min=0)], powers.new_zeros(()))
    mix = mix.permute(0, 1, 3, 2, 4).reshape(-1, (BLOCK + 1) * order, BLOCK * order)
    return mix, powers.reshape(-1, (BLOCK + 1) * order, order)


def scan_states(driven: Tensor, state: Tensor, mix: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    """The states before each of ``count`` steps, and the one after the last.

    Args:
        driven: what each step adds, ``(batch, channels, count, order)``.
        state: ``(batch, channels, order)``.
        mix, carry: as :func:`scan_matrices` gives them.
    """
    batch, channels, count, order = driven.shape
    size = min(count, BLOCK)
    groups, rest = divmod(count, size)
    mixed, carried = mix[:, : (size + 1) * order, : size * order], carry[:, : (size + 1) * order]
    flat = driven[:, :, : groups * size].reshape(batch, channels, groups, size * order)
    states = flat @ mixed.transpose(1, 2)[:, None]
    if groups == 1:
        starts, after = state[:, :, None], state
    else:
        starts, after = scan_states(states[..., -order:], state, *scan_matrices(carry[:, -order:]))
    states = (states + starts @ carried.transpose(1, 2)[:, None]).reshape(batch, channels, groups, size + 1, order)
    if groups == 1:
        after = states[:, :, 0, size]
    before = states[:, :, :, :size].reshape(batch, channels, groups * size, order)
    if not rest:
        return before, after
    tail, last = scan_states(driven[:, :, groups * size :], after, mix, carry)
    return torch.cat([before, tail], dim=2), last
