"""Kinds of input and sizes of call that real streams have, and noise in short chunks does not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from astrape.blocks.state import clone_state
from astrape.measure.compare import require_close
from astrape.measure.effort import Effort, effort
from astrape.measure.subject import Ports, Subject, draw_noise

__all__ = ["check_doubling", "check_kinds_of_input", "check_sizes", "landscape"]

SEGMENTS = (
    "noise", "silence", "whisper", "silence", "burst", "silence", "click", "silence", "offset", "loud",
    "whisper", "below", "opposed", "square", "silence", "ramp", "clipped", "denormal", "noise", "twins",
    "tone", "swell", "silence", "one side", "noise",
)  # fmt: skip
"""A landscape's parts in order, each after one that calls for something else."""

LEVELS = {"quiet": (1e-3, 1e-6), "loud": (1e3, 1e-2)}
"""For each landscape the level of its loud parts and that of its whispers.

Equal things are compared relative to the greatest value, so a fault in a whisper needs a landscape without thunder.
"""

BUDGET = 15_000
"""Operators for the landscapes, and for the sizes: about a tenth of a second each."""

LARGEST_SIZE = 1 << 13
"""Input frames of the longest of the sizes."""

LARGEST_CALL = 1 << 17
"""Input frames of all calls that double, of which the last has half: what a session runs at once."""

DOUBLING_BUDGET = 6_000
"""Operators for those."""


def landscape(subject: Subject, quanta: int, level: str) -> Ports:
    """Noise that is shaped by :data:`SEGMENTS` of ``quanta`` quanta each, all rows alike: silence is complete."""
    loud, whisper = LEVELS[level]
    shaped = {}
    for port, noise in subject.signal(quanta * len(SEGMENTS), seed=51).items():
        pieces = torch.split(noise, quanta * subject.block.consumes[port], dim=-1)
        parts = [_part(kind, x, loud, whisper) for kind, x in zip(SEGMENTS, pieces, strict=True)]
        shaped[port] = torch.cat(parts, dim=-1)
    return shaped


