"""The voice-conversion graph: sizes from the paper, streaming equal to the whole, latency as measured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import astrape
from astrape import Graph
from astrape.testing.strategies import chunkings

VARIANTS = ["astrape-vc", "astrape-vc-original", "astrape-vc-lowlatency"]
RECIPES = Path(astrape.__file__).parent / "recipes"


Load = Callable[[str], Graph]


def awake(graph: Graph, dtype: torch.dtype = torch.float64) -> Graph:
    """A copy with random weights that do something: none at zero, as AdaLN begins, none that let the signal fade."""
    torch.manual_seed(7)
    graph = copy.deepcopy(graph)
    with torch.no_grad():
        for parameter in graph.parameters():
            if not bool(parameter.any()):
                parameter.normal_(std=0.2)
            elif parameter.dim() > 1 and parameter.shape[0] > 1:
                # Uniform first values have a variance of 1 / (3 fan-in).
                parameter.mul_(2.5)
    return graph.to(dtype)


@cache
def small(dtype: torch.dtype = torch.float64) -> Graph:
    """The small twin, awake; made once, so not to be changed."""
    torch.manual_seed(7)
    return awake(astrape.load("astrape-vc-small"), dtype)


def voice(seconds: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Something like speech in its dynamics: noise and a buzz, in bursts with pauses."""
    generator = torch.Generator().manual_seed(seed)
    count = int(seconds * 44100)
    time = torch.arange(count, dtype=torch.float64) / 44100
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    buzz = torch.sin(2 * torch.pi * 110 * time + 3 * torch.sin(2 * torch.pi * 2 * time)).sign()
    loudness = torch.sin(2 * torch.pi * 0.7 * time).clamp(min=0)
    return (loudness * (0.05 * noise + 0.1 * buzz)).reshape(1, 1, -1).to(dtype)


