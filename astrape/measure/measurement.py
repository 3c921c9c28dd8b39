"""Measuring what a block declares: which input each output frame depends on.

One frame's dependence is read from the gradient of a random projection of it, in float64: the frames of input where
that gradient is not zero. Many output frames are measured in one pass, each in a batch row of its own, or all in one
row where four would be too large, and all is repeated at other levels, for a gate that is shut or a rectifier that
is off shows nothing. Where a gradient shows less than was declared, or there is none (a quantizer, an index), input is
changed instead, and a bisection finds the oldest and the newest frame that still changes the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import StreamBlock
from astrape.blocks.state import state_bytes
from astrape.measure.causality import measure_lookahead
from astrape.measure.subject import ControlValues, Draw, Ports, Subject

__all__ = ["Measured", "Support", "measure", "measure_subject"]

SAMPLED_FRAMES = 64
"""Output frames of a quantum that are measured; where it has more, these are spread from the first to the last."""

VANISHED = 1e-200
"""A gradient below this has faded out: its end says that float64 ended, not that the dependence did."""

ROW_BUDGET = 1 << 20
"""Values of input and output in one pass."""

Target = tuple[str, int]
"""An output port and a frame of its quantum."""


@dataclass(frozen=True)
class Support:
    """The input that an output frame depends on, in frames from the start of its quantum; negative before it."""

    oldest: int
    newest: int


Found = dict[tuple[str, str], dict[int, Support]]
"""Supports by output and input port, and frame of the output's quantum."""


@dataclass(frozen=True)
class Measured:
    """Measurements of a block, in exact seconds.

    Attributes:
        lookahead: past the end of its own quantum; ``None``: to the end of the probe.
        latencies: by output port, as ``latency_by`` says it is counted; empty where that is ``"declared"``, or where
            the dependence has no end to take the centre of.
        receptive_field: from the oldest input with influence to the end of the quantum; ``None``: to the start of the
            probe, or beyond where it was cut short.
        state_bytes: of one stream in float32.
        probe: length of the history that was looked at.
        support: oldest and newest input by output port and frame of the quantum, for the frames looked at.
    """

    lookahead: Fraction | None
    latencies: dict[str, Fraction]
    receptive_field: Fraction | None
    state_bytes: int
    probe: Fraction
    support: dict[str, dict[int, Support]] = field(repr=False, default_factory=dict)

    @property
    def latency(self) -> Fraction | None:
        """The greatest latency of all outputs; ``None`` where none was measured."""
        return max(self.latencies.values(), default=None)


def measure(
    block: StreamBlock,
    *,
    controls: ControlValues | Sequence[ControlValues] | None = None,
    draw: Draw | None = None,
    limit: int = 1 << 16,
) -> Measured:
    """Measure look-ahead, latency, receptive field and state of a block or graph, on a copy of it in float64.

    Args:
        block: a block, or a graph, which is one.
        controls: values for its controls; made up when left out.
        draw: makes test input, for blocks that do not take noise.
        limit: input frames that the probe may have, at any port. A receptive field beyond it is measured as ``None``.

    >>> from astrape.blocks import Stream, StreamBlock
    >>> class Double(StreamBlock):
    ...     def step(self, x, state, controls):
    ...         return 2 * x, state
    >>> measure(Double(Stream(1000, 1))).receptive_field
    Fraction(1, 1000)
    """
    return measure_subject(Subject(block, controls=controls, draw=draw), limit=limit)


def measure_subject(
    subject: Subject, *, limit: int = 1 << 16, frames: int = SAMPLED_FRAMES, exact: bool = True
) -> Measured:
    """:func:`measure` for a block that is a test subject already.

    Args:
        subject: the block.
        limit: as of :func:`measure`.
        frames: how many output frames of a quantum are looked at.
        exact: where no gradient shows how far back a dependence goes, find the very frame. Otherwise the difference
            from what was declared is found to a factor of two, which still tells too far from not far enough.
    """
    with subject.frozen():
        return _measure_frozen(subject, limit, frames, exact)


