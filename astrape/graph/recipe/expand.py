"""Expansion of a written recipe to one flat graph: nested recipes unfolded, repeats unrolled, names resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from astrape.graph.recipe.files import locate, read_file
from astrape.graph.recipe.location import FileLocation, quote, recipe_error, suggest
from astrape.graph.recipe.node import Control, Expectation, Node, Reference
from astrape.graph.recipe.reach import check_reach, reached
from astrape.graph.recipe.written import MOST_NODES, WrittenNode, WrittenRecipe, read_written
from astrape.graph.recipe.yaml_source import MOST_VALUES, Located

__all__ = ["Flat", "expand"]

DEEPEST_NESTING = 16

Symbol = tuple[str, str | None]
"""A flat name and a port. A nested recipe's inputs and outputs are symbols that stand for others."""

_Sources = tuple[tuple[str, Symbol, FileLocation], ...]


@dataclass(frozen=True)
class Flat:
    """A recipe without nesting."""

    nodes: tuple[Node, ...]
    controls: dict[str, Control]
    outputs: dict[str, Reference]
    training_outputs: dict[str, Reference]
    expectations: tuple[Expectation, ...]


def expand(recipe: WrittenRecipe, origin: Path | None = None) -> Flat:
    """Unfold a recipe into one flat graph.

    Nodes of nested recipes that nothing outside uses are left out, as are nested training sections, which belong to
    the training of the nested recipe by itself.

    Args:
        recipe: the outermost recipe.
        origin: the file it was read from, to notice when it comes back inside itself.

    Raises:
        RecipeError: with file, line, node and hint.
    """
    expansion = _Expansion(recipe)
    stack = () if origin is None else (origin.resolve(),)
    inputs: dict[str, Symbol] = {name: (name, None) for name in recipe.inputs}
    scope = _Scope(recipe, "", inputs, {name: name for name in recipe.controls}, False, stack, 0)
    outputs, training_outputs = expansion.unfold(scope)
    return expansion.finish(outputs, training_outputs, recipe)


@dataclass(frozen=True)
class _Scope:
    """One recipe at one place in the graph: what its names stand for there."""

    recipe: WrittenRecipe
    prefix: str
    inputs: Mapping[str, Symbol]
    controls: dict[str, str]
    training: bool
    stack: tuple[Path, ...]
    depth: int

    def copies(self, written: WrittenNode) -> list[str]:
        name = self.prefix + written.name
        return [name] if written.repeat == 1 else [f"{name}/{index}" for index in range(written.repeat)]


@dataclass(frozen=True)
class _Nested:
    """A recipe that another one nests, and the file it comes from, if it is one of its own."""

    recipe: WrittenRecipe
    path: Path | None


@dataclass(frozen=True)
class _Unresolved:
    """A flat node whose sources are still symbols."""

    node: Node
    sources: tuple[tuple[str, Symbol, FileLocation], ...]


