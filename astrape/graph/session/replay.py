"""Replay: a session's pushes of one size, replayed."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.live import current
from astrape.blocks.state import map_state
from astrape.capture.buffers import assign, held_copy, overwrite
from astrape.capture.checked import checked_step, is_taken
from astrape.capture.large_pages import use_large_pages
from astrape.capture.lowering import Memory
from astrape.capture.native.narrow import Weights
from astrape.capture.record import MOST_SECONDS, OutOfTime, TimeLimit, Unrecordable, addresses
from astrape.capture.step import CapturedStep
from astrape.errors import StreamError
from astrape.graph.backends.held import Chosen
from astrape.graph.backends.precision import read_as
from astrape.graph.compile.loop import FeedbackLoop
from astrape.graph.compile.plan import Wire
from astrape.graph.compile.schedule import Actor
from astrape.graph.firing import Firing, frames_of
from astrape.graph.network import Network, Prepared
from astrape.graph.session.steady import Steady
from astrape.graph.text import many

__all__ = ["Replay"]

LONGEST = 8192
"""Frames of an input from which on a push is not captured: 186 ms, where capturing saves next to nothing."""

MOST_CAPTURED = 64
"""Captured steps of a session. astrape-vc has 4 at 10 ms, and 8 for a host's 512 samples."""

MOST_PUSHES = 4096
"""Pushes within which patterns are looked for: 512 samples at 44.1 kHz come round after 441 pushes."""

MOST_PASSES = 16
"""Passes of a feedback loop in a push up to which one captured step holds them all."""

MOST_LENGTHS = 4
"""Lengths of what waits at an edge, from push to push, up to which the edge is part of a captured step."""

Pattern = tuple[tuple[int, ...], tuple[tuple[str, int], ...]]
"""Firings of every actor, and the frames that wait between actors."""


class Segment(NamedTuple):
    """Actors that are captured together.

    Attributes:
        firing: runs them.
        heard: wires that other segments or the outside read.
        captured_steps: by pattern; ``None`` for a loop of many passes, whose block replays them by itself.
    """

    firing: Firing
    heard: frozenset[Wire]
    captured_steps: dict[Pattern, CapturedStep | None]


