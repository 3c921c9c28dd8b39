"""The steady push, which is like the last one: nothing to decide, and next to no Python around the captured step."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.base import Signal, State
from astrape.blocks.live import denormals_flushed
from astrape.capture.arithmetic import quiet
from astrape.capture.native.library import Program, library
from astrape.capture.record import inference
from astrape.capture.step import CapturedStep
from astrape.graph.network import Network, Prepared

__all__ = ["Steady"]

REAL = torch.float32, torch.float64

LONGEST = 8192
"""Values that are looked through by a product; of more, a sum is as fast, and it is spread over threads."""


class Steady:
    """The short way for a push with as many frames as the last one, and nothing waiting before and after it.

    It is right for one state and what was prepared of one set of controls. A session that holds others, since it was
    reset, restored or told a new control, takes the long way once, and finds another of these behind it.

    Args:
        graph: what is streamed.
        captured: the step of all of its actors.
        places: where in the captured step the frames of each input go.
        outputs: what comes out, in the captured step.
        state, prepared: as of the push that has just been.

    Attributes:
        frames: of a push, by input.
        outputs: memory that the next :meth:`run` writes over.
    """

    def __init__(
        self,
        graph: Network[Any],
        captured: CapturedStep,
        places: Mapping[str, list[Tensor]],
        outputs: Mapping[str, Tensor],
        state: Mapping[str, State],
        prepared: Prepared,
    ) -> None:
        self.frames = {name: held[0].shape[-1] for name, held in places.items()}
        self.outputs = dict(outputs)
        self._only = next(iter(outputs)) if len(outputs) == 1 else None
        self._graph, self._like, self._captured = graph, graph.like, captured
        self._state, self._prepared = state, prepared
        self._places = [
            (name, held[0].shape, held[0].dtype, [_taking(place) for place in held]) for name, held in places.items()
        ]
        kernels, program = library(), captured.program
        # All of a push but the checks of its form is two calls then.
        self._flushes = kernels is not None and program is not None and kernels.flushes
        self._push = _checking(list(outputs.values()), program if self._flushes else None)
        self._sound = False

    @classmethod
    def after(
        cls,
        graph: Network[Any],
        captured: CapturedStep,
        entering: Mapping[str, tuple[str, Tensor]],
        outputs: Mapping[str, Tensor],
        held: tuple[Mapping[str, State], Prepared],
    ) -> Steady | None:
        """The short way of a push that has just been made; ``None`` where the long way is taken every time.

        Args:
            entering: for each edge by which an actor reads an input, that input's name and its place in the step.
        """
        places: dict[str, list[Tensor]] = {}
        for name, place in entering.values():
            places.setdefault(name, []).append(place)
        held_there = (*outputs.values(), *(place for each in places.values() for place in each))
        small = (t.is_cpu and t.is_contiguous() and t.numel() <= LONGEST for t in held_there)
        real = all(t.dtype in REAL or not t.is_floating_point() for t in (graph.like, *outputs.values()))
        heard = places.keys() == graph.inputs.keys()
        complete = outputs.keys() == graph.outputs.keys()
        return cls(graph, captured, places, outputs, *held) if real and heard and complete and all(small) else None

    def takes(self, x: Signal, state: Mapping[str, State], prepared: Prepared | None) -> bool:
        """Whether a push is such a one; its frames are then in the captured step, and finite."""
        if state is not self._state or prepared is not self._prepared or self._graph.like is not self._like:
            return False
        alone = type(x) is Tensor
        count = 1 if alone else len(x) if type(x) is dict else 0
        if count != len(self._places) or torch.is_autocast_enabled("cpu"):
            return False
        for name, shape, dtype, takings in self._places:
            given: Any = x if alone else x.get(name)
            if type(given) is not Tensor or given.shape != shape or given.dtype != dtype:
                return False
            if given.requires_grad or not given.is_cpu or given.layout != torch.strided:
                return False
            for take in takings:
                if not take(given):
                    return False
        return True

    def run(self) -> dict[str, Tensor]:
        """The outputs, in the captured step."""
        if not self._flushes:
            # In a context of its own, which ends with the call: an interrupt at any moment leaves no other code live.
            contextvars.copy_context().run(self._run)
        self._sound = self._push()
        return self.outputs

    def _run(self) -> None:
        with denormals_flushed(), inference(True):
            self._captured.run()

    def as_output(self, outputs: dict[str, Tensor]) -> Any:
        """The outputs in the form that a push returns: the tensor itself where there is one."""
        return outputs if self._only is None else outputs[self._only]

    def sound(self) -> bool:
        """Whether all that came out of the last run is finite."""
        return self._sound


def _taking(place: Tensor) -> Callable[[Tensor], bool]:
    """A function that copies a tensor into a captured step's input and returns whether all of it is finite."""
    kernels, finite = library(), _finite(place)
    with inference(True):
        native = None if kernels is None else kernels.taking(place.detach().reshape(-1).numpy())

    def take(given: Tensor) -> bool:
        if native is not None and given.is_contiguous() and not given.is_neg():
            return native(given.data_ptr())
        with inference(True), quiet():
            place.copy_(given)
            return finite()

    return take


def _checking(outputs: Sequence[Tensor], program: Program | None) -> Callable[[], bool]:
    """A function that runs a program, if there is one, and returns whether the push's outputs are finite."""
    kernels, real = library(), [tensor for tensor in outputs if tensor.is_floating_point()]
    if kernels is not None:
        with inference(True):
            return kernels.pushing(program, [tensor.detach().reshape(-1).numpy() for tensor in real])
    checks = [_finite(tensor) for tensor in real]

    def check() -> bool:
        with quiet():
            return all(one() for one in checks)

    return check


def _finite(tensor: Tensor) -> Callable[[], bool]:
    """Whether what lies in a tensor's memory is finite: 0 times it is 0 then, and not a number otherwise."""
    with inference(True):
        values = tensor.detach().reshape(-1).numpy()
    zeros = np.zeros_like(values)

    def check() -> bool:
        return bool(values.dot(zeros) == 0.0)

    return check
