"""A silent stream computes with no denormal numbers, which processors are slow with, and nothing else is changed."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest
import torch
from torch import Tensor

import astrape
from astrape.blocks.live import Live, denormals_are_zero
from astrape.blocks.live import current as live
from astrape.blocks.state import state_leaves
from astrape.graph.backends.native import quickest

RATE = 44100
RECIPE: dict[str, Any] = {
    "recipe": "channel-strip",
    "inputs": {"mic": {"rate": RATE, "channels": 1}},
    "blocks": {
        "level": {"use": "dc_block"},
        "low": {"use": "biquad", "kind": "highpass", "frequency": 80.0},
        "squeezed": {"use": "compressor"},
        "gated": {"use": "gate"},
    },
    "outputs": {"wav": "gated"},
}


def denormals(tensors: list[Tensor]) -> int:
    """The count of numbers that are neither 0 nor as large as the least normal one."""
    return sum(
        int(((tensor != 0) & (tensor.abs() < torch.finfo(tensor.dtype).tiny)).sum())
        for tensor in tensors
        if tensor.is_floating_point()
    )


def pieces() -> list[Tensor]:
    """A second of noise and ten of silence."""
    noise = 0.1 * torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(0))
    return list(torch.cat([noise, torch.zeros(1, 1, 10 * RATE)], dim=-1).split(RATE // 100, dim=-1))


@pytest.mark.parametrize("chunk", [None, RATE // 100])
def test_a_silent_session_holds_no_denormal_numbers(chunk):
    graph = astrape.compile(RECIPE)
    session = graph.stream(chunk=chunk)
    worst = 0
    for piece in pieces():
        y = session.push(piece)
        worst = max(worst, denormals([y, *(leaf for _, leaf in state_leaves(session.snapshot()["state"]))]))
    assert worst == 0
    assert not denormals_are_zero()


def test_a_push_that_is_one_native_program_holds_none_either():
    """It takes them as 0 by itself, in the thread that runs it, for as long as it runs."""
    graph = astrape.compile(
        {**RECIPE, "blocks": {name: RECIPE["blocks"][name] for name in ("level", "low")}, "outputs": {"wav": "low"}}
    )
    if quickest(graph) is None:
        pytest.skip("no native kernels here")
    session = graph.stream(chunk=RATE // 100, backend="compiled")
    assert ", 0 of PyTorch's" in session.backend.why
    worst = 0
    for piece in pieces():
        y = session.push(piece)
        worst = max(worst, denormals([y, *(leaf for _, leaf in state_leaves(session.snapshot()["state"]))]))
        assert not denormals_are_zero()
    assert worst == 0


def test_without_flushing_the_same_stream_ends_in_denormal_numbers():
    # What the test above would find if nothing was done.
    graph = astrape.compile(RECIPE)
    state, found = graph.init_state(1), 0
    controls = graph.prepare({})
    for piece in pieces():
        y, state = graph.step(piece, state, controls)
        found = max(found, denormals([y, *(leaf for _, leaf in state_leaves(state))]))
    assert found > 0


def test_the_callers_arithmetic_is_left_as_it_was():
    def fail() -> None:
        with Live().run():
            assert denormals_are_zero()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not denormals_are_zero()
    torch.set_flush_denormal(True)
    try:
        with Live().run():
            assert denormals_are_zero()
        assert denormals_are_zero()
    finally:
        torch.set_flush_denormal(False)


def test_what_an_interrupt_leaves_open_is_closed_quietly():
    """Ctrl-C may come before the body is entered; what is left is closed when forgotten, and in another context."""
    run = Live().run()
    contextvars.copy_context().run(run.__enter__)
    assert denormals_are_zero()
    run.gen.close()
    assert not denormals_are_zero()
    assert live() is None
