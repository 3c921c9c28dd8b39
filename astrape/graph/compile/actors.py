"""Actors, which fire as one: nodes by themselves, and every feedback loop as a whole."""

from __future__ import annotations

from collections.abc import Callable

from astrape.blocks.base import Stream
from astrape.graph.compile.loop import FeedbackLoop
from astrape.graph.compile.plan import PlannedNode, Wire, digraph, execution_order
from astrape.graph.compile.schedule import Actor

__all__ = ["group_actors", "loop_name"]


def group_actors(
    nodes: dict[str, PlannedNode], loops: dict[str, int], streams: dict[Wire, Stream], outputs: dict[str, Wire]
) -> list[Actor]:
    """Group the nodes of every feedback loop, and put the actors into execution order.

    A delay that closes a loop is part of it, and once more an actor of its own where something outside hears it.

    Args:
        nodes: in execution order.
        loops: for each node in a feedback loop, the number of its loop.
        streams: the stream of every wire.
        outputs: the wires that leave the graph.

    Raises:
        CausalityError: for a loop that can never iterate.
    """
    readers: dict[str, set[str]] = {}
    for name, node in nodes.items():
        for wire in node.sources.values():
            readers.setdefault(wire.node, set()).add(name)
    wired = {wire.node for wire in outputs.values()}

    def seen_outside(name: str) -> bool:
        return name in wired or any(loops.get(reader) != loops[name] for reader in readers.get(name, ()))

    heard = _heard_delays(nodes, seen_outside)
    read = set(outputs.values())
    read |= {wire for name in heard for wire in nodes[name].sources.values()}
    inside: dict[int, list[PlannedNode]] = {}
    for name, node in nodes.items():
        if name in loops:
            inside.setdefault(loops[name], []).append(node)
    actors: dict[str, Actor] = {}
    for number, component in inside.items():
        names = {node.name for node in component}
        crossing = read | {s for n in names for r in readers.get(n, set()) - names for s in nodes[r].sources.values()}
        members = [node for node in component if not node.cut]
        visible = [wire for m in members for wire, _ in m.output_streams() if wire in crossing]
        loop = FeedbackLoop(members, {node.name: node for node in component if node.cut}, streams, visible)
        sources = {str(s): s for m in members for s in m.sources.values() if str(s) in loop.inputs}
        controls, wires = {name: name for name in loop.controls}, {str(wire): wire for wire in visible}
        actors[loop_name(number)] = Actor(loop_name(number), loop, sources, controls, wires)
    for name, node in nodes.items():
        if name not in loops or name in heard:
            wires = {port: Wire(name, port) for port in node.block.outputs}
            actors[name] = Actor(name, node.block, dict(node.sources), dict(node.controls), wires)
    producer = {wire: actor.name for actor in actors.values() for wire in actor.wires.values()}
    reads = {
        name: [producer[wire] for wire in actor.sources.values() if wire in producer] for name, actor in actors.items()
    }
    rank = [name if name in actors else loop_name(loops[name]) for name in nodes]
    return [actors[name] for name in execution_order(digraph(reads.items()), dict.fromkeys(rank))]


def loop_name(number: int) -> str:
    """Name of a feedback loop among the actors; no node can have it."""
    return f"loop:{number}"


def _heard_delays(nodes: dict[str, PlannedNode], seen_outside: Callable[[str], bool]) -> set[str]:
    """The delays of feedback loops that are heard outside, and those that such a delay reads."""
    heard: set[str] = set()
    waiting = [name for name, node in nodes.items() if node.cut and seen_outside(name)]
    while waiting:
        name = waiting.pop()
        if name not in heard:
            heard.add(name)
            read = nodes[name].sources["in"].node
            waiting += [read] if nodes[read].cut else []
    return heard