def _measure_frozen(subject: Subject, limit: int, frames: int, exact: bool) -> Measured:
    block = subject.block
    lookahead = measure_lookahead(subject)
    with torch.no_grad():
        size = state_bytes(block.init_state(1, subject.device, torch.float32)) if subject.streams else 0
    history = probe_history(subject, limit)
    probe = min(Fraction((history + 1) * count) / block.inputs[port].rate for port, count in block.consumes.items())
    if not subject.streams:
        return Measured(lookahead, {}, None, size, probe)
    by_input = _support(subject, history, frames, exact)
    span, reached = Fraction(0), False
    latencies: dict[str, Fraction] = {}
    merged: dict[str, dict[int, Support]] = {}
    for out, count in block.produces.items():
        chosen = sampled(count, frames)
        seen = {port: by_input[out, port] for port in block.inputs if by_input[out, port]}
        for port, supports in seen.items():
            oldest = min(support.oldest for support in supports.values())
            span = max(span, Fraction(block.consumes[port] - oldest) / block.inputs[port].rate)
            reached = reached or oldest <= -history * block.consumes[port]
        if len(set(block.consumes.values())) == 1:
            merged[out] = {
                frame: Support(min(s[frame].oldest for s in having), max(s[frame].newest for s in having))
                for frame in chosen
                if (having := [s for s in seen.values() if frame in s])
            }
        latency = _newest(block, seen) if block.latency_by == "newest" else _centre(block, out, seen, chosen)
        if latency is not None and block.latency_by != "declared" and (block.latency_by == "newest" or not reached):
            latencies[out] = latency
    return Measured(lookahead, latencies, None if reached else span, size, probe, merged)