def speaker(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(1, 128, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def streamed(graph: Graph, x: Tensor, sizes: list[int], target: Tensor) -> dict[str, Tensor]:
    session = graph.stream()
    parts = [session.push(x[..., :0], speaker=target)]
    start = 0
    while start < x.shape[-1]:
        for size in sizes:
            parts.append(session.push(x[..., start : start + size]))
            start += size
    return {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}


def parameters(graph: Graph, *prefixes: str) -> int:
    return sum(p.numel() for name, p in graph.named_parameters() if name.startswith(prefixes))


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + (outputs if bias else 0)


def test_parameters_are_those_of_the_paper(shipped: Load) -> None:
    graph = shipped("astrape-vc")
    wavlm = 512 * 10 + 4 * 512 * 512 * 3 + 2 * 512
    adapter = 256 * 2 * 4 + 256 + linear(256, 256) + linear(256, 80)
    stem = linear(80 * 5, 320) + 8 * (2 * 320 + linear(5, 1) * 320 + linear(320, 320))
    skips = 2 * (linear(80 * 5, 320) + 320)
    attention = linear(512, 3 * 512) + linear(512, 512)
    layer = 2 * 512 + attention + 2 * 512 + 2 * linear(512, 1024) + linear(1024, 512)
    transformer = linear(2 * 320, 320) + linear(320, 512, bias=False) + 8 * layer + 2 * 512 + linear(3, 1) * 512
    q2d2 = linear(512, 6) + linear(6, 6) + linear(6, 768)
    adaln = linear(128, 3 * 384)
    prenet = linear(768, 384, bias=False) + 4 * (2 * adaln + 4 * 384 * 384 + 3 * 384 * 1536) + 2 * 384
    upsampler = 384 * 384 * 14 + 384 + 2 * 384 + linear(384, 384)
    convs = 6 * (adaln + linear(3, 1) * 384 + 2 * 384 + linear(384, 384)) + 2 * 384
    head = linear(384, 512) + linear(512, 1514)
    encoder, decoder = adapter + stem + skips + transformer + q2d2, prenet + upsampler + convs + head
    assert (encoder, decoder, wavlm) == (22_721_792, 15_902_186, 3_151_872)
    assert parameters(graph, "wavlm.") == wavlm
    assert parameters(graph, "adapter.", "encoder.") == encoder
    assert parameters(graph, "decoder.") == decoder
    assert sum(p.numel() for p in graph.parameters()) == wavlm + encoder + decoder == 41_775_850
    # With the heads that are there in training only: two forecasts, three distilled layers, 108 speakers to tell apart.
    heads = 5 * linear(512, 768) + linear(768, 256) + linear(256, 108)
    assert encoder + heads == 24_916_332


def test_the_original_differs_in_one_parameter(shipped: Load) -> None:
    own, original = (shipped(name) for name in ("astrape-vc", "astrape-vc-original"))
    assert {name: p.shape for name, p in own.state_dict().items()} == {
        name: p.shape for name, p in original.state_dict().items()
    }
    blocks = [
        [line.split("#")[0].rstrip() for line in (RECIPES / f"{name}.yaml").read_text().splitlines()[1:]]
        for name in ("astrape-vc", "astrape-vc-original")
    ]
    first, second = ([line for line in lines if line.startswith("  ")] for lines in blocks)
    changed = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    assert [one.replace("align: last", "align: first") for one, _ in changed] == [other for _, other in changed]
    assert len(changed) == 1


@pytest.mark.parametrize(
    ("name", "algorithmic", "framing", "host"),
    [
        ("astrape-vc", Fraction(3 + 5, 1000) - Fraction(5, 2000) + Fraction(630, 44100), Fraction(1763, 44100), 2636),
        ("astrape-vc-original", Fraction(41, 2000) + Fraction(630, 44100), Fraction(1763, 44100), 3298),
        ("astrape-vc-lowlatency", Fraction(4, 1000) + Fraction(147, 44100), Fraction(881, 44100), 1205),
        ("astrape-vc-small", Fraction(11, 2000) + Fraction(126, 44100), Fraction(1763, 44100), 2132),
    ],
)
def test_latency_is_as_the_recipe_says(
    name: str, algorithmic: Fraction, framing: Fraction, host: int, shipped: Load
) -> None:
    graph = shipped(name)
    assert (graph.lookahead, graph.latency, graph.framing, graph.host_samples) == (0, algorithmic, framing, host)
    shown = float(graph.host_latency * 1000)
    comment = next(line for line in (RECIPES / f"{name}.yaml").read_text().splitlines() if line.startswith("#   host"))
    assert f"{shown:.1f} ms" in comment
    if name == "astrape-vc-lowlatency":
        assert shown < 30


@pytest.mark.parametrize(
    "name", ["astrape-vc-small", *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)]
)
def test_what_is_declared_is_measured(name: str, shipped: Load) -> None:
    report = awake(shipped(name), torch.float32).report(measure=True)
    assert report.disagreements == []
    assert report.measured is not None
    assert (report.measured.lookahead, report.measured.framing) == (0, report.graph.framing)
    # The resampler's filter has its centre between two samples for most of its outputs.
    assert abs(report.measured.latency - report.graph.latency) <= Fraction(1, 16000)


@pytest.mark.parametrize("name", VARIANTS)
def test_samples_come_when_framing_says(name: str, shipped: Load) -> None:
    graph = shipped(name)
    quantum = graph.consumes["mic"]
    session = graph.stream()
    session.push(torch.zeros(1, 1, quantum - 1), speaker=torch.zeros(128))
    assert session.push(torch.zeros(1, 1, 0))["wav"].shape[-1] == 0
    assert session.push(torch.zeros(1, 1, 1))["wav"].shape[-1] == quantum
    assert graph.framing == Fraction(quantum - 1, 44100)


def test_small_twin_streams_as_the_whole_over_many_windows() -> None:
    graph, x, target = small(), voice(12), speaker(1)
    # 16 frames of 40 ms in the encoder's window and 8 in the decoder's: wrapped 18 and 37 times.
    with torch.no_grad():
        whole = graph(x, speaker=target)
    parts = streamed(graph, x, [441, 1, 0, 1763, 90, 7, 5000, 256], target)
    assert whole["codes"].unique().numel() > 50
    assert torch.equal(parts["codes"], whole["codes"])
    for name in ("wav", "content"):
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(chunks=chunkings(4 * 1764), seed=st.integers(0, 99))
def test_small_twin_in_any_chunks(chunks: list[int], seed: int) -> None:
    graph, x, target = small(), voice(4 * 1764 / 44100, seed), speaker(seed)
    with torch.no_grad():
        whole = graph(x, speaker=target)
    session = graph.stream()
    parts = [session.push(part, speaker=target) for part in x.split(chunks, dim=-1)]
    for name, want in whole.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts], -1), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", VARIANTS)
