"""Running a block in chunks against the full-sequence pass, for the tests of the block families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from astrape.blocks.base import StreamBlock
from astrape.blocks.state import state_leaves

chunk_lists = st.lists(st.integers(0, 7), min_size=1, max_size=6)
"""Chunk sizes in quanta; a chunk may be empty."""


def by_port(signal: Any) -> dict[str, Tensor]:
    return dict(signal) if isinstance(signal, Mapping) else {"": signal}


def noise(block: StreamBlock, quanta: int, *, batch: int = 2, seed: int = 0) -> Any:
    """Float64 noise in the form the block takes it."""
    generator = torch.Generator().manual_seed(seed)
    made = {
        port: torch.randn(batch, stream.channels, quanta * block.quantum, generator=generator, dtype=torch.float64)
        for port, stream in block.inputs.items()
    }
    return made if block.variadic else made["in"]


def run_chunks(block: StreamBlock, x: Any, chunks: Sequence[int], controls: Any = None) -> dict[str, Tensor]:
    """``step`` over chunks of so many quanta, checking that the state keeps its form and its memory to itself."""
    ports = by_port(x)
    lead = next(iter(ports.values()))
    state = block.init_state(len(lead), lead.device, lead.dtype)
    form = [(path, leaf.shape, leaf.dtype, leaf.stride()) for path, leaf in state_leaves(state)]
    parts, start = [], 0
    for quanta in chunks:
        end = start + quanta * block.quantum
        piece = {port: tensor[..., start:end] for port, tensor in ports.items()}
        y, state = block.step(piece if block.variadic else piece[""], state, block.prepare(controls or {}))
        parts.append(by_port(y))
        start = end
        assert [(path, leaf.shape, leaf.dtype, leaf.stride()) for path, leaf in state_leaves(state)] == form
        for path, leaf in state_leaves(state):
            assert leaf.is_contiguous(), path
            assert leaf.untyped_storage().nbytes() == leaf.numel() * leaf.element_size(), path
    assert start == lead.shape[-1]
    return {port: torch.cat([part[port] for part in parts], dim=-1) for port in parts[0]}


def assert_chunks_agree(block: StreamBlock, chunks: Sequence[int], *, seed: int = 0, **controls: float) -> None:
    """``step`` over the chunks equals ``forward``, in float64 to 1e-10."""
    block = block.double()
    x = noise(block, sum(chunks), seed=seed)
    lead = next(iter(by_port(x).values()))
    with torch.no_grad():
        whole = by_port(block(x, **controls))
        parts = run_chunks(block, x, chunks, block.read_controls(controls, lead))
    assert whole.keys() == parts.keys()
    for port in whole:
        torch.testing.assert_close(parts[port], whole[port], rtol=1e-10, atol=1e-10)


def influence(block: StreamBlock, quanta: int = 12, *, seed: int = 0) -> dict[int, tuple[int, int] | None]:
    """Oldest and newest input frame with a non-zero gradient for each output frame of the middle quantum.

    Counted from the start of that quantum; ``None`` where an output frame depends on no input.
    """
    block = block.double()
    middle = quanta - 2
    x = noise(block, quanta, batch=1, seed=seed).requires_grad_()
    y = block(x)
    per = int(block.quantum * block.ratio)
    found: dict[int, tuple[int, int] | None] = {}
    for frame in range(per):
        weights = torch.linspace(1, 2, y.shape[1], dtype=y.dtype)
        (slope,) = torch.autograd.grad((y[0, :, middle * per + frame] * weights).sum(), x, retain_graph=True)
        used = (slope[0] != 0).any(dim=0).nonzero().flatten()
        start = middle * block.quantum
        found[frame] = (int(used[0]) - start, int(used[-1]) - start) if len(used) else None
    return found


def assert_declared(block: StreamBlock, quanta: int = 12) -> None:
    """Receptive field and, for learned layers, latency are what gradients find."""
    found = influence(block, quanta)
    seen = [pair for pair in found.values() if pair is not None]
    oldest = min(pair[0] for pair in seen)
    assert oldest > -(quanta - 2) * block.quantum, "the probe is too short to see the oldest input"
    assert block.receptive_field == (block.quantum - oldest) / block.rate_in
    for frame, pair in found.items():
        assert block.oldest_input(frame) == (block.quantum if pair is None else pair[0]), frame
    if block.latency_by == "newest":
        assert block.latency == (block.quantum - 1 - max(pair[1] for pair in seen)) / block.rate_in
    elif block.latency_by == "centre":
        length = block.quantum / block.rate_in
        outputs = len(found)
        ages = [
            length * (2 * frame + 1) / (2 * outputs) - (pair[0] + pair[1] + 1) / (2 * block.rate_in)
            for frame, pair in found.items()
            if pair is not None
        ]
        assert abs(sum(ages) / len(ages) - block.latency) <= 1 / min(block.rate_in, block.rate_out)
