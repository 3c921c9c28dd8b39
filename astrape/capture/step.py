"""Captured steps: what a function of tensors does, as a list of kernels over fixed memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.state import map_state, state_leaves
from astrape.capture.arithmetic import quiet
from astrape.capture.lowering import Kernel, Lowering, Memory
from astrape.capture.native.library import Library, Program
from astrape.capture.native.narrow import Weights
from astrape.capture.native.translate import Native
from astrape.capture.record import Recorder, TimeLimit, inference

__all__ = ["CapturedStep"]


class CapturedStep:
    """``function(fresh, state)`` as a list of kernels: what it did once, for other values of the same shapes.

    Every operator that reaches PyTorch's kernels is recorded (``__torch_dispatch__``), the function's Python is not:
    it is not run again. Views are made once, as all memory is fixed; results go into it by the operators' ``out``
    forms; a factory's constants are kept. The kernels are the very same in the same order, or NumPy's where IEEE 754
    leaves nothing to choose (:mod:`astrape.capture.arithmetic`), so results are the same to the last bit. Of the 1600
    operators of a 40 ms step of astrape-vc 600 are left, and its 18 ms become 13.

    The state is written in place. Weights, and all else that the function holds on to, are read where they lie.

    What depends on values beyond what operators do with them is refused: a branch on ``bool(tensor)``, a number from
    ``tensor.item()``, values read by ``tolist`` or ``numpy``. What the function keeps in Python, a clock of its own
    say, is not seen. Callers compare the step with the function on other values
    (:class:`~astrape.graph.session.replay.Replay` does).

    Args:
        function: of ``fresh`` and ``state``, trees of tensors; returns any tree of tensors, and the next state.
        fresh: values to record with; of the shapes that :meth:`play` takes.
        state: where the state lies, before and after each play. Recording leaves it as it is.
        memory: where to take memory from.
        limit: how long recording may take; as long as it does when left out.

    Attributes:
        places: where the values of :meth:`play` go, in the order of the tree's leaves.

    Raises:
        Unrecordable: for random numbers, sizes or branches that depend on values, and a state of changing form.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], tuple[Any, Any]],
        fresh: State,
        state: State,
        memory: Memory,
        limit: TimeLimit | None = None,
    ) -> None:
        with torch.inference_mode(False), torch.no_grad():
            given, held = map_state(torch.clone, fresh), map_state(torch.clone, state)
            with Recorder(limit or TimeLimit()) as recorder:
                result, after = function(given, held)
        with torch.inference_mode():
            self._fresh = map_state(torch.clone, fresh)
            lowering = Lowering(recorder.calls, memory)
            lowering.put(given, self._fresh)
            lowering.put(held, state)
            self._result, self._kernels = lowering.lower(result, held, after, state)
        self._natives = lowering.natives
        self.places = [tensor for _, tensor in state_leaves(self._fresh)]

    def __len__(self) -> int:
        return self.native_kernels + self.other_kernels

    @property
    def kernels(self) -> list[Kernel]:
        """All kernels, in order."""
        return list(self._kernels)

    @property
    def program(self) -> Program | None:
        """All of it as one program of the native library, where it is one."""
        only = self._kernels[0] if len(self._kernels) == 1 else None
        return only if isinstance(only, Program) else None

    @property
    def native_kernels(self) -> int:
        """Instructions of the native library."""
        return sum(len(kernel) for kernel in self._kernels if isinstance(kernel, Program))

    @property
    def other_kernels(self) -> int:
        """Kernels of PyTorch and NumPy."""
        return sum(not isinstance(kernel, Program) for kernel in self._kernels)

    def go_native(self, library: Library, near: bool, values: Sequence[State], weights: Weights | None = None) -> None:
        """Have the native library do what it can, where it is right: operators that it has one after the other become
        one call.

        Each is compared with the kernel that it takes the place of on some values, on what this kernel is given there.
        Those that differ, by a bit or, where they round as they like, by more than rounding does, are left out.

        Args:
            near: whether to take kernels that round in their own way too, as of ``exp`` and products.
            values: some to compare on, as :meth:`play` takes them. They go through the state.
            weights: how products read what stays as it is; as it lies when left out.
        """
        wanted = [one if near else one and one.exactly(library) for one in self._natives]
        if weights is not None:
            wanted = [one and one.reading(weights.read) for one in wanted]
        programs = [
            None if one is None or not one.instructions else library.program(one.instructions) for one in wanted
        ]
        with torch.inference_mode(), quiet():
            for fresh in values:
                for tensor, (_, value) in zip(self.places, state_leaves(fresh), strict=True):
                    tensor.copy_(value)
                for index, kernel in enumerate(self._kernels):
                    own, program = wanted[index], programs[index]
                    if own is None or program is None:
                        kernel()
                    elif not _agree(kernel, program, own):
                        programs[index] = None
        self._kernels = _joined(library, self._kernels, wanted, programs)
        self._natives = []

    def play(self, fresh: State) -> Any:
        """Do what the function did, on other values.

        Returns:
            The function's result, in memory that the next play of this captured step writes over.
        """
        with torch.inference_mode():
            for tensor, (_, value) in zip(self.places, state_leaves(fresh), strict=True):
                tensor.copy_(value)
            self.run()
        return self._result

    def run(self) -> None:
        """:meth:`play` with the values that lie in ``places``, in inference mode; the result lies where it did."""
        with quiet():
            for kernel in self._kernels:
                kernel()

    def play_through(self, fresh: Mapping[str, Sequence[Tensor]], results: Mapping[str, Sequence[Tensor]]) -> None:
        """Play as often as there are values, the state going on from play to play.

        Args:
            fresh: the values of each play, by the names that the recorded ones had.
            results: where each play's results go, by name. Those that are not named are left out.
        """
        entering = [(self._fresh[name], values) for name, values in fresh.items()]
        leaving = [(places, self._result[name]) for name, places in results.items()]
        kernels = self._kernels
        with inference(True), quiet():
            for index in range(len(entering[0][1])):
                for place, values in entering:
                    place.copy_(values[index])
                for kernel in kernels:
                    kernel()
                for places, made in leaving:
                    places[index].copy_(made)


