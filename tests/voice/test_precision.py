"""Cost of float32: flipped codes counted against the whole pass in float64, and the command that counts them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import astrape
from astrape.audio.resampling import pieces_of
from astrape.blocks.base import Stream
from astrape.errors import AstrapeError
from astrape.graph.backends.native import quickest
from astrape.graph.graph import Graph
from astrape.voice.precision import precision
from tests.voice.conversion_files import SMALL, fails, read, run, sines, succeeds, voicebank, write


def spread(graph: Graph, x: torch.Tensor) -> None:
    """Latents of a recording as trained ones are: mean 0, one deviation each, so that many codes are used."""
    block = graph.nodes["q2d2"].block
    seen: list[torch.Tensor] = []
    step = block.step

    def listen(h: torch.Tensor, state: object, controls: object) -> object:
        seen.append(h)
        return step(h, state, controls)

    block.step = listen  # type: ignore[method-assign]
    with torch.no_grad():
        graph(x, speaker=torch.zeros(1, 128))
        frames = torch.cat(seen, dim=-1)[0].T.double()
        mean = frames.mean(dim=0)
        _, scale, directions = torch.linalg.svd(frames - mean, full_matrices=False)
        weight = directions[:6] / (scale[:6, None] / len(frames) ** 0.5)
        block.latent_head.weight.copy_(weight)
        block.latent_head.bias.copy_(-weight @ mean)
        block.quantizer.project_in[0].weight.copy_(0.6 * torch.linalg.qr(torch.randn(6, 6))[0])
        block.quantizer.project_in[0].bias.zero_()
    del block.step


def test_a_float32_stream_is_held_against_the_whole_pass_in_float64(speech: Path) -> None:
    x = torch.from_numpy(read(speech).T)[None, :, 22050:66150]
    graph, speaker = astrape.load(SMALL), voicebank(3).speaker
    spread(graph, x)
    found = {each.output: each for each in precision(graph, x.split(1000, dim=-1), {"speaker": speaker})}
    with torch.no_grad():
        session = graph.stream()
        parts = [session.push(piece, speaker=speaker) for piece in x.split(1000, dim=-1)]
        whole = graph.double()(x.double(), speaker=speaker.double())
    for name, exact in whole.items():
        streamed = torch.cat([part[name] for part in parts], dim=-1).double()
        assert found[name].frames == streamed.shape[-1] == exact.shape[-1]
        apart = (streamed - exact).abs()
        if name == "codes":
            assert found[name].flipped == int(apart.ne(0).sum())
            assert found[name].used == len(exact.unique()) > 10
            assert found[name].flip_rate == found[name].flipped / exact.shape[-1] < 0.05  # type: ignore[operator]
        else:
            assert found[name].largest == pytest.approx(float(apart.max()), rel=1e-3)
            power = 10 * float(torch.log10(apart.square().sum() / exact.square().sum()))
            assert found[name].relative_db == pytest.approx(power, abs=0.1)


def test_weights_of_another_precision_are_held_against_their_own(speech: Path) -> None:
    """The cost of rounding a gain to float16 is known: a third becomes 0.33325195, 72 dB below."""
    graph = astrape.compile(
        {
            "recipe": "thirds",
            "inputs": {"mic": {"rate": 44100, "channels": 1}},
            "blocks": {"wav": {"use": "conv", "channels": 1, "kernel": 1, "bias": False}},
            "outputs": {"wav": "wav"},
        }
    )
    with torch.no_grad():
        next(graph.parameters()).fill_(1 / 3)
    x = torch.from_numpy(read(speech).T)[None, :1, 22050:40000]
    if quickest(graph) is None:
        pytest.skip("there are no native kernels here")
    (whole,) = precision(graph, x.split(441, dim=-1), {}, "float32", 441)
    (half,) = precision(graph, x.split(441, dim=-1), {}, "float16", 441)
    assert whole.relative_db is None or whole.relative_db < -140
    apart = abs(np.float64(np.float16(1 / 3)) * 3 - 1)
    assert half.relative_db == pytest.approx(20 * np.log10(apart), abs=0.01)


def test_a_flipped_code_is_counted() -> None:
    """Content on the border between two codes, in float64, to within less than float32 knows."""
    graph = astrape.compile(
        {
            "recipe": "border",
            "inputs": {"in": {"rate": 25, "channels": 2}},
            "blocks": {"q2d2": {"use": "q2d2", "levels": [9, 9], "dim": 2, "channels": 2}},
            "outputs": {"content": "q2d2.content", "codes": "q2d2.codes"},
        }
    )
    block = graph.nodes["q2d2"].block
    with torch.no_grad():
        for layer in (block.latent_head, block.quantizer.project_in[0]):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
    # From 0 to the centre of a cell at (1/2, 1/2) the border is the line x + y = 1/2, in grid steps.
    half = torch.atanh(torch.tensor(0.25 / (8 * 1.001 / 2), dtype=torch.float64))
    x = torch.stack([half * (1 + torch.linspace(-3e-8, 3e-8, 401).double()), half.expand(401)])[None]
    codes = next(each for each in precision(graph, [x], {}) if each.output == "codes")
    assert codes.used == 2
    assert codes.flipped is not None
    assert 0 < codes.flipped < 401


def test_the_command(tmp_path: Path, speech: Path, weights: Path) -> None:
    words = ("precision", SMALL, speech, speech, "--weights", weights, "--chunk", 400)
    told = json.loads(succeeds(run(*words, "--json")).stdout)
    assert [each["output"] for each in told] == ["wav", "content", "codes"]
    assert told[2]["frames"] == 100
    assert told[2]["flip_rate"] == told[2]["flipped"] / 100
    assert told[0]["largest"] < 1e-3
    assert "flipped codes" in run("precision", SMALL, speech, "--weights", weights, "--chunk", 1000).stdout
    fails(run("precision", SMALL, speech, "--precision", "int8"), "'int8' is not there", "hint: precision='float16'")
    fails(run("precision", "astrape-vc-from-codes", speech), "does not begin with one stream of audio")
    fails(run("precision", SMALL, tmp_path / "none.wav"), "none.wav: there is no such file")
    short = write(tmp_path / "short.wav", sines(0.01, 44100), 44100)
    fails(run("precision", SMALL, short), "gave nothing to compare")


def test_recordings_come_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sines(2.3, 8000, 2), 8000)
    whole = torch.cat(list(pieces_of(path, Stream(16000, 1))), dim=-1)
    assert whole.shape == (1, 1, 36800)
    assert np.abs(whole[0, 0, 1000:-1000].numpy() - sines(2.3, 16000)[1000:-1000, 0]).max() < 2e-3
    assert torch.cat(list(pieces_of(path, Stream(8000, 1), longest=1.5)), dim=-1).shape == (1, 1, 12000)
    bad = sines(1, 8000)
    bad[17] = np.nan
    with pytest.raises(AstrapeError, match="not finite"):
        list(pieces_of(write(tmp_path / "bad.wav", bad, 8000), Stream(8000, 1)))
