"""Recording with proof: a captured step is compared with what it was made of before it is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.state import map_state
from astrape.capture.buffers import equal
from astrape.capture.lowering import Memory
from astrape.capture.native.library import library
from astrape.capture.native.narrow import Weights
from astrape.capture.record import TimeLimit, Unrecordable, Watched
from astrape.capture.step import CapturedStep
from astrape.errors import AstrapeError

__all__ = ["checked_step", "is_taken"]

FIRINGS = 8
"""Firings that recording a pattern comes to once it has been run: captured, in four checks, and by replay in each."""

NATIVE_AFTER = 1
"""Checks after which native kernels take over, so that the rest is made of them."""

TAKEN = (RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError, AttributeError, AssertionError)
"""Exceptions that a block, or torch in it, may raise on noise. Others, such as a host's time-out, are passed on."""

CHECKS = ((2, 0.0, 0.1), (3, 0.0, 0.1), (4, -2.0, 2.0), (5, -0.01, 0.01))
"""Seeds of noise, and the range it is drawn from."""


def checked_step(
    function: Callable[[Any, Any], tuple[Any, Any]],
    form: State,
    state: State,
    memory: Memory,
    limit: TimeLimit,
    near: bool = False,
    weights: Weights | None = None,
) -> CapturedStep:
    """A captured step of ``function``, compared with it on other values: results and states are the same to the last
    bit.

    Args:
        function: as a :class:`~astrape.capture.step.CapturedStep` takes it.
        form: a tree of tensors of the shapes and the kind of what is fresh; their values are not read.
        state: where the state lies. Afterwards it is that of a stream of noise.
        memory: where to take memory from.
        limit: how long it may take.
        near: take the native library's kernels that round in their own way too, where there is the library: results
            and states are the same up to rounding then. Those that are exact are taken in any case.
        weights: how native kernels read what stays as it is.

    Raises:
        Unrecordable: for what cannot be captured, and for what does something else captured.
    """

    def noise(seed: int, low: float, high: float) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return map_state(lambda t: (low + (high - low) * torch.rand(t.shape, generator=generator)).to(t), form)

    # Not negative at first, as the numbers of codes are not. Once beforehand, since what a live session lays out
    # anew, and keeps, is not to be laid out in every push.
    begun = time.thread_time()
    with Watched(limit):
        function(noise(0, 0.0, 0.1), map_state(torch.clone, state))
    limit.check(FIRINGS * (time.thread_time() - begun))
    captured = CapturedStep(function, noise(1, 0.0, 0.1), state, memory, limit)
    expected: State = map_state(torch.clone, state)
    kernels = library()
    for number, (seed, low, high) in enumerate(CHECKS):
        fresh = noise(seed, low, high)
        try:
            limit.check()
            result, after = function(fresh, map_state(torch.clone, expected))
        except Exception as reason:
            if low < 0 and is_taken(reason) and not isinstance(reason, Unrecordable):
                continue  # a graph that takes nothing negative
            raise
        expected = after
        if not equal((captured.play(fresh), state), (result, expected)):
            raise Unrecordable("a step of a block depends on values beyond what operators do with them")
        if kernels is not None and number == NATIVE_AFTER and not near:
            captured.go_native(kernels, False, [noise(seed, low, high) for seed, low, high in CHECKS], weights)
            map_state(Tensor.copy_, state, expected)
    if kernels is not None and near:
        captured.go_native(kernels, True, [noise(seed, low, high) for seed, low, high in CHECKS], weights)
    return captured


def is_taken(reason: Exception) -> bool:
    """Whether an error is one of those that a block has with its input; a subclass of another package is not."""
    return isinstance(reason, (Unrecordable, AstrapeError)) or (
        isinstance(reason, TAKEN) and type(reason).__module__.partition(".")[0] in ("builtins", "torch")
    )
