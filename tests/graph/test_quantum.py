"""One quantum as a pure function: what ``graph.step`` gives, with named leaves of static shapes, by any policy."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

import astrape
from astrape.blocks import Stream, StreamBlock, register
from astrape.blocks.policy import COMPILER, PLAIN, PORTABLE
from astrape.errors import StreamError
from astrape.graph.quantum import Quantum, StepInPlace
from astrape.graph.recipe import shipped_recipes
from tests.graph.recipes import recipe

LIGHT = ["astrape-mini", "astrape-vc-small", "denoiser", "echo", "multirate", "robot-voice", "voice-changer"]


def drawn(quantum: Quantum, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {leaf.name: 0.1 * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) for leaf in quantum.inputs}


@pytest.mark.parametrize("by", [PLAIN, COMPILER, PORTABLE], ids=lambda item: item.name)
@pytest.mark.parametrize("name", LIGHT)
def test_it_is_the_step_by_every_policy(name: str, by) -> None:
    torch.manual_seed(0)
    graph = astrape.load(name).double().eval()
    quantum = Quantum(graph, batch_size=2, quanta=2, policy=by)
    with torch.no_grad():
        values = quantum.some_controls(1)
        prepared, state, own = quantum.prepare(values), quantum.first_state(), graph.init_state(2, dtype=torch.float64)
        for step in range(3):
            x = drawn(quantum, step)
            y, state = quantum(x, prepared, {name: tensor.clone() for name, tensor in state.items()})
            want, own = graph.step(x if len(x) > 1 else next(iter(x.values())), own, values)
            want = want if isinstance(want, dict) else {graph.main: want}
            assert list(y) == [leaf.name for leaf in quantum.outputs] == list(graph.outputs)
            for port, tensor in want.items():
                torch.testing.assert_close(y[port], tensor, rtol=1e-9, atol=1e-11)
            for leaf in quantum.state:
                assert (state[leaf.name].shape, state[leaf.name].dtype) == (leaf.shape, leaf.dtype)
                assert state[leaf.name].is_contiguous()


@register("test_hands_on")
class _HandsOn(StreamBlock):
    """Remembers a frame in one leaf and the one before it in another, and gives the latter as it lies there."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)

    def init_state(self, batch_size=1, device=None, dtype=None):
        return tuple(torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype) for _ in range(2))

    def step(self, x, state, controls):
        newer, older = state
        return older[..., :1], (x[..., -1:], newer)


def test_a_state_that_is_written_where_it_lies_is_read_before() -> None:
    graph = astrape.compile(recipe({"h": {"use": "test_hands_on"}}))
    quantum = Quantum(graph, policy=COMPILER)
    step, leaves = StepInPlace(quantum), quantum.example()
    given = []
    for value in range(1, 6):
        leaves[0].fill_(value)
        given.append([float(tensor) for tensor in step(*leaves)])
    assert given == [[0.0], [0.0], [1.0], [2.0], [3.0]]


@pytest.mark.parametrize("name", LIGHT)
def test_a_step_in_place_is_the_step(name: str) -> None:
    torch.manual_seed(0)
    quantum = Quantum(astrape.load(name).double().eval(), batch_size=2, policy=COMPILER)
    step = StepInPlace(quantum)
    with torch.no_grad():
        prepared, state = quantum.prepare(quantum.some_controls(1)), quantum.first_state()
        own = {name: tensor.clone() for name, tensor in state.items()}
        for seed in range(3):
            x = drawn(quantum, seed)
            got = step(*quantum.flat(x, prepared, own))
            # By a policy that writes a ring of keys where it lies.
            want, state = quantum(x, prepared, {key: tensor.clone() for key, tensor in state.items()})
            for y, (port, tensor) in zip(got, want.items(), strict=True):
                assert torch.equal(y, tensor), port
            assert all(torch.equal(own[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("name", LIGHT)
def test_nothing_that_went_in_is_changed(name: str) -> None:
    torch.manual_seed(0)
    quantum = Quantum(astrape.load(name).eval(), policy=PORTABLE)
    with torch.no_grad():
        given = (drawn(quantum, 0), quantum.prepare(quantum.some_controls()), quantum.first_state())
        before = [{name: tensor.clone() for name, tensor in part.items()} for part in given]
        quantum(*given)
    for part, held in zip(given, before, strict=True):
        assert all(torch.equal(part[name], held[name]) for name in held)


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_leaf_of_every_recipe_has_a_name_of_its_own(name: str) -> None:
    graph = astrape.load(name)
    quantum = Quantum(graph)
    names = [leaf.name for leaf in quantum.state]
    assert len(set(names)) == len(names)
    assert sum(tensor.numel() for tensor in quantum.first_state().values()) * 4 >= 0
    again = quantum.leaves(quantum.tree(quantum.first_state()))
    assert list(again) == names
    assert all(torch.equal(again[name], tensor) for name, tensor in quantum.first_state().items())


def test_whole_quanta_wait_for_their_last_frame() -> None:
    blocks = {"g": {"use": "gain", "gain": 0.5}, "f": {"use": "framing", "size": 4, "hop": 4, "from": "mic"}}
    graph = astrape.compile(recipe(blocks, outputs={"wav": "g", "frames": "f"}))
    quantum = Quantum(graph, quanta=3)
    assert quantum.period == Fraction(12, 1000)
    # The graph itself lets each sample go on at once.
    assert graph.framings["wav"].seconds == 0
    assert quantum.framings == {"wav": Fraction(11, 1000), "frames": Fraction(8, 1000)}
    assert quantum.host_latencies["wav"] == 11


@register("test_counts_its_control")
class _CountsItsControl(StreamBlock):
    """Makes a Python number of a control, which no compiled step can take as an argument."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.live("level")

    def prepare(self, controls):
        return float(controls["level"].sum())

    def step(self, x, state, controls):
        return x * controls, state


def test_what_cannot_be_an_argument_is_refused() -> None:
    blocks = {"c": {"use": "test_counts_its_control"}}
    graph = astrape.compile(recipe(blocks, controls={"level": {"channels": 1, "default": 1.0}}))
    with pytest.raises(StreamError, match="'c' makes of level something other than a tensor of one shape"):
        Quantum(graph)
    with pytest.raises(StreamError, match="quanta must be a whole number of at least 1, not 0"):
        Quantum(astrape.load("echo"), quanta=0)
