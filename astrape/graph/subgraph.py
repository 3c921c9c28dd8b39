"""Part of a graph: what leads to some of its outputs, from its inputs or from signals in the middle of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from astrape.errors import StreamError
from astrape.graph.compile.passes import needed_nodes, read_inputs, refuse_lookahead, used_controls
from astrape.graph.compile.plan import Plan, PlannedNode, Wire
from astrape.graph.network import Network
from astrape.graph.recipe.reach import reached
from astrape.wording import suggest

__all__ = ["named_signals", "split_at_control", "subgraph", "without_training"]

Whole = TypeVar("Whole", bound=Network[Any])


def named_signals(graph: Network[Any]) -> dict[str, Wire]:
    """Signals of a graph by name: its outputs, its inputs, and every node's output by its flat name.

    An output's name goes before an input's, and that before a node's.
    """
    streams = {str(wire): wire for node in graph.nodes.values() for wire, _ in node.output_streams()}
    return streams | {name: Wire(name, "out") for name in graph.inputs} | graph.wiring


def subgraph(graph: Whole, outputs: Sequence[str], entries: Iterable[str] = ()) -> Whole:
    """The part of a graph that leads to named outputs, and begins at named signals; it shares blocks and parameters.

    Each entry becomes an input of the part, under the name it was asked for. Inputs of the whole graph that the outputs
    need besides stay inputs. Fed with what the whole graph has at the entries, the part gives what the whole gives.

    The numbers of time stay those of the whole graph: ``latency`` and ``latencies`` count from its inputs, the
    microphone, not from the entry, and delays that align a fan-in stay as they are. Framing alone is the part's own:
    how long a frame waits once the entries are there.

    Args:
        graph: the whole, training-only nodes or not.
        outputs: names of outputs, or of signals in the middle.
        entries: names of signals, as ``named_signals`` has them: an output such as ``features``, or a node's flat name
            such as ``encoder/q2d2.content``. None: the part begins where the whole does.

    Raises:
        StreamError: for an unknown name or no output at all, an entry that no output depends on, one inside a feedback
            loop that is needed as a whole, or one whose name a node of the part has.

    Example, content and codes from stored features at 200 Hz, with the latency from the microphone on::

        part = subgraph(load("astrape-vc", training=True), ["content", "codes"], ["features"])
        part(features)["content"]
        part.latencies["content"]     # 11/2000 s: 3 ms resampler, 2.5 ms wavlm
    """
    known = named_signals(graph)
    entered = {name: _signal(graph, name, known) for name in dict.fromkeys(entries)}
    for name in outputs:
        if name not in known:
            raise StreamError(f"'{graph.name}' has no output '{name}': {suggest(name, graph.outputs, 'output')}")
    if not outputs:
        listed = ", ".join(graph.outputs)
        raise StreamError(f"'{graph.name}' is asked for no output: give at least one output of {listed}")
    # No node has a colon in its name, so that an entry can be told from a node of the same name until that is refused.
    marked = {wire: f"entry:{name}" for name, wire in entered.items()}
    reads = {
        name: [marked.get(wire, wire.node) for wire in node.sources.values()] for name, node in graph.nodes.items()
    }
    wired = {name: known[name] for name in dict.fromkeys(outputs)}
    wanted = reached((marked.get(wire, wire.node) for wire in wired.values()), reads)
    _check(graph, entered, wanted)
    renamed = {wire: Wire(name, "out") for name, wire in entered.items()}
    streams = graph.plan.streams()
    part = Plan(
        graph.name,
        {name: _entered(node, renamed) for name, node in graph.nodes.items() if name in wanted},
        graph.loops,
        {name: streams[wire] for name, wire in entered.items()}
        | {name: stream for name, stream in graph.inputs.items() if name in wanted},
        graph.control_specs,
        {name: renamed.get(wire, wire) for name, wire in wired.items()},
        graph.signal_latency | {renamed[wire]: graph.signal_latency[wire] for wire in entered.values()},
    )
    return graph.part(_narrowed(part))


def split_at_control(graph: Whole, control: str) -> tuple[Whole, Whole]:
    """A graph in two: what does not depend on a control, and what goes on from there to the first output.

    Whatever is computed once for all values of the control is in the first part, whose outputs are inputs of the second
    under the same names; inputs of the graph that the second reads besides stay inputs of it. Both share blocks and
    parameters with the whole.

    Raises:
        StreamError: for a control that the first output does not depend on, and a graph that depends on it from its
            inputs on.
    """
    reads = {name: [wire.node for wire in node.sources.values()] for name, node in graph.nodes.items()}
    feeds = {name: [reader for reader, sources in reads.items() if name in sources] for name in reads}
    follows = set(reached((name for name, node in graph.nodes.items() if control in node.controls.values()), feeds))
    needed = follows & set(reached([graph.wiring[graph.main].node], reads))
    if not needed:
        raise StreamError(f"'{graph.name}': '{graph.main}' does not depend on a control '{control}'")
    names = {wire: name for name, wire in reversed(named_signals(graph).items())}
    crossing = {wire: None for name in graph.nodes if name in needed for wire in graph.nodes[name].sources.values()}
    entries = [names[one] for one in crossing if one.node not in follows and one.node not in graph.inputs]
    if not entries:
        raise StreamError(f"'{graph.name}': all of it depends on '{control}': there is nothing to split off")
    return subgraph(graph, entries), subgraph(graph, [graph.main], entries)


def without_training(graph: Whole) -> Whole:
    """The streaming graph of a graph with training-only nodes; it shares blocks and parameters.

    Raises:
        CausalityError: when what is left looks ahead.
    """
    outputs = {name: wire for name, wire in graph.wiring.items() if not _trains(graph, wire)}
    nodes = needed_nodes(graph.nodes, outputs)
    inputs = read_inputs(graph.inputs, nodes, outputs)
    refuse_lookahead(nodes, inputs)
    plan = Plan(graph.name, nodes, graph.loops, inputs, graph.control_specs, outputs, graph.signal_latency)
    return graph.part(_narrowed(plan))


def _narrowed(plan: Plan) -> Plan:
    """The plan with the loops and controls of its own nodes alone."""
    loops = {name: number for name, number in plan.loops.items() if name in plan.nodes}
    return replace(plan, loops=loops, controls=used_controls(plan.controls, plan.nodes))


def _trains(graph: Network[Any], wire: Wire) -> bool:
    return wire.node in graph.nodes and graph.nodes[wire.node].training


def _signal(graph: Network[Any], name: str, known: Mapping[str, Wire]) -> Wire:
    if name not in known:
        raise StreamError(f"'{graph.name}' has no signal '{name}': {suggest(name, known, 'signal')}")
    return known[name]


def _entered(node: PlannedNode, renamed: Mapping[Wire, Wire]) -> PlannedNode:
    """The node, with its sources at the entries."""
    if not any(wire in renamed for wire in node.sources.values()):
        return node
    return replace(node, sources={port: renamed.get(wire, wire) for port, wire in node.sources.items()})


def _check(graph: Network[Any], entered: Mapping[str, Wire], wanted: Mapping[str, object]) -> None:
    for name, wire in entered.items():
        if f"entry:{name}" not in wanted:
            raise StreamError(f"'{graph.name}': nothing that was asked for depends on '{name}': leave it out")
        if name in wanted:
            raise StreamError(
                f"'{graph.name}': the entry '{name}' has the name of a node or an input that is needed besides: give "
                f"the output another name"
            )
        loop = graph.loops.get(wire.node)
        inside = [other for other in graph.nodes if other in wanted and graph.loops.get(other) == loop]
        if loop is not None and inside:
            raise StreamError(
                f"'{graph.name}': '{name}' lies inside a feedback loop with '{inside[0]}', which needs it anew each "
                f"iteration: enter before the loop or after it"
            )
