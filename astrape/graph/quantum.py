"""One quantum of a compiled graph as a pure function of named tensors: what every runtime outside of sessions consumes.

::

    quantum = Quantum(graph)
    state, prepared = quantum.first_state(), quantum.prepare(graph.read_controls(controls, like))
    for frames in quanta:                                   # {"mic": (batch, channels, 441)}
        outputs, state = quantum(frames, prepared, state)   # dicts by name, always the same names, shapes and types

Inside, everything is a flat sequence of leaves in one order, which is what exporters and compilers take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from astrape.blocks.policy import PLAIN, Policy, lowered
from astrape.errors import StreamError
from astrape.graph.network import Network, Prepared

__all__ = ["Controls", "Leaf", "Quantum", "Step", "StepInPlace", "leaves_of"]


class Leaf(NamedTuple):
    """A tensor that goes in or comes out.

    Attributes:
        name: its place in the tree: ``encoder_0.depthwise``.
        shape: batch first, and never another.
        dtype: of its values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Step(nn.Module):
    """``quantum`` on a flat sequence of leaves: inputs, then prepared values, then state; outputs, then state."""

    def __init__(self, quantum: Quantum) -> None:
        super().__init__()
        self.quantum = quantum
        # Where its weights are. torch's own modules of traced graphs have an attribute `graph` already.
        self.blocks = quantum.graph

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        outputs, after = self.computed(leaves)
        return apart((*outputs, *(tensor.contiguous() for tensor in after)), leaves)

    def computed(self, leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and the next state, as blocks make them: some may lie in the memory of others, or of an argument."""
        quantum = self.quantum
        given, prepared, state = quantum.parted(leaves)
        with lowered(quantum.policy):
            outputs, after, waiting = quantum.graph.advance(given, state, {}, prepared)
        if waiting:
            raise StreamError(f"'{quantum.graph.name}' leaves frames waiting at '{min(waiting)}' after whole quanta")
        return [outputs[name] for name in quantum.graph.outputs], list(quantum.kept(after))


class StepInPlace(Step):
    """A step that returns outputs alone: the next state is written where the state lies, and none is handed on.

    For policies that write a ring of keys where it lies; a copy of it would cost more than what is written.
    """

    def __init__(self, quantum: Quantum) -> None:
        super().__init__(quantum)
        leaves = quantum.example()
        with torch.no_grad():
            _, after = self.computed(leaves)
        own = leaves[len(leaves) - len(after) :]
        self._there = [
            tensor.data_ptr() == place.data_ptr() and tensor.stride() == place.stride()
            for place, tensor in zip(own, after, strict=True)
        ]

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        outputs, after = self.computed(leaves)
        own = leaves[len(leaves) - len(after) :]
        # Whatever lies in the state's memory is read before any of it is written.
        results = tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in outputs)
        fresh = [
            (place, tensor.clone()) for place, tensor, there in zip(own, after, self._there, strict=True) if not there
        ]
        for place, tensor in fresh:
            place.copy_(tensor)
        return results


class Controls(nn.Module):
    """``prepare`` on a flat sequence: values of the controls ``(batch, channels)``, to the prepared leaves."""

    def __init__(self, quantum: Quantum) -> None:
        super().__init__()
        self.quantum = quantum
        self.blocks = quantum.graph

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        quantum = self.quantum
        with lowered(quantum.policy):
            prepared = quantum.prepare(dict(zip(quantum.graph.controls, values, strict=True)))
        return apart(tuple(prepared.values()), values)


class Quantum:
    """A graph's step on a fixed number of quanta, a pure function with named, ordered leaves of static shapes.

    ``quantum(inputs, prepared, state)`` gives ``(outputs, state)``. Nothing waits inside: frames go in by whole quanta,
    and every actor of the graph fires as often as the repetition vector says. What a control comes to is computed by
    :meth:`prepare`, once per change, and is an argument: a speaker changes without anything being made anew.

    Args:
        graph: what to run; in training mode, or with training-only nodes, it is refused.
        batch_size: rows, fixed.
        quanta: of the graph, in a call. Default 1, the least delay.
        policy: how blocks make operators. Default ``plain``, those of ``graph.step``.

    Attributes:
        inputs, prepared, state, outputs: the leaves, in order.
        step, controls: both functions on flat sequences, as modules, for exporters and compilers.

    Raises:
        StreamError: for a graph that cannot stream, and for one whose blocks prepare something other than tensors from
            a control.
    """

    def __init__(self, graph: Network[Any], batch_size: int = 1, quanta: int = 1, policy: Policy = PLAIN) -> None:
        if graph.training_only:
            raise StreamError(f"'{graph.name}' holds training-only nodes and has no quantum: take its deploy()")
        for name, count in (("batch_size", batch_size), ("quanta", quanta)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise StreamError(f"{name} must be a whole number of at least 1, not {count!r}")
        self.graph, self.batch_size, self.quanta, self.policy = graph, batch_size, quanta, policy
        like = torch.zeros(batch_size, 1, 1, device=graph.device, dtype=graph.dtype)
        self._like = like
        with torch.no_grad():
            self._state = graph.init_state(batch_size, like.device, like.dtype)
            self._prepared = graph.prepare(self.some_controls(0))
            self._refuse_hidden(graph.prepare(self.some_controls(1)))
        self.inputs = [
            Leaf(name, (batch_size, stream.channels, quanta * graph.consumes[name]), like.dtype)
            for name, stream in graph.inputs.items()
        ]
        self.outputs = [
            Leaf(name, (batch_size, stream.channels, quanta * graph.produces[name]), like.dtype)
            for name, stream in graph.outputs.items()
        ]
        self.state = [_leaf(name, tensor) for name, tensor in leaves_of(self._state) if tensor.numel()]
        self.prepared = [_leaf(name, tensor) for name, tensor in self._changing(self._prepared)]
        for leaves in (self.state, self.prepared):
            names = [leaf.name for leaf in leaves]
            if len(set(names)) < len(names):
                raise StreamError(f"'{graph.name}' has two leaves of one name: rename a node of it")
        self.step, self.controls = Step(self), Controls(self)

    def __call__(
        self, inputs: Mapping[str, Tensor], prepared: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One call: frames by input, prepared values and state by leaf; outputs by name, and the next state."""
        found = self.step(*self.flat(inputs, prepared, state))
        names = [leaf.name for leaf in self.outputs]
        after = dict(zip((leaf.name for leaf in self.state), found[len(names) :], strict=True))
        return dict(zip(names, found, strict=False)), after

    @property
    def period(self) -> Fraction:
        """Seconds that a call takes in."""
        return self.graph.period * self.quanta

    @property
    def framings(self) -> dict[str, Fraction]:
        """Framing latency by output, seconds: the first frame of a call waits for the last of its input.

        A session fires each node as soon as it can, and may be earlier: ``graph.framings``.
        """
        return {name: self.period - 1 / stream.rate for name, stream in self.graph.outputs.items()}

    @property
    def host_latencies(self) -> dict[str, int]:
        """Host-facing latency by output, in its frames, rounded up once."""
        return {
            name: math.ceil((self.graph.latencies[name] + self.framings[name]) * stream.rate)
            for name, stream in self.graph.outputs.items()
        }

    def flat(
        self, inputs: Mapping[str, Tensor], prepared: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """The arguments in the order of the leaves."""
        parts = ((self.inputs, inputs), (self.prepared, prepared), (self.state, state))
        return [given[leaf.name] for leaves, given in parts for leaf in leaves]

    def example(self) -> list[Tensor]:
        """Arguments to trace a step with, at time zero and in silence; values do not matter."""
        given = {leaf.name: torch.zeros(leaf.shape, dtype=leaf.dtype) for leaf in self.inputs}
        flat = self.flat(given, self.prepare(self.some_controls()), self.first_state())
        return [tensor.contiguous() for tensor in flat]

    def first_state(self) -> dict[str, Tensor]:
        """The state at time zero, by leaf."""
        return {name: tensor.clone() for name, tensor in leaves_of(self._state) if tensor.numel()}

    def prepare(self, controls: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The prepared values of all actors, by leaf, from all controls, ``(batch, channels)``."""
        prepared = Prepared()
        # Only what listens: everything else is a constant.
        for actor in self.graph.actors:
            if actor.controls:
                own = {name: controls[outer] for name, outer in actor.controls.items()}
                prepared[actor.name] = actor.block.prepare(own)
        return dict(self._changing(prepared))

    def tree(self, state: Mapping[str, Tensor]) -> Any:
        """A state by leaf in the form that the graph has it in."""
        values = iter(state[leaf.name] for leaf in self.state)
        return _filled(self._state, values)

    def leaves(self, state: Any) -> dict[str, Tensor]:
        """The graph's form of a state, by leaf."""
        return {name: tensor for name, tensor in leaves_of(state) if tensor.numel()}

    def parted(self, leaves: Sequence[Tensor]) -> tuple[dict[str, Tensor], Prepared, Any]:
        """A flat sequence as the graph takes it."""
        inputs = {leaf.name: tensor for leaf, tensor in zip(self.inputs, leaves, strict=False)}
        values = iter(leaves[len(inputs) : len(inputs) + len(self.prepared)])
        prepared = Prepared(self._prepared)
        for actor in self.graph.actors:
            if actor.controls:
                prepared[actor.name] = _filled(self._prepared[actor.name], values)
        return inputs, prepared, _filled(self._state, iter(leaves[len(inputs) + len(self.prepared) :]))

    def kept(self, after: Any) -> Iterator[Tensor]:
        """The next state's leaves in order, each in the shape and type it came in."""
        for leaf, (name, tensor) in zip(self.state, self.leaves(after).items(), strict=True):
            if tensor.shape != leaf.shape or tensor.dtype != leaf.dtype:
                raise StreamError(
                    f"state '{name}' came in as {leaf.shape} {leaf.dtype} and left as {tuple(tensor.shape)} "
                    f"{tensor.dtype}: a state keeps its form"
                )
            yield tensor

    def _changing(self, prepared: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        for actor in self.graph.actors:
            if actor.controls:
                yield from leaves_of(prepared[actor.name], actor.name)

    def some_controls(self, seed: int = 0) -> dict[str, Tensor]:
        """Values of all controls, drawn from their ranges: to trace and to compare with."""
        generator = torch.Generator().manual_seed(seed)
        values: dict[str, Tensor | float] = {}
        for name, spec in self.graph.control_specs.items():
            low = -1.0 if spec.minimum is None else spec.minimum
            high = max(low, 1.0) if spec.maximum is None else spec.maximum
            values[name] = min(low, high) + abs(high - low) * torch.rand(spec.channels, generator=generator)
        read = self.graph.read_controls(values, self._like)
        return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in read.items()}

    def _refuse_hidden(self, other: Prepared) -> None:
        """Refuse actors that prepare something else than tensors of one shape, which cannot be an argument."""
        for actor in self.graph.actors:
            if actor.controls and _form(self._prepared[actor.name]) != _form(other[actor.name]):
                raise StreamError(
                    f"'{actor.name}' makes of {', '.join(sorted(actor.controls.values()))} something other than a "
                    "tensor of one shape, so it cannot be an argument of a compiled step: run it in a session"
                )


def apart(results: Sequence[Tensor], arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Results of which none is an argument or another result: what a graph hands through has but one name in it."""
    seen = {id(tensor) for tensor in arguments}
    own = []
    for tensor in results:
        own.append(tensor.clone() if id(tensor) in seen else tensor)
        seen.add(id(tensor))
    return tuple(own)


def leaves_of(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a tree with their paths, ``encoder_0.depthwise``, in order. Anything else is skipped."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, item in tree.items():
            yield from leaves_of(item, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, (list, tuple)):
        names = getattr(tree, "_fields", range(len(tree)))
        for key, item in zip(names, tree, strict=True):
            yield from leaves_of(item, f"{path}.{key}" if path else str(key))


def _leaf(name: str, tensor: Tensor) -> Leaf:
    return Leaf(name, tuple(tensor.shape), tensor.dtype)


def _filled(tree: Any, values: Iterator[Tensor]) -> Any:
    """A tree of the same form with other tensors, in order; those without elements stay."""
    if isinstance(tree, Tensor):
        return next(values) if tree.numel() else tree
    if isinstance(tree, Mapping):
        return {key: _filled(item, values) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        items = [_filled(item, values) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree


def _form(tree: Any) -> Any:
    """The shapes, types and plain values of a tree, which may not depend on the controls' values."""
    if isinstance(tree, Tensor):
        return tuple(tree.shape), tree.dtype
    if isinstance(tree, Mapping):
        return {key: _form(item) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_form(item) for item in tree]
    return tree
