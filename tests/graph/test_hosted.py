"""Graphs in hosts at other rates: a pulse comes out where the graph says, to a part of a sample."""

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
from astrape.graph.graph import Graph
from tests.graph.recipes import counted_framing, recipe

HOSTS = [48000, 96000, 32000, 16000]

CORES: dict[str, dict[str, Any]] = {
    "delay": {"d": {"use": "delay", "frames": 37}},
    "frames": {"f": {"use": "framing", "size": 441, "hop": 441}, "o": {"use": "overlap_add", "hop": 441}},
    "spectra": {"s": {"use": "stft", "n_fft": 1024, "hop": 256}, "o": {"use": "istft", "n_fft": 1024, "hop": 256}},
    "slower": {"down": {"use": "resampler", "rate": 16000}, "up": {"use": "resampler", "rate": 44100}},
    "dry and wet": {
        "s": {"use": "stft", "n_fft": 512, "hop": 128},
        "o": {"use": "istft", "n_fft": 512, "hop": 128},
        "mix": {"use": "add", "from": ["mic", "o"]},
        "half": {"use": "gain", "gain": 0.5},
    },
    "loop": {
        "into": {"use": "add", "from": ["mic", "back"]},
        "back": {"use": "delay", "frames": 30000},
        "wav": {"use": "gain", "gain": 1.0, "from": "into"},
    },
}


def core(name: str, rate: int = 44100) -> Graph:
    return astrape.compile(recipe(CORES[name], rate=rate)).double()


def pulse(rate: Fraction | int, frames: int, at: Fraction) -> torch.Tensor:
    """A Gaussian around ``at`` seconds, whose spectrum is below -120 dB from 3 kHz on: any of these rates holds it."""
    time = np.arange(frames) / float(rate) - float(at)
    return torch.from_numpy(np.exp(-0.5 * (time / 2.8e-4) ** 2))[None, None]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", CORES)