class Replay:
    """Replays pushes by captured steps.

    What a push does depends on how many frames there are of everything, and on no values: a pattern. For pushes of
    ``chunk`` frames all patterns are known in advance; each is captured (:mod:`astrape.capture.step`), and checked
    against the actors themselves on other values, state and result to the last bit. A pattern that has no captured step
    is run as it is, and so is one for which there is no time: recording ends after ``MOST_SECONDS``. Weights are
    gathered beforehand on large pages of memory, where the system has them.

    Where what waits at an edge takes many lengths, captured steps end there and others begin, or there would be one for
    every length: 441 samples that go through a filter into hops of 256 leave another rest in each of 256 pushes, but
    are filtered always alike, and fill one hop or two. They end likewise at a feedback loop of more than
    ``MOST_PASSES`` passes a push, which is replayed pass by pass (:class:`~astrape.capture.iteration.Iterations`).

    All captured steps write one state, which is handed from push to push as the session's.

    Args:
        graph: what is streamed.
        like: ``(batch, 1, 1)``, of the session's device and precision.
        chunk: frames of the first input in a push; or of inputs by name, where those that are not named last as long as
            the first that is.
        near: have native kernels compute what is the same up to rounding, too.
        precision: of the weights, as a session takes it: these read as float16 what it holds of them to the last bit,
            where that is not float32.

    Attributes:
        weights: how native kernels read weights.
        segments: in execution order.
        steady: the short way for a push like the last one, where there is one.
        refused: why there are no captured steps, for a graph that cannot be captured; or not of all patterns.

    Raises:
        StreamError: for a chunk that is not a number of frames of an input.
    """

    def __init__(
        self,
        graph: Network[Any],
        like: Tensor,
        chunk: int | Mapping[str, int],
        near: bool = False,
        precision: str | None = None,
    ) -> None:
        frames = _by_input(graph, chunk)
        use_large_pages((*graph.parameters(), *graph.buffers()))
        self.graph = graph
        self.segments: list[Segment] = []
        self.refused: str | None = None
        self.steady: Steady | None = None
        self.weights = Weights(self._constant, precision != "float32")
        self._like, self._near, self._precision = like, near, precision
        self._memory = Memory()
        self._controls: Prepared | None = None
        self._prepared = Prepared()
        with torch.inference_mode():
            self._state: dict[str, State] = map_state(torch.clone, self._fresh_state())
            try:
                if max(frames.values()) > LONGEST:
                    raise Unrecordable(f"a push of {max(frames.values())} frames, over {LONGEST}, gains nothing by it")
                if torch.is_autocast_enabled(like.device.type):
                    raise Unrecordable("autocast is on, and what it does may change from push to push")
                self._prepare()
                self._record({Wire(name, "out"): count for name, count in frames.items()})
                use_large_pages(self.weights.copies)
            except Exception as reason:
                # A block may refuse noise. The graph itself goes on.
                if not is_taken(reason):
                    raise
                self._give_up((str(reason) or type(reason).__name__).splitlines()[0])

    @property
    def captured_steps(self) -> int:
        """The number of captured steps."""
        return sum(len(segment.captured_steps) for segment in self.segments)

    @property
    def chosen(self) -> Chosen:
        """The backend of the pushes, and why not of all of them where some have no captured step."""
        left = "" if self.refused is None else f"; {self.refused}"
        if not self.captured_steps:
            return Chosen("eager", left[2:], self._precision or "float32")
        captured = f"{many(self.captured_steps, 'pattern')} of pushes captured"
        if not self._near:
            return Chosen("recorded", captured + left)
        steps = [one for segment in self.segments for one in segment.captured_steps.values() if one is not None]
        native, by_torch = (sum(one.native_kernels for one in steps), sum(one.other_kernels for one in steps))
        read = read_as(self.weights, self._precision) if self._near else ""
        told = f"{captured}: {many(native, 'native kernel')}, {by_torch} of PyTorch's{read}{left}"
        return Chosen("compiled", told, self._precision or "float32")

    def advance(
        self,
        arrived: Mapping[str, Tensor],
        state: Mapping[str, State],
        waiting: Mapping[str, Tensor],
        prepared: Prepared,
    ) -> tuple[dict[str, Tensor], dict[str, State], dict[str, Tensor]]:
        """:meth:`Network.advance <astrape.graph.network.Network.advance>`, by replay where there is one."""
        self.steady = None
        self._follow(prepared)
        signals, after = self.graph.arriving(arrived), dict(state)
        kept: dict[str, Tensor] = {}
        autocast = torch.is_autocast_enabled(self._like.device.type)
        for firing, _, captured_steps in self.segments:
            counts = firing.counts(frames_of(signals), frames_of(waiting))
            entering, outer = firing.enter(counts, signals, waiting)
            inner = {key: waiting[key] for key in firing.inner if key in waiting}
            captured = None if autocast else captured_steps.get(_pattern(counts, frames_of(inner)))
            if captured is None:
                made, changed, inner = firing.fire(counts, entering, state, inner, prepared)
            else:
                changed = self._hold(firing, state)
                made, inner = captured.play((entering, inner))
            signals.update(made)
            after.update(changed)
            kept.update({**outer, **inner})
        outputs = self.graph.leaving(signals)
        if len(self.segments) == 1 and captured is not None and not waiting and not kept:
            inputs = {
                edge.key: edge.read.node for actor in firing.actors for edge in actor.edges if edge.key in entering
            }
            places = {key: (inputs[key], place) for key, place in zip(entering, captured.places, strict=True)}
            if all(wire in made for wire in self.graph.wiring.values()):
                self.steady = Steady.after(self.graph, captured, places, outputs, (after, prepared))
        return outputs, after, kept

    def _hold(self, firing: Firing, state: Mapping[str, State]) -> dict[str, State]:
        """Have the state where captured steps write it."""
        mine = {actor.name: self._state[actor.name] for actor in firing.actors}
        for name, own in mine.items():
            if state[name] is not own:
                overwrite(own, state[name])
        return mine

    def _give_up(self, reason: str) -> None:
        self.segments, self.refused = [Segment(self.graph.firing, frozenset(), {})], reason

    def _prepare(self) -> None:
        """Memory for what actors derive from controls; values come with the first push."""
        graph = self.graph
        values: dict[str, Tensor | float] = {}
        generator = torch.Generator().manual_seed(0)
        for name, spec in graph.control_specs.items():
            # Anywhere in its range, so that no gain is 0 and hides what the check is for.
            low = -1.0 if spec.minimum is None else spec.minimum
            high = max(low, 1.0) if spec.maximum is None else spec.maximum
            values[name] = min(low, high) + abs(high - low) * torch.rand(spec.channels, generator=generator)
        read = graph.read_controls(values, self._like)
        prepared = graph.prepare({name: v.clone(memory_format=torch.contiguous_format) for name, v in read.items()})
        for actor in graph.actors:
            own = prepared[actor.name]
            # Prepared values without controls may be the weights themselves: read in place, and never written.
            self._prepared[actor.name] = held_copy(own, actor.name) if actor.controls else own

    def _follow(self, prepared: Prepared) -> None:
        """Take over what the session's controls come to now; where its form is another, all captured steps end."""
        if prepared is self._controls or not self.captured_steps:
            return
        try:
            for actor in self.graph.actors:
                if actor.controls:
                    assign(self._prepared[actor.name], prepared[actor.name], actor.name)
        except Unrecordable as reason:
            self._give_up(str(reason))
        self._controls = prepared

    def _record(self, chunk: Mapping[Wire, int]) -> None:
        """Find all patterns that pushes of this size lead to, by counting until what waits comes round again."""
        pushes = list(_pushes(self.graph.firing, chunk))
        lengths: dict[str, set[int]] = {key: set() for key in self.graph.firing.inner}
        for _, waiting in pushes:
            for key, seen in lengths.items():
                seen.add(waiting.get(key, 0))
        ragged = {key for key, seen in lengths.items() if len(seen) > MOST_LENGTHS}
        places = {actor.name: place for place, actor in enumerate(self.graph.actors)}
        wanted: list[tuple[Segment, Pattern]] = []
        loops = {
            actor.name
            for place, actor in enumerate(self.graph.actors)
            if any(_passes(actor, counts[place]) > MOST_PASSES for counts, _ in pushes)
        }
        for actors in _parted(self.graph.actors, ragged, loops):
            firing = Firing(actors)
            outside = [edge.read for actor in self.graph.actors if actor not in actors for edge in actor.edges]
            heard = frozenset((*outside, *self.graph.wiring.values())) & {s for u in actors for s in u.wires.values()}
            patterns: dict[Pattern, None] = {}
            for counts, waiting in pushes:
                own = tuple(counts[places[actor.name]] for actor in actors)
                patterns[_pattern(own, {key: waiting[key] for key in firing.inner if key in waiting})] = None
            self.segments.append(Segment(firing, heard, {}))
            wanted += [(self.segments[-1], pattern) for pattern in patterns if any(pattern[0])]
        limit = TimeLimit(MOST_SECONDS)
        for segment, pattern in wanted[:MOST_CAPTURED]:
            try:
                segment.captured_steps[pattern] = self._recorded(segment, pattern, loops, limit)
            except OutOfTime as reason:
                map_state(Tensor.copy_, self._state, self._fresh_state())
                if not self.captured_steps:
                    raise
                done = f"{self.captured_steps} of {len(wanted)} patterns are captured, the others run as they are"
                self.refused = f"{reason}: {done}"
                return
        if len(wanted) > MOST_CAPTURED:
            self.refused = f"{MOST_CAPTURED} of {len(wanted)} patterns are captured, the others run as they are"

    def _recorded(
        self, segment: Segment, pattern: Pattern, loops: Collection[str], limit: TimeLimit
    ) -> CapturedStep | None:
        counts, held = pattern
        firing, frames = segment.firing, dict(held)
        first = firing.actors[0]
        if first.name in loops:
            assert isinstance(first.block, FeedbackLoop)
            first.block.capture(counts[0], self._state[first.name], self._prepared[first.name], self._like, limit)
            return None
        shapes: tuple[dict[str, tuple[int, int, int]], dict[str, tuple[int, int, int]]] = ({}, {})
        for actor, firings in zip(firing.actors, counts, strict=True):
            for edge in actor.edges:
                entering = edge.key in firing.entries
                count = firings * edge.consumes if entering else frames.get(edge.key, 0)
                if count:
                    channels = actor.block.inputs[edge.port].channels
                    shapes[0 if entering else 1][edge.key] = (self._like.shape[0], channels, count)

        def fire(fresh: Any, state: Any) -> tuple[Any, Any]:
            signals, changed, left = firing.fire(counts, fresh[0], state, fresh[1], self._prepared)
            heard = {wire: tensor for wire, tensor in signals.items() if wire in segment.heard}
            return (heard, left), {**state, **changed}

        form = tuple({key: self._like.new_empty(shape) for key, shape in port.items()} for port in shapes)
        state = {actor.name: self._state[actor.name] for actor in firing.actors}
        captured = checked_step(fire, form, state, self._memory, limit, self._near, self.weights)
        map_state(Tensor.copy_, self._state, self._fresh_state())
        return captured

    def _constant(self) -> set[int]:
        """Addresses of weights that do not change, including those that the session has laid out anew."""
        live = current()
        return set(addresses([*self.graph.parameters(), *self.graph.buffers(), *(live.kept() if live else ())]))

    def _fresh_state(self) -> State:
        return self.graph.init_state(self._like.shape[0], self._like.device, self._like.dtype)


