from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from astrape.blocks import Stream, block_class
from astrape.blocks.recurrent import GRU, SCAN_FRAMES, SSM, scan
from tests.blocks.chunks import assert_chunks_agree, chunk_lists, noise

SOURCE = Stream(50, 5)


@pytest.mark.parametrize("layers", [1, 3])
def test_gru_equals_torch(layers: int) -> None:
    torch.manual_seed(1)
    block = GRU(SOURCE, channels=4, layers=layers)
    torch.manual_seed(1)
    layer = nn.GRU(5, 4, layers, batch_first=True)
    x = noise(block, 9).float()
    torch.testing.assert_close(block(x), layer(x.transpose(1, 2))[0].transpose(1, 2))
    assert block.init_state(3).shape == (3, layers, 4)


@settings(max_examples=15, deadline=None)
@given(layers=st.integers(1, 3), chunks=chunk_lists, seed=st.integers(0, 99))
def test_gru_in_chunks(layers: int, chunks: list[int], seed: int) -> None:
    assert_chunks_agree(GRU(SOURCE, channels=4, layers=layers), chunks, seed=seed)


def naive_ssm(block: SSM, x: Tensor) -> Tensor:
    """The equations frame by frame, state number by state number of one row, from the weights alone."""
    weights = block.state_dict()
    inner, states, rank = block.inner, block.states, block.rank
    kernel = weights["conv.weight"].shape[-1]
    heard = torch.zeros(inner, kernel, dtype=x.dtype)
    hidden = torch.zeros(inner, states, dtype=x.dtype)
    frames = []
    for t in range(x.shape[-1]):
        projected = weights["in_proj.weight"] @ x[:, t]
        heard = torch.cat([heard[:, 1:], projected[:inner, None]], dim=1)
        u = functional.silu((weights["conv.weight"][:, 0] * heard).sum(dim=1) + weights["conv.bias"])
        mixed = weights["x_proj.weight"] @ u
        size = torch.log1p(torch.exp(weights["dt_proj.weight"] @ mixed[:rank] + weights["dt_proj.bias"]))
        into, out_of = mixed[rank : rank + states], mixed[rank + states :]
        y = torch.empty(inner, dtype=x.dtype)
        for e in range(inner):
            hidden[e] = torch.exp(-size[e] * weights["A_log"][e].exp()) * hidden[e] + size[e] * into * u[e]
            y[e] = out_of @ hidden[e] + weights["D"][e] * u[e]
        frames.append(weights["out_proj.weight"] @ (y * functional.silu(projected[inner:])))
    return torch.stack(frames, dim=-1)


def trained(seed: int, **given: int) -> SSM:
    """A block with weights large enough that the selection does something."""
    torch.manual_seed(seed)
    block = SSM(SOURCE, **given).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return block


@pytest.mark.parametrize("frames", [1, SCAN_FRAMES, 2 * SCAN_FRAMES + 5])
def test_ssm_equals_the_equations(frames: int) -> None:
    block = trained(frames, channels=3, states=4)
    x = noise(block, frames, batch=1)
    torch.testing.assert_close(block(x)[0], naive_ssm(block, x[0]), rtol=1e-10, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(
    given_=st.fixed_dictionaries(
        {"states": st.integers(1, 4), "kernel": st.integers(1, 5), "expand": st.integers(1, 3)}
    ),
    chunks=chunk_lists,
    seed=st.integers(0, 99),
)
def test_ssm_in_chunks(given_: dict[str, int], chunks: list[int], seed: int) -> None:
    assert_chunks_agree(trained(seed, **given_), chunks, seed=seed)


def test_ssm_in_chunks_across_blocks_of_the_scan() -> None:
    assert_chunks_agree(trained(0), [SCAN_FRAMES - 1, 3, 2 * SCAN_FRAMES, 40])


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 150), seed=st.integers(0, 99))
def test_scan_equals_the_loop(frames: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    decay = torch.rand(2, 3, frames, generator=generator, dtype=torch.float64)
    drive = torch.randn(2, 3, frames, generator=generator, dtype=torch.float64)
    state = start = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    want = []
    for t in range(frames):
        state = decay[..., t] * state + drive[..., t]
        want.append(state)
    torch.testing.assert_close(scan(decay, drive, start), torch.stack(want, dim=-1), rtol=1e-10, atol=1e-10)


def test_scan_survives_decays_that_vanish() -> None:
    decay = torch.full((1, 1, 64), 1e-30)
    assert torch.equal(scan(decay, torch.ones(1, 1, 64), torch.ones(1, 1)), torch.ones(1, 1, 64))


def test_first_step_sizes_and_gradients() -> None:
    block = SSM(Stream(50, 8))
    sizes = functional.softplus(block.dt_proj.get_parameter("bias").detach())
    assert 1e-3 * 0.99 <= float(sizes.min()) <= float(sizes.max()) <= 1e-1 * 1.01
    torch.testing.assert_close(block.A_log[0].exp(), torch.arange(1.0, 17.0))
    block(noise(block, 70).float()).square().mean().backward()
    assert all(bool(p.grad is not None and (p.grad != 0).any()) for p in block.parameters())


def test_declared_times() -> None:
    for block in (GRU(SOURCE), SSM(SOURCE)):
        assert (block.latency, block.lookahead, block.receptive_field, block.channels_out) == (0, 0, None, 5)
        assert block.oldest_input(0) is None


def test_refuses() -> None:
    for wrong in ({"channels": 0}, {"layers": 0}, {"layers": 65}, {"channels": 65536, "layers": 64}):
        with pytest.raises(ValueError, match=r"channels|layers|weights"):
            GRU(SOURCE, **wrong)
    for name in ("channels", "states", "expand", "kernel", "rank"):
        for value in (0, 10**9, 1.5):
            with pytest.raises(ValueError, match=name):
                SSM(SOURCE, **{name: value})  # type: ignore[arg-type]
    assert (block_class("gru"), block_class("ssm")) == (GRU, SSM)