class _Expansion:
    def __init__(self, outermost: WrittenRecipe) -> None:
        self.controls = dict(outermost.controls)
        self.unresolved: list[_Unresolved] = []
        self.aliases: dict[Symbol, Symbol] = {}
        self.expectations: list[tuple[Expectation, Symbol]] = []
        self.recipes: dict[object, WrittenRecipe] = {}
        self.checked: set[int] = set()
        self.count = 0
        self.values = outermost.located.source.values

    def unfold(self, scope: _Scope) -> tuple[dict[str, Symbol], dict[str, Symbol]]:
        """Add the nodes of a recipe; return what its outputs and training outputs stand for."""
        recipe, outermost = scope.recipe, scope.depth == 0
        nodes = [written for written in recipe.nodes if outermost or not written.training]
        nested = {written.name: self.nested(written, scope) for written in nodes if written.recipe is not None}
        names = _Names(scope, {name: tuple(inner.recipe.outputs) for name, inner in nested.items()})
        sources = {
            written.name: tuple(
                (port, names.symbol(text, location, written.name), location) for port, text, location in written.sources
            )
            for written in nodes
        }
        outputs = names.outputs(recipe.outputs, "outputs")
        training = names.outputs(recipe.training_outputs, "training", "outputs") if outermost else {}
        if id(recipe) not in self.checked:
            self.checked.add(id(recipe))
            check_reach(recipe)
        for written in nodes:
            self.count += written.repeat
            if self.count > MOST_NODES:
                raise recipe_error(
                    f"that makes more than {MOST_NODES} nodes", written.location, written.name, "repeat or nest less"
                )
            if written.name in nested:
                self.add_graphs(written, scope, nested[written.name], sources[written.name])
            else:
                self.add_blocks(written, scope, sources[written.name])
        return outputs, training

    def nested(self, written: WrittenNode, scope: _Scope) -> _Nested:
        """The recipe that a node nests, read once however often it is used."""
        located = written.recipe
        assert located is not None
        if scope.depth + 1 > DEEPEST_NESTING:
            raise recipe_error(
                f"nested deeper than {DEEPEST_NESTING} recipes", written.location, written.name, "nest less"
            )
        if not isinstance(located.value, str):
            key: object = (id(located.source), located.path)
            if key not in self.recipes:
                self.recipes[key] = read_written(located, written.name)
            return _Nested(self.recipes[key], None)
        path = locate(located.value, located.source.base, located.location, written.name)
        known = path.resolve()
        if known in scope.stack:
            circle = " -> ".join(step.name for step in (*scope.stack[scope.stack.index(known) :], known))
            raise recipe_error(f"the recipe nests itself: {circle}", located.location, written.name, "break the circle")
        if known not in self.recipes:
            source = read_file(path, located.location, written.name)
            self.values += source.values
            if self.values > MOST_VALUES:
                raise recipe_error(
                    f"all files have more than {MOST_VALUES} values", located.location, written.name, "nest less"
                )
            self.recipes[known] = read_written(Located(source, source.data))
        return _Nested(self.recipes[known], known)

    def add_blocks(self, written: WrittenNode, scope: _Scope, sources: _Sources) -> None:
        training = scope.training or written.training
        for name in scope.copies(written):
            node = Node(
                name,
                written.use,
                (),
                dict(written.params),
                training,
                scope.controls,
                written.location,
                written.locations,
            )
            self.unresolved.append(_Unresolved(node, sources))
            sources = ((sources[0][0], (name, None), written.location),)

    def add_graphs(self, written: WrittenNode, scope: _Scope, nested: _Nested, sources: _Sources) -> None:
        recipe = nested.recipe
        if written.repeat > 1 and (len(recipe.inputs) > 1 or len(recipe.outputs) > 1):
            location = written.locations["repeat"]
            shown = f"'{recipe.name}' has inputs {', '.join(recipe.inputs)} and outputs {', '.join(recipe.outputs)}"
            raise recipe_error(f"repeat makes a chain, and {shown}", location, written.name, "give it one of each")
        stack = scope.stack if nested.path is None else (*scope.stack, nested.path)
        controls = self.bind_controls(written, scope, recipe)
        for name in scope.copies(written):
            inputs = self.bind_inputs(written, recipe, name, sources)
            training = scope.training or written.training
            inner = _Scope(recipe, f"{name}/", inputs, controls, training, stack, scope.depth + 1)
            for port, symbol in self.unfold(inner)[0].items():
                self.aliases[(name, port)] = symbol
            sources = ((sources[0][0], (name, next(iter(recipe.outputs))), written.location),)

    def bind_inputs(
        self, written: WrittenNode, recipe: WrittenRecipe, name: str, sources: _Sources
    ) -> dict[str, Symbol]:
        """Symbols for the inputs of a nested recipe, which are aliases of what it reads."""
        location = written.locations.get("from", written.location)
        names = ", ".join(recipe.inputs)
        given = {port: symbol for port, symbol, _ in sources}
        if len(recipe.inputs) == 1 and set(given) == {"in"}:
            given = {next(iter(recipe.inputs)): given["in"]}
        unknown = [port for port in given if port not in recipe.inputs]
        missing = [port for port in recipe.inputs if port not in given]
        if unknown or missing:
            hint = "give it one source" if len(recipe.inputs) == 1 else "write from: {INPUT: NODE, ...}"
            fault = (
                f"'{recipe.name}' has no input {quote(unknown[0])}" if unknown else f"input '{missing[0]}' is not fed"
            )
            if set(given) <= {"in"} or "0" in given:
                fault = f"from gives {len(given)} without names, and '{recipe.name}' does not take that"
            raise recipe_error(f"{fault} (inputs: {names})", location, written.name, hint)
        inputs: dict[str, Symbol] = {}
        for port, stream in recipe.inputs.items():
            inputs[port] = (f"{name}/{port}", None)
            self.aliases[inputs[port]] = given[port]
            declared = recipe.located.location_of("inputs", port)
            expectation = Expectation(name, Reference(""), stream, written.location, port, declared)
            self.expectations.append((expectation, given[port]))
        return inputs

    def bind_controls(self, written: WrittenNode, scope: _Scope, recipe: WrittenRecipe) -> dict[str, str]:
        """The outermost name of each control of a nested recipe.

        A control goes by the same name outside unless ``controls`` renames it. One that has a default and no
        counterpart outside becomes a control of the outermost graph under the node's path, such as ``enc/gain``.
        """
        for name, given in written.controls.items():
            location = written.locations["controls"]
            if name not in recipe.controls:
                hint = suggest(name, recipe.controls, "control")
                raise recipe_error(f"'{recipe.name}' has no control {quote(name)}", location, written.name, hint)
            if given not in scope.controls:
                hint = suggest(given, scope.controls, "control")
                raise recipe_error(f"there is no control {quote(given)}", location, written.name, hint)
        bound: dict[str, str] = {}
        for name, control in recipe.controls.items():
            outer = written.controls.get(name, name)
            if outer in scope.controls:
                bound[name] = scope.controls[outer]
                self.controls[bound[name]] = _narrowed(self.controls[bound[name]], control, written)
            elif control.default is not None:
                bound[name] = f"{scope.prefix}{written.name}/{name}"
                self.controls[bound[name]] = replace(control, name=bound[name])
            else:
                fault = f"'{recipe.name}' needs a control '{name}' ({control.channels} channels)"
                hint = f"add it to controls, give it a default, or write controls: {{{name}: NAME}}"
                raise recipe_error(fault, written.location, written.name, hint)
        return bound

    def finish(
        self, outputs: Mapping[str, Symbol], training_outputs: Mapping[str, Symbol], recipe: WrittenRecipe
    ) -> Flat:
        """Follow all aliases, and keep what the outputs depend on."""
        location_of = recipe.located.location_of
        finals = {name: self.follow(symbol, location_of("outputs", name)) for name, symbol in outputs.items()}
        training_finals = {
            name: self.follow(symbol, location_of("training", "outputs", name))
            for name, symbol in training_outputs.items()
        }
        nodes = [
            replace(
                one.node, sources=tuple((port, self.follow(symbol, location)) for port, symbol, location in one.sources)
            )
            for one in self.unresolved
        ]
        reads = {node.name: [reference.node for _, reference in node.sources] for node in nodes}
        deployed = reached((reference.node for reference in finals.values()), reads)
        wanted = reached((reference.node for reference in training_finals.values()), reads)
        kept = [
            node if node.name in deployed else replace(node, training=True)
            for node in nodes
            if node.name in deployed or node.name in wanted
        ]
        known = {node.name for node in kept} | set(recipe.inputs)
        expectations = [
            replace(expectation, reference=self.follow(symbol, expectation.location))
            for expectation, symbol in self.expectations
        ]
        expectations = [expectation for expectation in expectations if expectation.reference.node in known]
        return Flat(tuple(kept), self.controls, finals, training_finals, tuple(expectations))

    def follow(self, symbol: Symbol, location: FileLocation) -> Reference:
        """The reference that a symbol stands for, through all aliases."""
        seen: set[Symbol] = set()
        while symbol in self.aliases:
            if symbol in seen:
                raise recipe_error(
                    f"'{symbol[0]}' stands for itself: a nested graph hands its input on, and that is its own output",
                    location,
                    hint="feed it from a node",
                )
            seen.add(symbol)
            symbol = self.aliases[symbol]
        for passed in seen:
            self.aliases[passed] = symbol
        return Reference(*symbol)


