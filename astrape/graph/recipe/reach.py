"""Reachability inside one recipe: nodes and inputs that nothing needs, and deployed nodes that need training ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from astrape.graph.recipe.location import recipe_error
from astrape.graph.recipe.written import WrittenNode, WrittenRecipe

__all__ = ["check_reach", "reached"]


def reached(starts: Iterable[str], reads: Mapping[str, Iterable[str]]) -> dict[str, str | None]:
    """Everything that ``starts`` depend on, themselves included: each name to the name that led to it."""
    parents: dict[str, str | None] = dict.fromkeys(starts)
    waiting = list(parents)
    while waiting:
        name = waiting.pop()
        for source in reads.get(name, ()):
            if source not in parents:
                parents[source] = name
                waiting.append(source)
    return parents


def check_reach(recipe: WrittenRecipe) -> None:
    """Refuse what feeds nothing, and deployed nodes that read training ones. References are known to exist.

    Raises:
        RecipeError: with the line of the node, input or output, and for a training node in use the path to the output.
    """
    written_nodes = {written.name: written for written in recipe.nodes}
    reads = {name: [_node_of(text) for _, text, _ in written.sources] for name, written in written_nodes.items()}
    outputs = {name: _node_of(text) for name, text in recipe.outputs.items()}
    deployed = reached(outputs.values(), reads)
    _check_deployed(written_nodes, reads, deployed, outputs, recipe)
    training = reached((_node_of(text) for text in recipe.training_outputs.values()), reads)
    for name, written in written_nodes.items():
        if written.training and name not in training:
            raise recipe_error("it feeds nothing", written.location, name, "name it in training.outputs, or remove it")
        if not written.training and name not in deployed:
            if name in training:
                hint = "move it to training.blocks, or name it in outputs"
                raise recipe_error("it feeds the training section only", written.location, name, hint)
            raise recipe_error("it feeds nothing", written.location, name, "name it in outputs, or remove it")
    read = {source for sources in reads.values() for source in sources} | set(deployed) | set(training)
    for name in recipe.inputs:
        if name not in read:
            location = recipe.located.location_of("inputs", name)
            raise recipe_error(f"nothing reads input '{name}'", location, hint="read it with from, or remove it")


def _node_of(reference: str) -> str:
    return reference.partition(".")[0]


def _check_deployed(
    written_nodes: Mapping[str, WrittenNode],
    reads: Mapping[str, list[str]],
    deployed: Mapping[str, str | None],
    outputs: Mapping[str, str],
    recipe: WrittenRecipe,
) -> None:
    hint = "move what reads it to the training section, or the training node to blocks"
    for output, name in outputs.items():
        if name in written_nodes and written_nodes[name].training:
            location = recipe.located.location_of("outputs", output)
            raise recipe_error(
                f"output '{output}' depends on training: '{name}' -> output '{output}'", location, hint=hint
            )
    for name, written in written_nodes.items():
        for source in () if written.training else reads[name]:
            if source in written_nodes and written_nodes[source].training:
                path = [source, name]
                while (parent := deployed.get(path[-1])) is not None:
                    path.append(parent)
                ends = [f"output '{output}'" for output, node in outputs.items() if node == path[-1]][:1]
                shown = " -> ".join([f"'{step}'" for step in path] + ends)
                location = written.locations.get("from", written.location)
                raise recipe_error(f"a deployed node depends on training: {shown}", location, name, hint)
