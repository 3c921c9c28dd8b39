"""The network: a compiled graph as a StreamBlock, with the same step for training and for streams."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Generic, Self, cast

import torch
from torch import Tensor, nn

from astrape.blocks.base import Signal, State, StreamBlock, check_signal
from astrape.errors import CausalityError, StreamError
from astrape.graph.compile.actors import group_actors
from astrape.graph.compile.plan import Plan, Wire
from astrape.graph.compile.schedule import FramingLatency, TokenCounts, frames_in, hyperperiod, period_of
from astrape.graph.firing import Firing, frames_of
from astrape.graph.recipe.location import suggest
from astrape.graph.typed import Out
from astrape.wording import number

__all__ = ["Network", "Prepared"]


class Prepared(dict[str, Any]):
    """The prepared controls of a graph, by actor."""


class Network(StreamBlock, Generic[Out]):
    """A compiled graph as a block: every node with what it reads, run in order.

    :class:`~astrape.graph.graph.Graph` is the network with its face, and what ``astrape.load`` and ``astrape.compile``
    make.

    Attributes:
        plan: what it was made of.
        name: the recipe's.
        nodes: the nodes in execution order, by flat name, the inserted delays among them.
        actors: what fires as one: a node, or a whole feedback loop.
        firing: runs them.
        period: seconds after which the schedule repeats; ``quantum`` is this in frames of the first input.
        repetitions: firings of every actor in one period: the repetition vector.
        training_only: training-only nodes are present, and there is no ``step``.
        wiring: the wire behind each output.
        signal_latency: algorithmic latency of every wire, seconds.
    """

    _like: Tensor

    def __init__(self, plan: Plan) -> None:
        nn.Module.__init__(self)
        # A graph may hold no tensor at all, and still is asked for .double() or .to("cuda"): this one remembers.
        self.register_buffer("_like", torch.empty(0), persistent=False)
        self.plan = plan
        self.name, self.nodes, self.loops = plan.name, plan.nodes, plan.loops
        self.inputs = dict(plan.inputs)
        self.controls = {name: control.channels for name, control in plan.controls.items()}
        self.training_only = any(node.training for node in plan.nodes.values())
        self.control_specs = dict(plan.controls)
        self.wiring = dict(plan.wiring)
        self.signal_latency = dict(plan.signal_latency)
        streams = plan.streams()
        for node in plan.nodes.values():
            if not node.inserted:
                _add_module(self, node.name, node.block)
        self.outputs = {name: streams[wire] for name, wire in self.wiring.items()}
        self.actors = group_actors(self.nodes, self.loops, streams, self.wiring)
        self.firing = Firing(self.actors)
        self.period = hyperperiod(self.actors, self.inputs)
        self.repetitions = {actor.name: int(self.period / period_of(actor.block)) for actor in self.actors}
        self.quantum = self.consumes[next(iter(self.inputs))]
        self.ratio = self.rate_out / self.rate_in
        self._latencies = {name: plan.signal_latency[wire] for name, wire in self.wiring.items()}
        self._counts = TokenCounts(self.actors, self.inputs, self.period)
        self._framings = {name: self._counts.framing(wire) for name, wire in self.wiring.items()}
        self._host_latencies = {
            name: math.ceil((self._latencies[name] + self._framings[name].seconds) * stream.rate)
            for name, stream in self.outputs.items()
        }
        self._reach: tuple[Fraction | None] | None = None

    @property
    def consumes(self) -> dict[str, int]:
        return frames_in(self.period, self.inputs)

    @property
    def produces(self) -> dict[str, int]:
        return frames_in(self.period, self.outputs)

    @property
    def lookahead(self) -> Fraction | None:
        """Seconds: the largest of any node, 0 for every graph that can stream."""
        ahead = [node.block.lookahead for node in self.nodes.values()]
        return None if None in ahead else max((a for a in ahead if a is not None), default=Fraction(0))

    @property
    def latency(self) -> Fraction:
        """Algorithmic latency of the first output, seconds; ``latencies`` has all."""
        return self._latencies[self.main]

    @property
    def latencies(self) -> dict[str, Fraction]:
        return dict(self._latencies)

    @property
    def framing(self) -> Fraction:
        """Framing latency of the first output, seconds; ``framings`` has all."""
        return self._framings[self.main].seconds

    @property
    def framings(self) -> dict[str, FramingLatency]:
        """Framing by output."""
        return dict(self._framings)

    @property
    def host_latencies(self) -> dict[str, int]:
        """Host-facing latency by output: algorithmic and framing together, in its frames, rounded up once."""
        return dict(self._host_latencies)

    @property
    def host_samples(self) -> int:
        """Host-facing latency of the first output in its samples: what a DAW must compensate."""
        return self.host_latencies[self.main]

    @property
    def host_latency(self) -> Fraction:
        """Host-facing latency of the first output, seconds: a whole number of its samples."""
        return self.host_samples / self.rate_out

    @property
    def main(self) -> str:
        """The first output, whose numbers are the graph's own."""
        return next(iter(self.outputs))

    @property
    def receptive_field(self) -> Fraction | None:
        if self._reach is None:
            oldest = self._counts.oldest_input(self.wiring.values())
            self._reach = (None if oldest is None else self.period - oldest,)
        return self._reach[0]

    def oldest_input(self, frame: int) -> int | None:
        span = self.receptive_field
        return None if span is None else self.quantum - math.ceil(span * self.rate_in)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return {actor.name: actor.block.init_state(batch_size, device, dtype) for actor in self.actors}

    def prepare(self, controls: Mapping[str, Tensor]) -> Prepared:
        prepared = Prepared()
        self.prepare_actors(prepared, controls, self.controls)
        return prepared

    def prepare_actors(self, prepared: Prepared, controls: Mapping[str, Tensor], changed: Iterable[str]) -> None:
        """Bring ``prepared`` up to date for the actors that listen to a changed control, and for new ones."""
        new = set(changed)
        for actor in self.actors:
            if actor.name not in prepared or not new.isdisjoint(actor.controls.values()):
                own = {name: controls[outer] for name, outer in actor.controls.items()}
                prepared[actor.name] = actor.block.prepare(own)

    def read_controls(self, given: Mapping[str, Tensor | float], like: Tensor) -> dict[str, Tensor]:
        defaults = {name: torch.tensor(c.default) for name, c in self.control_specs.items() if c.default is not None}
        for name, value in given.items():
            self.check_control(name, value)
        return super().read_controls({**defaults, **given}, like)

    def check_control(self, name: str, value: Tensor | float) -> None:
        """Refuse an unknown control and values out of its range with a ``StreamError``."""
        spec = self.control_specs.get(name)
        if spec is None:
            raise StreamError(f"unknown control '{name}': {suggest(name, self.control_specs, 'control')}")
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise StreamError(f"control '{name}' is a {type(value).__name__}: give a number or a tensor") from error
        for bound, beyond, word in ((spec.minimum, torch.lt, "below"), (spec.maximum, torch.gt, "above")):
            if bound is not None and bool(beyond(tensor, bound).any()):
                extreme = float(tensor.min() if word == "below" else tensor.max())
                ends = (("at least", spec.minimum), ("at most", spec.maximum))
                allowed = " and ".join(f"{which} {number(end)}" for which, end in ends if end is not None)
                raise StreamError(f"control '{name}' is {number(extreme)}, {word} {number(bound)}: give {allowed}")

    def step(self, x: Signal, state: State, controls: Any = None) -> tuple[Out, State]:
        """Whole quanta: ``k * consumes[name]`` frames at every input.

        Args:
            x: ``(batch, channels, frames)``, or a dict of them where there are several inputs.
            state: as ``init_state`` or the last step returned it.
            controls: what ``prepare`` returned, or the controls' own values by name.

        Raises:
            StreamError: for a number of frames that is not a whole number of quanta; ``stream()`` takes any.
        """
        if self.training_only:
            raise CausalityError(f"'{self.name}' holds training-only nodes: step and stream its deploy()")
        arrived = self.as_inputs(x)
        lead = next(iter(arrived.values()))
        firings = {arrived[name].shape[-1] / Fraction(count) for name, count in self.consumes.items()}
        if len(firings) != 1 or next(iter(firings)).denominator != 1:
            got = ", ".join(f"{tensor.shape[-1]} at '{name}'" for name, tensor in arrived.items())
            wanted = ", ".join(f"{count} at '{name}'" for name, count in self.consumes.items())
            raise StreamError(f"a step takes the same whole multiple of {wanted}, not {got}: stream() takes any number")
        if not isinstance(controls, Prepared):
            controls = self.prepare(self.read_controls(controls or {}, lead))
        outputs, state, _ = self.advance(arrived, state, {}, controls)
        return self.as_output(outputs, lead), state

    if TYPE_CHECKING:

        def __call__(self, x: Signal, **controls: Tensor | float) -> Out: ...

    def forward(self, x: Signal, **controls: Tensor | float) -> Out:
        arrived = self.as_inputs(x)
        lead = next(iter(arrived.values()))
        values = self.read_controls(controls, lead)
        signals = {Wire(name, "out"): tensor for name, tensor in arrived.items()}
        for actor in self.actors:
            own = {name: values[outer] for name, outer in actor.controls.items()}
            taken = {port: signals[read] for port, read in actor.sources.items()}
            y = actor.block(taken if actor.block.variadic else next(iter(taken.values())), **own)
            for port, wire in actor.wires.items():
                signals[wire] = y[port] if isinstance(y, dict) else y
        return self.as_output({name: signals[wire] for name, wire in self.wiring.items()}, lead)

    def advance(
        self, arrived: Mapping[str, Tensor], state: State, waiting: Mapping[str, Tensor], prepared: Prepared
    ) -> tuple[dict[str, Tensor], State, dict[str, Tensor]]:
        """Fire every actor as often as its inputs allow.

        Args:
            arrived: new frames by input.
            state: of the actors.
            waiting: frames that did not fill a quantum yet, by ``actor.port``.
            prepared: of the actors.

        Returns:
            New frames by output (an output with none is left out), the next state, and what is waiting now.
        """
        signals = self.arriving(arrived)
        counts = self.firing.counts(frames_of(signals), frames_of(waiting))
        entering, outer = self.firing.enter(counts, signals, waiting)
        made, after, inner = self.firing.fire(counts, entering, state, waiting, prepared)
        return self.leaving({**signals, **made}), {**state, **after}, {**outer, **inner}

    def arriving(self, arrived: Mapping[str, Tensor]) -> dict[Wire, Tensor]:
        """The inputs as signals; those with no new frame are left out."""
        return {Wire(name, "out"): x for name, x in arrived.items() if x.shape[-1]}

    def leaving(self, signals: Mapping[Wire, Tensor]) -> dict[str, Tensor]:
        """The signals that are outputs, by name; those that did not come to be are left out."""
        return {name: signals[wire] for name, wire in self.wiring.items() if wire in signals}

    def as_inputs(self, x: Signal) -> dict[str, Tensor]:
        """Check the input's form and name its parts."""
        if isinstance(x, Tensor):
            if len(self.inputs) != 1:
                raise StreamError(f"'{self.name}' takes a dict of inputs: {', '.join(self.inputs)}")
            x = {next(iter(self.inputs)): x}
        if not isinstance(x, Mapping) or not all(isinstance(tensor, Tensor) for tensor in x.values()):
            raise StreamError(f"'{self.name}' takes a tensor, or a dict of them by input: convert with torch.as_tensor")
        if set(x) != set(self.inputs):
            raise StreamError(f"'{self.name}' takes inputs {', '.join(self.inputs)}, not {', '.join(map(str, x))}")
        arrived = {name: check_signal(x[name], stream, name) for name, stream in self.inputs.items()}
        if len({tensor.shape[0] for tensor in arrived.values()}) > 1:
            raise StreamError(f"the inputs of '{self.name}' differ in batch size")
        if any(tensor.dtype != self.dtype for tensor in arrived.values()) and self._has_precision():
            # As a session does: files are read in float64, and weights are in float32.
            arrived = {name: tensor.to(self.dtype) for name, tensor in arrived.items()}
        return arrived

    def _has_precision(self) -> bool:
        """Whether something in the graph is of its precision, and takes no other. Gains and delays take any."""
        held = (tensor for tensor in (*self.parameters(), *self.buffers()) if tensor is not self._like)
        return any(tensor.dtype == self.dtype for tensor in held)

    def as_output(self, outputs: Mapping[str, Tensor], like: Tensor) -> Out:
        """All outputs, empty ones where nothing has come; the tensor itself where there is one."""
        full = {
            name: outputs[name] if name in outputs else like.new_zeros(like.shape[0], stream.channels, 0)
            for name, stream in self.outputs.items()
        }
        return cast("Out", next(iter(full.values())) if len(full) == 1 else full)

    def output_lengths(self, lengths: Tensor) -> Any:
        """Valid output frames for inputs of these lengths, a tensor; a dict where there are several outputs.

        All inputs are taken to last as long as ``lengths`` frames of the first one.
        """
        seconds = {int(n): int(n) / self.rate_in for n in lengths.flatten().tolist()}
        found = {n: self._counts.available(list(self.wiring.values()), time) for n, time in seconds.items()}
        columns = {
            name: torch.tensor([found[int(n)][wire] for n in lengths.flatten().tolist()]).reshape(lengths.shape)
            for name, wire in self.wiring.items()
        }
        moved = {name: column.to(lengths) for name, column in columns.items()}
        return next(iter(moved.values())) if len(moved) == 1 else moved

    @property
    def like(self) -> Tensor:
        """An empty tensor of the graph's precision and place; a change of either puts another one here."""
        return self._like

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the graph, as ``to``, ``double`` and their like set it."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """The device of the graph's tensors."""
        return self._like.device

    def part(self, plan: Plan) -> Self:
        """The graph of a plan over blocks of this one, in the same precision, place and training mode."""
        made = type(self)(plan)
        made._like = self._like.clone()
        made.training = self.training
        return made


def _add_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at ``enc/conv`` so that its weights are called ``enc.conv.weight``.

    The module tables are written directly, since a node may well have a name such as ``type`` or ``step`` that
    ``add_module`` refuses.
    """
    *parents, last = path.split("/")
    for name in parents:
        if root._modules.get(name) is None:
            root._modules[name] = nn.Module()
        root = root._modules[name]  # type: ignore[assignment]
    root._modules[last] = module