def _pushes(firing: Firing, chunk: Mapping[Wire, int]) -> Iterator[tuple[tuple[int, ...], dict[str, int]]]:
    """Firings and what waited before them, push by push, until what waits has been there before."""
    waiting: dict[str, int] = {}
    known: set[tuple[tuple[str, int], ...]] = set()
    while len(known) < MOST_PUSHES:
        counts = firing.counts(chunk, waiting)
        yield counts, waiting
        known.add(tuple(sorted(waiting.items())))
        waiting = firing.remaining(counts, chunk, waiting)
        if tuple(sorted(waiting.items())) in known:
            return


def _passes(actor: Actor, firings: int) -> int:
    """Passes that a feedback loop goes through; 0 for other actors."""
    return sum(count for _, count in actor.block.passes(firings)) if isinstance(actor.block, FeedbackLoop) else 0


def _parted(actors: Sequence[Actor], ragged: Collection[str], alone: Collection[str]) -> list[list[Actor]]:
    """Actors that go together, where ``ragged`` edges lead from one group to a later one; some actors are ``alone``."""
    group: dict[Wire, int] = {}
    parts: dict[tuple[int, str], list[Actor]] = {}
    for actor in actors:
        by_itself = actor.name in alone
        number = max(group.get(edge.read, 0) + (edge.key in ragged or by_itself) for edge in actor.edges)
        group.update(dict.fromkeys(actor.wires.values(), number + by_itself))
        parts.setdefault((number, actor.name if by_itself else ""), []).append(actor)
    return [parts[key] for key in sorted(parts)]