class _Names:
    """Resolves references inside one recipe at one place in the graph."""

    def __init__(self, scope: _Scope, nested: Mapping[str, tuple[str, ...]]) -> None:
        self.recipe = scope.recipe
        self.inputs = scope.inputs
        self.nested = nested
        self.last = {
            written.name: scope.copies(written)[-1]
            for written in scope.recipe.nodes
            if scope.depth == 0 or not written.training
        }
        self.training = {written.name for written in scope.recipe.nodes if written.training}

    def outputs(self, references: Mapping[str, str], *section: str) -> dict[str, Symbol]:
        location_of, what = self.recipe.located.location_of, " ".join(section)[:-1]
        return {
            name: self.symbol(text, location_of(*section, name), None, f"{what} '{name}': ")
            for name, text in references.items()
        }

    def symbol(self, text: str, location: FileLocation, node: str | None, what: str = "") -> Symbol:
        """The symbol of a reference.

        Raises:
            RecipeError: at ``location``, for a name or an output that does not exist. ``what`` begins the message.
        """
        name, _, port = text.partition(".")
        if name in self.inputs:
            if port:
                raise recipe_error(f"{what}{quote(text)}: an input has no ports", location, node, f"write {name}")
            return self.inputs[name]
        if name not in self.last:
            hint = suggest(name, (*self.inputs, *self.last), "node")
            if name in self.training:
                hint = "nested recipes leave their training section out: move it to blocks"
            raise recipe_error(f"{what}there is no node or input {quote(name)}", location, node, hint)
        if name not in self.nested:
            return self.last[name], port or None
        outputs = self.nested[name]
        if port not in outputs and (port or len(outputs) > 1):
            choices = " or ".join(f"{name}.{output}" for output in outputs)
            fault = f"'{name}' has no output {quote(port)}" if port else f"'{name}' has {len(outputs)} outputs"
            raise recipe_error(what + fault, location, node, f"write {choices}")
        return self.last[name], port or outputs[0]