ROUNDING = {torch.float32: 2e-5, torch.float64: 1e-12}
"""Largest error of kernels with a rounding of their own: relative to a value, plus relative to the tensor's largest."""


def _agree(kernel: Kernel, program: Program, own: Native) -> bool:
    """Run a kernel, and say whether a program writes the same."""
    before = [place.clone() for place in own.writes]
    kernel()
    wanted = [place.clone() for place in own.writes]
    for place, value in zip(own.writes, before, strict=True):
        place.copy_(value)
    try:
        program()
    except IndexError:
        return False
    finally:
        found = [place.clone() for place in own.writes]
        for place, value in zip(own.writes, wanted, strict=True):
            place.copy_(value)
    for got, want in zip(found, wanted, strict=True):
        if torch.equal(got, want):
            continue
        if not want.is_floating_point():
            return False
        share = ROUNDING[want.dtype] if own.near else 0.0
        largest = float(want.nan_to_num(0, 0, 0).abs().max())
        if not torch.allclose(got, want, rtol=share, atol=share * largest, equal_nan=True):
            return False
    return True


def _joined(
    library: Library, kernels: Sequence[Kernel], wanted: Sequence[Native | None], programs: Sequence[Program | None]
) -> list[Kernel]:
    """Kernels, and between them the instructions of those that are native, as few programs as it takes."""
    found: list[Kernel] = []
    run: list[Any] = []
    for kernel, own, program in zip(kernels, wanted, programs, strict=True):
        if own is not None and (program is not None or not own.instructions):
            run += own.instructions
            continue
        if run:
            found.append(library.program(run))
            run = []
        found.append(kernel)
    return [*found, library.program(run)] if run else found
