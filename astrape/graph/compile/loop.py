"""A feedback loop, run as one block: the delay in it holds the frames that its next iteration starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.live import current
from astrape.blocks.state import map_state
from astrape.capture.buffers import laid_out
from astrape.capture.checked import is_taken
from astrape.capture.iteration import Iterations, may_be_captured
from astrape.capture.record import MOST_SECONDS, TimeLimit
from astrape.errors import CausalityError
from astrape.graph.compile.plan import PlannedNode, Wire
from astrape.graph.compile.schedule import common_multiple, frames_in, period_of

__all__ = ["FeedbackLoop"]

FEWEST_PASSES = 4
"""Passes of a step from which on it is replayed from what was captured: fewer cost less than the way there."""

WORTH_CAPTURING = 256
"""Passes, of a session so far or of a single call, from which on capturing one pays: it costs as much as some 100."""


@dataclass
class _Edge:
    """One input port of a member: what it reads, and how many frames of silence lie in it at time zero."""

    port: str
    read: Wire
    consumes: int
    initial: int
    delay: str = ""
    """The first delay on the way back to ``read``."""


@dataclass
class _Member:
    name: str
    block: StreamBlock
    edges: list[_Edge]
    controls: dict[str, str]
    firings: int


class FeedbackLoop(StreamBlock):
    """The members of one strongly connected component as a block, in the classic form: delays are initial tokens.

    An iteration of the loop fires every member as often as the balance equations say. As many iterations run in one
    go as the delays allow: with a delay of 441 frames around members of quantum 1, a chunk of 1000 frames runs as 441,
    441 and 118. Where a delay is shorter than one iteration, its members are interleaved as their tokens allow
    (Lee & Messerschmitt 1987, class-S schedules).

    Args:
        members: the nodes of the component in execution order, without the delays that are cut.
        delays: the cut delays by name.
        streams: the stream of every wire of the graph.
        visible: the members' signals that nodes outside the loop, or the graph's outputs, read.

    Raises:
        CausalityError: when the delays are too short for the loop ever to iterate.
    """

    variadic = True

    def __init__(
        self,
        members: list[PlannedNode],
        delays: dict[str, PlannedNode],
        streams: Mapping[Wire, Stream],
        visible: list[Wire],
    ) -> None:
        inside = {member.name for member in members}
        period = common_multiple([period_of(member.block) for member in members])
        entering: dict[str, Stream] = {}
        edges: dict[str, list[_Edge]] = {}
        for member in members:
            edges[member.name] = []
            consumes = member.block.consumes
            for port, read in member.sources.items():
                source, initial = _through_delays(read, delays)
                if source.node not in inside:
                    source, initial = read, 0
                    entering[str(read)] = streams[read]
                edges[member.name].append(_Edge(port, source, consumes[port], initial, read.node))
        torch.nn.Module.__init__(self)
        self.inputs = entering
        self.outputs = {str(wire): streams[wire] for wire in visible}
        self.controls = {
            member.controls[name]: count for member in members for name, count in member.block.controls.items()
        }
        self.period = period
        self.quantum = next(iter(self.consumes.values()))
        self.ratio = self.rate_out / self.rate_in
        self._taken = self.consumes
        self._visible = list(visible)
        self._members = [
            _Member(m.name, m.block, edges[m.name], dict(m.controls), int(period / period_of(m.block))) for m in members
        ]
        self._schedule = self._one_iteration()
        self._iterations_at_once = self._most_iterations()

    @property
    def consumes(self) -> dict[str, int]:
        return frames_in(self.period, self.inputs)

    @property
    def produces(self) -> dict[str, int]:
        return frames_in(self.period, self.outputs)

    @property
    def receptive_field(self) -> Fraction | None:
        return None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return {
            "blocks": {m.name: m.block.init_state(batch_size, device, dtype) for m in self._members},
            "tokens": {
                f"{m.name}.{e.port}": torch.zeros(
                    batch_size, m.block.inputs[e.port].channels, e.initial, device=device, dtype=dtype
                )
                for m in self._members
                for e in m.edges
                if e.initial
            },
        }

    def prepare(self, controls: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            m.name: m.block.prepare({name: controls[outer] for name, outer in m.controls.items()})
            for m in self._members
        }

    def step(self, x: dict[str, Tensor], state: State, controls: Any) -> tuple[dict[str, Tensor], State]:
        iterations = next(iter(x.values())).shape[-1] // self.quantum
        if iterations == 0:
            lead = next(iter(x.values()))
            return {name: lead.new_zeros(len(lead), out.channels, 0) for name, out in self.outputs.items()}, state
        captured = self._captured(iterations, x, state, controls)
        if captured is not None:
            return captured.replay(x, state, self.passes(iterations))
        parts: dict[str, list[Tensor]] = {name: [] for name in self.outputs}
        done = 0
        for count, passes in self.passes(iterations):
            for _ in range(passes):
                entering = {
                    name: x[name][..., done * frames : (done + count) * frames] for name, frames in self._taken.items()
                }
                made, state = self._iterate(count, entering, state, controls)
                for name, tensor in made.items():
                    parts[name].append(tensor)
                done += count
        y = {name: torch.cat(pieces, dim=-1) for name, pieces in parts.items()}
        return y, {"blocks": state["blocks"], "tokens": {name: _copy(held) for name, held in state["tokens"].items()}}

    def passes(self, iterations: int) -> list[tuple[int, int]]:
        """Passes for that many iterations: how many run in one go, and how many such passes follow each other."""
        most = self._iterations_at_once or 1
        runs = [(most, iterations // most), (iterations % most, 1)]
        return [(count, passes) for count, passes in runs if count and passes]

    def capture(self, iterations: int, state: State, controls: Any, like: Tensor, limit: TimeLimit) -> None:
        """Capture the passes of that many iterations for the present session, which replays them from now on.

        Args:
            state: of the form that it is going to have.
            controls: what ``prepare`` returned.
            like: ``(batch, 1, 1)``, of the device and precision of what enters.
            limit: how long it may take.

        Raises:
            Unrecordable: for blocks that cannot be captured.
        """
        live = current()
        assert live is not None, "outside of a session nothing is kept"
        held = live.held_by(self)
        try:
            self._iterations(held, iterations, state, controls, like, limit)
        except Exception:
            held["captured"] = None
            raise

    def _captured(self, iterations: int, x: dict[str, Tensor], state: State, controls: Any) -> Iterations | None:
        """The captured iterations to replay these by, where that is quicker and the computation is unobserved."""
        passes = sum(count for _, count in self.passes(iterations))
        if passes < FEWEST_PASSES:
            return None
        live = current()
        held = {} if live is None else live.held_by(self)
        weights = self._weights() if torch.is_grad_enabled() or "captured" not in held else ()
        if not may_be_captured(x, state, controls, weights):
            return None
        held["passes"] = held.get("passes", 0) + passes
        if held["passes"] < WORTH_CAPTURING and "captured" not in held:
            return None
        lead = next(iter(x.values()))
        like = lead.new_empty(len(lead), 1, 1)
        try:
            return self._iterations(held, iterations, state, controls, like, TimeLimit(MOST_SECONDS))
        except Exception as reason:
            if not is_taken(reason):
                raise
            held["captured"] = None
            return None

    def _iterations(
        self, held: dict[Any, Any], iterations: int, state: State, controls: Any, like: Tensor, limit: TimeLimit
    ) -> Iterations | None:
        if held.get("captured", self) is None:
            return None
        form = len(like), like.dtype, like.device
        if "captured" not in held or held["form"] != form:
            held["form"] = form
            held["captured"] = Iterations(
                self._iterate,
                (self.inputs, self.outputs),
                (self._taken, self.produces),
                state,
                controls,
                {m.name: bool(m.controls) for m in self._members},
            )
        captured: Iterations = held["captured"]
        captured.follow(controls)
        for count, _ in self.passes(iterations):
            captured.capture(count, like, limit)
        return captured

    def _weights(self) -> list[Tensor]:
        return [tensor for m in self._members for tensor in (*m.block.parameters(), *m.block.buffers())]

    def _iterate(
        self, count: int, entering: Mapping[str, Tensor], state: State, controls: Any
    ) -> tuple[dict[str, Tensor], State]:
        """One pass of ``count`` iterations: what comes out, and the next state."""
        blocks, tokens = dict(state["blocks"]), state["tokens"]
        parts: dict[Wire, list[Tensor]] = {wire: [] for wire in self._visible}
        queues: dict[str, Tensor] = dict(tokens)
        readers: dict[Wire, list[str]] = {}
        for member in self._members:
            for edge in member.edges:
                key = f"{member.name}.{edge.port}"
                if str(edge.read) in entering:
                    queues[key] = entering[str(edge.read)]
                else:
                    readers.setdefault(edge.read, []).append(key)
        if self._iterations_at_once:
            schedule = [(index, member.firings * count) for index, member in enumerate(self._members)]
        else:
            schedule = self._schedule * count
        for index, firings in schedule:
            member = self._members[index]
            taken: dict[str, Tensor] = {}
            for edge in member.edges:
                key, frames = f"{member.name}.{edge.port}", edge.consumes * firings
                taken[edge.port], queues[key] = laid_out(queues[key][..., :frames]), queues[key][..., frames:]
            x: Any = taken if member.block.variadic else next(iter(taken.values()))
            y, left = member.block.step(x, blocks[member.name], controls[member.name])
            blocks[member.name] = map_state(laid_out, left)
            produced = y if isinstance(y, dict) else {next(iter(member.block.outputs)): y}
            for port, tensor in produced.items():
                wire = Wire(member.name, port)
                if wire in parts:
                    parts[wire].append(tensor)
                for key in readers.get(wire, []):
                    if key in queues and queues[key].shape[-1]:
                        queues[key] = torch.cat((queues[key], tensor), dim=-1)
                    else:
                        # Frames that wait while their member fires again are in memory of their own.
                        queues[key] = _copy(tensor) if key in tokens or not self._iterations_at_once else tensor
        made = {str(wire): torch.cat(p, dim=-1) if len(p) > 1 else p[0] for wire, p in parts.items()}
        return made, {"blocks": blocks, "tokens": {key: queues[key] for key in tokens}}

    def _one_iteration(self) -> list[tuple[int, int]]:
        """A sequence of (member, firings) that completes an iteration, found by counting tokens; refuses a deadlock."""
        held = {(m.name, e.port): e.initial for m in self._members for e in m.edges}
        readers: dict[str, list[tuple[str, _Edge]]] = {}
        for member in self._members:
            for edge in member.edges:
                readers.setdefault(edge.read.node, []).append((member.name, edge))
                if str(edge.read) in self.inputs:
                    held[member.name, edge.port] = edge.consumes * member.firings
        left = {m.name: m.firings for m in self._members}
        schedule: list[tuple[int, int]] = []
        while any(left.values()):
            before = len(schedule)
            for index, member in enumerate(self._members):
                ready = min(held[member.name, e.port] // e.consumes for e in member.edges)
                firings = min(ready, left[member.name])
                if firings:
                    schedule.append((index, firings))
                    left[member.name] -= firings
                    for edge in member.edges:
                        held[member.name, edge.port] -= firings * edge.consumes
                    for reader, edge in readers.get(member.name, ()):
                        held[reader, edge.port] += firings * member.block.produces[edge.read.port]
            if len(schedule) == before:
                raise self._deadlock()
        return schedule

    def _deadlock(self) -> CausalityError:
        """Names the delay that is shortest for the iteration it has to carry; some are, or the loop would iterate."""
        needs = [(e, e.consumes * m.firings) for m in self._members for e in m.edges]
        short, need = min(((e, n) for e, n in needs if 0 < e.initial < n), key=lambda pair: pair[0].initial / pair[1])
        named = ", ".join(repr(member.name) for member in self._members[:12])
        return CausalityError(
            f"the loop through {named} never iterates: its delay '{short.delay}' of {short.initial} frames is "
            f"shorter than the {need} frames that one iteration takes: make it at least {need} frames"
        )

    def _most_iterations(self) -> int:
        """Iterations that one pass in execution order can run; 0 where an iteration needs its members interleaved."""
        return min(e.initial // (e.consumes * m.firings) for m in self._members for e in m.edges if e.initial)


def _through_delays(read: Wire, delays: dict[str, PlannedNode]) -> tuple[Wire, int]:
    """Follow a wire back through cut delays; the frames of silence they hold add up."""
    initial = 0
    while read.node in delays:
        block = delays[read.node].block
        initial += int(block.frames)  # type: ignore[arg-type]
        read = delays[read.node].sources["in"]
    return read, initial


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)
