"""Sessions by whole quanta: what does not fill one waits at the inputs, and a step made elsewhere does the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from astrape.blocks.policy import PORTABLE
from astrape.errors import ExportError, StreamError
from astrape.graph.backends.onnx_models import onnx_models
from astrape.graph.network import Network, Prepared
from astrape.graph.quantum import Quantum, leaves_of
from astrape.wording import lacking

__all__ = ["BACKENDS", "Chosen", "Held", "Runner", "onnx_held"]

BACKENDS = ("recorded", "eager", "compiled", "onnx")


class Chosen(NamedTuple):
    """The backend of a session, and the reason for it; and the precision of its weights."""

    name: str
    why: str
    precision: str = "float32"

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


class Runner(Protocol):
    """A quantum's step on leaves in their order. What it returns holds until the next call but one."""

    def __call__(
        self, inputs: Sequence[Tensor], prepared: Sequence[Tensor], state: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Outputs, and the next state."""


class Held:
    """A graph run by whole quanta.

    A session that runs blocks fires each as soon as it can. Here the whole graph fires at once, so an output may come
    later within its quantum: ``framings`` and ``host_latencies`` say how much, and are what the session goes by.

    Attributes:
        chosen: what runs it, and why.
        framings: by output, seconds.
        host_latencies: by output, in its frames.
        keys: under which frames wait, ``input.mic``.
    """

    def __init__(self, quantum: Quantum, runner: Runner, chosen: Chosen) -> None:
        self.chosen = chosen
        self.framings: dict[str, Fraction] = quantum.framings
        self.host_latencies = quantum.host_latencies
        self._quantum, self._runner = quantum, runner
        self._frames = {leaf.name: leaf.shape[-1] for leaf in quantum.inputs}
        self.keys = [f"input.{name}" for name in self._frames]
        self._prepared: tuple[Prepared | None, list[Tensor]] = (None, [])

    def advance(
        self, arrived: Mapping[str, Tensor], state: Any, waiting: Mapping[str, Tensor], prepared: Prepared
    ) -> tuple[dict[str, Tensor], Any, dict[str, Tensor]]:
        """:meth:`Network.advance <astrape.graph.network.Network.advance>`, by whole quanta."""
        held = {
            name: torch.cat((waiting[key], arrived[name]), dim=-1) if key in waiting else arrived[name]
            for name, key in zip(self._frames, self.keys, strict=True)
        }
        quanta = min(held[name].shape[-1] // count for name, count in self._frames.items())
        outputs: dict[str, Tensor] = {}
        if quanta:
            given = self._given(prepared)
            leaves: Sequence[Tensor] = list(self._quantum.leaves(state).values())
            parts: list[Sequence[Tensor]] = []
            for index in range(quanta):
                pieces = [
                    held[name][..., index * count : (index + 1) * count].contiguous()
                    for name, count in self._frames.items()
                ]
                found, leaves = self._runner(pieces, given, leaves)
                parts.append([tensor.clone() for tensor in found])
            outputs = {
                leaf.name: torch.cat(tensors, dim=-1)
                for leaf, tensors in zip(self._quantum.outputs, zip(*parts, strict=True), strict=True)
            }
            state = self._quantum.tree({leaf.name: t for leaf, t in zip(self._quantum.state, leaves, strict=True)})
        rest = {f"input.{name}": held[name][..., quanta * count :].clone() for name, count in self._frames.items()}
        return outputs, state, {key: tensor for key, tensor in rest.items() if tensor.shape[-1]}

    def _given(self, prepared: Prepared) -> list[Tensor]:
        """Prepared controls as leaves, made once per change of a control."""
        if self._prepared[0] is not prepared:
            found = {
                name: tensor
                for actor in self._quantum.graph.actors
                if actor.controls
                for name, tensor in leaves_of(prepared[actor.name], actor.name)
            }
            self._prepared = prepared, [found[leaf.name] for leaf in self._quantum.prepared]
        return self._prepared[1]


class _OnnxRunner:
    """ONNX Runtime's step, whose memory is taken once."""

    def __init__(self, quantum: Quantum) -> None:
        from astrape.portable.step import OnnxStep

        self._step = OnnxStep(_exported(quantum))
        names = [leaf.name for leaf in quantum.state]
        self._inputs = [torch.from_numpy(self._step.inputs[leaf.name]) for leaf in quantum.inputs]
        self._takes = [torch.from_numpy(self._step.prepared[leaf.name]) for leaf in quantum.prepared]
        self._outputs = [torch.from_numpy(self._step.outputs[leaf.name]) for leaf in quantum.outputs]
        self._states = [[torch.from_numpy(held[name]) for name in names] for held in self._step.states]
        self._given: Sequence[Tensor] | None = None

    def __call__(
        self, inputs: Sequence[Tensor], prepared: Sequence[Tensor], state: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        own = self._states[self._step.at]
        for place, tensor in zip(own, state, strict=True):
            if place.data_ptr() != tensor.data_ptr():
                place.copy_(tensor)
        if self._given is not prepared:
            for place, tensor in zip(self._takes, prepared, strict=True):
                place.copy_(tensor)
            self._given = prepared
        for place, tensor in zip(self._inputs, inputs, strict=True):
            place.copy_(tensor)
        self._step.run()
        return self._outputs, self._states[self._step.at]


_EXPORTED: WeakKeyDictionary[Network[Any], tuple[Any, dict[int, bytes]]] = WeakKeyDictionary()
"""Steps by graph and batch size, with what tells the weights they were made of."""


def _exported(quantum: Quantum) -> bytes:
    """The model of a step, made once for all sessions of a graph, as long as its weights stay as they are."""
    graph = quantum.graph
    tensors = (*graph.parameters(), *graph.buffers())
    weights = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
    known = _EXPORTED.get(graph)
    if known is None or known[0] != weights:
        known = _EXPORTED[graph] = (weights, {})
    if quantum.batch_size not in known[1]:
        known[1][quantum.batch_size] = onnx_models(quantum, controls=False).step
    return known[1][quantum.batch_size]


def onnx_held(graph: Network[Any], like: Tensor) -> Held:
    """A graph by ONNX Runtime, which needs ``pip install "astrape[export]"``.

    Raises:
        StreamError: for a graph that ONNX cannot hold, another precision than float32, or another place than the CPU.
    """
    if like.device.type != "cpu" or like.dtype != torch.float32:
        raise StreamError(f"backend 'onnx' runs in torch.float32 on the cpu, not in {like.dtype} on {like.device}")
    quantum = Quantum(graph, len(like), policy=PORTABLE)
    try:
        import onnxruntime

        runner = _OnnxRunner(quantum)
    except ImportError as error:
        raise StreamError(lacking("backend 'onnx'", str(error.name), "export")) from error
    except ExportError as error:
        raise StreamError(f"backend 'onnx': {error}") from error
    waits = math.ceil(quantum.period * 1000)
    why = f"asked for; ONNX Runtime {onnxruntime.__version__}, {waits} ms a step"
    return Held(quantum, runner, Chosen("onnx", why))
