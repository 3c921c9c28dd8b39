"""The part of a graph between signals: training begins at what has been stored, not at the microphone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from astrape.blocks.base import Stream
from astrape.errors import StreamError
from astrape.graph.compile.plan import PlannedNode, Signal
from astrape.graph.graph import Graph
from astrape.graph.recipe.location import suggest
from astrape.graph.recipe.reach import reached

__all__ = ["between", "named_signals"]


def named_signals(graph: Graph) -> dict[str, Signal]:
    """What can be named in a graph: its outputs, its inputs, and every node's output by its flat name.

    An output's name goes before an input's, and that before a node's.
    """
    streams = {str(signal): signal for node in graph.nodes.values() for signal, _ in node.output_streams()}
    return streams | {name: Signal(name, "out") for name in graph.inputs} | graph.wiring


def between(graph: Graph, entries: Iterable[str], outputs: Sequence[str]) -> Graph:
    """The part of a graph that begins at named signals and leads to named outputs; it shares blocks and parameters.

    Each entry becomes an input of the part, under the name it was asked for. Inputs of the whole graph that the outputs
    need besides stay inputs. Fed with what the whole graph has at the entries, the part gives what the whole gives.

    The numbers of time stay those of the whole graph: ``latency`` and ``latencies`` count from its inputs, the
    microphone, not from the entry, and delays that align a fan-in stay as they are. Framing alone is the part's own:
    how long a frame waits once the entries are there.

    Args:
        graph: the whole, training-only nodes or not.
        entries: names of signals, as ``named_signals`` has them: an output such as ``features``, or a node's flat name
            such as ``encoder/q2d2.content``.
        outputs: names of outputs.

    Raises:
        StreamError: for an unknown name, an entry that no output depends on, one inside a feedback loop that is needed
            as a whole, or one whose name a node of the part has.

    Example, content and codes from stored features at 200 Hz, with the latency from the microphone on::

        part = between(compile("astrape-vc", training=True), ["features"], ["content", "codes"])
        part(features)["content"]
        part.latencies["content"]     # 11/2000 s: 3 ms resampler, 2.5 ms wavlm
    """
    known = named_signals(graph)
    entered = {name: _signal(graph, name, known) for name in dict.fromkeys(entries)}
    for name in outputs:
        if name not in graph.outputs:
            raise StreamError(f"'{graph.name}' has no output '{name}': {suggest(name, graph.outputs, 'output')}")
    if not outputs:
        raise StreamError(f"'{graph.name}' is asked for no output (there is: {', '.join(graph.outputs)})")
    # No node has a colon in its name, so that an entry can be told from a node of the same name until that is refused.
    marked = {signal: f"entry:{name}" for name, signal in entered.items()}
    reads = {
        name: [marked.get(signal, signal.node) for signal in node.sources.values()]
        for name, node in graph.nodes.items()
    }
    wired = {name: graph.wiring[name] for name in dict.fromkeys(outputs)}
    wanted = reached((marked.get(signal, signal.node) for signal in wired.values()), reads)
    _check(graph, entered, wanted)
    renamed = {signal: Signal(name, "out") for name, signal in entered.items()}
    kept = {name: _entered(node, renamed) for name, node in graph.nodes.items() if name in wanted}
    streams = {signal: stream for node in graph.nodes.values() for signal, stream in node.output_streams()}
    streams |= {Signal(name, "out"): stream for name, stream in graph.inputs.items()}
    inputs: dict[str, Stream] = {name: streams[signal] for name, signal in entered.items()}
    inputs |= {name: stream for name, stream in graph.inputs.items() if name in wanted}
    listened = {outer for node in kept.values() for outer in node.controls.values()}
    part = Graph(
        graph.name,
        kept,
        {name: number for name, number in graph.loops.items() if name in kept},
        inputs,
        {name: control for name, control in graph.control_specs.items() if name in listened},
        {name: renamed.get(signal, signal) for name, signal in wired.items()},
        graph.signal_latency | {renamed[signal]: graph.signal_latency[signal] for signal in entered.values()},
    )
    part.follow(graph)
    return part


def _signal(graph: Graph, name: str, known: Mapping[str, Signal]) -> Signal:
    if name not in known:
        raise StreamError(f"'{graph.name}' has no signal '{name}': {suggest(name, known, 'signal')}")
    return known[name]


def _entered(node: PlannedNode, renamed: Mapping[Signal, Signal]) -> PlannedNode:
    """The node, with its sources at the entries."""
    if not any(signal in renamed for signal in node.sources.values()):
        return node
    return replace(node, sources={port: renamed.get(signal, signal) for port, signal in node.sources.items()})


def _check(graph: Graph, entered: Mapping[str, Signal], wanted: Mapping[str, object]) -> None:
    for name, signal in entered.items():
        if f"entry:{name}" not in wanted:
            raise StreamError(f"'{graph.name}': nothing that was asked for depends on '{name}': leave it out")
        if name in wanted:
            raise StreamError(
                f"'{graph.name}': the entry '{name}' has the name of a node or an input that is needed besides: give "
                f"the output another name"
            )
        loop = graph.loops.get(signal.node)
        turning = [other for other in graph.nodes if other in wanted and graph.loops.get(other) == loop]
        if loop is not None and turning:
            raise StreamError(
                f"'{graph.name}': '{name}' lies inside a feedback loop with '{turning[0]}', which needs it anew each "
                f"turn: enter before the loop or after it"
            )
