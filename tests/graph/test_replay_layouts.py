"""Memory layouts of callers, controls and buffers between actors make no difference to a replay."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import astrape
from astrape.blocks import Stream, StreamBlock, register
from tests.graph.recipes import recipe
from tests.graph.replaying import assert_equal, noise

CURVES: dict[str, Any] = {
    "gelu": functional.gelu,
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "elu": functional.elu,
    "mish": functional.mish,
    "softmax": lambda x: x.softmax(1),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True).expand_as(x),
    "expm1": torch.expm1,
    "erfinv": lambda x: torch.erfinv(0.1 * x.tanh()),
}


@register("test_curve")
class Curve(StreamBlock):
    """A function whose kernels round otherwise on strided memory, before a mean of four frames."""

    def __init__(self, source: Stream, *, kind: str) -> None:
        super().__init__(source, quantum=4, ratio=Fraction(1, 4))
        self.kind = kind

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return CURVES[self.kind](x).unflatten(-1, (-1, 4)).mean(-1), state


@register("test_turned")
class Turned(StreamBlock):
    """Hands on, and keeps, what lies the other way round in memory: a view of the last frame among it."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> Any:
        return torch.zeros(batch_size, self.channels_in, 2, device=device, dtype=dtype)

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        if x.shape[-1] == 0:
            return x, state
        heard = torch.cat((state, x), dim=-1).mT.contiguous().mT
        return functional.mish(heard[..., 1:-1]) + functional.gelu(state).sum(), heard[..., -2:]


@register("test_wide_level")
class WideLevel(StreamBlock):
    """A control of which every second channel is used, laid out over frames before it is bent."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.controls["levels"] = 2 * source.channels

    def prepare(self, controls: Any) -> Any:
        return controls["levels"][:, ::2].unsqueeze(-1).expand(-1, -1, 9)

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return x * functional.mish(controls).mean(-1, keepdim=True), state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", CURVES)
def test_how_memory_lies_between_actors_makes_no_difference(kind, dtype):
    blocks = {
        "bent": {"use": "test_curve", "kind": kind},
        "turned": {"use": "test_turned"},
        "hops": {"use": "framing", "size": 11, "hop": 5},
        "again": {"use": "test_curve", "kind": kind},
    }
    for channels, batch, used in ((7, 1, ["bent"]), (3, 2, ["bent", "turned"]), (1, 3, list(blocks))):
        graph = astrape.compile(recipe({name: blocks[name] for name in used}, channels=channels)).to(dtype)
        captured, plain = graph.stream(batch, chunk=21), graph.stream(batch)
        assert captured.captured_steps, captured.uncaptured
        for push in range(40):
            x = noise(graph, {"mic": 21}, push, batch) * 10
            assert_equal(graph, captured.push(x), plain.push(x))
            if push == 20:
                plain.restore(plain.snapshot())


def test_how_what_is_prepared_lies_makes_no_difference():
    controls = {"levels": {"channels": 10, "default": [0.1 * n for n in range(10)]}}
    graph = astrape.compile(recipe({"wide": {"use": "test_wide_level"}}, channels=5, controls=controls))
    captured, plain = graph.stream(2, chunk=17), graph.stream(2)
    assert captured.captured_steps
    for push in range(6):
        x = noise(graph, {"mic": 17}, push, 2)
        levels = {"levels": torch.randn(2, 10)} if push % 2 else {}
        assert_equal(graph, captured.push(x, **levels), plain.push(x, **levels))


def test_how_the_callers_memory_lies_makes_no_difference():
    graph = astrape.compile(recipe({"a": {"use": "activation", "kind": "gelu"}}, channels=2))
    captured, plain = graph.stream(chunk=441), graph.stream()
    for push in range(3):
        # As soundfile reads it, frames by channels.
        x = torch.randn(441, 2, generator=torch.Generator().manual_seed(push)).T[None]
        want = plain.push(x.contiguous())
        assert_equal(graph, captured.push(x), want)
        assert_equal(graph, graph.stream().push(x), want)
