"""Measuring what a block declares: which input each output frame depends on.

One frame's dependence is read from the gradient of a random projection of it, in float64: the frames of input where
that gradient is not zero. Many output frames are measured in one pass, each in a batch row of its own, and the whole is
repeated at other levels, for a gate that is shut or a rectifier that is off shows nothing. Where a gradient shows less
than was declared, or there is none (a quantiser, an index), input is changed instead, and a bisection finds the oldest
and the newest frame that still changes the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from astrape.blocks.base import StreamBlock
from astrape.blocks.state import state_bytes
from astrape.testing.causality import measure_lookahead
from astrape.testing.subject import ControlValues, Draw, Ports, Subject

__all__ = ["Measured", "Support", "measure", "measure_subject"]

SAMPLED_FRAMES = 64
"""Output frames of a quantum that are measured; where it has more, these are spread from the first to the last."""

VANISHED = 1e-200
"""A gradient below this has faded out: its end says that float64 ended, not that the dependence did."""

ROW_BUDGET = 1 << 20
"""Values of input and output in one pass."""


@dataclass(frozen=True)
class Support:
    """What an output frame depends on: frames counted from the start of its quantum, so earlier quanta are negative."""

    oldest: int
    newest: int


@dataclass(frozen=True)
class Measured:
    """What a block was found to do, in exact seconds.

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


def measure_subject(subject: Subject, *, limit: int = 1 << 16, frames: int = SAMPLED_FRAMES) -> Measured:
    """As :func:`measure`, for a block that is under test already, at so many output frames of a quantum."""
    block = subject.block
    lookahead = measure_lookahead(subject)
    with torch.no_grad():
        size = state_bytes(block.init_state(1, subject.device, torch.float32)) if subject.streams else 0
    history = probe_history(subject, limit)
    probe = min(Fraction((history + 1) * count) / block.inputs[port].rate for port, count in block.consumes.items())
    if not subject.streams:
        return Measured(lookahead, {}, None, size, probe)
    by_input = _support(subject, history, frames)
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
    """At most so many frames of a quantum of ``count``, the first and the last among them."""
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


def _support(subject: Subject, history: int, most: int) -> dict[tuple[str, str], dict[int, Support]]:
    """Support of the sampled frames of quantum ``history``, by output and input port."""
    block = subject.block
    found: dict[tuple[str, str], dict[int, Support]] = {(o, i): {} for o in block.outputs for i in block.inputs}
    faded: set[tuple[str, int]] = set()
    for out, count in block.produces.items():
        frames = sampled(count, most)
        few = frames if len(frames) <= 8 else [frames[round(i * (len(frames) - 1) / 7)] for i in range(8)]
        for level, wanted in enumerate((frames, few, few)):
            for group in _groups(subject, wanted, history):
                x = subject.signal(history + 3, batch=len(group), seed=20 + level)
                scale = (1.0, 0.05, 5.0)[level]
                x = {port: (tensor * scale).requires_grad_() for port, tensor in x.items()}
                for port, slope in _row_gradients(subject, x, out, group, history).items():
                    start = history * block.consumes[port]
                    for row, frame in enumerate(group):
                        strength = slope[row].abs().amax(dim=0)
                        used = (strength != 0).nonzero().flatten()
                        if used.numel():
                            _widen(found[out, port], frame, int(used[0]) - start, int(used[-1]) - start)
                            if float(strength[used[0]]) < VANISHED:
                                faded.add((out, frame))
        doubtful = [frame for frame in frames if _short(subject, found, out, frame, (out, frame) in faded, history)]
        for group in _groups(subject, doubtful, history):
            _by_change(subject, out, group, history, found)
        if any(fading == out for fading, _ in faded):
            for port, supports in ((i, found[out, i]) for i in block.inputs):
                _reach_back(supports, history * block.consumes[port], [f for o, f in faded if o == out])
    return found