def _by_input(graph: Network[Any], chunk: int | Mapping[str, int]) -> dict[str, int]:
    """The frames of a push by input."""
    inputs = graph.inputs
    given: dict[str, Any] = dict(chunk) if isinstance(chunk, Mapping) else {next(iter(inputs)): chunk}
    strange = [f"'{name}'" for name in given if name not in inputs]
    strange += [repr(n) for n in given.values() if isinstance(n, bool) or not hasattr(n, "__index__") or n < 1]
    if strange or not given:
        asked = strange[0] if strange else "nothing"
        raise StreamError(
            f"chunk must be frames of {', '.join(inputs)}, at least 1, not {asked}: give a number, or one by input"
        )
    known = next(iter(given))
    seconds = operator.index(given[known]) / inputs[known].rate
    frames = {name: Fraction(given.get(name, seconds * stream.rate)) for name, stream in inputs.items()}
    for name, count in frames.items():
        if count.denominator != 1:
            raise StreamError(
                f"a chunk of {given[known]} frames of '{known}' is {count} of '{name}', not a whole number: name both"
            )
    return {name: int(count) for name, count in frames.items()}


def _pattern(counts: tuple[int, ...], waiting: Mapping[str, int]) -> Pattern:
    return counts, tuple(sorted(waiting.items()))
