"""An imported graph computes what the original computes of whole sequences."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import astrape
from astrape.blocks.wavlm import WavLMCNN
from astrape.graph.graph import Graph
from astrape.voice.checkpoint.importing import import_checkpoints, save_imported
from astrape.voice.wavlm import freeze, measure_statistics
from tests.voice.checkpoint.original_decoder_oracle import DecoderSizes, OriginalDecoder
from tests.voice.checkpoint.original_files import (
    SMALL_DECODER,
    SMALL_ENCODER,
    decoder_file,
    encoder_file,
    random_decoder,
    random_encoder,
)
from tests.voice.checkpoint.original_oracle import OriginalEncoder, grid_points

FLOAT32 = 1e-4
"""The accuracy that the import promises."""

QUICK = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def imported(encoder: OriginalEncoder | None = None, decoder: OriginalDecoder | None = None, **options: Any) -> Graph:
    """Through files on the way in and on the way out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = (
            None if encoder is None else encoder_file(folder / "encoder.pt", encoder),
            None if decoder is None else decoder_file(folder / "decoder.pt", decoder),
        )
        recipe, weights = save_imported(import_checkpoints(*files, **options), folder / "out")
        return astrape.load(recipe, weights=weights).eval()


@torch.no_grad()
def check_encoder(net: OriginalEncoder, graph: Graph, seconds: float) -> None:
    """In float64 to its precision, codes included; in float32 to the promise, where the codes are the same.

    Two float32 runs may see a point that lies on a border on either side of it.
    """
    channels = next(iter(graph.inputs.values())).channels
    rate = int(next(iter(graph.inputs.values())).rate)
    x = torch.randn(2, channels, round(seconds * 25) * rate // 25)
    want, codes = net(x)
    got = graph(x)
    assert got["content"].shape == want.shape
    same = (got["codes"] == codes).squeeze(1)
    assert same.float().mean() > 0.98
    assert (got["content"] - want).abs().amax(1)[same].max() < FLOAT32
    content, codes = net.double()(x.double())
    got = graph.double()(x.double())
    assert torch.equal(got["codes"].long(), codes)
    torch.testing.assert_close(got["content"], content, rtol=0, atol=1e-9)
    assert len(codes.unique()) > 3


@torch.no_grad()
def check_decoder(net: OriginalDecoder, graph: Graph, frames: int) -> None:
    s: DecoderSizes = net.s
    content, speaker = torch.randn(2, s.content, frames), torch.randn(2, s.speaker)
    want = net(content, speaker)
    late = (s.n_fft - s.hop) // 2
    assert graph.latency == pytest.approx(late / 44100)
    got = graph(content, speaker=speaker)
    assert got.shape == want.shape
    assert want.std() > 0.01
    torch.testing.assert_close(got[..., late:], want[..., : want.shape[-1] - late], rtol=0, atol=FLOAT32)
    net, graph = net.double(), graph.double()
    net.istft_head.istft.window = torch.hann_window(s.n_fft, dtype=torch.float64)
    want = net(content.double(), speaker.double())
    got = graph(content.double(), speaker=speaker.double())
    # The comb's frequencies are float32 numbers, 22050 Hz to 1e-3 Hz.
    exact = 1e-5 if s.nsf else 1e-9
    torch.testing.assert_close(got[..., late:], want[..., : want.shape[-1] - late], rtol=0, atol=exact)


@st.composite
def encoder_sizes(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 3))
    trans = 2 * heads * draw(st.integers(1, 4))
    grid = draw(st.sampled_from(["rhombic", "rectangular", "hexagonal"]))
    axis = st.sampled_from([3, 5, 7, 9]) if grid == "rhombic" else st.integers(2, 9)
    pairs = draw(st.lists(st.tuples(axis, axis), min_size=1, max_size=3))
    if grid == "hexagonal":
        pairs = [(one, one) for one, _ in pairs]
    levels = tuple(level for pair in pairs for level in pair)
    hidden = draw(st.integers(1, 9))
    return {
        "features": draw(st.integers(1, 12)),
        "conv": draw(st.sampled_from([trans, draw(st.integers(1, 17))])),
        "kernel": draw(st.integers(1, 6)),
        "stem": tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))),
        "skips": tuple(draw(st.lists(st.integers(1, 40), max_size=3))),
        "trans": trans,
        "layers": draw(st.integers(1, 3)),
        "heads": heads,
        "ffn": draw(st.integers(1, 20)),
        "window": draw(st.integers(1, 20)),
        "rope": draw(st.booleans()),
        "swiglu": draw(st.booleans()),
        "levels": levels,
        "grid": grid,
        "latent": draw(st.sampled_from([len(levels), draw(st.integers(1, 9))])),
        "content": draw(st.integers(1, 24)),
        "wide": hidden * draw(st.integers(1, 3)),
        "hidden": hidden,
        "expand": draw(st.sampled_from([0, 7])),
        "speakers": draw(st.sampled_from([0, 5])),
    }