def _narrowed(outer: Control, inner: Control, written: WrittenNode) -> Control:
    """The outer control, held within the bounds of the inner one as well, and in its unit where it has none.

    Raises:
        RecipeError: where the two have different channels or units, or no value suits both.
    """
    location = written.locations.get("controls", written.location)
    if outer.channels != inner.channels:
        raise recipe_error(
            f"control '{outer.name}' has {outer.channels} channels, and '{inner.name}' of the nested recipe "
            f"({inner.location}) has {inner.channels}",
            location,
            written.name,
            "give them the same number",
        )
    minimum = max((bound for bound in (outer.minimum, inner.minimum) if bound is not None), default=None)
    maximum = min((bound for bound in (outer.maximum, inner.maximum) if bound is not None), default=None)
    values = (*(outer.default or ()), *(bound for bound in (minimum, maximum) if bound is not None))
    if any((minimum is not None and v < minimum) or (maximum is not None and v > maximum) for v in values):
        raise recipe_error(
            f"control '{outer.name}' ({outer.location}) and '{inner.name}' of the nested recipe ({inner.location}) "
            "have no default or range in common",
            location,
            written.name,
            "move minimum, maximum or default of one of them",
        )
    if outer.unit and inner.unit and outer.unit != inner.unit:
        raise recipe_error(
            f"control '{outer.name}' ({outer.location}) is in {outer.unit}, and '{inner.name}' of the nested recipe "
            f"({inner.location}) in {inner.unit}",
            location,
            written.name,
            "give them the same unit, or two controls",
        )
    return replace(outer, minimum=minimum, maximum=maximum, unit=outer.unit or inner.unit)
