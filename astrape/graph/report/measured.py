"""Measuring a compiled graph: every declared number beside what its blocks and its sessions really do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from astrape.errors import ContractError
from astrape.graph.compile.plan import PlannedNode, Wire
from astrape.graph.compile.schedule import period_of
from astrape.graph.network import Network
from astrape.graph.session import Session
from astrape.measure.causality import measure_lookahead
from astrape.measure.framing import measure_framings
from astrape.measure.measurement import Measured, measure_subject
from astrape.measure.subject import Subject
from astrape.measure.timing import check_latency, check_receptive_field, latency_tolerance

__all__ = ["GraphMeasured", "NodeMeasured", "measure_graph"]

MOST_FRAMES = 20_000
"""Input frames of the longest period that is run to measure the graph's look-ahead, and of one timed step."""

MOST_PROBED = 20_000
"""Input frames of the longest receptive field that is probed in the whole graph."""

TIMED_STEPS = 15


@dataclass(frozen=True)
class NodeMeasured:
    """Measurements of a block, times in exact seconds; see ``astrape.testing.Measured``.

    Attributes:
        latency: ``None`` where no measurement applies, as for a delay that is an effect.
        tolerance: by how much it may differ from the declared one: nothing where it is the age of the newest input,
            some frame where it is the centre of a window; see :func:`astrape.measure.timing.check_latency`.
        step_ms: median time of one step on as many quanta as one period of the graph holds (``MOST_FRAMES`` at most),
            one stream.
        problems: what was found otherwise than declared.
    """

    lookahead: Fraction | None
    latency: Fraction | None
    tolerance: Fraction
    receptive_field: Fraction | None
    state_bytes: int
    step_ms: float
    problems: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether all that was measured is as declared."""
        return not self.problems


@dataclass(frozen=True)
class GraphMeasured:
    """Measurements of a graph, times in exact seconds.

    Attributes:
        lookahead: where the period is longer than ``MOST_FRAMES``, the largest that a block was found to have.
        latency: of the first output: the blocks' measured latencies added up along the latest path.
        tolerance: by how much it may differ from the declared one: the blocks' tolerances, added up in the same way.
        framing: of the first output, from a session fed one frame at a time; ``None`` where the period is too long
            for that.
        receptive_field: ``None`` where it is unbounded, or too long to be probed.
    """

    lookahead: Fraction | None
    latency: Fraction
    tolerance: Fraction
    framing: Fraction | None
    receptive_field: Fraction | None
    nodes: dict[str, NodeMeasured]
    disagreements: list[str]


def measure_graph(graph: Network[Any]) -> GraphMeasured:
    """Measure every block of a graph on its own, and the graph as a whole; nothing of it is changed."""
    values = {name: _value(graph, name) for name in graph.controls}
    nodes = {name: _measure_node(graph, node, values) for name, node in graph.nodes.items()}
    disagreements = [f"{name}: {problem}" for name, found in nodes.items() for problem in found.problems]
    subject = Subject(graph, controls=values)
    lookahead = measure_lookahead(subject) if _short(graph) else _largest_lookahead(nodes)
    if lookahead != graph.lookahead:
        disagreements.append(f"graph: look-ahead is {graph.lookahead} s as declared and {lookahead} s as measured")
    network = subject.block
    assert isinstance(network, Network)
    framings = measure_framings(subject, lambda: Session(network, dtype=subject.dtype))
    for name, seconds in framings.items():
        if seconds != graph.framings[name].seconds:
            declared = graph.framings[name].seconds
            disagreements.append(f"graph: framing of '{name}' is {declared} s as declared and {seconds} s as measured")
    reach = _reach(graph, subject)
    span = graph.receptive_field
    if reach is not None and span is not None and reach > span:
        disagreements.append(f"graph: receptive field is {span} s as declared and {reach} s as measured")
    latency, tolerance = _ages(graph, nodes)[graph.wiring[graph.main]]
    return GraphMeasured(
        lookahead=lookahead,
        latency=latency,
        tolerance=tolerance,
        framing=framings.get(graph.main),
        receptive_field=reach,
        nodes=nodes,
        disagreements=disagreements,
    )


def _short(graph: Network[Any]) -> bool:
    """Whether some periods of the graph can be run in a moment."""
    return sum(graph.consumes.values()) <= MOST_FRAMES


def _largest_lookahead(nodes: Mapping[str, NodeMeasured]) -> Fraction | None:
    ahead = [found.lookahead for found in nodes.values()]
    return None if None in ahead else max((a for a in ahead if a is not None), default=Fraction(0))


def _measure_node(graph: Network[Any], node: PlannedNode, values: Mapping[str, Tensor]) -> NodeMeasured:
    block = node.block
    own = {name: values[outer] for name, outer in node.controls.items()}
    subject = Subject(block, controls=own)
    found = measure_subject(subject)
    problems = _problems(subject, found)
    return NodeMeasured(
        lookahead=found.lookahead,
        latency=found.latency,
        tolerance=max((latency_tolerance(block, port) for port in found.latencies), default=Fraction(0)),
        receptive_field=found.receptive_field,
        state_bytes=found.state_bytes,
        step_ms=_step_ms(graph, node, own) if block.lookahead == 0 else 0.0,
        problems=problems,
    )


def _problems(subject: Subject, found: Measured) -> list[str]:
    problems = []
    if found.lookahead != subject.block.lookahead:
        problems.append(f"look-ahead: {subject.block.lookahead} s as declared and {found.lookahead} s as measured")
    for check in (check_latency, check_receptive_field):
        try:
            check(subject, found)
        except ContractError as error:
            problems.append(str(error))
    return problems


def _step_ms(graph: Network[Any], node: PlannedNode, values: Mapping[str, Tensor]) -> float:
    block = node.block
    quanta = min(int(graph.period / period_of(block)), MOST_FRAMES // max(block.consumes.values()))
    x: Any = {
        port: torch.randn(
            1, stream.channels, max(1, quanta) * block.consumes[port], dtype=graph.dtype, device=graph.device
        )
        for port, stream in block.inputs.items()
    }
    lead = next(iter(x.values()))
    spent = []
    with torch.no_grad():
        prepared = block.prepare(block.read_controls(values, lead))
        state = block.init_state(1, graph.device, graph.dtype)
        for _ in range(TIMED_STEPS):
            started = time.perf_counter()
            _, state = block.step(x if block.variadic else lead, state, prepared)
            spent.append(time.perf_counter() - started)
    return 1000 * statistics.median(spent)


def _ages(graph: Network[Any], nodes: Mapping[str, NodeMeasured]) -> dict[Wire, tuple[Fraction, Fraction]]:
    """Measured latency of every wire and its tolerance: as the compiler adds up declared ones, feedback left out."""
    ages = {Wire(name, "out"): (Fraction(0), Fraction(0)) for name in graph.inputs}
    for name, node in graph.nodes.items():
        before = [ages[read] for read in node.sources.values() if read in ages]
        age = max((age for age, _ in before), default=Fraction(0))
        tolerance = max((tolerance for _, tolerance in before), default=Fraction(0))
        for wire, _ in node.output_streams():
            own = nodes[name].latency
            own = node.block.latencies[wire.port] if own is None else own
            ages[wire] = age + own, tolerance + nodes[name].tolerance
    return ages


def _reach(graph: Network[Any], subject: Subject) -> Fraction | None:
    """Receptive field by gradient, of some frames of a period among which is the first: it reaches back furthest."""
    declared = graph.receptive_field
    if declared is None or declared * graph.rate_in > MOST_PROBED:
        return None
    periods = -int(-declared // graph.period) + 2
    x = {port: tensor.requires_grad_() for port, tensor in subject.signal(periods, batch=1).items()}
    outputs = subject.forward(x)
    begins = (periods - 1) * graph.period
    oldest = begins
    for name, y in outputs.items():
        rate = graph.outputs[name].rate
        first, count = int(begins * rate), graph.produces[name]
        for frame in sorted({0, 1, count // 2, count - 1} & set(range(count))):
            gradients = torch.autograd.grad(
                y[..., first + frame].sum(), list(x.values()), retain_graph=True, allow_unused=True
            )
            for port, gradient in zip(x, gradients, strict=True):
                used = [] if gradient is None else gradient.abs().sum(dim=(0, 1)).nonzero().flatten().tolist()
                oldest = min([oldest, *(index / graph.inputs[port].rate for index in used[:1])])
    return begins + graph.period - oldest


def _value(graph: Network[Any], name: str) -> Tensor:
    """A control's default, or the middle of its range, or one half."""
    spec = graph.control_specs[name]
    if spec.default is not None:
        return torch.tensor(spec.default)
    low = 0.0 if spec.minimum is None else spec.minimum
    high = low + 1 if spec.maximum is None else spec.maximum
    return torch.full((spec.channels,), (low + high) / 2)
