"""Transformer layers and stacks, plain and modulated, against a naive one."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from astrape.blocks import Stream, StreamBlock
from astrape.blocks.adaln import AdaLN
from astrape.blocks.attention import Attention
from astrape.blocks.transformer import Transformer, TransformerLayer
from astrape.errors import StreamError
from astrape.testing import check_block
from tests.blocks.attention_oracle import naive_layer, naive_norm, noise, shaken
from tests.blocks.chunks import assert_declared, run_chunks


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def transformer(channels: int = 12, **options: Any) -> Transformer:
    options = {"layers": 2, "heads": 2, "window": 5, "ffn": 16, **options}
    return shaken(Transformer(Stream(25, channels), **options))


@pytest.mark.parametrize("condition", [None, "speaker"])
@pytest.mark.parametrize("rotary", ["half", "interleaved"])
def test_transformer_is_the_naive_one(condition: str | None, rotary: str) -> None:
    block = transformer(condition=condition, condition_channels=6, rotary=rotary)
    x, control = noise(2, 12, 13), noise(2, 6, seed=1)
    expected = x
    for layer in block.layers:
        assert isinstance(layer, TransformerLayer)
        expected = naive_layer(layer, expected, rotary, None if condition is None else control)
    assert block.norm is not None
    expected = naive_norm(expected) * block.norm.weight[:, None] + block.norm.bias[:, None]
    controls = {} if condition is None else {"speaker": control}
    torch.testing.assert_close(block(x, **controls), expected, rtol=0, atol=1e-10)


@given(
    chunks=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    window=st.integers(1, 9),
    layers=st.integers(1, 3),
    seed=st.integers(0, 99),
    condition=st.sampled_from([None, "speaker"]),
)
@settings(max_examples=40, deadline=None)
def test_any_chunking_gives_the_same_frames(
    chunks: list[int], window: int, layers: int, seed: int, condition: str | None
) -> None:
    block = shaken(
        Transformer(
            Stream(25, 4), layers=layers, heads=2, window=window, ffn=5, condition=condition, condition_channels=3
        ),
        seed,
    )
    x = noise(2, 4, sum(chunks), seed=seed)
    controls = {} if condition is None else {"speaker": noise(2, 3, seed=seed)}
    torch.testing.assert_close(run_chunks(block, x, chunks, controls)[""], block(x, **controls), rtol=0, atol=1e-10)


def test_a_stream_of_a_hundred_thousand_frames_sounds_like_its_last_frames_alone() -> None:
    """The same last frames after 10^5 others, and after nothing: equal from where the receptive field is full."""
    block = transformer(channels=4, window=6)
    reach = 2 * (6 - 1)
    x = noise(1, 4, 100_000)
    with torch.no_grad():
        state = block.init_state(1, dtype=x.dtype)
        for piece in x.split(7000, dim=-1):
            old, state = block.step(piece, state, block.prepare({}))
        fresh = block(x[..., -50:])
    torch.testing.assert_close(old[..., -50 + reach :], fresh[..., reach:], rtol=0, atol=1e-10)
    assert int(state["age"]) == 100_000


def test_a_long_pass_takes_memory_linear_in_its_length() -> None:
    """20,000 frames: one 20,000 x 20,000 mask of bytes alone would be 400 MB."""
    block = transformer(channels=4, window=32, layers=1)
    with torch.no_grad():
        block(noise(1, 4, 2000))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        block(noise(1, 4, 20_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("condition", [None, "speaker"])
@pytest.mark.parametrize(("layers", "window"), [(1, 1), (1, 4), (2, 3), (3, 2)])
def test_declared_reach_is_the_measured_reach(layers: int, window: int, condition: str | None) -> None:
    block = transformer(layers=layers, window=window, condition=condition, condition_channels=3)
    assert block.receptive_field == Fraction(layers * (window - 1) + 1, 25)
    assert block.latency == 0
    if condition is None:
        assert_declared(block)
    x = noise(1, 12, 12).requires_grad_()
    controls = {} if condition is None else {"speaker": noise(1, 3)}
    (slope,) = torch.autograd.grad(block(x, **controls)[0, :, 9] @ noise(12, seed=3), x)
    touched = (slope[0] != 0).any(0).nonzero().flatten().tolist()
    assert touched == list(range(9 - layers * (window - 1), 10))


def test_gradients_are_the_same_in_both_modes() -> None:
    block = transformer(condition="speaker", condition_channels=3)
    x, control = noise(2, 12, 11).requires_grad_(), noise(2, 3).requires_grad_()
    wanted = [x, control, *block.parameters()]
    whole = torch.autograd.grad(block(x, speaker=control).square().sum(), wanted)
    cut = torch.autograd.grad(run_chunks(block, x, [1, 4, 0, 6], {"speaker": control})[""].square().sum(), wanted)
    for one, other in zip(whole, cut, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_float32_error_is_rounding() -> None:
    block = transformer(channels=64, heads=4, window=32, layers=4, ffn=64)
    nn.init.normal_(block.layers[0].w1.weight, std=0.05)
    for parameter in block.parameters():
        with torch.no_grad():
            parameter.mul_(0.3)
    x = noise(1, 64, 200)
    exact = block(x)
    single = block.float()
    whole = single(x.float())
    steps = run_chunks(single, x.float(), [1] * 200)[""]
    scale = exact.abs().max()
    assert (whole - exact).abs().max() / scale < 2e-5
    assert (steps - exact).abs().max() / scale < 2e-5


def test_autocast_keeps_the_form_of_the_state() -> None:
    torch.set_default_dtype(torch.float32)
    block = transformer()
    x = noise(1, 12, 8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = run_chunks(block, x, [1, 3, 4])[""]
    expected = block(x)
    assert (y - expected).abs().max() < 0.1 * expected.abs().max()


class OneStep(nn.Module):
    def __init__(self, block: StreamBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, state: Any, prepared: Any) -> tuple[Tensor, Any]:
        return self.block.step(x, state, prepared)


@pytest.mark.parametrize(("condition", "rotary"), [(None, "half"), ("speaker", "interleaved")])
def test_export_takes_one_step(condition: str | None, rotary: str) -> None:
    block = transformer(condition=condition, condition_channels=3, rotary=rotary)
    controls: Mapping[str, Tensor] = {} if condition is None else {"speaker": noise(1, 3)}
    x = noise(1, 12, 12)
    prepared, state = block.prepare(controls), block.init_state(1)
    exported = torch.export.export(OneStep(block), (x[..., :1], state, prepared)).module()
    parts = []
    for frame in x.split(1, dim=-1):
        y, state = exported(frame, state, prepared)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=-1), block(x, **controls), rtol=0, atol=1e-12)


def test_adaln_begins_as_a_plain_norm_and_a_conditioned_stack_as_identity() -> None:
    x, control = noise(2, 12, 5), noise(2, 6)
    block = AdaLN(Stream(25, 12), condition="speaker", condition_channels=6)
    torch.testing.assert_close(block(x, speaker=control), naive_norm(x), rtol=0, atol=1e-12)
    stack = Transformer(
        Stream(25, 12), layers=2, heads=2, window=3, ffn=8, condition="speaker", condition_channels=6, final_norm=False
    )
    assert torch.equal(stack(x, speaker=control), x)
    with pytest.raises(StreamError, match="control 'speaker'"):
        stack(x)


def test_a_control_is_projected_once_per_change() -> None:
    block = transformer(condition="speaker", condition_channels=3)
    calls = []
    for module in block.modules():
        if isinstance(module, AdaLN):
            module.condition_proj.register_forward_hook(lambda *_: calls.append(1))
    prepared, state = block.prepare({"speaker": noise(1, 3)}), block.init_state(1)
    for frame in noise(1, 12, 4).split(1, dim=-1):
        _, state = block.step(frame, state, prepared)
    assert len(calls) == 4


def test_names_of_the_checkpoint() -> None:
    names = set(TransformerLayer(Stream(25, 8), heads=2, window=3, ffn=4).state_dict())
    assert names == {
        f"{name}.{kind}"
        for name in ("norm1", "norm2", "attn.out_proj", "w1", "w2", "w3")
        for kind in ("weight", "bias")
    } | {"attn.in_proj_weight", "attn.in_proj_bias"}
    conditioned = TransformerLayer(Stream(25, 8), heads=2, window=3, ffn=4, condition="speaker", bias=False)
    assert set(conditioned.state_dict()) == {f"{name}.weight" for name in ("attn.out_proj", "w1", "w2", "w3")} | {
        "attn.in_proj_weight"
    } | {f"{name}_adaln.condition_proj.1.{kind}" for name in ("attn", "ffn") for kind in ("weight", "bias")}


def test_the_sizes_of_the_voice_conversion_system() -> None:
    encoder = Transformer(Stream(25, 512), layers=1, heads=8, window=256, ffn=1024)
    state = encoder.init_state(1)
    assert state["layers"][0]["keys"].shape == (1, 8, 256, 64)
    assert (
        Transformer(Stream(25, 384), layers=1, heads=8, window=64, ffn=1536, bias=False).layers[0].attn.head_dim == 48
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, "layers must be a whole number from 1 to 256, not 0"),
        ({"heads": 5}, "heads must divide the 12 channels, and 5 does not"),
        ({"heads": 0}, "heads must be"),
        ({"heads": 4}, "head_dim must be even for rotary positions, not 3"),
        ({"window": 0}, "window must be a whole number from 1 to 16384, not 0"),
        ({"window": 10**9}, "window must be"),
        ({"ffn": 10**9}, "ffn must be"),
        ({"channels": 16}, "channels must be the input's 12, not 16: put a linear block before"),
        ({"rotary": "thirds"}, "rotary must be one of half, interleaved, none"),
        ({"theta": 0.0}, "theta must be"),
        ({"head_dim": 10**6}, "head_dim must be"),
        ({"condition": 3}, "condition must be the name of a control, not 3"),
        ({"condition": "speaker", "condition_channels": 0}, "condition_channels must be"),
    ],
)
def test_hostile_parameters_are_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Transformer(Stream(25, 12), **{"layers": 1, "heads": 2, "window": 4, "ffn": 8, **options})


@pytest.mark.parametrize(
    "build",
    [
        lambda source: AdaLN(source, condition="speaker", condition_channels=4),
        lambda source: Attention(source, heads=2, window=1),
        lambda source: TransformerLayer(source, heads=2, window=4, ffn=12, rotary="interleaved"),
        lambda source: Transformer(source, layers=2, heads=2, window=4, ffn=12, condition="speaker", bias=False),
    ],
)
def test_the_contract_holds(build: Any) -> None:
    torch.set_default_dtype(torch.float32)
    check_block(shaken(build(Stream(25, 8))))
