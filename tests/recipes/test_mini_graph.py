"""astrape-mini: its numbers, its cuts for training, and that a voice goes through it with its intonation."""

from __future__ import annotations

import copy
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from torch import Tensor, nn

import astrape
from astrape.blocks import Noise, PitchTracker, PulseSource, Stream
from astrape.graph.graph import Graph
from astrape.graph.recipe import shipped_recipes
from astrape.graph.subgraph import subgraph

FRAME = 441
SPEAKER = torch.randn(1, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.06


@cache
def awake(training: bool = False, dtype: torch.dtype = torch.float64) -> Graph:
    """With gates that are open, as those of a trained graph; made once, so not to be changed."""
    torch.manual_seed(1)
    graph = astrape.load("astrape-mini", training=training)
    for parameter in graph.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.02)
    return graph.to(dtype).eval()


def voice(seconds: float, middle: float = 120.0, seed: int = 0) -> Tensor:
    """Pulses that glide and pause, and a little noise, darkened as a voice is: (1, 1, samples) in float64."""
    count = round(seconds * 100)
    time = torch.arange(count, dtype=torch.float64) / 100
    f0 = middle * torch.exp2(0.25 * torch.sin(2 * np.pi * 1.3 * time + seed))
    f0 = f0.masked_fill((time * 1.7 + 0.3 * seed) % 1 > 0.8, 0.0).view(1, 1, -1)
    pulses = PulseSource(Stream(100, 1), hop=FRAME).double()(f0)
    breath: Tensor = Noise(Stream(100, 1), hop=FRAME, seed=seed)(f0)
    return torch.from_numpy(lfilter([0.02], [1, -0.97], (pulses + 0.1 * breath).numpy()))


def test_latency_and_size_are_as_promised() -> None:
    graph = astrape.load("astrape-mini")
    assert (graph.lookahead, graph.latency, graph.framing) == (0, Fraction(40, 1000), Fraction(440, 44100))
    assert graph.host_latency <= Fraction(50, 1000)
    assert sum(parameter.numel() for parameter in graph.parameters()) <= 6_000_000
    text = Path(shipped_recipes()["astrape-mini"]).read_text()
    comment = next(line for line in text.splitlines() if line.startswith("#   host"))
    assert f"{float(graph.host_latency * 1000):.1f} ms" in comment


@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), min_size=1, max_size=12), seed=st.integers(0, 9))
def test_a_stream_is_the_whole_pass(cuts: list[int], seed: int) -> None:
    graph, x = awake(), voice(max(1, sum(cuts)) / 44100 + 0.05, seed=seed)
    controls = {"speaker": SPEAKER, "register": 210.0, "pitch": 1.0, "seed": 5.0}
    with torch.no_grad():
        whole = graph(x, **controls)
        session, at, parts = graph.stream(dtype=torch.float64), 0, []
        for cut in cuts:
            parts.append(session.push(x[..., at : at + cut], **controls))
            at += cut
    for name in ("wav", "content", "f0"):
        got = torch.cat([part[name] for part in parts], dim=-1)
        torch.testing.assert_close(got, whole[name][..., : got.shape[-1]], atol=1e-9, rtol=0)


def test_the_parts_that_are_trained_make_up_the_whole() -> None:
    graph, x = awake(training=True), voice(0.6)
    controls = {"speaker": SPEAKER, "seed": 7.0}
    encoder = subgraph(graph, ["content", "phones"])
    decoder = subgraph(graph, ["wav"], ["content", "register.f0", "level"])
    heard = subgraph(graph, ["content"], ["down"])
    with torch.no_grad():
        whole = graph(x, register=150.0, pitch=0.0, **controls)
        said = encoder(x)
        assert said["phones"].shape == (1, 178, 60)
        torch.testing.assert_close(said["content"], whole["content"], atol=1e-9, rtol=0)
        down = graph.nodes["down"].block(x)
        torch.testing.assert_close(heard(down), whole["content"], atol=1e-9, rtol=0)
        level = graph.nodes["level"].block(down)
        wav = decoder({"content": said["content"], "register.f0": whole["f0"], "level": level}, **controls)
        torch.testing.assert_close(wav, whole["wav"], atol=1e-9, rtol=0)


