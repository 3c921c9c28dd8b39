"""Playback: a session's pushes of one size, played from tapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.pages import use_large_pages
from astrape.blocks.state import map_state, state_leaves
from astrape.errors import StreamError
from astrape.graph.firing import frames_of
from astrape.graph.graph import Graph, Prepared
from astrape.graph.lowering import Memory
from astrape.graph.record import Unrecordable
from astrape.graph.tape import Tape

__all__ = ["Playback"]

LONGEST = 8192
"""Frames of an input from which on a push is not put on tape: 186 ms, where what tapes save is next to nothing."""

MOST_TAPES = 64
"""Patterns of firings that are put on tape. astrape-vc has 4 at 10 ms, and 8 for a host's 512 samples."""

MOST_PUSHES = 4096
"""Pushes within which patterns are looked for: 512 samples at 44.1 kHz come round after 441 pushes."""

Pattern = tuple[tuple[int, ...], tuple[tuple[str, int], ...]]
"""Firings of every unit, and the frames that wait between units."""


class Playback:
    """What a push does depends on how many frames there are of everything, and on no values: a pattern. For pushes of
    ``chunk`` frames all patterns are known in advance; each is put on a :class:`~astrape.graph.tape.Tape`, and checked
    against the graph itself on other values, state and result to the last bit. A pattern that has no tape is run by the
    graph as it is. Weights are gathered on large pages of memory beforehand, where the system has them.

    All tapes write one state, which is handed from push to push as the session's.

    Args:
        graph: what is streamed.
        like: ``(batch, 1, 1)``, of the session's device and precision.
        chunk: frames of the first input in a push; or of inputs by name, where those that are not named last as long as
            the first that is.

    Attributes:
        tapes: by pattern.
        refused: why there are none, for a graph that cannot be put on tape.

    Raises:
        StreamError: for a chunk that is no number of frames of an input.
    """

    def __init__(self, graph: Graph, like: Tensor, chunk: int | Mapping[str, int]) -> None:
        frames = _by_input(graph, chunk)
        use_large_pages((*graph.parameters(), *graph.buffers()))
        self.graph = graph
        self.tapes: dict[Pattern, Tape] = {}
        self.refused: str | None = None
        self._like = like
        self._memory = Memory()
        self._controls: Prepared | None = None
        self._prepared = Prepared()
        with torch.inference_mode():
            self._state = map_state(torch.clone, self._fresh_state())
            try:
                if max(frames.values()) > LONGEST:
                    raise Unrecordable(f"a push of {max(frames.values())} frames, over {LONGEST}, gains nothing by it")
                self._prepare()
                for pattern in self._patterns(frames):
                    self.tapes[pattern] = self._recorded(pattern)
            except (Unrecordable, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as reason:
                # Values that a block would not take from a stream, say. Whatever it is, the graph itself goes on.
                self.tapes, self.refused = {}, str(reason).splitlines()[0]

    def advance(
        self, arrived: Mapping[str, Tensor], state: State, waiting: Mapping[str, Tensor], prepared: Prepared
    ) -> tuple[dict[str, Tensor], State, dict[str, Tensor]]:
        """:meth:`Graph.advance <astrape.graph.graph.Graph.advance>`, from tape where there is one."""
        graph = self.graph
        firing = graph.firing
        counts = firing.counts(frames_of(arrived), frames_of(waiting))
        inner = {key: tensor for key, tensor in waiting.items() if key not in firing.entries}
        entering, outer = firing.enter(counts, arrived, waiting)
        tape = self.tapes.get(_pattern(counts, frames_of(inner)))
        if tape is None or not self._follow(prepared):
            signals, after, left = firing.fire(counts, entering, state, inner, prepared)
            return graph.wired(arrived, signals), after, {**outer, **left}
        if state is not self._state:
            map_state(Tensor.copy_, self._state, state)
        signals, left = tape.play((entering, inner))
        return graph.wired(arrived, signals), self._state, {**outer, **left}

    def _prepare(self) -> None:
        """Memory for what units derive from controls; values come with the first push."""
        graph = self.graph
        values: dict[str, Tensor | float] = {}
        for name, spec in graph.control_specs.items():
            if spec.default is None:
                least = 0.0 if spec.minimum is None else max(0.0, spec.minimum)
                values[name] = least if spec.maximum is None else min(least, spec.maximum)
        prepared = graph.prepare(graph.read_controls(values, self._like))
        for unit in graph.units:
            own = prepared[unit.name]
            # What does not depend on controls may be weights themselves: read where they are, and never written.
            self._prepared[unit.name] = _held(own, unit.name) if unit.controls else own

    def _follow(self, prepared: Prepared) -> bool:
        """Take over what the session's controls come to now; ``False`` where that has another form than on tape."""
        if prepared is not self._controls:
            try:
                for unit in self.graph.units:
                    if unit.controls:
                        _assign(self._prepared[unit.name], prepared[unit.name], unit.name)
            except Unrecordable as reason:
                self.tapes, self.refused = {}, str(reason)
                return False
            self._controls = prepared
        return True

    def _patterns(self, chunk: Mapping[str, int]) -> Iterable[Pattern]:
        """All that pushes of this size can lead to, by counting through them until what waits comes round again."""
        firing, entries = self.graph.firing, self.graph.firing.entries
        found: dict[Pattern, None] = {}
        waiting: dict[str, int] = {}
        known = set()
        for _ in range(MOST_PUSHES):
            counts = firing.counts(chunk, waiting)
            if any(counts):
                found[_pattern(counts, {key: n for key, n in waiting.items() if key not in entries})] = None
            waiting = firing.remaining(counts, chunk, waiting)
            state = tuple(sorted(waiting.items()))
            if state in known or len(found) == MOST_TAPES:
                break
            known.add(state)
        return found

    def _recorded(self, pattern: Pattern) -> Tape:
        counts, held = pattern
        graph, frames = self.graph, dict(held)
        shapes: tuple[dict[str, tuple[int, int, int]], dict[str, tuple[int, int, int]]] = ({}, {})
        for unit, firings in zip(graph.units, counts, strict=True):
            for edge in unit.edges:
                entering = edge.key in graph.firing.entries
                count = firings * edge.consumes if entering else frames.get(edge.key, 0)
                if count:
                    channels = unit.block.inputs[edge.port].channels
                    shapes[0 if entering else 1][edge.key] = (self._like.shape[0], channels, count)
        wired = set(graph.wiring.values())

        def fire(fresh: Any, state: Any) -> tuple[Any, Any]:
            signals, after, left = graph.firing.fire(counts, fresh[0], state, fresh[1], self._prepared)
            return ({signal: signals[signal] for signal in wired if signal in signals}, left), after

        generator = torch.Generator(device=self._like.device).manual_seed(0)

        def values() -> tuple[dict[str, Tensor], ...]:
            # Not negative, as the numbers of codes are not.
            return tuple(
                {
                    key: 0.1 * torch.rand(shape, generator=generator, device=self._like.device).to(self._like.dtype)
                    for key, shape in port.items()
                }
                for port in shapes
            )

        # Once beforehand, since what a live session lays out anew, and keeps, is not to be laid out in every push.
        fire(values(), map_state(torch.clone, self._state))
        tape = Tape(fire, values(), self._state, self._memory)
        expected = map_state(torch.clone, self._state)
        for _ in range(2):
            fresh = values()
            result, expected = fire(fresh, expected)
            if not _equal((tape.play(fresh), self._state), (result, expected)):
                raise Unrecordable("a step of a block depends on values beyond what operators do with them")
        map_state(Tensor.copy_, self._state, self._fresh_state())
        return tape

    def _fresh_state(self) -> State:
        return self.graph.init_state(self._like.shape[0], self._like.device, self._like.dtype)


def _by_input(graph: Graph, chunk: int | Mapping[str, int]) -> dict[str, int]:
    """The frames of a push by input."""
    inputs = graph.inputs
    given = dict(chunk) if isinstance(chunk, Mapping) else {next(iter(inputs)): chunk}
    strange = [f"'{name}'" for name in given if name not in inputs]
    strange += [str(n) for n in given.values() if isinstance(n, bool) or not isinstance(n, int) or n < 1]
    if strange or not given:
        asked = strange[0] if strange else "nothing"
        raise StreamError(
            f"chunk must be frames of {', '.join(inputs)}, at least 1, not {asked}: give a number, or one by input"
        )
    known = next(iter(given))
    seconds = given[known] / inputs[known].rate
    return {name: given.get(name, int(seconds * stream.rate)) for name, stream in inputs.items()}


def _pattern(counts: tuple[int, ...], waiting: Mapping[str, int]) -> Pattern:
    return counts, tuple(sorted(waiting.items()))


def _held(tree: Any, name: str) -> Any:
    """A copy of what a unit prepared, to be written to."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: _held(item, name) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        items = [_held(item, name) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise Unrecordable(f"'{name}' prepares a {type(tree).__name__}, whose values may change unseen")


def _assign(held: Any, new: Any, name: str) -> None:
    """Write what a unit prepared anew to where the tapes read it."""
    if isinstance(held, Tensor) and isinstance(new, Tensor) and held.shape == new.shape and held.dtype == new.dtype:
        held.copy_(new)
    elif isinstance(held, dict) and isinstance(new, dict) and held.keys() == new.keys():
        for key, item in held.items():
            _assign(item, new[key], name)
    elif isinstance(held, (list, tuple)) and isinstance(new, (list, tuple)) and len(held) == len(new):
        for one, other in zip(held, new, strict=True):
            _assign(one, other, name)
    elif isinstance(held, Tensor) or isinstance(new, Tensor) or held != new:
        raise Unrecordable(f"'{name}' takes another form with other values of its controls")


def _equal(one: State, other: State) -> bool:
    pairs = zip(state_leaves(one), state_leaves(other), strict=True)
    return all(
        torch.equal(a, b) or (a.is_floating_point() and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
        for (_, a), (_, b) in pairs
    )
