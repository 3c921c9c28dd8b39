"""Operations are counted whoever multiplies; a profile has all of a push, and whose it is."""

from __future__ import annotations

import json

import pytest
import torch

import astrape
from astrape.blocks.live import LAID_OUT, Live
from astrape.errors import AstrapeError
from astrape.graph.backends.native import quickest
from astrape.runtime.by_hand import Sessionless
from astrape.runtime.machine import Machine
from astrape.runtime.operations import counted
from astrape.runtime.profile import profile
from tests.cli.audio import astrape as run
from tests.graph.recipes import recipe

pytestmark = pytest.mark.timeout(600)

KERNEL, WIDE, NARROW = 3, 256, 48
MACHINE = Machine(memory_gb_s=10.0, working_set_bytes=1, working_set_gb_s=20.0, matmul_gflop_s=100.0)


@pytest.fixture(scope="module")
def graph() -> astrape.Graph:
    """Two convolutions: one that oneDNN takes for 3 to 64 frames, and one too small for it."""
    blocks = {
        "wide": {"use": "conv", "channels": WIDE, "kernel": KERNEL},
        "next": {"use": "conv", "channels": WIDE, "kernel": KERNEL},
        "narrow": {"use": "conv", "channels": NARROW, "kernel": 1},
    }
    torch.manual_seed(1)
    return astrape.compile(recipe(blocks, outputs={"wav": "narrow"}))


def by_hand(frames: int) -> int:
    """Multiply-adds of the layers, tap by tap and channel by channel."""
    each = 0
    for entering, leaving, taps in ((1, WIDE, KERNEL), (WIDE, WIDE, KERNEL), (WIDE, NARROW, 1)):
        for _ in range(leaving):
            for _ in range(taps):
                each += entering
    return each * frames


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 80])
def test_fused_layers_are_counted(graph: astrape.Graph, frames: int) -> None:
    runner = Sessionless(graph, {})
    x = torch.randn(1, 1, frames)
    with torch.inference_mode(), Live().run():
        runner.advance({"mic": x})
        with counted() as counter:
            runner.advance({"mic": x})
    assert counter.get_total_flops() == 2 * by_hand(frames)
    fused = counter.get_flop_counts()["Global"].get(torch.ops.mkldnn._linear_pointwise, 0)
    # The first has too few weights to be laid out, and the last too few; the middle one is PyTorch's for few frames.
    assert fused == (2 * frames * WIDE * WIDE * KERNEL if LAID_OUT and 3 <= frames <= 64 else 0)


@pytest.mark.parametrize("frames", [1, 5, 16])
@pytest.mark.parametrize("backend", ["recorded", "compiled"])
def test_a_profile_counts_what_is_multiplied(graph: astrape.Graph, backend: str, frames: int) -> None:
    if backend == "compiled" and quickest(graph) is None:
        pytest.skip("there are no native kernels here")
    found = profile(graph, backend, {"mic": frames}, {}, MACHINE)
    assert sum(share.operations for share in found.kernels) == 2 * by_hand(frames)
    assert found.operations_ms == pytest.approx(2 * by_hand(frames) / 100e9 * 1000)
    # Every weight is read at least once.
    weights = sum(p.numel() for p in graph.parameters() if p.dim() > 2)
    assert sum(share.bytes for share in found.kernels) >= 4 * weights
    assert found.kernels_ms > 0
    assert found.push_ms > 0
    assert backend in found.backend
    if backend == "compiled":
        assert "product" in {share.name for share in found.kernels if share.kind == "native"}


def test_float16_weights_are_half_of_the_bytes(graph: astrape.Graph) -> None:
    if quickest(graph) is None:
        pytest.skip("there are no native kernels here")
    whole, half = (
        profile(graph, "compiled", {"mic": 1}, {}, MACHINE, precision) for precision in ("float32", "float16")
    )
    weights = KERNEL * WIDE * WIDE + WIDE * NARROW
    apart = sum(share.bytes for share in whole.kernels) - sum(share.bytes for share in half.kernels)
    assert 2 * weights * 0.9 <= apart <= 2 * (weights + KERNEL * WIDE)


def test_eager_has_no_kernels_of_its_own(graph: astrape.Graph) -> None:
    with pytest.raises(AstrapeError, match=r"'eager' has nothing to profile: asked for"):
        profile(graph, "eager", {"mic": 4}, {}, MACHINE)


def test_the_command_prints_it() -> None:
    words = ("bench", "multirate", "--chunk", "20", "--profile", "--backend", "recorded")
    shown = run(*words)
    assert "20 ms, recorded: " in shown.stdout
    assert "the limit is" in shown.stdout
    found = json.loads(run(*words, "--json").stdout)
    (part,) = found["chunks"]
    assert part[0]["backend"].startswith("recorded")
    assert part[0]["kernels"][0]["milliseconds"] >= part[0]["kernels"][-1]["milliseconds"]
