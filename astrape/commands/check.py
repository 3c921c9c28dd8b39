"""``astrape check``: the contract checks on a recipe and each of its blocks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import RecipeName, command, json_option, print_json, progress
from astrape.errors import AstrapeError, ContractError

if TYPE_CHECKING:
    from astrape.graph.compile.plan import PlannedNode
    from astrape.graph.graph import Graph

__all__ = ["check"]


@command("check", "astrape check voice-changer", short="Check a recipe and its blocks against the contract.")
@click.argument("recipe", type=RecipeName())
@click.option("--examples", default=25, show_default=True, type=click.IntRange(0, 10_000), help="Chunkings to draw.")
@json_option
def check(recipe: str, examples: int, as_json: bool) -> None:
    """Check that RECIPE and every block in it keep the contract.

    Causality by perturbation and gradient, step equals forward over any chunking, declared latency and receptive field
    against measured ones, purity, constant state, reset, snapshot, isolation of rows; of the whole, sessions too.
    """
    from astrape.commands.reaching import draws_behind_transforms
    from astrape.graph import load
    from astrape.testing import check_block, check_graph

    graph = load(recipe)
    groups = _alike(graph)
    draws = draws_behind_transforms(graph)
    jobs: list[tuple[dict[str, Any], Callable[[], Any]]] = []
    for nodes in groups:
        entry = _entry("block", nodes[0].name, nodes[0].use, [node.name for node in nodes[1:]])
        controls = list(_settings(graph, nodes[0])) or None
        block = nodes[0].block
        jobs.append(
            (entry, partial(check_block, block, controls=controls, draw=draws.get(nodes[0].name), examples=examples))
        )
    jobs.append((_entry("graph", graph.name, "graph", []), partial(check_graph, graph, examples=examples)))
    with progress(f"checking {graph.name}") as tell:
        for index, (entry, job) in enumerate(jobs):
            tell(index, len(jobs))
            begin = time.perf_counter()
            try:
                job()
                entry |= {"passed": True, "property": None, "message": None}
            except ContractError as error:
                entry |= {"passed": False, "property": error.property_name, "message": " ".join(str(error).split())}
            entry["seconds"] = round(time.perf_counter() - begin, 3)
            if not as_json:
                click.echo(_line(entry))
    entries = [entry for entry, _ in jobs]
    broken = [entry for entry in entries if not entry["passed"]]
    if as_json:
        print_json({"recipe": graph.name, "passed": not broken, "checks": entries})
    if broken:
        named = ", ".join(f"'{entry['name']}' ({entry['property']})" for entry in broken)
        raise AstrapeError(f"{len(broken)} of {len(entries)} break the contract: {named}")
    if not as_json:
        click.echo(f"{graph.name}: the graph and all its {len(graph.nodes)} blocks keep the contract")


def _entry(what: str, name: str, kind: str, alike: list[str]) -> dict[str, Any]:
    return {"what": what, "name": name, "type": kind, "alike": alike}


def _line(entry: dict[str, Any]) -> str:
    name = entry["name"] if entry["what"] == "graph" else f"{entry['name']} ({entry['type']})"
    more = f" and {len(entry['alike'])} alike" if entry["alike"] else ""
    outcome = "passed" if entry["passed"] else "BROKEN"
    return f"{outcome}  {entry['what']} {name}{more}, {entry['seconds']:.1f} s" + (
        "" if entry["passed"] else f"\n        {entry['message']}"
    )


def _alike(graph: Graph) -> list[list[PlannedNode]]:
    """Nodes in groups that are built in the same way: the copies that ``repeat`` makes, on inputs of the same form."""
    groups: dict[tuple[Any, ...], list[PlannedNode]] = {}
    for node in graph.nodes.values():
        streams = tuple((s.rate, s.channels) for s in node.block.inputs.values())
        # The compiler's delays differ from each other in length.
        name = node.name if node.inserted else re.sub(r"/\d+(?=/|$)", "/*", node.name)
        key = (name, node.use, streams, tuple(node.block.controls.items()))
        groups.setdefault(key, []).append(node)
    return list(groups.values())


def _settings(graph: Graph, node: PlannedNode) -> Iterator[dict[str, Any]]:
    """Two settings of a block's controls within the ranges that the recipe gives them."""
    if not node.block.controls:
        return
    for share in (0.35, 0.8):
        setting = {}
        for name in node.block.controls:
            spec = graph.control_specs[node.controls[name]]
            low = spec.minimum if spec.minimum is not None else (spec.maximum or 1.0) - 1
            high = spec.maximum if spec.maximum is not None else low + 1
            places = [(share + 0.37 * channel) % 1 for channel in range(spec.channels)]
            setting[name] = [low + (high - low) * place for place in places]
        yield setting
