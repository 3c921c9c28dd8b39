"""The iterations of a feedback loop, captured once and replayed: a loop of one frame has 44100 of them a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State, Stream
from astrape.blocks.state import map_state
from astrape.capture.buffers import assign, held_copy, overwrite
from astrape.capture.checked import checked_step
from astrape.capture.lowering import Memory
from astrape.capture.record import TimeLimit, inference, tensors
from astrape.capture.step import CapturedStep

__all__ = ["Iterations", "may_be_captured"]

Pass = Callable[[int, Mapping[str, Tensor], Any, Any], tuple[dict[str, Tensor], State]]
"""Runs a number of iterations together: their count, what enters, state and prepared controls, to results and state."""


class Iterations:
    """The passes of a loop as captured steps (:mod:`astrape.capture.step`), one for each length of a pass.

    A pass of a loop of one frame is one iteration, and the loop's Python, some 20 us for each of its blocks, is most of
    what it costs. Replayed, a block takes about 2 us. Captured steps are checked when they are made: what comes out is
    the same to the last bit.

    Args:
        run: one pass, as the loop does it.
        streams: what goes in and what comes out, by name.
        frames: of each that goes in, and of each that comes out, in one iteration.
        state: of the loop: the form of it.
        prepared: what the loop's blocks derive from their controls, by block.
        controlled: the blocks that have controls. What the others prepare stays as it is.

    Raises:
        Unrecordable: for what is prepared and cannot be written to.
    """

    def __init__(
        self,
        run: Pass,
        streams: tuple[Mapping[str, Stream], Mapping[str, Stream]],
        frames: tuple[Mapping[str, int], Mapping[str, int]],
        state: State,
        prepared: Mapping[str, Any],
        controlled: Mapping[str, bool],
    ) -> None:
        self._run = run
        self._entering, self._leaving = streams
        self._takes, self._gives = frames
        self._controlled = controlled
        self._memory = Memory()
        self._captured_steps: dict[int, CapturedStep] = {}
        with inference(True):
            self._state = map_state(_copy, state)
            self._prepared = {name: held_copy(own, name) if controlled[name] else own for name, own in prepared.items()}
        self._source: Mapping[str, Any] = prepared

    def capture(self, length: int, like: Tensor, limit: TimeLimit) -> None:
        """Capture passes of ``length`` iterations, unless they are captured.

        Args:
            like: of the batch size, device and precision of what enters.

        Raises:
            Unrecordable: for what cannot be captured.
        """
        if length in self._captured_steps:
            return
        form = {
            name: like.new_empty(len(like), stream.channels, length * self._takes[name])
            for name, stream in self._entering.items()
        }

        def fire(fresh: Any, state: Any) -> tuple[Any, Any]:
            return self._run(length, fresh, state, self._prepared)

        with inference(True):
            fresh = map_state(torch.clone, self._state)
            self._captured_steps[length] = checked_step(fire, form, self._state, self._memory, limit)
            map_state(Tensor.copy_, self._state, fresh)

    def follow(self, prepared: Mapping[str, Any]) -> None:
        """Take over other values of the controls.

        Raises:
            Unrecordable: where they take another form than captured.
        """
        if prepared is self._source:
            return
        with inference(True):
            for name, held in self._prepared.items():
                if self._controlled[name]:
                    assign(held, prepared[name], name)
        self._source = prepared

    def replay(
        self, x: Mapping[str, Tensor], state: State, runs: Sequence[tuple[int, int]]
    ) -> tuple[dict[str, Tensor], State]:
        """The loop's outputs and next state for ``x`` and ``state``, neither of which it changes.

        Args:
            runs: lengths of passes, each with how many follow each other.
        """
        lead = next(iter(x.values()))
        iterations = sum(length * passes for length, passes in runs)
        y = {
            name: lead.new_empty(len(lead), stream.channels, iterations * self._gives[name])
            for name, stream in self._leaving.items()
        }
        with inference(True):
            overwrite(self._state, state)
            done = 0
            for length, passes in runs:
                fresh, results = (
                    {
                        name: whole[name]
                        .narrow(-1, done * frames[name], length * passes * frames[name])
                        .view(len(lead), -1, passes, length * frames[name])
                        .unbind(-2)
                        for name in whole
                    }
                    for whole, frames in ((x, self._takes), (y, self._gives))
                )
                self._captured_steps[length].play_through(fresh, results)
                done += length * passes
        return y, map_state(_copy, self._state)


def may_be_captured(*trees: Any) -> bool:
    """Whether a computation is unobserved: no gradient is asked for, and nothing traces, maps or converts it."""
    found = list(tensors(trees))
    watched = (
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or torch.autograd.forward_ad._current_level >= 0
        or any(torch.is_autocast_enabled(kind) for kind in {tensor.device.type for tensor in found})
    )
    plain = all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in found)
    asked = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in found)
    return not watched and plain and not asked


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)