def test_full_recipes_stream_as_the_whole(name: str, shipped: Load) -> None:
    graph, x, target = awake(shipped(name)), voice(0.4, 3), speaker(2)
    with torch.no_grad():
        whole = graph(x, speaker=target)
    parts = streamed(graph, x, [441, 1323, 2000], target)
    assert whole["wav"].shape[-1] == parts["wav"].shape[-1] == 10 * 1764
    assert whole["content"].shape[1:] == (768, whole["codes"].shape[-1])
    for port in whole:
        torch.testing.assert_close(parts[port], whole[port], rtol=0, atol=1e-9)


def test_a_new_speaker_takes_effect_at_the_next_frame_wherever_the_host_cuts() -> None:
    graph, x = small(), voice(2, 5)
    one, other = speaker(1), speaker(2)
    change = 20 * 1764 + 500
    heard = []
    for sizes in ([256], [4410], [1]):
        session = graph.stream()
        parts = [session.push(x[..., :0], speaker=one)]
        size = sizes[0] if sizes[0] > 1 else change
        parts += [session.push(part) for part in x[..., :change].split(size, dim=-1)]
        parts += [session.push(x[..., change:change], speaker=other)]
        parts += [session.push(part) for part in x[..., change:].split(size, dim=-1)]
        heard.append({name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]})
    for again in heard[1:]:
        for name, tensor in again.items():
            torch.testing.assert_close(tensor, heard[0][name], rtol=0, atol=1e-9)
    with torch.no_grad():
        before, after = graph(x, speaker=one), graph(x, speaker=other)
    assert torch.equal(before["codes"], after["codes"])
    mixed, frame = heard[0]["wav"], 20 * 1764
    torch.testing.assert_close(mixed[..., :frame], before["wav"][..., :frame], rtol=0, atol=1e-9)
    assert (mixed[..., frame:] - before["wav"][..., frame:]).abs().amax() > 1e-3
    # What the old speaker left in the attention window (8 frames in each of 2 layers), the upsampler and the iSTFT is
    # gone after 20 frames at most.
    settled = frame + 20 * 1764
    torch.testing.assert_close(mixed[..., settled:], after["wav"][..., settled:], rtol=0, atol=1e-9)


def test_float32_flips_few_codes(record_property: pytest.RecordProperty) -> None:
    exact, x, target = small(), voice(20, 9), speaker(3)
    graph = small(torch.float32)
    with torch.no_grad():
        want = exact(x, speaker=target)
        whole = graph(x.float(), speaker=target.float())
    parts = streamed(graph, x.float(), [441, 100, 4000], target.float())
    flips = {
        "chunks against the whole": (parts["codes"] != whole["codes"]).double().mean().item(),
        "float32 against float64": (whole["codes"].double() != want["codes"]).double().mean().item(),
    }
    for name, rate in flips.items():
        record_property(f"flipped codes, {name}", rate)
    # 500 frames. A code flips where a pair lies within rounding, some 1e-6, of the border between two points.
    assert max(flips.values()) < 0.005
    same = (parts["codes"] == whole["codes"])[:, 0]
    torch.testing.assert_close(parts["content"].mT[same], whole["content"].mT[same], rtol=0, atol=1e-5)


