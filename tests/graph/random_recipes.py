"""Recipes drawn at random, of real blocks, and a naive model of token counts to hold their graphs against."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st

import astrape
from astrape.graph.graph import Graph

MOST_FRAMES = 150
"""Frames of all inputs in one period of a graph that a test is ready to run."""

FIX = re.compile(
    r"node '([^']+)'.*insert a delay of (\d+) frames \(at \S+ Hz\) before '([^']+)'"
    r"(?:, on what it reads from '([^']+)')?"
)

RATES = [600, 900, 1200]


class _Sketch:
    """A recipe as it grows: its blocks, and the signals that a next block may read."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw
        self.blocks: dict[str, Any] = {}
        self.signals: dict[str, tuple[Fraction, int]] = {}
        self.read: set[str] = set()
        self.controls: dict[str, Any] = {}

    def one_of(self, items: list[Any]) -> Any:
        return self.draw(st.sampled_from(items))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def put(
        self, use: str, source: Any, rate: Fraction, channels: int, /, *, name: str | None = None, **params: Any
    ) -> str:
        name = name or f"{use}{len(self.blocks)}"
        self.blocks[name] = {"use": use, "from": source, **params}
        self.read |= {source} if isinstance(source, str) else set(source)
        self.signals[name] = (rate, channels)
        return name

    def mono(self, source: str) -> str:
        rate, channels = self.signals[source]
        return source if channels == 1 else self.put("linear", source, rate, 1, channels=1)

    def pointwise(self, source: str) -> str:
        rate, channels = self.signals[source]
        kinds: list[tuple[str, dict[str, Any]]] = [
            ("gain", {"gain": self.one_of([0.5, -0.8])}),
            ("gain", {"gain": "level", "smooth_ms": self.one_of([0, 3])}),
            ("delay", {"frames": self.number(0, 5)}),
            ("norm", {"kind": self.one_of(["rms", "layer"])}),
            ("activation", {"kind": self.one_of(["gelu", "snake_beta"])}),
            ("conv", {"kernel": self.number(1, 4), "dilation": self.number(1, 2)}),
            ("biquad", {"kind": "lowpass", "frequency": float(rate) / 5}),
        ]
        use, params = self.one_of(kinds)
        if params.get("gain") == "level":
            self.controls["level"] = {"channels": 1, "default": 0.7}
        if self.number(0, 5) == 0:
            params = {**params, "repeat": 2}
        return self.put(use, source, rate, channels, **params)

    def resize(self, source: str) -> None:
        rate, channels = self.signals[source]
        use = self.one_of(["conv", "transposed_conv", "repeat_upsample", "downsample", "linear", "gru"])
        factor, wide = self.number(2, 3), self.number(1, 3)
        if use == "conv":
            more = {"kernel": self.number(1, 5), "stride": factor, "align": self.one_of(["last", "first"])}
            self.put(use, source, rate / factor, wide, channels=wide, **more)
        elif use == "transposed_conv":
            self.put(use, source, rate * factor, wide, channels=wide, kernel=factor + self.number(0, 3), stride=factor)
        elif use == "repeat_upsample":
            self.put(use, source, rate * factor, channels, factor=factor)
        elif use == "downsample":
            self.put(use, source, rate / factor, wide, channels=wide, factor=factor)
        else:
            self.put(use, source, rate, wide, channels=wide)

    def transform(self, source: str) -> None:
        source = self.mono(source)
        rate, _ = self.signals[source]
        hop = self.number(1, 4)
        kind = self.number(0, 2)
        if kind == 0:
            size = hop * self.number(1, 3)
            frames = self.put("framing", source, rate / hop, size, size=size, hop=hop)
            if self.number(0, 2):
                self.put("overlap_add", frames, rate, 1, hop=hop)
        elif kind == 1:
            hop = 2 * self.number(1, 2)
            size = 4 * hop
            frames = self.put("stft", source, rate / hop, 2 * (size // 2 + 1), n_fft=size, hop=hop)
            self.put("istft", frames, rate, 1, n_fft=size, hop=hop)
        else:
            to = self.one_of([r for r in RATES if r != rate])
            self.put("resampler", source, Fraction(to), 1, rate=to, zeros=self.number(3, 5), stopband_db=40)

    def split(self, source: str) -> None:
        rate, channels = self.signals[source]
        name = self.put("split", source, rate, channels, parts=[1, channels - 1])
        del self.signals[name]
        self.signals[f"{name}.0"], self.signals[f"{name}.1"] = (rate, 1), (rate, channels - 1)

    def join(self, source: str) -> None:
        rate, _ = self.signals[source]
        others = [name for name, (r, _) in self.signals.items() if r == rate]
        chosen = [source, *(self.one_of(others) for _ in range(self.number(1, 2)))]
        use = self.one_of(["add", "concat", "mix"])
        if use == "concat":
            width = sum(self.signals[name][1] for name in chosen)
            self.put(use, chosen, rate, width)
            return
        chosen = [self.mono(name) for name in chosen]
        if use == "add":
            self.put(use, chosen, rate, 1)
        else:
            self.put(use, chosen, rate, 1, weights=[0.5] * len(chosen))

    def loop(self, source: str) -> None:
        source = self.mono(source)
        rate, _ = self.signals[source]
        tag = len(self.blocks)
        head = self.put("add", [source, f"quiet{tag}"], rate, 1, name=f"head{tag}")
        body, turn = head, 1
        for _ in range(self.number(0, 2)):
            body = self.pointwise(body)
        if self.number(0, 1):
            turn = self.number(2, 4)
            frames = self.put("framing", body, rate / turn, turn, size=turn, hop=turn)
            body = self.put("overlap_add", frames, rate, 1, hop=turn)
        elif self.number(0, 1):
            turn = 2
            frames = self.put("stft", body, rate / 2, 10, n_fft=8, hop=2)
            body = self.put("istft", frames, rate, 1, n_fft=8, hop=2)
        joined = self.put("add", [body, head], rate, 1) if self.number(0, 1) else body
        back = self.put("delay", joined, rate, 1, name=f"back{tag}", frames=turn + self.number(0, 9))
        quiet = self.put("gain", back, rate, 1, name=f"quiet{tag}", gain=0.2)
        self.read.discard(self.one_of([head, joined, back, quiet]))

    def nest(self, source: str) -> None:
        rate, channels = self.signals[source]
        inner = {
            "recipe": "inner",
            "inputs": {"x": {"rate": str(rate), "channels": channels}},
            "blocks": {
                "a": {"use": "conv", "from": "x", "kernel": 3},
                "late": {"use": "delay", "frames": self.number(0, 3)},
                "b": {"use": "add", "from": ["x", "late"]},
            },
            "outputs": {"y": "b"},
        }
        self.put("graph", source, rate, channels, recipe=inner)


@st.composite
def random_recipes(draw: Any, blocks: int = 9) -> dict[str, Any]:
    """A recipe of one or two inputs of any rates and at most about ``blocks`` drawn steps, all of it in use."""
    sketch = _Sketch(draw)
    inputs = {}
    for index in range(sketch.number(1, 2)):
        stream = {"rate": sketch.one_of(RATES), "channels": sketch.number(1, 2)}
        inputs[f"in{index}"] = stream
        sketch.signals[f"in{index}"] = (Fraction(stream["rate"]), stream["channels"])
    for _ in range(sketch.number(1, blocks)):
        source = sketch.one_of(list(sketch.signals)[-5:])
        kinds: list[Callable[[str], Any]] = [
            sketch.pointwise,
            sketch.resize,
            sketch.transform,
            sketch.join,
            sketch.join,
            sketch.loop,
            sketch.nest,
        ]
        if sketch.signals[source][1] > 1:
            kinds.append(sketch.split)
        sketch.one_of(kinds)(source)
    leaves = [name for name in sketch.signals if name not in sketch.read]
    extra = [sketch.one_of(list(sketch.signals)) for _ in range(sketch.number(0, 1))]
    outputs = {f"out{index}": name for index, name in enumerate([*leaves, *extra])}
    return {
        "recipe": "random",
        "inputs": inputs,
        "controls": sketch.controls,
        "blocks": sketch.blocks,
        "outputs": outputs,
    }


@st.composite
def uneven_recipes(draw: Any) -> dict[str, Any]:
    """Resamplers in a row, between rates of which none divides another: both latencies end within a frame.

    What passes them is late, and otherwise unchanged.
    """
    rates = draw(st.permutations([3200, 4000, 4800, 6000, 7200]))[: draw(st.integers(2, 4))]
    blocks = {
        f"to{rate}": {"use": "resampler", "rate": rate, "zeros": draw(st.integers(5, 8)), "stopband_db": 50}
        for rate in rates[1:]
    }
    inputs = {"mic": {"rate": rates[0], "channels": 1}}
    return {"recipe": "uneven", "inputs": inputs, "blocks": blocks, "outputs": {"wav": f"to{rates[-1]}"}}


@st.composite
def crooked_recipes(draw: Any) -> dict[str, Any]:
    """Two or three ways from 1200 Hz to 200 Hz, late by fractions of a frame where they meet, with side paths."""
    sketch = _Sketch(draw)
    sketch.signals["mic"] = (Fraction(1200), 1)
    ends = []
    for _ in range(sketch.number(2, 3)):
        at = sketch.one_of(["mic", "mic", *(name for name, (rate, _) in sketch.signals.items() if rate == 1200)])
        for factor in sketch.one_of([[2, 3], [3, 2], [6]]):
            for _ in range(sketch.number(0, 1)):
                at = sketch.put("delay", at, sketch.signals[at][0], 1, frames=sketch.number(0, 4))
            rate = sketch.signals[at][0]
            if sketch.number(0, 2) == 0:
                beside = [name for name, (other, _) in sketch.signals.items() if other == rate]
                at = sketch.put("add", [at, sketch.one_of(beside)], rate, 1)
            align = sketch.one_of(["first", "last"])
            at = sketch.put("conv", at, rate / factor, 1, channels=1, kernel=factor, stride=factor, align=align)
        ends.append(at)
    sketch.put("add", ends, Fraction(200), 1, name="mix")
    leaves = [name for name in sketch.signals if name not in sketch.read]
    return {
        "recipe": "crooked",
        "inputs": {"mic": {"rate": 1200, "channels": 1}},
        "blocks": sketch.blocks,
        "outputs": {f"out{index}": name for index, name in enumerate(leaves)},
    }


def compiled(recipe: dict[str, Any], seed: int = 0) -> Graph:
    """The graph in float64, after whatever alignment errors ask for; other honest refusals discard the example."""
    settled = None
    for _ in range(12):
        torch.manual_seed(seed)
        try:
            graph = astrape.compile(recipe).double()
        except astrape.AlignmentError as error:
            refused = re.search(r"node '([^']+)'", str(error))
            if refused is not None and refused[1] == settled:
                raise AssertionError(f"fixed as it says, and refused again: {error}\n{recipe}") from error
            settled, recipe = fixed(recipe, str(error))
            continue
        except astrape.RateError as error:
            assume("meet only every" not in str(error))
            raise
        assume(sum(graph.consumes.values()) <= MOST_FRAMES)
        return graph
    raise AssertionError(f"alignment errors fixed twelve times, and still: {recipe}")


def fixed(recipe: dict[str, Any], message: str) -> tuple[str, dict[str, Any]]:
    """The node that is refused, and the recipe with the delay that is proposed; no proposal discards the example."""
    found = FIX.search(message)
    assume(found is not None)
    assert found is not None
    refused, frames, node, read = found.groups()
    assume("/" not in node)
    blocks = {name: dict(spec) for name, spec in recipe["blocks"].items()}
    source = blocks[node]["from"]
    pause = f"pause{len(blocks)}"
    if read is None:
        assert isinstance(source, str), message
        read, blocks[node]["from"] = source, pause
    else:
        # What stands for the last of a repeated block, as tables name it, a recipe reads by the block's name.
        read = read if read in source else read.rpartition("/")[0]
        index = source.index(read)
        blocks[node]["from"] = [*source[:index], pause, *source[index + 1 :]]
    blocks[pause] = {"use": "delay", "from": read, "frames": int(frames)}
    return refused, {**recipe, "blocks": blocks}


def arrivals(graph: Graph, periods: int = 1) -> list[tuple[Fraction, list[str]]]:
    """Times at which frames have been heard, in order, each with the inputs that a frame of ends then."""
    times: dict[Fraction, list[str]] = {}
    for name, count in graph.consumes.items():
        for n in range(periods * count):
            times.setdefault((n + 1) / graph.inputs[name].rate, []).append(name)
    return sorted(times.items())


def counted_framings(graph: Graph, periods: int = 2) -> dict[str, Fraction]:
    """Framing latency of every output, found by firing the actors one by one as frames arrive in order of time."""
    held = {(actor.name, port): 0 for actor in graph.actors for port in actor.sources}
    produced = dict.fromkeys(graph.outputs, 0)
    late = dict.fromkeys(graph.outputs, Fraction(0))
    readers: dict[Any, list[tuple[str, str]]] = {}
    for actor in graph.actors:
        for port, read in actor.sources.items():
            readers.setdefault(read, []).append((actor.name, port))
    rules = [(actor, actor.block.consumes, actor.block.produces) for actor in graph.actors]

    def arrive(wire: Any, count: int, now: Fraction) -> None:
        for output, wired in graph.wiring.items():
            for _ in range(count if wired == wire else 0):
                produced[output] += 1
                late[output] = max(late[output], now - produced[output] / graph.outputs[output].rate)
        for reader in readers.get(wire, ()):
            held[reader] += count

    for now, names in arrivals(graph, periods):
        for name in names:
            arrive((name, "out"), 1, now)
        fired = True
        while fired:
            fired = False
            for actor, consumes, produces in rules:
                if all(held[actor.name, port] >= need for port, need in consumes.items()):
                    for port, need in consumes.items():
                        held[actor.name, port] -= need
                    for port, wire in actor.wires.items():
                        arrive(wire, produces[port], now)
                    fired = True
    return late