def _reach_back(supports: dict[int, Support], start: int, frames: list[int]) -> None:
    """A dependence that faded below what float64 holds is taken to go on to the start of the probe."""
    for frame in frames:
        if frame in supports:
            supports[frame] = Support(-start, supports[frame].newest)


def _short(
    subject: Subject,
    found: dict[tuple[str, str], dict[int, Support]],
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


def _groups(subject: Subject, frames: Sequence[int], history: int) -> list[list[int]]:
    """Frames to measure in one pass, a batch row each."""
    block = subject.block
    row = (history + 3) * max(
        max(count * block.inputs[port].channels for port, count in block.consumes.items()),
        max(count * block.outputs[port].channels for port, count in block.produces.items()),
    )
    size = max(1, ROW_BUDGET // row)
    return [list(frames[at : at + size]) for at in range(0, len(frames), size)]


def _row_gradients(subject: Subject, x: Ports, out: str, frames: Sequence[int], history: int) -> Ports:
    """For each row, the gradient of a projection of its frame of quantum ``history`` to all of the input."""
    with torch.enable_grad():
        y = subject.forward(x)[out]
        if not y.requires_grad:
            return {port: torch.zeros_like(tensor) for port, tensor in x.items()}
        rows = torch.arange(len(frames), device=y.device)
        picked = y[rows, :, torch.tensor(frames, device=y.device) + history * subject.block.produces[out]]
        weight = 1 + torch.rand(picked.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        total = (picked * weight.to(picked)).sum()
        found = torch.autograd.grad(total, list(x.values()), allow_unused=True)
    return {p: torch.zeros_like(x[p]) if slope is None else slope for p, slope in zip(x, found, strict=True)}


def _by_change(
    subject: Subject,
    out: str,
    frames: Sequence[int],
    history: int,
    found: dict[tuple[str, str], dict[int, Support]],
) -> None:
    """Widen the support of some frames, a row each, by bisecting for the oldest and newest change that is heard."""
    block = subject.block
    at = torch.tensor(frames, device=subject.device) + history * block.produces[out]
    rows = torch.arange(len(frames), device=subject.device)
    for seed, scale in ((30, 1.0), (31, 5.0), (32, 0.2)):
        x = subject.signal(history + 3, batch=len(frames), seed=seed)
        other = {p: t * scale for p, t in subject.signal(history + 3, batch=len(frames), seed=seed + 50).items()}
        with torch.no_grad():
            before = subject.forward(x)[out][rows, :, at]
            for port in block.inputs:
                length = x[port].shape[-1]
                time = torch.arange(length, device=subject.device)

                def heard(changed: Tensor, port: str = port, x: Ports = x, before: Tensor = before) -> Tensor:
                    mixed = {**x, port: torch.where(changed[:, None, :], other[port], x[port])}  # noqa: B023
                    return (subject.forward(mixed)[out][rows, :, at] != before).any(dim=-1)

                ever = heard(torch.ones(len(frames), length, dtype=torch.bool, device=subject.device))
                oldest = _first_true(lambda cut: heard(time <= cut[:, None]), len(frames), length)  # noqa: B023
                newest = _first_true(lambda cut: ~heard(time > cut[:, None]), len(frames), length)  # noqa: B023
                start = history * block.consumes[port]
                for row, frame in enumerate(frames):
                    if bool(ever[row]):
                        _widen(found[out, port], frame, int(oldest[row]) - start, int(newest[row]) - start)


def _first_true(test: object, rows: int, length: int) -> Tensor:
    """By row, the least cut from 0 to ``length - 1`` at which a monotone test holds."""
    assert callable(test)
    low, high = torch.zeros(rows, dtype=torch.long), torch.full((rows,), length - 1)
    while bool((low < high).any()):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        holds = test(middle)
        high = torch.where(holds, middle, high)
        low = torch.where(holds, low, torch.minimum(middle + 1, high))
    return low
