"""WavLM's front end: against transformers, against torch's own layers, and what its norms promise."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import astrape
from astrape.blocks import Stream, WavLMCNN
from astrape.errors import CausalityError, RateError

AUDIO = Stream(16000, 1)
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)


def torch_layers(block: WavLMCNN, x: Tensor) -> Tensor:
    """The original's way, of torch's own layers: nothing padded, a group norm over the whole utterance.

    What lies before the first window that ends with a hop is dropped after layer 0, behind the utterance's statistics.
    """
    for index, layer in enumerate(block.conv_layers):
        x = functional.conv1d(x, layer.conv.weight, layer.conv.bias, stride=STRIDES[index])
        if block.norm == "layer":
            norm = nn.LayerNorm(x.shape[1], dtype=x.dtype)
            norm.load_state_dict(layer.layer_norm.state_dict())
            x = norm(x.mT).mT
        elif index == 0:
            group = nn.GroupNorm(x.shape[1], x.shape[1], dtype=x.dtype)
            group.load_state_dict({name: layer.layer_norm.state_dict()[name] for name in ("weight", "bias")})
            x = group(x)
        x = functional.gelu(x)
        if index == 0 and len(block.conv_layers) > 1:
            x = x[..., (2 * block.hop - block.window) // 5 :]
    return x


def random_block(**params: object) -> WavLMCNN:
    block = WavLMCNN(AUDIO, **params)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return block


@pytest.mark.parametrize("norm", ["utterance", "layer"])
@pytest.mark.parametrize("layers", range(1, 8))
def test_equals_torchs_own_layers_one_frame_later(norm: str, layers: int) -> None:
    block = random_block(layers=layers, channels=6, norm=norm).double()
    x = torch.randn(2, 1, 12 * block.hop, dtype=torch.float64)
    y, want = block(x), torch_layers(block, x)
    assert want.shape[-1] == y.shape[-1] - 1
    torch.testing.assert_close(y[..., 1:], want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", ["base", "large"])
def test_equals_transformers(size: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.WavLMConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(24,) * 5,
        conv_kernel=KERNELS[:5],
        conv_stride=STRIDES[:5],
        feat_extract_norm="group" if size == "base" else "layer",
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    model = transformers.WavLMModel(config).eval()
    block = WavLMCNN(AUDIO, channels=24, norm="utterance" if size == "base" else "layer")
    with torch.no_grad():
        for parameter in model.feature_extractor.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        weights = {
            name.removeprefix("feature_extractor."): tensor
            for name, tensor in model.state_dict().items()
            if name.startswith("feature_extractor.")
        }
        block.load_state_dict(weights)
        x = torch.randn(2, 16000)
        want, y = model.feature_extractor(x), block(x[:, None])
    torch.testing.assert_close(y[..., 1:], want, rtol=1e-5, atol=1e-5)


def test_sizes_latency_and_names() -> None:
    block = WavLMCNN(AUDIO)
    assert (block.window, block.hop, block.rate_out) == (160, 80, 200)
    assert block.latency == Fraction(40, 16000)
    # 5 layers of 512 channels without biases, and layer 0's norm.
    assert sum(p.numel() for p in block.parameters()) == 512 * 10 + 4 * 512 * 512 * 3 + 2 * 512 == 3_151_872
    assert not any(p.requires_grad for p in block.parameters())
    names = {"conv_layers.0.layer_norm.weight", "conv_layers.0.layer_norm.bias"}
    assert set(block.state_dict()) == names | {f"conv_layers.{index}.conv.weight" for index in range(5)}
    for layers, (hop, window) in enumerate(
        [(5, 10), (10, 20), (20, 40), (40, 80), (80, 160), (160, 240), (320, 400)], 1
    ):
        short = WavLMCNN(AUDIO, layers=layers, channels=2)
        assert (short.hop, short.window, short.latency) == (hop, window, Fraction(window - hop, 32000))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), norm=st.sampled_from(["cumulative", "frozen"]))
def test_norms_of_layer_0_are_what_they_say(seed: int, norm: str) -> None:
    torch.manual_seed(seed)
    block = random_block(layers=1, channels=3, norm=norm, floor=0.0).double()
    layer = block.conv_layers[0]
    if norm == "frozen":
        layer.layer_norm.mean.normal_()
        layer.layer_norm.variance.uniform_(0.1, 2)
    x = torch.randn(1, 1, 60 * 5, dtype=torch.float64)
    raw = functional.conv1d(functional.pad(x, (5, 0)), layer.conv.weight, stride=5)
    columns = []
    for frame in range(raw.shape[-1]):
        heard = raw[..., : frame + 1]
        mean, variance = heard.mean(dim=-1), heard.var(dim=-1, correction=0)
        if norm == "frozen":
            mean, variance = layer.layer_norm.mean, layer.layer_norm.variance
        scaled = (raw[..., frame] - mean) / (variance + 1e-5).sqrt()
        columns.append(scaled * layer.layer_norm.weight + layer.layer_norm.bias)
    torch.testing.assert_close(block(x), functional.gelu(torch.stack(columns, -1)), rtol=1e-9, atol=1e-9)


def test_cumulative_comes_to_the_utterance() -> None:
    cumulative = random_block(channels=16)
    utterance = WavLMCNN(AUDIO, channels=16, norm="utterance")
    utterance.load_state_dict(cumulative.state_dict())
    x = 0.1 * torch.randn(1, 1, 16000 * 8)
    with torch.no_grad():
        alike = functional.cosine_similarity(cumulative(x), utterance(x), dim=1)[0]
    assert alike[1:6].mean() < alike[-200:].mean()
    assert alike[-200:].min() > 0.9999


def test_silence_first_then_sound_stays_bounded() -> None:
    block = random_block(channels=8)
    x = torch.cat([torch.zeros(1, 1, 8000), 0.3 * torch.randn(1, 1, 8000)], dim=-1)
    first = block.conv_layers[0]
    with torch.no_grad():
        normed, _ = first.step(x, first.init_state(1), ())
        assert torch.isfinite(block(x)).all()
    # The floor and epsilon are 1e-5 each.
    raw = functional.conv1d(functional.pad(x, (5, 0)), first.conv.weight, stride=5).abs().amax()
    norm = first.layer_norm
    bound = norm.weight.abs().amax() * 2 * raw / (2e-5) ** 0.5 + norm.bias.abs().amax()
    assert normed.abs().amax() <= bound


def test_an_utterance_norm_is_refused_where_it_would_stream() -> None:
    with pytest.raises(CausalityError, match=r"looks ahead without bound.*down -> front"):
        astrape.compile(
            {
                "recipe": "late",
                "inputs": {"mic": {"rate": 44100, "channels": 1}},
                "blocks": {
                    "down": {"use": "resampler", "rate": 16000},
                    "front": {"use": "wavlm_cnn", "channels": 2, "norm": "utterance"},
                },
                "outputs": {"features": "front"},
            }
        )
    block = WavLMCNN(AUDIO, channels=2, norm="utterance")
    with pytest.raises(CausalityError, match="step"):
        block.step(torch.zeros(1, 1, 80), block.init_state(1), {})


@pytest.mark.parametrize("source", [Stream(44100, 1), Stream(16000, 2)])
def test_other_input_is_refused(source: Stream) -> None:
    with pytest.raises(RateError, match="16000"):
        WavLMCNN(source)


@pytest.mark.parametrize(
    ("params", "said"), [({"layers": 8}, "layers"), ({"channels": 0}, "channels"), ({"norm": "group"}, "norm")]
)
def test_parameters_out_of_range_are_named(params: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WavLMCNN(AUDIO, **params)