def test_a_loss_on_the_sound_reaches_the_decoder_and_the_content() -> None:
    graph = copy.deepcopy(awake(training=True))
    decoder = subgraph(graph, ["wav"], ["content", "register.f0", "level"])
    content = torch.randn(2, 64, 30, dtype=torch.float64).tanh().requires_grad_()
    f0 = torch.full((2, 1, 30), 140.0, dtype=torch.float64)
    level = torch.full((2, 1, 30), -3.0, dtype=torch.float64)
    rows = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    wav = decoder({"content": content, "register.f0": f0, "level": level}, speaker=SPEAKER, seed=rows)
    wav.square().mean().backward()
    assert content.grad is not None
    assert bool(content.grad.isfinite().all())
    assert bool(content.grad[..., :25].any())
    silent = [name for name, p in decoder.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


def test_rows_have_their_own_noise_where_their_seeds_differ() -> None:
    graph = awake(training=True)
    decoder = subgraph(graph, ["wav"], ["content", "register.f0", "level"])
    still = {
        "content": torch.zeros(3, 64, 30, dtype=torch.float64),
        "register.f0": torch.zeros(3, 1, 30, dtype=torch.float64),
        "level": torch.full((3, 1, 30), -3.0, dtype=torch.float64),
    }
    with torch.no_grad():
        wav = decoder(still, speaker=SPEAKER, seed=torch.tensor([[1.0], [2.0], [1.0]]))[:, 0]
    torch.testing.assert_close(wav[0], wav[2], atol=1e-12, rtol=1e-12)
    assert abs(np.corrcoef(wav[:2].numpy())[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("middle", "register", "pitch"), [(110.0, 220.0, 0.0), (220.0, 110.0, 0.0), (120.0, 150.0, 4.0)]
)
def test_a_voice_comes_out_in_the_targets_register_with_its_own_intonation(
    middle: float, register: float, pitch: float
) -> None:
    """With one dark envelope for all pulses and next to none for the noise, the pitch of the sound can be tracked."""
    graph, x = copy.deepcopy(awake()), voice(5.0, middle)
    head = graph.nodes["head"].block
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.zero_()
            if name == "bias":
                parameter[:80], parameter[80:] = torch.linspace(-2, -9, 80), -12.0
        y = graph(x, speaker=SPEAKER, register=register, pitch=pitch)
        tracker = PitchTracker(Stream(44100, 1), fmin=60.0).double()
        f0 = tracker(y["wav"] / y["wav"].abs().max())[0, 0].numpy()
        source = PitchTracker(Stream(44100, 1), fmin=60.0).double()(x / x.abs().max())[0, 0].numpy()
    late = round(float(graph.latencies["wav"]) * 100)
    f0, source = f0[200 + late :], source[200 : len(source) - late]
    both = (f0 > 0) & (source > 0)
    assert both.sum() > 0.8 * (source > 0).sum()
    wanted = register * 2 ** (pitch / 12)
    assert abs(np.log2(np.median(f0[both]) / wanted)) < 1 / 12
    assert np.corrcoef(np.log(f0[both]), np.log(source[both]))[0, 1] > 0.97


def test_a_push_is_replayed_to_the_last_bit() -> None:
    graph, x = awake(dtype=torch.float32), voice(0.8).float()
    captured, plain = graph.stream(chunk=FRAME), graph.stream()
    assert captured.captured_steps >= 1
    with torch.no_grad():
        for piece in torch.split(x, FRAME, dim=-1):
            one, other = (session.push(piece, speaker=SPEAKER.float()) for session in (captured, plain))
            for name in one:
                assert torch.equal(one[name], other[name]), name
