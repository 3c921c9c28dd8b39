"""Quantizers against their descriptions, evaluated by search; codes both ways; counts of codes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import astrape
from astrape.blocks import FSQ, Q2D2, FSQDecode, Q2D2Decode, Stream
from astrape.blocks.codebook import MixedRadix, check_codes, count_codes, perplexity, usage
from astrape.blocks.ops.planar import GRIDS
from astrape.errors import RateError
from tests.blocks.chunks import assert_chunks_agree, chunk_lists, noise
from tests.blocks.planar_oracle import all_points

FRAMES = Stream(25, 16)


def test_counts_of_the_specification() -> None:
    assert [GRIDS["rhombic"].size(n, n) for n in (9, 7)] == [145, 85]
    assert Q2D2(FRAMES).codebook_size == 3_048_625
    assert Q2D2(FRAMES, levels=[7] * 6).codebook_size == 614_125
    assert math.log2(3_048_625) * 25 == pytest.approx(538, abs=0.5)
    names = {name.rsplit(".", 1)[0] for name in Q2D2(FRAMES).state_dict()}
    assert names == {"latent_head", "quantizer.project_in.0", "proj_out"}


def reference(block: Q2D2, kind: str, levels: list[int], x: Tensor) -> tuple[Tensor, Tensor]:
    """Content and codes by search, one frame after the other, from the description and the block's weights."""
    weights = {name: tensor.double() for name, tensor in block.state_dict().items()}

    def linear(name: str, value: Tensor) -> Tensor:
        return weights[f"{name}.weight"] @ value + weights[f"{name}.bias"]

    contents, codes = [], []
    for frame in x.double().permute(0, 2, 1).reshape(-1, x.shape[1]):
        z = torch.tanh(linear("quantizer.project_in.0", linear("latent_head", frame)))
        quantized, code, base = [], 0, 1
        for pair in range(len(levels) // 2):
            nx, ny = levels[2 * pair : 2 * pair + 2]
            place = [float(z[2 * pair + i]) * (n - 1) * (1 + 1e-3) / 2 for i, n in enumerate((nx, ny))]
            points = all_points(kind, nx, ny)
            index = min(range(len(points)), key=lambda i: math.dist(points[i], place))
            quantized += [points[index][0] / (nx // 2), points[index][1] / (ny // 2)]
            code, base = code + base * index, base * len(points)
        vector = torch.tensor(quantized, dtype=torch.float64)
        if "quantizer.project_out.weight" in weights:
            vector = linear("quantizer.project_out", vector)
        contents.append(linear("proj_out", vector))
        codes.append(code)
    batch, _, frames = x.shape
    shape = (batch, frames, -1)
    return torch.stack(contents).reshape(shape).transpose(1, 2), torch.tensor(codes).reshape(batch, 1, frames)


@pytest.mark.parametrize(
    ("kind", "levels", "dim"),
    [
        ("rhombic", [9] * 6, None),
        ("rhombic", [5, 7, 3, 9], None),
        ("rectangular", [4, 7, 2, 9], 3),
        ("hexagonal", [8, 8, 5, 6], 6),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_q2d2_is_its_description(kind: str, levels: list[int], dim: int | None, dtype: torch.dtype) -> None:
    block = Q2D2(FRAMES, levels=levels, grid=kind, dim=dim, channels=10).to(dtype)
    x = 4 * noise(block, 60).to(dtype)
    y = block(x)
    content, codes = reference(block, kind, levels, x)
    assert torch.equal(y["codes"].long(), codes)
    torch.testing.assert_close(y["content"], content.to(dtype), rtol=1e-5, atol=1e-5)
    assert y["codes"].dtype == y["content"].dtype == dtype
    assert torch.equal(block.encode(x), codes)
    torch.testing.assert_close(block.decode(codes).double(), content, rtol=1e-5, atol=1e-5)
    decoder = Q2D2Decode(Stream(25, 1), levels=levels, grid=kind, dim=dim, channels=10).to(dtype)
    assert not decoder.load_state_dict(block.state_dict(), strict=False).missing_keys
    assert torch.equal(decoder(y["codes"]), y["content"])


def test_every_code_comes_back() -> None:
    block = Q2D2(FRAMES, levels=[3, 3, 5, 3, 3, 3], channels=4)
    pairs = block.quantizer.pairs
    codes = torch.arange(block.codebook_size, dtype=torch.float32).reshape(1, 1, -1)
    vectors = pairs.decode(codes)
    assert len(vectors[0].T.unique(dim=0)) == block.codebook_size
    # Values go into the grid scaled by (L - 1)(1 + 1e-3) / 2, which is L // 2 and a thousandth, so still nearest.
    assert torch.equal(pairs.encode(vectors)[1], codes)


def test_digits_are_exact_up_to_the_last_code() -> None:
    for sizes in ([145, 145, 145], [2] * 24, [16777216], [3, 5592405], [5592405, 3], [4095, 4097]):
        radix = MixedRadix(sizes)
        generator = torch.Generator().manual_seed(3)
        numbers = torch.randint(0, radix.size, (200_000,), generator=generator)
        borders = torch.tensor(math.prod(sizes[:-1])) * torch.randint(1, sizes[-1] + 1, (50_000,), generator=generator)
        numbers = torch.cat([numbers, borders - 1, borders % radix.size, torch.tensor([0, radix.size - 1])])
        digits = radix.split(numbers.float().reshape(1, 1, -1))
        rest = numbers
        for digit, size in zip(digits[0], sizes, strict=True):
            assert torch.equal(digit.long(), rest % size)
            rest = rest // size
        assert torch.equal(radix.join(digits).flatten().long(), numbers)


def test_gradient_goes_straight_to_the_tanh() -> None:
    block = Q2D2(FRAMES, levels=[9, 9, 7, 7], channels=5).double()
    x = noise(block, 6)
    latent = torch.einsum("oc,bct->bot", block.latent_head.weight, x) + block.latent_head.bias[:, None]
    projected = block.quantizer.project_in[0]
    z = torch.tanh(torch.einsum("oc,bct->bot", projected.weight, latent) + projected.bias[:, None])
    half = torch.tensor([4.0, 4, 3, 3], dtype=torch.float64)
    smooth = torch.einsum("oc,bct->bot", block.proj_out.weight, z / half[:, None]) + block.proj_out.bias[:, None]
    weight = torch.randn(smooth.shape, dtype=torch.float64)
    learned = [block.latent_head.weight, projected.weight, projected.bias]
    y = block(x)
    got = torch.autograd.grad((y["content"] * weight).sum(), learned)
    want = torch.autograd.grad((smooth * weight).sum(), learned)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert not y["codes"].requires_grad


@pytest.mark.parametrize("block", [Q2D2(FRAMES), FSQ(FRAMES, levels=[8, 5, 5])], ids=["q2d2", "fsq"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_change_nothing(block: Q2D2 | FSQ, half: torch.dtype) -> None:
    x = noise(block, 40).float()
    plain = block(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.mm(x[0], x[0].T).dtype == torch.bfloat16, "autocast is on"
        cast = block(x)
    assert torch.equal(cast["codes"], plain["codes"])
    assert torch.equal(cast["content"], plain["content"])

    # The same rounded weights and input, once in half precision and once widened.
    narrow = type(block)(FRAMES, levels=[9] * 6 if isinstance(block, Q2D2) else [8, 5, 5]).to(half)
    wide = type(block)(FRAMES, levels=[9] * 6 if isinstance(block, Q2D2) else [8, 5, 5])
    wide.load_state_dict(narrow.state_dict())
    got, want = narrow(x.to(half)), wide(x.to(half).float())
    assert torch.equal(got["codes"], want["codes"])
    assert got["codes"].max() > 2048 or isinstance(block, FSQ)
    assert got["content"].dtype == half
    assert torch.equal(got["content"], want["content"].to(half))


def test_decoder_clamps_and_decode_refuses() -> None:
    block = Q2D2Decode(Stream(25, 1), levels=[3, 3], channels=2)
    given = torch.tensor([[[-1.0, 12.4, 13.0, 1e9]]])
    assert torch.equal(block(given), block(torch.tensor([[[0.0, 12, 12, 12]]])))
    assert bool(block(torch.tensor([[[math.nan]]])).isnan().all())
    for bad in (given, torch.tensor([[[0.5]]]), torch.tensor([[[math.nan]]]), torch.tensor([[[13]]])):
        with pytest.raises(ValueError, match=r"codes must be whole numbers from 0 to 12, not .* at \(0, 0, \d\)"):
            block.decode(bad)
    assert torch.equal(block.decode(torch.tensor([[[12]]])), block(torch.tensor([[[12.0]]])))
    with pytest.raises(RateError, match="1 channel, not 3"):
        Q2D2Decode(Stream(25, 3))
    with pytest.raises(RateError, match="1 channel, not 3"):
        FSQDecode(Stream(25, 3), levels=[4], channels=8)


def test_too_many_codes_are_refused_or_left_out() -> None:
    with pytest.raises(ValueError, match=r"313 x 313 x 313 = 30664297 codes.* exact only up to 16777216.*codes: false"):
        Q2D2(FRAMES, levels=13)
    block = Q2D2(FRAMES, levels=13, codes=False, channels=10)
    assert block.codebook_size == 313**3
    x = noise(block, 20).float()
    y = block(x)
    assert y.keys() == block.outputs.keys() == {"content"}
    content, _ = reference(block, "rhombic", [13] * 6, x)
    torch.testing.assert_close(y["content"], content.float(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="no codes"):
        block.encode(x)
    assert Q2D2(FRAMES, levels=[4096 // 16] * 2 + [16] * 2, grid="rectangular").codebook_size == 1 << 24


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"levels": [9, 9, 9]}, "even number of axes"),
        ({"levels": [9, 8]}, r"levels\[1\] must be odd on a rhombic grid.*take 7 or 9"),
        ({"levels": [1, 9]}, r"levels\[0\]"),
        ({"levels": [9, 10**9]}, r"levels\[1\]"),
        ({"levels": [9, 9.0]}, r"levels\[1\]"),
        ({"levels": True}, r"levels\[0\]"),
        ({"levels": "99"}, "list of 1 to 64"),
        ({"levels": []}, "list of 1 to 64"),
        ({"levels": [3] * 66}, "list of 1 to 64"),
        ({"levels": 9, "dim": 10**9}, "dim"),
        ({"dim": 0}, "dim"),
        ({"grid": "square"}, "grid must be one of rhombic, rectangular, hexagonal"),
        ({"channels": 0}, "channels"),
        ({"channels": 10**9}, "channels"),
    ],
)
def test_q2d2_refuses(params: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Q2D2(FRAMES, **params)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "block",
    [
        Q2D2(FRAMES, levels=[9, 9], channels=3),
        Q2D2(FRAMES, levels=[4, 6], grid="hexagonal", channels=3),
        Q2D2(FRAMES, levels=[4, 6], grid="rectangular", channels=3, dim=3),
        FSQ(FRAMES, levels=[8, 5], channels=3),
    ],
    ids=["rhombic", "hexagonal", "rectangular", "fsq"],
)
@settings(max_examples=10, deadline=None)
@given(chunks=chunk_lists)
def test_chunks_agree(block: Q2D2 | FSQ, chunks: list[int]) -> None:
    assert_chunks_agree(block, chunks)


def scalar_levels(count: int) -> list[int]:
    return list(range(-(count // 2), count - count // 2))


def fsq_by_search(levels: list[int], z: Tensor) -> tuple[Tensor, Tensor]:
    """Each axis to the nearest of its levels, from the paper's definition, for ``(batch, axes, frames)``."""
    values, code, base = [], 0, 1
    for axis, count in enumerate(levels):
        reach = (count - 1) * (1 + 1e-3) / 2
        offset = 0.5 if count % 2 == 0 else 0.0
        bound = reach * torch.tanh(z[:, axis] + math.atanh(offset / reach)) - offset
        grid = torch.tensor(scalar_levels(count), dtype=z.dtype)
        index = (bound.unsqueeze(-1) - grid).abs().argmin(dim=-1)
        values.append(grid[index] / (count // 2))
        code, base = code + base * index, base * count
    return torch.stack(values, dim=1), torch.as_tensor(code).unsqueeze(1)


@pytest.mark.parametrize("levels", [[8, 8, 8, 5, 5], [2], [2, 3, 512], [7, 4]])
def test_fsq_is_its_description(levels: list[int]) -> None:
    width = len(levels)
    bare = FSQ(Stream(25, width), levels=levels, project_in=False, project_out=False)
    z = 3 * torch.randn(2, width, 2000, dtype=torch.float64)
    z[..., 0] = 0
    y = bare(z)
    values, codes = fsq_by_search(levels, z)
    assert torch.equal(y["content"], values)
    assert torch.equal(y["codes"].long(), codes)
    assert bool((y["content"][..., 0] == 0).all()), "0 stays 0"
    assert not list(bare.parameters())

    block = FSQ(FRAMES, levels=levels, channels=7).double()
    x = noise(block, 200)
    layers = [nn.Linear(16, width).double(), nn.Linear(width, 7).double()]
    layers[0].load_state_dict(block.project_in.state_dict())
    layers[1].load_state_dict(block.project_out.state_dict())
    values, codes = fsq_by_search(levels, layers[0](x.transpose(1, 2)).transpose(1, 2))
    y = block(x)
    torch.testing.assert_close(y["content"], layers[1](values.transpose(1, 2)).transpose(1, 2))
    assert torch.equal(block.encode(x), codes)
    decoder = FSQDecode(Stream(25, 1), levels=levels, channels=7).double()
    assert not decoder.load_state_dict(block.state_dict(), strict=False).missing_keys
    assert torch.equal(decoder(y["codes"]), y["content"])
    torch.testing.assert_close(block.decode(codes).double(), y["content"], rtol=1e-5, atol=1e-5)


def test_fsq_reaches_every_level_and_no_other() -> None:
    for count in (2, 3, 4, 5, 8, 255, 512):
        block = FSQ(Stream(25, 1), levels=[count], project_in=False, project_out=False)
        z = torch.linspace(-12, 12, 400_001, dtype=torch.float64).reshape(1, 1, -1)
        assert block(z)["codes"].unique().tolist() == list(range(count))


def test_fsq_gradient_passes_the_rounding() -> None:
    block = FSQ(Stream(25, 2), levels=[8, 5], project_in=False, project_out=False)
    z = torch.randn(1, 2, 50, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(block(z)["content"].sum(), z)
    reach = torch.tensor([7, 4], dtype=torch.float64).reshape(2, 1) * 1.001 / 2
    shift = torch.atanh(torch.tensor([0.5, 0.0], dtype=torch.float64).reshape(2, 1) / reach)
    half = torch.tensor([4.0, 2.0], dtype=torch.float64).reshape(2, 1)
    (want,) = torch.autograd.grad((torch.tanh(z + shift) * reach / half).sum(), z)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"levels": []}, "levels"),
        ({"levels": [1]}, r"levels\[0\]"),
        ({"levels": [8, 8], "project_in": False}, "project_in"),
        ({"levels": [8, 8], "project_out": False, "channels": 5}, "project_out"),
        ({"levels": [512, 512, 512]}, "exact only up to"),
        ({"levels": [8], "channels": 0}, "channels"),
    ],
)
def test_fsq_refuses(params: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FSQ(FRAMES, **params)  # type: ignore[arg-type]


def test_counts_usage_and_perplexity() -> None:
    codes = torch.tensor([[[0.0, 2, 2, 5]], [[5, 5, 5, 0]]])
    counts = count_codes(codes, 8)
    assert counts.tolist() == [2, 0, 2, 0, 0, 4, 0, 0]
    assert torch.equal(count_codes(codes[:1], 8) + count_codes(codes[1:], 8), counts)
    assert usage(counts) == 3 / 8
    assert perplexity(counts) == pytest.approx(2 ** (0.5 * 1 + 2 * 0.25 * 2))
    assert perplexity(torch.full((100,), 7)) == pytest.approx(100)
    assert perplexity(torch.tensor([0, 9])) == perplexity(torch.zeros(4, dtype=torch.int64)) == 1
    assert usage(torch.zeros(4, dtype=torch.int64)) == 0
    with pytest.raises(ValueError, match=r"from 0 to 7, not 8"):
        count_codes(torch.tensor([8]), 8)
    with pytest.raises(ValueError, match="elements"):
        count_codes(codes, 10**12)
    assert torch.equal(check_codes(codes, 6), codes)


def test_codes_of_a_recipe_decode_to_its_content() -> None:
    recipe = {
        "recipe": "coded",
        "inputs": {"features": {"rate": 25, "channels": 16}},
        "blocks": {
            "q2d2": {"use": "q2d2", "levels": [9, 9, 9, 9, 9, 9], "grid": "rhombic", "channels": 12},
            "again": {"use": "q2d2_decode", "from": "q2d2.codes", "levels": 9, "channels": 12},
        },
        "outputs": {"content": "q2d2.content", "codes": "q2d2.codes", "decoded": "again"},
    }
    graph = astrape.compile(recipe)
    weights = graph.state_dict()
    for name in [name for name in weights if "again" in name]:
        weights[name] = weights[name.replace("again", "q2d2")]
    graph.load_state_dict(weights)
    session = graph.stream()
    x = torch.randn(1, 16, 50)
    parts = [session.push(x[..., at : at + 7]) for at in range(0, 50, 7)]
    content, codes, decoded = (torch.cat([part[name] for part in parts], dim=-1) for name in graph.outputs)
    assert torch.equal(decoded, content)
    assert codes.shape == (1, 1, 50)
    assert len(codes.unique()) > 40


def test_exports_and_matches() -> None:
    for block in (Q2D2(FRAMES), Q2D2(FRAMES, levels=8, grid="hexagonal"), Q2D2Decode(Stream(25, 1))):
        x = torch.randint(0, 10**6, (1, 1, 1)).float() if isinstance(block, Q2D2Decode) else torch.randn(1, 16, 1)

        class Step(nn.Module):
            def __init__(self, block: nn.Module) -> None:
                super().__init__()
                self.block = block

            def forward(self, x: Tensor) -> object:
                return self.block.step(x, (), {})[0]

        exported = torch.export.export(Step(block).eval(), (x,)).module()
        want, got = block(x), exported(x)
        torch.testing.assert_close(got, want, rtol=0, atol=0)
