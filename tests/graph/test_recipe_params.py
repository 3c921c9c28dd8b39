"""From nodes to blocks: parameters held against type hints, refusals given a place, memory kept in bounds."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, Optional

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from astrape import CausalityError, RateError, RecipeError
from astrape.blocks.base import Stream, StreamBlock
from astrape.blocks.registry import register
from astrape.graph.compile.budget import memory_budget
from astrape.graph.compile.coerce import Mismatch, kind_of
from astrape.graph.compile.params import build_block, parameters_of
from astrape.graph.recipe.location import FileLocation
from astrape.graph.recipe.node import Node, Reference

MIC = Stream(44100, 2)


@register("test-typed")
class Typed(StreamBlock):
    def __init__(
        self,
        source: Stream,
        *,
        channels: int,
        mode: Literal["half", "full", 3] = "half",
        rate: Fraction | None = None,
        gain: float | str = 1.0,
        levels: Sequence[int] = (),
        pair: tuple[int, float] = (1, 2.0),
        table: Mapping[str, float] | None = None,
        bias: bool = True,
        like: Optional[Annotated[int, "frames"]] = None,  # noqa: UP045
        sink: torch.device | None = None,
    ) -> None:
        super().__init__(source, channels=channels)
        self.got = (channels, mode, rate, gain, levels, pair, table, bias, like, sink)


@register("test-failing")
class Failing(StreamBlock):
    def __init__(self, source: Stream, *, kernel: int = 1, how: str = "") -> None:
        super().__init__(source)
        if how:
            raise {
                "value": ValueError(f"kernel must be 1 to 9, not {kernel}"),
                "rate": RateError("rates differ"),
                "causal": CausalityError("it looks ahead"),
                "key": KeyError("weights"),
                "runtime": RuntimeError("first line\nframe #0: c10::Error"),
                "zero": ZeroDivisionError(),
                "memory": MemoryError(),
                "overflow": OverflowError("too large"),
            }[how]


@register("test-sum")
class Sum(StreamBlock):
    variadic = True

    def __init__(self, sources: Mapping[str, Stream]) -> None:
        super().__init__(sources)


@register("test-plain")
class Plain(StreamBlock):
    pass


@register("test-open")
class Open(StreamBlock):
    def __init__(self, source: Stream, **options: Any) -> None:
        super().__init__(source)
        self.got = options


@register("test-layers")
class Layers(StreamBlock):
    def __init__(self, source: Stream, *, make: str, n: int = 2) -> None:
        super().__init__(source)
        if make == "linear":
            self.layer = nn.Linear(n, n)
        elif make == "outer":
            x = torch.arange(n, dtype=torch.float64)
            self.register_buffer("table", x[:, None] * x[None])
        elif make == "repeat":
            self.register_buffer("table", torch.ones(1024).repeat(n))
        elif make == "spread":
            self.register_buffer("table", torch.ones(1024, 1).expand(1024, n) + 1)
        elif make == "pieces":
            self.layers = nn.ModuleList(nn.Linear(n, n) for _ in range(1000))


def node(use: str, /, **params: Any) -> Node:
    locations = {key: FileLocation("f.yaml", 5 + index) for index, key in enumerate(params)}
    locations["use"] = FileLocation("f.yaml", 4)
    return Node("n", use, (("in", Reference("mic")),), params, False, {}, FileLocation("f.yaml", 3), locations)


def failure(use: str, source: Any = MIC, /, **params: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        build_block(node(use, **params), source)
    return str(caught.value)


def test_parameters_reach_the_constructor_as_it_wants_them() -> None:
    block = build_block(
        node(
            "test-typed",
            channels=3,
            mode=3,
            rate="200/3",
            gain=2,
            levels=[1, 2],
            pair=[4, 5],
            table={"a": 1},
            bias=False,
        ),
        MIC,
    )
    assert block.got == (3, 3, Fraction(200, 3), 2.0, [1, 2], (4, 5.0), {"a": 1.0}, False, None, None)
    assert [type(value) for value in (block.got[3], block.got[5][1])] == [float, float]
    block = build_block(node("test-typed", channels=1, rate=22050.1, gain="loudness", like=7), MIC)
    assert block.got[2:4] == (Fraction(220501, 10), "loudness")
    assert block.got[8] == 7


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"channels": 2.0}, "f.yaml:5: node 'n': channels is 2.0: give a whole number"),
        ({"channels": True}, "f.yaml:5: node 'n': channels is true: give a whole number"),
        ({"channels": "2"}, "f.yaml:5: node 'n': channels is '2': give a whole number"),
        ({"channels": 1 << 63}, "f.yaml:5: node 'n': channels is 9223372036854775808: give a whole number"),
        ({"channels": None}, "f.yaml:5: node 'n': channels is nothing: give a whole number"),
        ({}, "f.yaml:3: node 'n': block 'test-typed' lacks the parameter 'channels': add channels: a whole number"),
        ({"channels": 1, "mode": "hlaf"}, "f.yaml:6: node 'n': mode is 'hlaf': give one of 'half', 'full', 3"),
        ({"channels": 1, "mode": 3.0}, "f.yaml:6: node 'n': mode is 3.0: give one of"),
        ({"channels": 1, "gain": float("nan")}, "f.yaml:6: node 'n': gain is nan: give a finite number or text"),
        ({"channels": 1, "gain": [1]}, "f.yaml:6: node 'n': gain is a list of 1: give a finite number or text"),
        ({"channels": 1, "rate": "1e9"}, "f.yaml:6: node 'n': rate is '1e9': give an exact number or nothing"),
        ({"channels": 1, "rate": float("inf")}, "f.yaml:6: node 'n': rate is inf: give an exact number or nothing"),
        ({"channels": 1, "levels": [1, 2, 0.5]}, "f.yaml:6: node 'n': levels[2] is 0.5: give a whole number"),
        ({"channels": 1, "levels": 1}, "f.yaml:6: node 'n': levels is 1: give a list, each item a whole number"),
        (
            {"channels": 1, "pair": [1]},
            "f.yaml:6: node 'n': pair is a list of 1: give a list of 2 (a whole number, a finite",
        ),
        ({"channels": 1, "table": {"a": "b"}}, "f.yaml:6: node 'n': table.a is 'b': give a finite number"),
        ({"channels": 1, "bias": 1}, "f.yaml:6: node 'n': bias is 1: give true or false"),
        ({"channels": 1, "sink": "cpu"}, "f.yaml:6: node 'n': sink is 'cpu': give nothing"),
        (
            {"channels": 1, "source": 1},
            "f.yaml:6: node 'n': block 'test-typed' has no parameter 'source': choose from: bias",
        ),
        (
            {"channels": 1, "gian": 1},
            "f.yaml:6: node 'n': block 'test-typed' has no parameter 'gian': did you mean 'gain'?",
        ),
    ],
)
def test_parameters_that_do_not_fit(params: dict[str, Any], message: str) -> None:
    assert failure("test-typed", **params).startswith(message)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("value", "f.yaml:5: node 'n': kernel must be 1 to 9, not 0"),
        ("rate", "f.yaml:4: node 'n': rates differ"),
        ("causal", "f.yaml:4: node 'n': it looks ahead"),
        ("key", "f.yaml:4: node 'n': block 'test-failing' cannot be built: KeyError: 'weights'"),
        ("runtime", "f.yaml:4: node 'n': block 'test-failing' cannot be built: RuntimeError: first line"),
        ("zero", "f.yaml:4: node 'n': block 'test-failing' cannot be built: ZeroDivisionError"),
        ("memory", "f.yaml:4: node 'n': block 'test-failing' cannot be built: out of memory: make it smaller"),
        ("overflow", "f.yaml:4: node 'n': block 'test-failing' cannot be built: OverflowError: too large"),
    ],
)
def test_what_a_constructor_raises_gets_a_place(how: str, message: str) -> None:
    assert failure("test-failing", kernel=0, how=how) == message


def test_refusals_keep_their_kind() -> None:
    for how, kind in (("rate", RateError), ("causal", CausalityError)):
        with pytest.raises(kind):
            build_block(node("test-failing", how=how), MIC)


def test_unknown_blocks() -> None:
    assert failure("test-typd").startswith("f.yaml:4: node 'n': unknown block 'test-typd': did you mean 'test-typed'?")


def test_an_entry_point_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def load(self) -> None:
            raise ImportError("no module named 'elsewhere'")

    monkeypatch.setattr("astrape.blocks.registry._entry_points", lambda: {"broken": Broken()})
    assert (
        failure("broken")
        == "f.yaml:4: node 'n': block 'broken' cannot be loaded: ImportError: no module named 'elsewhere'"
    )


def test_one_input_or_several() -> None:
    assert list(build_block(node("test-sum"), MIC).inputs) == ["0"]
    assert list(build_block(node("test-sum"), {"a": MIC, "b": MIC}).inputs) == ["a", "b"]
    assert list(build_block(node("test-plain"), {"in": MIC}).inputs) == ["in"]
    message = failure("test-plain", {"0": MIC, "1": MIC})
    assert message.startswith(
        "f.yaml:3: node 'n': block 'test-plain' takes one input, and from gives mic: name one, or join"
    )
    assert failure("test-plain", {"0": MIC}).endswith("write from: NODE")
    assert failure("test-sum", {"0": MIC, "1": Stream(8, 2)}).startswith(
        "f.yaml:4: node 'n': Sum needs inputs at one rate"
    )


def test_constructors_without_parameters_and_with_any() -> None:
    assert parameters_of(Plain) == {}
    assert failure("test-plain", quantum=3).startswith(
        "f.yaml:5: node 'n': block 'test-plain' has no parameter 'quantum'"
    )
    assert build_block(node("test-open", a=1, b="x"), MIC).got == {"a": 1, "b": "x"}


@pytest.mark.parametrize("make", ["linear", "outer", "repeat", "spread", "pieces"])
def test_memory_is_refused_before_it_is_taken(make: str) -> None:
    n = {"pieces": 100, "repeat": 10**6, "spread": 10**6}.get(make, 60_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with memory_budget(total=16 << 20 if make == "pieces" else 4 << 30):
        message = failure("test-layers", make=make, n=n)
    assert message.startswith("f.yaml:4: node 'n': block 'test-layers' cannot be built: out of memory: ")
    # Each would take more than 2 GiB; the peak of the process, in KiB (bytes on macOS), hardly moves.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << (20 if sys.platform == "darwin" else 10)


def test_a_budget_is_shared_by_all_blocks_of_a_graph() -> None:
    spec = node("test-layers", make="linear", n=512)
    with memory_budget(total=5 << 20):
        for _ in range(4):
            build_block(spec, MIC)
        assert "out of memory: it takes the graph above 5 MiB" in failure("test-layers", make="linear", n=512)
    build_block(spec, MIC)


def test_what_a_block_makes_in_passing_is_forgotten() -> None:
    @register("test-passing")
    class Passing(StreamBlock):
        def __init__(self, source: Stream) -> None:
            super().__init__(source)
            self.register_buffer("kept", torch.ones(1024, 512)[:, :1].clone())

    with memory_budget(total=3 << 20) as budget:
        for _ in range(10):
            build_block(node("test-passing"), MIC)
        assert budget.kept == 10 * 4096


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["half", "200/3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
HINTS = [int, float, bool, str, None, Fraction, Any, object, list, dict, tuple, list[int], tuple[int, ...], tuple[()],
         dict[str, float], Literal["half", 1], int | str, float | None, Sequence[float | str], torch.Tensor,
         list[list[int]], Mapping[str, list[Fraction]], type[int], "unresolved"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(HINTS), JSON)
def test_a_hint_takes_a_value_or_says_what_it_expected(hint: Any, value: Any) -> None:
    try:
        taken = kind_of(hint).take(value)
    except Mismatch as mismatch:
        assert mismatch.expected  # noqa: PT017
        return
    if hint in (int, bool, str):
        assert type(taken) is hint
        assert taken == value
    if hint is Fraction:
        assert isinstance(taken, Fraction)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*parameters_of(Typed), "other"]), JSON, max_size=4))  # type: ignore[misc]
def test_any_parameters_give_a_block_or_a_recipe_error(params: dict[str, Any]) -> None:
    try:
        block = build_block(node("test-typed", **{"channels": 1, **params}), MIC)
    except RecipeError as error:
        assert str(error).startswith("f.yaml:")  # noqa: PT017
    else:
        assert isinstance(block, Typed)


def test_a_thousand_nodes_cost_little_beyond_their_blocks() -> None:
    spec = node("test-typed", channels=3, levels=[1, 2, 3], gain=0.5)
    with memory_budget():
        build_block(spec, MIC)
        started = time.process_time()
        for _ in range(1000):
            build_block(spec, MIC)
        built = time.process_time() - started
        started = time.process_time()
        for _ in range(1000):
            Typed(MIC, channels=3, levels=[1, 2, 3], gain=0.5)
        bare = time.process_time() - started
    assert built - bare < 0.5  # 0.06 s on one core of a small machine