def _part(kind: str, x: Tensor, loud: float, whisper: float) -> Tensor:
    frames = x.shape[-1]
    if kind == "silence":
        return torch.zeros_like(x)
    if kind == "whisper":
        return x * whisper
    if kind == "burst":
        there = (torch.arange(frames, device=x.device) * 7 // frames) % 3 == 1
        return torch.where(there, x, torch.zeros_like(x)) * min(loud, 1.0)
    if kind == "click":
        at = torch.arange(frames, device=x.device) == frames // 2
        return torch.where(at, torch.full_like(x, loud), torch.zeros_like(x))
    if kind == "offset":
        return torch.full_like(x, 0.5 * min(loud, 1.0))
    if kind == "below":
        return torch.full_like(x, -0.5 * min(loud, 1.0))
    if kind in ("twins", "opposed"):
        # Every channel the first, or in turn its opposite: two of them have a mean of zero.
        sign = (1 - 2 * (torch.arange(x.shape[1], device=x.device) % 2)).to(x.dtype)[:, None]
        return x[:, :1] * (sign if kind == "opposed" else sign.abs()) * min(loud, 1.0)
    if kind == "one side":
        return x * (torch.arange(x.shape[1], device=x.device) == 0).to(x.dtype)[:, None] * min(loud, 1.0)
    if kind == "ramp":
        return torch.linspace(-1, 1, frames, dtype=x.dtype, device=x.device).expand_as(x) * min(loud, 1.0)
    if kind == "tone":
        return torch.tensor([0.0, 1.0, 0.0, -1.0]).to(x).repeat(frames // 4 + 1)[:frames].expand_as(x) * min(loud, 0.5)
    if kind == "clipped":
        return (x * 4).clamp(-1, 1) * min(loud, 1.0)
    if kind == "loud":
        return x * loud
    if kind == "square":
        return x.sign() * loud
    if kind == "denormal":
        return x * 1e-310
    if kind == "swell":
        steps = torch.linspace(0, 1, frames, dtype=x.dtype, device=x.device)
        return x * whisper * (loud / whisper) ** steps
    return x * min(loud, 1.0)


def check_kinds_of_input(subject: Subject, name: str, hint: str) -> None:
    """Over silence, whispers, thunder, clicks and offsets, steps of any chunks give what ``forward`` gives.

    What a step decides by the whole of what it is called with, its peak or that it is silent, comes out otherwise in
    other chunks. Nothing is done where input is not noise, and a level would have no meaning.

    Raises:
        ContractError: of the given name.
    """
    if subject.draw is not draw_noise:
        return
    quanta = max(2, min(8, int(BUDGET / (2 * 2 * len(SEGMENTS) * effort(subject).of(1)))))
    total = quanta * len(SEGMENTS)
    prepared = subject.prepared()
    for level in LEVELS:
        x = landscape(subject, quanta, level)
        whole = subject.forward(x)
        # One by one, in turn with longer ones, shifted against the segments, and each segment by itself.
        for sizes in ([1], [quanta - 1, 3], [2 * quanta + 1], [quanta]):
            chunks = _cut(total, sizes)
            y, _ = subject.run(x, chunks, subject.fresh(), prepared)
            what = f"in a {level} landscape of silence, whispers, bursts, clicks and offsets, chunks of {sizes} quanta"
            require_close(name, y, whole, subject.tolerance, f"{what} differ from forward", hint)
    _check_long_silence(subject, name, hint)


def _check_long_silence(subject: Subject, name: str, hint: str) -> None:
    """A call as long as a pause in speech that holds nothing but zeros, or nothing but a whisper, amid noise."""
    widest = max(subject.block.consumes.values())
    pause = effort(subject).quanta(BUDGET / 16, LARGEST_SIZE // widest)
    total, prepared = pause + 8, subject.prepared()
    for level in (0.0, 1e-6):
        x = subject.signal(total, seed=53)
        for port, tensor in x.items():
            count = subject.block.consumes[port]
            tensor[..., 4 * count : (4 + pause) * count] *= level
        whole = subject.forward(x)
        for chunks in ([4, pause, 4], [3, pause // 2 + 1, pause - pause // 2 + 2, 2]):
            y, _ = subject.run(x, chunks, subject.fresh(), prepared)
            what = f"noise, {pause} quanta of it times {level:g}, and noise, in chunks of {chunks} quanta, differ from"
            require_close(name, y, whole, subject.tolerance, f"{what} forward", hint)


def check_sizes(subject: Subject, name: str, hint: str) -> None:
    """Every size of chunk, one after the other up to some hundreds of quanta, gives what ``forward`` gives.

    Above, sizes that grow by a sixteenth, and those that hosts have. One quantum more shows the state that each leaves.

    Raises:
        ContractError: of the given name.
    """
    cost = effort(subject)
    sizes = sorted(set(_sizes(subject, cost)))
    if not sizes:
        return
    lead = 3
    x, prepared = subject.signal(lead + sizes[-1] + 1, seed=52), subject.prepared()
    whole = subject.forward(x)
    _, state = subject.run(x, [lead], subject.fresh(), prepared)
    for size in sizes:
        y, _ = subject.run(x, [size, 1], clone_state(state), prepared, lead)
        want = subject.cut_output(whole, lead, lead + size + 1)
        if not all(_alike(y[port], want[port], subject.tolerance) for port in want):
            what = f"a chunk of {size} quanta and one of 1 after it, from quantum {lead}, differ from forward"
            require_close(name, y, want, subject.tolerance, what, hint)


def check_doubling(subject: Subject, name: str, hint: str) -> None:
    """Chunks that double from one quantum up to 1.5 s of audio give what ``forward`` gives in one call.

    Beyond some length a block may think that it has a file, and take another way.

    Raises:
        ContractError: of the given name.
    """
    widest = max(subject.block.consumes.values())
    total = effort(subject, batch=1).quanta(DOUBLING_BUDGET, LARGEST_CALL // widest)
    chunks = [1 << power for power in range(max(0, total).bit_length() - 1)]
    if sum(chunks) * widest <= LARGEST_SIZE:
        return
    x = subject.signal(sum(chunks), batch=1, seed=53)
    y, _ = subject.run(x, chunks, subject.fresh(1), subject.prepared(1))
    what = f"chunks that double, from 1 to {chunks[-1]} quanta, differ from forward in one call"
    require_close(name, y, subject.forward(x), subject.tolerance * 10, what, hint)


def _sizes(subject: Subject, cost: Effort) -> Iterator[int]:
    widest = max(subject.block.consumes.values())
    limit = max(1, min(LARGEST_SIZE // widest, cost.most))
    left = float(BUDGET)
    for size in range(1, limit + 1):
        left -= cost.of(size) + cost.of(1)
        if left < BUDGET / 3:
            break
        yield size
    frames = [*(round(64 * 1.06**power) for power in range(90)), 441, 480, 512, 960, 1024, 1470, 1764, 2048, 4096]
    for size in sorted({count // widest for count in frames}):
        if 1 <= size <= limit and left >= cost.of(size) + cost.of(1):
            left -= cost.of(size) + cost.of(1)
            yield size


def _cut(total: int, sizes: list[int]) -> list[int]:
    """``total`` quanta in chunks of these sizes in turn, with what is left at the end."""
    chunks: list[int] = []
    while total:
        chunks.append(min(total, sizes[len(chunks) % len(sizes)]))
        total -= chunks[-1]
    return chunks


def _alike(y: Tensor, want: Tensor, tolerance: float) -> bool:
    """Whether two signals differ by no more than a tolerance: the cheap test before the exact one."""
    return y.shape == want.shape and (not y.numel() or bool((y - want).abs().max() <= tolerance))