def probe_history(subject: Subject, limit: int) -> int:
    """Quanta before the one looked at: the declared receptive field and a quarter more, or a fixed stretch."""
    widest = max(subject.block.consumes.values())
    most = max(2, limit // widest)
    reach = subject.reach(limit)
    if reach is None:
        return min(most, max(16, min(256, 4096 // widest), subject.memory(4096) + 3))
    return min(most, reach + max(3, reach // 4))


def sampled(count: int, most: int = SAMPLED_FRAMES) -> list[int]:
    """At most that many frames of a quantum of ``count``, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def _newest(block: StreamBlock, seen: dict[str, dict[int, Support]]) -> Fraction | None:
    """Age of the newest input that any output of the quantum uses, against the quantum's end."""
    ages = [
        Fraction(block.consumes[port] - 1 - support.newest) / block.inputs[port].rate
        for port, supports in seen.items()
        for support in supports.values()
    ]
    return max(Fraction(0), min(ages)) if ages else None


def _centre(block: StreamBlock, out: str, seen: dict[str, dict[int, Support]], frames: list[int]) -> Fraction | None:
    """Centre of each output frame's interval less the centre of its support, averaged over the quantum.

    Frame *n* covers ``[n/r, (n+1)/r)``, so a window of *w* that ends with its hop *h* is ``(w - h) / 2`` old.
    """
    ages: list[Fraction] = []
    weights: list[Fraction] = []
    rate, count = block.outputs[out].rate, block.produces[out]
    between = Fraction(count - 2, len(frames) - 2) if len(frames) > 2 else Fraction(1)
    for frame in frames:
        centres = [
            Fraction(supports[frame].oldest + supports[frame].newest + 1, 2) / block.inputs[port].rate
            for port, supports in seen.items()
            if frame in supports
        ]
        if centres:
            ages.append(Fraction(2 * frame + 1, 2) / rate - min(centres))
            weights.append(Fraction(1) if frame in (0, count - 1) else between)
    if not ages:
        return None
    return sum((age * weight for age, weight in zip(ages, weights, strict=True)), Fraction(0)) / sum(weights)


def _support(subject: Subject, history: int, most: int, exact: bool) -> Found:
    """Support of the sampled frames of quantum ``history``, by output and input port."""
    block = subject.block
    found: Found = {(o, i): {} for o in block.outputs for i in block.inputs}
    faded: set[Target] = set()
    every: list[Target] = []
    few: list[Target] = []
    for out, count in block.produces.items():
        frames = sampled(count, most)
        every += [(out, frame) for frame in frames]
        few += [(out, frames[index]) for index in sampled(len(frames), 8)]
    for level, wanted in enumerate((every, few, few)):
        for group, rows in _groups(subject, wanted, history):
            x = subject.signal(history + 3, batch=rows, seed=20 + level)
            scale = (1.0, 0.05, 5.0)[level]
            x = {port: (tensor * scale).requires_grad_() for port, tensor in x.items()}
            for (out, frame), strengths in _strengths(subject, x, group, history):
                for port, strength in strengths.items():
                    start = history * block.consumes[port]
                    used = (strength != 0).nonzero().flatten()
                    if used.numel():
                        _widen(found[out, port], frame, int(used[0]) - start, int(used[-1]) - start)
                        if float(strength[used[0]]) < VANISHED:
                            faded.add((out, frame))
    doubtful = [(o, f) for o, f in every if _short(subject, found, o, f, (o, f) in faded, history)]
    for group, rows in _groups(subject, doubtful, history):
        _by_change(subject, group, rows, history, found, exact)
    for out, frame in faded:
        for port in block.inputs:
            _reach_back(found[out, port], history * block.consumes[port], frame)
    return found


def _reach_back(supports: dict[int, Support], start: int, frame: int) -> None:
    """A dependence that faded below what float64 holds is taken to go on to the start of the probe."""
    if frame in supports:
        supports[frame] = Support(-start, supports[frame].newest)


def _short(
    subject: Subject,
    found: Found,
    out: str,
    frame: int,
    faded: bool,
    history: int,
) -> bool:
    """Whether gradients show less than was declared, so that changing the input has to decide."""
    block = subject.block
    supports = [found[out, port][frame] for port in block.inputs if frame in found[out, port]]
    if not supports:
        return True
    if faded:
        return False
    oldest = min(support.oldest for support in supports)
    if subject.reach() is None:
        widest = max(block.consumes.values())
        return block.receptive_field is None and oldest > -history * widest
    declared = block.oldest_input(frame) if len(set(block.produces.values())) == 1 else None
    return declared is not None and oldest > declared


def _widen(supports: dict[int, Support], frame: int, oldest: int, newest: int) -> None:
    known = supports.get(frame, Support(oldest, newest))
    supports[frame] = Support(min(known.oldest, oldest), max(known.newest, newest))


def _groups(subject: Subject, targets: Sequence[Target], history: int) -> list[tuple[list[Target], int]]:
    """Frames to measure in one pass, and its batch rows: one for each frame, or one for all where four are too many."""
    block = subject.block
    row = (history + 3) * max(
        max(count * block.inputs[port].channels for port, count in block.consumes.items()),
        max(count * block.outputs[port].channels for port, count in block.produces.items()),
    )
    size = ROW_BUDGET // row
    if size < 4:
        return [(list(targets), 1)] if targets else []
    groups = (list(targets[at : at + size]) for at in range(0, len(targets), size))
    return [(group, len(group)) for group in groups]


def _picked(subject: Subject, y: Ports, targets: Sequence[Target], history: int) -> list[Tensor]:
    """The channels of each target, in quantum ``history`` of the row that is its own, or of the only one."""
    own = len(next(iter(y.values()))) > 1
    return [
        y[out][row if own else 0, :, history * subject.block.produces[out] + frame]
        for row, (out, frame) in enumerate(targets)
    ]


def _strengths(
    subject: Subject, x: Ports, targets: Sequence[Target], history: int
) -> Iterator[tuple[Target, dict[str, Tensor]]]:
    """The size of the gradient of each target's projection to each frame of the input."""
    own = len(next(iter(x.values()))) > 1
    seeds = torch.Generator().manual_seed(5)
    with torch.enable_grad():
        terms = [
            (part * (1 + torch.rand(part.shape, generator=seeds, dtype=torch.float64)).to(part)).sum()
            for part in _picked(subject, subject.forward(x), targets, history)
        ]
        # Rows of their own do not meet, so that the gradient of the sum is that of each.
        alone = [(term, [(0, target)]) for term, target in zip(terms, targets, strict=True)]
        for total, named in [(sum(terms), list(enumerate(targets)))] if own else alone:
            if isinstance(total, Tensor) and total.requires_grad:
                slopes = torch.autograd.grad(total, list(x.values()), allow_unused=True, retain_graph=not own)
                sizes = {p: slope.abs().amax(dim=1) for p, slope in zip(x, slopes, strict=True) if slope is not None}
                for row, target in named:
                    yield target, {port: size[row] for port, size in sizes.items()}


def _by_change(subject: Subject, targets: Sequence[Target], rows: int, history: int, found: Found, exact: bool) -> None:
    """Widen the support of some frames by searching for the oldest and the newest change that each of them hears.

    What is known of a frame is where its search begins: most signals after the first only confirm it.
    """
    block = subject.block
    for seed, scale in ((30, 1.0), (31, 5.0), (32, 0.2)):
        x = subject.signal(history + 3, batch=rows, seed=seed)
        other = {p: t * scale for p, t in subject.signal(history + 3, batch=rows, seed=seed + 50).items()}
        with torch.no_grad():
            before = _picked(subject, subject.forward(x), targets, history)
            for port, count in block.consumes.items():
                length, start = x[port].shape[-1], history * count
                time = torch.arange(length, device=subject.device)

                def heard(first: Tensor, end: Tensor, port: str = port, x: Ports = x, was: Any = before) -> Tensor:
                    """Whether each target changes when its input from ``first`` up to ``end`` does."""
                    spans = torch.stack([first, end], dim=1)
                    answers = torch.zeros(len(targets), dtype=torch.bool)
                    # Targets in one row share the passes of those spans that they share.
                    for span in [spans] if rows > 1 else torch.unique(spans, dim=0).split(1):
                        begins, ends = span.to(subject.device).unsqueeze(-1).unbind(1)
                        changed = (time >= begins) & (time < ends)  # noqa: B023
                        mixed = {**x, port: torch.where(changed[:, None, :], other[port], x[port])}  # noqa: B023
                        now = _picked(subject, subject.forward(mixed), targets, history)
                        differs = [bool((new != old).any()) for new, old in zip(now, was, strict=True)]
                        answers |= torch.tensor(differs) & (spans == span).all(dim=1)
                    return answers

                known = [found[out, port].get(frame) for out, frame in targets]
                span = block.receptive_field
                probed = start + count
                reach = probed if span is None else min(math.ceil(span * block.inputs[port].rate), probed)
                first, last = torch.zeros(len(targets), dtype=torch.long), torch.full((len(targets),), length - 1)
                oldest = _first_true(
                    lambda cut: heard(first, cut + 1),  # noqa: B023
                    first,
                    torch.tensor([length - 1 if s is None else start + s.oldest for s in known]),
                    torch.tensor([start + (count - reach if s is None else s.oldest - 1) for s in known]),
                    exact,
                )
                newest = _first_true(
                    lambda cut: ~heard(cut + 1, last + 1),  # noqa: B023
                    torch.tensor([0 if s is None else start + s.newest for s in known]),
                    last,
                    torch.tensor([start + (count - 1 if s is None else s.newest) for s in known]),
                )
                sure = torch.tensor([s is not None for s in known]) | (oldest < last)
                ever = sure if bool(sure.all()) else heard(first, last + 1)
                for index, (out, frame) in enumerate(targets):
                    if bool(ever[index]):
                        _widen(found[out, port], frame, int(oldest[index]) - start, int(newest[index]) - start)


def _first_true(
    test: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, guess: Tensor, exact: bool = True
) -> Tensor:
    """For each one, the least cut from ``low`` to ``high`` at which a monotone test holds, ``high`` if at none before.

    The search begins at a guess and goes away from it in steps that double until it has gone too far, and then halves
    what is left. A guess that is right, or one less, takes two tests where halving from the start would take a dozen.
    Where it need not be exact nothing is halved: the test holds at what comes back, which lies on the same side of the
    guess as the first.
    """
    stride, turned = 1, torch.zeros_like(low, dtype=torch.bool)
    began: Tensor | None = None
    while bool((going := (low < high) & (exact | ~turned)).any()):
        at = torch.maximum(low, torch.minimum(guess, high - 1))
        # What is found asks for nothing of its own.
        holds = test(torch.where(going, at, at[going][0]))
        high, low = torch.where(going & holds, at, high), torch.where(going & ~holds, at + 1, low)
        began = holds if began is None else began
        turned |= holds != began
        guess = torch.where(turned, (low + high) // 2, torch.where(holds, high - stride, low + stride - 1))
        stride *= 2
    return high