def test_a_pulse_is_late_by_the_exact_latency(name, host):
    graph = core(name).hosted(host)
    frames = host // 5 // graph.quantum * graph.quantum
    at = Fraction(1, 50)
    y = graph(pulse(host, frames, at))
    expected = pulse(host, frames, at + graph.latency)
    # A whole number of the host's frames: what a host takes off is all of it.
    assert (graph.latency * host).denominator == 1
    assert y.shape[-1] == frames
    # 85 dB is what the resamplers' stop band has; half a frame off would be 0.03 and more.
    torch.testing.assert_close(y, expected, rtol=0, atol=3e-4)


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(sorted(CORES)),
    host=st.sampled_from([*HOSTS, 44100, 22050, 88200, 8000]),
    rate=st.sampled_from([44100, 16000, 48000]),
    sizes=st.lists(st.integers(20, 2000), min_size=1, max_size=6),
)
def test_streamed_to_a_host_it_is_late_by_the_host_latency(name, host, rate, sizes):
    blocks = {k: ({**v, "rate": rate} if k == "up" else v) for k, v in CORES[name].items()}
    graph = astrape.compile(recipe(blocks, rate=rate)).double().hosted(host)
    x = torch.randn(1, 1, host // 8, dtype=torch.float64)
    session = graph.stream(constant_latency=True)
    parts = []
    while (begun := sum(part.shape[-1] for part in parts)) < x.shape[-1]:
        piece = x[..., begun : begun + sizes[len(parts) % len(sizes)]]
        parts.append(session.push(piece))
        assert parts[-1].shape == piece.shape
    y = torch.cat(parts, dim=-1)
    held = graph.host_samples - math.ceil(graph.latency * host)
    whole = graph(torch.cat([x, x.new_zeros(1, 1, 10 * graph.quantum)], dim=-1)[..., : _whole(graph, x.shape[-1])])
    assert not y[..., :held].any()
    torch.testing.assert_close(y[..., held:], whole[..., : y.shape[-1] - held], rtol=0, atol=1e-11)


def _whole(graph: Graph, frames: int) -> int:
    return -(-frames // graph.quantum) * graph.quantum


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", ["frames", "slower", "dry and wet"])
def test_framing_equals_a_count_of_tokens(name, host):
    graph = core(name).hosted(host)
    assert graph.framing == counted_framing(graph, "wav", 2 * graph.quantum)


@pytest.mark.parametrize("host", HOSTS)
def test_the_report_speaks_of_the_host(host):
    graph = core("frames").hosted(host)
    told = graph.report().to_dict()
    latency = graph.latency + graph.framing
    # 48 periods of the lower rate each way, whole at the resampler's own output, and the rest of a frame.
    own = Fraction(math.ceil(48 * max(1, Fraction(44100, host))), 44100)
    own += Fraction(math.ceil(48 * max(1, Fraction(host, 44100))), host)
    assert graph.latency == Fraction(math.ceil(own * host), host)
    assert told["host_samples"] == math.ceil(latency * host) == graph.host_samples
    assert told["blocks"][0]["rate_in"] == host
    assert told["blocks"][-1]["rate_out"] == host


def test_only_audio_is_resampled():
    blocks = {
        "mel": {"use": "mel", "bins": 8, "n_fft": 512, "hop": 160},
        "out": {"use": "gain", "gain": 0.5, "from": "mic"},
    }
    graph = astrape.compile(recipe(blocks, rate=16000, outputs={"wav": "out", "mel": "mel"}))
    at_host = graph.hosted(48000)
    assert {name: stream.rate for name, stream in at_host.outputs.items()} == {"wav": 48000, "mel": 100}
    assert at_host.inputs["mic"].rate == 48000


def test_inputs_of_two_rates_are_aligned_anew():
    inputs = {"mic": {"rate": 44100, "channels": 1}, "side": {"rate": 22050, "channels": 1}}
    blocks = {
        "up": {"use": "resampler", "rate": 44100, "from": "side"},
        "mix": {"use": "add", "from": ["mic", "up"]},
    }
    graph = astrape.compile(recipe(blocks, inputs=inputs)).double().hosted(48000)
    frames = 9600
    x = pulse(48000, frames, Fraction(1, 50))
    y = graph({"mic": x, "side": x})
    torch.testing.assert_close(y, 2 * pulse(48000, frames, Fraction(1, 50) + graph.latency), rtol=0, atol=5e-4)


def test_paths_that_cannot_meet_are_refused_with_a_way_out():
    inputs = {"mic": {"rate": 44100, "channels": 1}, "side": {"rate": 16000, "channels": 1}}
    blocks = {
        "up": {"use": "resampler", "rate": 44100, "from": "side"},
        "wait": {"use": "delay", "frames": 9, "from": "up"},
        "mix": {"use": "add", "from": ["mic", "wait"]},
    }
    graph = astrape.compile(recipe(blocks, inputs=inputs))
    with pytest.raises(astrape.AlignmentError, match=r"host at 48000 Hz.*insert a delay"):
        graph.hosted(48000)


def test_a_host_of_the_same_rate_gets_the_graph_itself():
    graph = core("frames")
    assert graph.hosted(44100) is graph


def test_weights_and_controls_are_the_graphs_own():
    blocks = {
        "level": {"use": "gain", "gain": "level", "smooth_ms": 0},
        "f": {"use": "framing", "size": 441, "hop": 441},
        "l": {"use": "linear", "channels": 441},
        "o": {"use": "overlap_add", "hop": 441},
    }
    controls = {"level": {"channels": 1, "default": 1.0}}
    graph = astrape.compile(recipe(blocks, rate=44100, controls=controls)).double()
    at_host = graph.hosted(48000)
    assert at_host.state_dict().keys() == graph.state_dict().keys()
    assert {p.data_ptr() for p in at_host.parameters()} == {p.data_ptr() for p in graph.parameters()}
    x = torch.randn(1, 1, at_host.quantum * 4, dtype=torch.float64)
    torch.testing.assert_close(at_host(x, level=0.5), 0.5 * at_host(x) + 0.5 * at_host(0 * x))
    assert at_host.dtype == torch.float64


@pytest.mark.parametrize(
    ("rate", "words"), [(1000, "4000 Hz or more"), (48000.0, "is a float"), ("1000000007/20000", "at most 64")]
)
def test_hosts_that_cannot_be_are_refused(rate, words):
    with pytest.raises(astrape.RateError, match=words):
        core("delay").hosted(rate)


def test_a_graph_may_be_hosted_again():
    graph = core("spectra").hosted(48000).hosted(96000)
    frames = 96000 // 5 // graph.quantum * graph.quantum
    y = graph(pulse(96000, frames, Fraction(1, 50)))
    torch.testing.assert_close(y, pulse(96000, frames, Fraction(1, 50) + graph.latency), rtol=0, atol=5e-4)


@settings(max_examples=20, deadline=None)
@given(
    frames=st.integers(0, 500),
    rate=st.sampled_from([44100, 16000, 48000, 22050]),
    host=st.sampled_from([*HOSTS, 44100, 22050, 88200, 8000]),
)
def test_what_is_reported_is_the_delay_to_the_sample(frames, rate, host):
    graph = astrape.compile(recipe({"d": {"use": "delay", "frames": frames}}, rate=rate)).double().hosted(host)
    assert (graph.latency * host).denominator == 1 or host == rate
    x = pulse(host, host // 5, Fraction(1, 20))
    y = graph.stream(constant_latency=True).push(x)
    # Band-limited, so the moment of a pulse is where it is, to far below a frame.
    moments = [float((z[0, 0] * torch.arange(z.shape[-1])).sum() / z.sum()) for z in (x, y)]
    assert moments[1] - moments[0] == pytest.approx(graph.host_samples, abs=0.01)
