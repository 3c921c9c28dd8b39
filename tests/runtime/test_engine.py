"""The live engine in virtual time: exact delay, dropouts by count, no drift, no clicks."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import astrape
from astrape.errors import AstrapeError, StreamError
from astrape.graph.graph import Graph
from astrape.runtime.conceal import FADES, RETURN
from astrape.runtime.engine import Engine
from astrape.runtime.pacing import framing_hold, needed_hold
from tests.runtime.virtual import VirtualHost, blocks, delayed, late_frames, speech

CONTROL = {"level": {"channels": 1, "default": 1.0, "min": 0.0, "max": 2.0}}


def graph(blocks: dict[str, Any], rate: int = 44100, **rest: Any) -> Graph:
    inputs = {"mic": {"rate": rate, "channels": 1}}
    recipe = {"recipe": "test", "inputs": inputs, "blocks": blocks, "outputs": {"wav": list(blocks)[-1]}, **rest}
    return astrape.compile(recipe)


def framed(size: int = 441, rate: int = 44100) -> Graph:
    """Gives back what it got, a quantum at a time."""
    return graph({"f": {"use": "framing", "size": size, "hop": size}, "o": {"use": "overlap_add", "hop": size}}, rate)


def levelled(rate: int = 44100) -> Graph:
    return graph({"level": {"use": "gain", "gain": "level", "smooth_ms": 0}}, rate, controls=CONTROL)


def run(engine: Engine, x: np.ndarray, cost: Any = lambda k: 0.0) -> np.ndarray:
    host = VirtualHost(engine, cost)
    return np.concatenate([host.callback(block) for block in blocks(x, engine.block)], axis=1)


def after(y: np.ndarray, x: np.ndarray, engine: Engine, begin: int = 0) -> None:
    """From frame ``begin`` on, ``y`` is ``x`` by the latency later."""
    np.testing.assert_allclose(y[:, begin:], delayed(x, engine.latency)[:, begin : y.shape[1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("block", [64, 128, 441, 480, 1024])
def test_the_output_is_the_graphs_by_the_latency_later(block, inline):
    voice = astrape.load("voice-changer")
    engine = Engine(voice, 48000, block, hold=0 if inline else 2 * block)
    hosted = voice.hosted(48000)
    x = speech(1, 24000 // block * block)
    y = run(engine, x)
    frames = -(-x.shape[1] // hosted.quantum) * hosted.quantum
    whole = hosted(torch.from_numpy(np.pad(x, ((0, 0), (0, frames - x.shape[1]))))[None])[0].numpy()
    assert engine.latency == math.ceil(hosted.latency * 48000) + engine.pace.hold
    assert engine.status().dropouts == 0
    held = engine.latency - math.ceil(hosted.latency * 48000)
    np.testing.assert_allclose(y, delayed(whole, held)[:, : y.shape[1]], rtol=0, atol=2e-5)


def test_blocks_that_are_whole_quanta_wait_for_nothing():
    engine = Engine(framed(), 44100, 441, hold=0)
    assert engine.latency == 0
    assert framed().host_samples == 440 == engine.status().host
    x = speech(1, 4410)
    after(run(engine, x), x, engine)


@pytest.mark.parametrize(("block", "hold"), [(64, 440), (440, 440), (441, 0), (882, 0), (147, 294), (100, 440)])
def test_framing_is_counted_for_the_block(block, hold):
    # By hand: 147 frames are a third of a quantum, of which two blocks have gone by when the third makes it whole.
    assert framing_hold(framed(), "wav", block) == hold


@settings(max_examples=60)
@given(
    block=st.sampled_from([64, 100, 441, 480]),
    quantum=st.sampled_from([1, 60, 441, 480]),
    loads=st.lists(st.floats(0.0, 0.9), min_size=1, max_size=40),
)
def test_what_is_held_is_just_enough(block, quantum, loads):
    g = framed(quantum) if quantum > 1 else levelled()
    positions = quantum // math.gcd(quantum, block)
    costs = [loads[k % len(loads)] * block / 44100 for k in range(positions)]
    hold = needed_hold(g, "wav", block, costs)

    def missing(held: int) -> int:
        turns = 3
        return sum(late_frames(block, 44100.0, held, costs * turns, lambda n: n // quantum * quantum))

    assert missing(hold) == 0
    assert missing(hold - 1) > 0


@settings(max_examples=25)
@given(
    block=st.sampled_from([64, 128, 441, 480]),
    hold=st.integers(0, 6),
    stalls=st.dictionaries(st.integers(5, 150), st.floats(0.001, 0.06), max_size=5),
)
def test_every_dropout_is_counted_and_the_delay_stays(block, hold, stalls):
    engine = Engine(framed(), 44100, block, hold=(hold + 1) * block)
    count = 44100 // block

    def cost(k: int) -> float:
        return 0.3 * block / 44100 + stalls.get(k, 0.0)

    x = speech(1, count * block)
    y = run(engine, x, cost)
    costs = [cost(k) for k in range(count)]
    missing = late_frames(block, 44100.0, engine.pace.hold, costs, lambda n: n // 441 * 441)
    status = engine.status()
    if status.skipped:
        return  # a long stall; the next test
    assert status.missing == sum(missing)
    # A gap begins where frames are missing after some were there.
    gaps = sum(m > 0 and (k == 0 or missing[k - 1] == 0 or m < block) for k, m in enumerate(missing))
    assert status.dropouts == gaps
    assert np.isfinite(y).all()
    # Where nothing was missing, and what faded in has faded in, the frames are the right ones.
    right = np.ones(y.shape[1], bool)
    for k, m in enumerate(missing):
        if m:
            right[(k + 1) * block - m : (k + 1) * block + math.ceil(RETURN * 44100) + 1] = False
    expected = delayed(x, engine.latency)
    np.testing.assert_allclose(y[:, right], expected[:, right], rtol=0, atol=1e-6)


@pytest.mark.parametrize("stall", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("policy", ["repeat", "silence", "bypass"])
def test_after_a_long_stall_it_is_in_time_again(stall, policy):
    engine = Engine(framed(), 44100, 441, hold=441, overload=policy)
    x = speech(1, 441 * 800)
    y = run(engine, x, lambda k: stall if k == 100 else 0.002)
    status = engine.status()
    assert status.dropouts == 1
    assert status.skipped > 0
    assert engine.latency == 441
    # In time within a tenth of a second after the stall is over.
    begin = 44100 + int((stall + 0.15) * 44100)
    after(y, x, engine, begin)
    gap = slice(44100 + 2 * 441 + round(FADES[policy] * 44100), 44100 + int(stall * 44100))
    heard = y[:, gap]
    if policy == "bypass":
        np.testing.assert_allclose(heard, delayed(x, engine.latency)[:, gap], atol=1e-6)
    else:
        assert not heard.any()


def test_what_waits_in_a_graph_is_not_heard_later_than_its_time():
    # A look-ahead of 40 ms, which changes nothing: noise goes through as it is, 1764 frames later.
    ahead = graph({"safe": {"use": "limiter", "ceiling_db": 0.0, "lookahead_ms": 40.0}})
    assert ahead.latency == Fraction(1764, 44100)
    engine = Engine(ahead, 44100, 441, hold=441, overload="silence")
    x = speech(1, 441 * 400)
    y = run(engine, x, lambda k: 0.3 if k in (100, 200) else 0.002)
    status = engine.status()
    assert engine.latency == 1764 + 441
    assert status.dropouts == 2
    # What is heard is the input by the latency before, fading out or in, or nothing: never anything else.
    wanted = delayed(x, engine.latency)
    share = np.divide(y, wanted, out=np.zeros_like(y), where=np.abs(wanted) > 0.05)
    wrong = np.flatnonzero((share < -1e-4) | (share > 1 + 1e-4))
    # But for the last sound, which is played again for 5 ms while it fades out.
    fades = status.dropouts * math.ceil(FADES["silence"] * 44100)
    assert len(wrong) <= fades
    assert status.missing >= 2 * 1764


@pytest.mark.parametrize("policy", ["repeat", "silence", "bypass"])
def test_a_gap_has_no_click(policy):
    engine = Engine(framed(), 44100, 441, hold=441, overload=policy)
    time = np.arange(441 * 300) / 44100
    x = (0.5 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)[None]
    y = run(engine, x, lambda k: 0.2 if k == 100 else 0.002)
    assert engine.status().dropouts == 1
    # The steepest slope of the tone, twice for a fade between two of them, and the fade's own.
    slope = 0.5 * 2 * np.pi * 200 / 44100
    assert np.abs(np.diff(y[0])).max() < 2 * slope + 1.0 / (RETURN * 44100)


def test_an_overload_that_lasts_does_not_make_the_delay_grow():
    engine = Engine(framed(), 44100, 441, hold=882)
    x = speech(1, 441 * 3000)
    busy = range(200, 800)
    y = run(engine, x, lambda k: 0.02 if k in busy else 0.002)
    status = engine.status()
    assert status.dropouts > 50
    assert engine.latency == 882
    after(y, x, engine, 441 * 2900)


@pytest.mark.parametrize("inline", [True, False])
def test_controls_change_within_a_quantum_and_without_a_click(inline):
    engine = Engine(levelled(), 44100, 64, hold=0 if inline else 128)
    ones = np.ones((1, 64), np.float32)
    host = VirtualHost(engine, lambda k: 0.0)
    y = [host.callback(ones) for _ in range(20)]
    engine.set(level=0.25)
    y += [host.callback(ones) for _ in range(30)]
    whole = np.concatenate(y, axis=1)[0]
    assert whole[19 * 64] == 1.0
    assert whole[-1] == 0.25
    assert np.abs(np.diff(whole[engine.latency :])).max() < 1.01 * 0.75 / 441
    # The fade is 10 ms long.
    moving = np.flatnonzero(np.diff(whole[engine.latency :]))
    assert moving[-1] - moving[0] == 440


def test_a_slider_that_moves_on_during_a_fade_ends_where_it_was_let_go():
    engine = Engine(levelled(), 44100, 64, hold=0)
    ones = np.ones((1, 64), np.float32)
    host = VirtualHost(engine, lambda k: 0.0)
    for level in np.linspace(1, 2, 50):
        engine.set(level=float(level))
        host.callback(ones)
    y = np.concatenate([host.callback(ones) for _ in range(20)], axis=1)
    assert y[0, -1] == 2.0


def test_wrong_controls_are_refused_where_they_are_given():
    engine = Engine(levelled(), 44100, 64, hold=0)
    with pytest.raises(StreamError, match="above 2"):
        engine.set(level=3.0)
    with pytest.raises(StreamError, match="did you mean 'level'"):
        engine.set(levle=1.0)
    x = speech(1, 640)
    after(run(engine, x), x, engine)


@pytest.mark.parametrize("inline", [True, False])
def test_another_graph_takes_over_without_a_gap(inline):
    engine = Engine(levelled(), 44100, 441, hold=0 if inline else 441)
    first = engine.latency
    host = VirtualHost(engine, lambda k: 0.001)
    x = speech(1, 441 * 300)
    pieces = list(blocks(x, 441))
    y = [host.callback(block) for block in pieces[:100]]
    slow = graph({"d": {"use": "delay", "frames": 1000}, "g": {"use": "gain", "gain": 2.0}})
    engine.switch(slow)
    y += [host.callback(block) for block in pieces[100:]]
    whole = np.concatenate(y, axis=1)
    # A delay counts its delay: 1000 frames more, and the sound stands where it is said to stand.
    assert engine.latency == 1000 + (0 if inline else 441)
    assert engine.status().dropouts == 0
    np.testing.assert_allclose(whole[:, : 441 * 100], delayed(x, first)[:, : 441 * 100], atol=1e-6)
    np.testing.assert_allclose(whole[:, 441 * 150 :], 2 * delayed(x, engine.latency)[:, 441 * 150 :], atol=1e-6)
    engine.switch(levelled())
    again = np.concatenate([host.callback(block) for block in pieces], axis=1)
    assert engine.latency == 1000 + (0 if inline else 441)
    np.testing.assert_allclose(again[:, 441 * 60 :], delayed(x, engine.latency)[:, 441 * 60 :], atol=1e-6)


def test_a_graph_of_other_channels_does_not_take_over():
    engine = Engine(levelled(), 44100, 441, hold=0)
    stereo = astrape.compile(
        {
            "recipe": "two",
            "inputs": {"mic": {"rate": 44100, "channels": 2}},
            "blocks": {"g": {"use": "gain", "gain": 1.0}},
            "outputs": {"wav": "g"},
        }
    )
    with pytest.raises(AstrapeError, match="start anew"):
        engine.switch(stereo)


def test_bypass_is_the_input_by_the_latency_later():
    engine = Engine(graph({"g": {"use": "gain", "gain": 0.0}}), 44100, 64, hold=128)
    x = speech(1, 6400)
    host = VirtualHost(engine, lambda k: 0.0)
    pieces = list(blocks(x, 64))
    y = [host.callback(block) for block in pieces[:20]]
    engine.bypass = True
    y += [host.callback(block) for block in pieces[20:60]]
    engine.bypass = False
    y += [host.callback(block) for block in pieces[60:]]
    whole = np.concatenate(y, axis=1)
    assert not whole[:, : 20 * 64].any()
    np.testing.assert_allclose(whole[:, 1800 : 60 * 64], delayed(x, 128)[:, 1800 : 60 * 64], atol=1e-6)
    assert not whole[:, 60 * 64 + 441 :].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_input_that_is_not_finite_does_not_stay(value):
    voice = graph({"low": {"use": "biquad", "kind": "lowpass", "frequency": 500.0}})
    engine = Engine(voice, 44100, 441, hold=441)
    x = speech(1, 44100)
    dirty = x.copy()
    dirty[0, 4410] = value
    y = run(engine, dirty)
    assert np.isfinite(y).all()
    assert np.abs(y[:, -441:]).max() > 0.01
    assert engine.status().repaired == 1


def test_hosts_whose_blocks_vary_get_the_host_latency_and_the_same_frames():
    voice = astrape.load("voice-changer")
    engine = Engine(voice, 44100, 512, fixed=False, inline=True)
    assert engine.latency == voice.host_samples
    x = speech(1, 30000)
    sizes = np.random.default_rng(3).integers(0, 513, 200)
    y, position = [], 0
    for size in sizes:
        block = x[:, position : position + size]
        out = np.empty_like(block)
        engine.process(block, out)
        y.append(out)
        position += size
    whole = np.concatenate(y, axis=1)
    reference = voice.stream(constant_latency=True).push(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(whole[:, : x.shape[1]], reference[:, : whole.shape[1]], rtol=0, atol=2e-5)
    assert engine.status().dropouts == 0


def test_a_thread_computes_what_virtual_time_computes():
    engine = Engine(framed(), 44100, 441, hold=441)
    x = speech(1, 44100)
    engine.start()
    y = []
    for block in blocks(x, 441):
        out = np.empty_like(block)
        engine.process(block, out)
        y.append(out)
        while engine.waiting:
            assert engine.failure is None
    engine.stop()
    after(np.concatenate(y, axis=1), x, engine)
    assert engine.status().dropouts == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hold": 10}, "at least the 441"),
        ({"overload": "panic"}, "choose from: repeat, silence, bypass"),
        ({"block": 0}, "at least 1 frame"),
    ],
)
def test_what_cannot_be_is_refused(given, words):
    with pytest.raises(AstrapeError, match=words):
        Engine(framed(), 44100, **{"block": 441, **given})