@st.composite
def decoder_sizes(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 3))
    nsf = draw(st.booleans())
    factor, hop = draw(st.sampled_from([(7, 252), (18, 98), *([] if nsf else [(4, 441), (28, 63)])]))
    return {
        "content": draw(st.integers(1, 24)),
        "speaker": draw(st.sampled_from([128, 5])),
        "dim": 2 * heads * draw(st.integers(1, 4)),
        "layers": draw(st.integers(1, 3)),
        "heads": heads,
        "ffn": draw(st.integers(1, 20)),
        "window": draw(st.integers(1, 20)),
        "factor": factor,
        "width": draw(st.integers(2, 17)),
        "kernel": draw(st.integers(1, 5)),
        "dilations": tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))),
        "nsf": nsf,
        "harmonics": draw(st.integers(1, 20)),
        "bridge": draw(st.integers(1, 20)),
        # Windows that overlap by less than half have samples that they hardly weigh, and magnify every rounding there.
        "n_fft": hop + 2 * draw(st.integers((hop + 1) // 2, 2 * hop)),
        "hop": hop,
    }


@QUICK
@given(sizes=encoder_sizes(), seed=st.integers(0, 2**20))
def test_encoders_of_any_size(sizes: dict[str, Any], seed: int) -> None:
    net = random_encoder(seed, **sizes)
    graph = imported(net, from_features=True)
    assert {name: (s.channels, s.rate) for name, s in graph.inputs.items()} == {"wavlm": (sizes["wide"], 200)}
    torch.manual_seed(seed)
    x = torch.randn(2, sizes["wide"], 30 * 8)
    with torch.no_grad():
        want, codes = net.double()(x.double())
        got = graph.double()(x.double())
    assert torch.equal(got["codes"].long(), codes)
    torch.testing.assert_close(got["content"], want, rtol=0, atol=1e-9)


@QUICK
@given(sizes=decoder_sizes(), seed=st.integers(0, 2**20))
def test_decoders_of_any_size(sizes: dict[str, Any], seed: int) -> None:
    net = random_decoder(seed, **sizes)
    check_decoder(net, imported(decoder=net), 12)


@pytest.mark.parametrize("expand", [0, 11])
def test_small_encoder_in_float32(expand: int) -> None:
    net = random_encoder(1, **SMALL_ENCODER, expand=expand)
    check_encoder(net, imported(net, from_features=True), 4.0)


def test_full_size_encoder() -> None:
    net = random_encoder(2, expand=256, speakers=108)
    graph = imported(net, from_features=True)
    # 22.72M as the system's description counts it, and the expansion that later files have.
    expand = 2 * 768 * 256 + 768 + 256
    assert round((sum(p.numel() for p in graph.parameters()) - expand) / 1e4) == 2272
    check_encoder(net, graph, 4.0)


@pytest.mark.parametrize("sizes", [{}, {"nsf": True}, {"n_fft": 392, "hop": 98, "factor": 18}])
def test_full_size_decoder(sizes: dict[str, Any]) -> None:
    net = random_decoder(3, **sizes)
    graph = imported(decoder=net)
    if not sizes:
        assert round(sum(p.numel() for p in graph.parameters()) / 1e4) == 1590
    check_decoder(net, graph, 10)


def test_both_in_a_row_from_features() -> None:
    encoder, decoder = random_encoder(4, **SMALL_ENCODER), random_decoder(5, **SMALL_DECODER)
    graph = imported(encoder, decoder, from_features=True)
    assert list(graph.outputs) == ["wav", "content", "codes"]
    x, speaker = torch.randn(1, 16, 8 * 40), torch.randn(1, 6)
    with torch.no_grad():
        content, codes = encoder(x)
        want = decoder(content, speaker)
        got = graph(x, speaker=speaker)
    assert torch.equal(got["codes"].long(), codes)
    torch.testing.assert_close(got["content"], content, rtol=0, atol=FLOAT32)
    torch.testing.assert_close(got["wav"][..., 630:], want[..., :-630], rtol=0, atol=FLOAT32)


def test_stream_equals_whole_sequence() -> None:
    encoder, decoder = random_encoder(6, **SMALL_ENCODER), random_decoder(7, **SMALL_DECODER, nsf=True)
    graph = imported(encoder, decoder, from_features=True).double()
    x, speaker = torch.randn(1, 16, 8 * 40).double(), torch.randn(1, 6).double()
    with torch.no_grad():
        whole = graph(x, speaker=speaker)
        session = graph.stream(dtype=torch.float64)
        pieces = [session.push(piece, speaker=speaker) for piece in x.split(13, dim=-1)]
    for name in ("wav", "content", "codes"):
        streamed = torch.cat([piece[name] for piece in pieces], -1)
        torch.testing.assert_close(streamed, whole[name][..., : streamed.shape[-1]], rtol=0, atol=1e-9)
        assert streamed.shape[-1] > 0.9 * whole[name].shape[-1]


@pytest.mark.parametrize(
    "sizes",
    [{"expand": 7}, {"levels": (5, 7, 9, 9), "latent": 3}, {"levels": (4, 4), "grid": "hexagonal", "latent": 2}],
)
def test_stored_codes_are_enough_for_the_decoder(tmp_path: Path, sizes: dict[str, Any]) -> None:
    """The second recipe, with its part of the weights: any codes as the original's layers decode them."""
    encoder, decoder = random_encoder(12, **(SMALL_ENCODER | sizes)), random_decoder(13, **SMALL_DECODER)
    files = encoder_file(tmp_path / "encoder.pt", encoder), decoder_file(tmp_path / "decoder.pt", decoder)
    _, weights = save_imported(import_checkpoints(*files, from_features=True), tmp_path)
    part = astrape.load(tmp_path / "from-codes.yaml", weights=weights, subset=True).double()
    quantizer, speaker = encoder.double().q2d2.quantizer, torch.randn(1, 6)
    points, codes, size = [], torch.zeros(40, dtype=torch.long), 1
    for pair in zip(encoder.s.levels[::2], encoder.s.levels[1::2], strict=True):
        grid = grid_points(encoder.s.grid, *pair)
        index = torch.randint(0, len(grid), (40,))
        points.append(grid[index] / torch.tensor([axis // 2 for axis in pair]))
        codes, size = codes + size * index, size * len(grid)
    with torch.no_grad():
        content = encoder.q2d2.proj_out(quantizer.project_out(torch.cat(points, -1)))
        if encoder.s.expand:
            content = content + encoder.content_expand(content)
        decoder.istft_head.istft.window = torch.hann_window(1512, dtype=torch.float64)
        want = decoder.double()(content.T[None], speaker.double())
        got = part(codes[None, None].double(), speaker=speaker.double())
    torch.testing.assert_close(got[..., 630:], want[..., :-630], rtol=0, atol=1e-9)
    # An encoder by itself has no second recipe, and leaves none of an earlier import.
    save_imported(import_checkpoints(files[0], from_features=True), tmp_path)
    assert not (tmp_path / "from-codes.yaml").exists()


def test_microphone_hears_what_the_features_are_of() -> None:
    """From ``mic``, the encoder gets what the graph's own front end makes of the audio, frame by frame."""
    net = random_encoder(8, **SMALL_ENCODER)
    graph, inner = imported(net).double(), imported(net, from_features=True).double()
    assert {name: (s.channels, s.rate) for name, s in graph.inputs.items()} == {"mic": (1, 44100)}
    front = [graph.nodes[name].block for name in ("down", "wavlm")]
    x = torch.randn(1, 1, 44100).double()
    with torch.no_grad():
        features = front[1](front[0](x))
        got, want = graph(x), inner(features)
    frames = want["content"].shape[-1]
    torch.testing.assert_close(got["content"][..., :frames], want["content"], rtol=0, atol=1e-9)


def test_front_end_takes_the_weights_of_a_wavlm(tmp_path: Path) -> None:
    """Against torch's own convolutions: with 5 ms of silence in front, frame by frame as the original has it."""
    net = random_encoder(9, **SMALL_ENCODER)
    torch.manual_seed(0)
    layers = [torch.nn.Conv1d(16 if i else 1, 16, 3 if i else 10, stride=2 if i else 5, bias=False) for i in range(5)]
    norms = [torch.nn.LayerNorm(16) for _ in layers]
    state = {f"feature_extractor.conv_layers.{i}.conv.weight": layer.weight for i, layer in enumerate(layers)}
    for i, norm in enumerate(norms):
        torch.nn.init.normal_(norm.weight)
        state |= {f"feature_extractor.conv_layers.{i}.layer_norm.{k}": v for k, v in norm.named_parameters()}
    save_file({name: tensor.detach() for name, tensor in state.items()}, tmp_path / "wavlm.safetensors")
    file = encoder_file(tmp_path / "encoder.pt", net)
    made = import_checkpoints(file, wavlm=tmp_path / "wavlm.safetensors")
    recipe, weights = save_imported(made, tmp_path / "out")
    graph = astrape.load(recipe, weights=weights)
    assert made.notes == []
    audio = torch.randn(1, 1, 16000)
    with torch.no_grad():
        h = torch.nn.functional.pad(audio, (80, 0))
        for layer, norm in zip(layers, norms, strict=True):
            h = torch.nn.functional.gelu(norm(layer(h).transpose(1, 2)).transpose(1, 2))
        got = graph.nodes["wavlm"].block(audio)
    torch.testing.assert_close(got[..., 1 : h.shape[-1]], h[..., 1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("large", [True, False])
@torch.no_grad()
def test_from_a_microphone_only_the_first_5_ms_differ(tmp_path: Path, large: bool) -> None:
    """Frame ``k`` is the original's ``k - 1``, and its ``k`` of the recording with 80 samples of silence before it.

    So with WavLM-large's norms, and with the base models' once they are frozen to what the recording has.
    """
    net = random_encoder(14, **SMALL_ENCODER).double()
    layers = [torch.nn.Conv1d(16 if i else 1, 16, 3 if i else 10, stride=2 if i else 5, bias=False) for i in range(5)]
    norms = [torch.nn.LayerNorm(16) for _ in layers] if large else [torch.nn.GroupNorm(16, 16)]
    state = {f"feature_extractor.conv_layers.{i}.conv.weight": layer.weight.clone() for i, layer in enumerate(layers)}
    for i, norm in enumerate(norms):
        torch.nn.init.normal_(norm.weight)
        state |= {f"feature_extractor.conv_layers.{i}.layer_norm.{k}": v.clone() for k, v in norm.named_parameters()}
    torch.save(state, tmp_path / "wavlm.pt")
    file = encoder_file(tmp_path / "encoder.pt", net)
    graph = import_checkpoints(file, wavlm=tmp_path / "wavlm.pt").graph.double()
    mic = 0.1 * torch.randn(1, 1, 44100).double()
    audio = graph.nodes["down"].block(mic)

    def original(x: Tensor) -> Tensor:
        for i, layer in enumerate(layers):
            x = layer.double()(x)
            if large:
                x = norms[i].double()(x.mT).mT
            elif i == 0:
                x = norms[0].double()(x)
            x = torch.nn.functional.gelu(x)
        return x

    front = graph.nodes["wavlm"].block
    assert isinstance(front, WavLMCNN)
    if not large:
        save_file(freeze(front, measure_statistics(front, [audio])).state_dict(), tmp_path / "frozen.safetensors")
        graph = import_checkpoints(file, wavlm=tmp_path / "frozen.safetensors").graph.double()
        front = graph.nodes["wavlm"].block
        assert isinstance(front, WavLMCNN)
        assert front.norm == "frozen"
    own, alone = front(audio), original(audio)
    torch.testing.assert_close(own[..., 1:], alone[..., : own.shape[-1] - 1], rtol=0, atol=1e-6)
    padded = original(torch.nn.functional.pad(audio, (80, 0)))[..., : own.shape[-1]]
    if large:
        torch.testing.assert_close(own[..., 1:], padded[..., 1:], rtol=0, atol=1e-9)
    want, codes = net(torch.cat([own[..., :1], alone], dim=-1)[..., : own.shape[-1]])
    got = graph(mic)
    frames = want.shape[-1]
    torch.testing.assert_close(got["content"][..., :frames], want, rtol=0, atol=1e-6)
    assert torch.equal(got["codes"][..., :frames].long(), codes)


def test_mel_encoder_has_no_adapter() -> None:
    net = random_encoder(10, **SMALL_ENCODER, adapter=False)
    graph = imported(net, from_features=True)
    assert {name: (s.channels, s.rate) for name, s in graph.inputs.items()} == {"mel": (10, 50)}
    check_encoder(net, graph, 3.0)
    assert imported(net).nodes["mel"].block.rate_out == 50


def test_importing_leaves_random_numbers_alone(tmp_path: Path) -> None:
    file = decoder_file(tmp_path / "decoder.pt", random_decoder(11, **SMALL_DECODER))
    torch.manual_seed(5)
    import_checkpoints(decoder=file)
    drawn = torch.randn(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.randn(3))