def test_output_has_the_inputs_length_and_place() -> None:
    graph, x = small(torch.float32), voice(1.03, 4, torch.float32)
    session = graph.stream()
    parts = list(session.compensated(x.split(1000, dim=-1), speaker=speaker(1, torch.float32)))
    assert sum(part["wav"].shape[-1] for part in parts) == x.shape[-1]
    late = graph.stream(constant_latency=True)
    late.push(x[..., :0], speaker=speaker(1, torch.float32))
    for part in x.split(777, dim=-1):
        assert late.push(part)["wav"].shape[-1] == part.shape[-1]
    assert late.latency_frames("wav") == 2132


@pytest.mark.parametrize("name", ["astrape-vc", "astrape-vc-lowlatency"])
def test_stored_codes_decode_to_the_same_sound_with_the_weights_of_the_whole(
    name: str, tmp_path: Path, shipped: Load
) -> None:
    graph, x, target = awake(shipped(name), torch.float32), voice(0.4, 6), speaker(4)
    path = tmp_path / "weights.safetensors"
    save_file(graph.state_dict(), path)
    back = astrape.load(f"{name}-from-codes", weights=path, subset=True).double()
    graph = graph.double()
    with torch.no_grad():
        whole = graph(x, speaker=target)
        codes = whole["codes"].long()
        assert 0 <= int(codes.amin()) <= int(codes.amax()) < 145**3
        assert codes.unique().numel() > 3
        wav = back(codes.double(), speaker=target)
    torch.testing.assert_close(wav, whole["wav"], rtol=0, atol=1e-9)
    with pytest.raises(astrape.RecipeError, match=r"'adapter\..*' is unknown.*subset=True takes the part"):
        astrape.load(f"{name}-from-codes", weights=path)


def test_a_part_takes_only_what_fits_from_the_weights_of_a_whole(tmp_path: Path) -> None:
    tensors = astrape.load("astrape-vc-from-codes").state_dict() | {"elsewhere.weight": torch.zeros(3)}
    path = tmp_path / "weights.safetensors"
    name = "encoder.q2d2.proj_out.weight"
    save_file(tensors | {name: tensors[name].mT.contiguous()}, path)
    with pytest.raises(astrape.RecipeError, match=r"does not fit.*proj_out.weight' is \(6, 768\) and not \(768, 6\)$"):
        astrape.load("astrape-vc-from-codes", weights=path, subset=True)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
    with pytest.raises(astrape.RecipeError, match=r"'encoder.q2d2.proj_out.weight' is missing$"):
        astrape.load("astrape-vc-from-codes", weights=path, subset=True)
    save_file(tensors, path)
    graph = astrape.load("astrape-vc-from-codes", weights=path, subset=True)
    assert torch.equal(graph.state_dict()[name], tensors[name])


DECODERS = ["astrape-vc-decoder", "astrape-vc-lowlatency-decoder", "astrape-vc-small"]


@pytest.mark.parametrize("name", DECODERS)
def test_fresh_weights_are_neither_loud_nor_silent(name: str) -> None:
    """A head's numbers go through an exponential, so what is out of scale there is out by orders of magnitude."""
    for seed in range(3):
        torch.manual_seed(seed)
        graph = astrape.load(name)
        inputs = {"mic": voice(1, seed, torch.float32), "content": 0.4 * torch.randn(1, 768, 25)}
        with torch.no_grad():
            y = graph(inputs[next(iter(graph.inputs))], speaker=torch.randn(1, 128))
        wav = y["wav"] if isinstance(y, dict) else y
        assert -40 < 20 * wav.abs().max().log10() < -3
        assert -50 < 10 * wav.square().mean().log10() < -15
