"""Relaxed quantizers: soft while they learn, untouched otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astrape.blocks import FSQ, Q2D2
from astrape.blocks.base import Stream, StreamBlock
from astrape.training.errors import TrainingError
from astrape.training.relaxation import GumbelRelaxation, NoiseRelaxation, build_relaxation, relaxed

SPECS = [{"use": "noise"}, {"use": "gumbel"}]
GRIDS = ["rhombic", "rectangular", "hexagonal"]


def quantizers() -> list[StreamBlock]:
    return [
        *(Q2D2(Stream(25, 8), levels=[5, 7], grid=grid, channels=6) for grid in GRIDS),
        FSQ(Stream(25, 8), levels=[4, 5]),
    ]


@pytest.mark.parametrize("spec", SPECS)
def test_only_training_inside_of_the_with_is_soft(spec: dict) -> None:
    x = torch.randn(2, 8, 50)
    for block in quantizers():
        snapped = block(x)
        with relaxed(block, build_relaxation(spec)):
            soft = block(x)
            block.eval()
            evaluated = block(x)
            block.train()
        after = block(x)
        assert not torch.equal(soft["content"], snapped["content"])
        assert torch.equal(soft["codes"], snapped["codes"])
        for same in (evaluated, after):
            assert torch.equal(same["content"], snapped["content"])


def test_an_error_inside_takes_the_relaxation_away() -> None:
    block = quantizers()[0]
    with pytest.raises(RuntimeError), relaxed(block, NoiseRelaxation()):
        raise RuntimeError
    assert block.quantizer.pairs.relaxation is None


def test_points_are_those_that_codes_stand_for() -> None:
    for block in quantizers():
        points = block.quantizer.pairs if isinstance(block, Q2D2) else block.axes
        tables = points.points(torch.zeros(1))
        half = np.array([2, 3] if isinstance(block, Q2D2) else [2, 2])
        codes = torch.arange(points.size, dtype=torch.float32)[None, None]
        decoded = points.decode(codes)[0].T.numpy() * half
        if isinstance(block, Q2D2):
            np.testing.assert_allclose(decoded, tables[0].T.numpy(), atol=1e-6)
        else:
            counted = [(a, b) for b in tables[1][0].tolist() for a in tables[0][0].tolist()]
            np.testing.assert_allclose(decoded, counted, atol=1e-6)


def test_noise_stays_within_its_scale_and_has_a_true_gradient() -> None:
    place = torch.randn(2, 3, 2, 400, requires_grad=True)
    moved = NoiseRelaxation(0.25)(place, [])
    error = (moved - place).detach()
    assert error.abs().max() <= 0.25
    assert error.var().item() == pytest.approx(0.25**2 / 3, rel=0.05)
    moved.sum().backward()
    assert torch.equal(place.grad, torch.ones_like(place))


def test_gumbel_draws_points_with_the_odds_it_says() -> None:
    table = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    place = torch.tensor([0.2, 0.3]).view(1, 1, 2, 1).expand(1, 1, 2, 20000)
    drawn = GumbelRelaxation(scale=0.6)(place, [table])[0, 0]
    wanted = np.exp(-np.array([0.13, 0.73, 0.04 + 2.89]) / (2 * 0.36))
    wanted /= wanted.sum()
    counts = [(drawn == table[:, [index]]).all(dim=0).float().mean().item() for index in range(3)]
    assert sum(counts) == pytest.approx(1.0)
    np.testing.assert_allclose(counts, wanted, atol=0.015)


@pytest.mark.parametrize("spec", SPECS)
def test_frames_stay_by_themselves(spec: dict) -> None:
    """No output frame has a gradient to another frame's input."""
    for block in quantizers():
        x = torch.randn(1, 8, 6, requires_grad=True)
        with relaxed(block, build_relaxation(spec)):
            content = block(x)["content"]
        (gradient,) = torch.autograd.grad(content[..., 3].square().sum(), x)
        assert gradient[..., 3].abs().sum() > 0
        assert not gradient[..., [0, 1, 2, 4, 5]].any()


@pytest.mark.parametrize("spec", SPECS)
def test_a_random_state_repeats_it(spec: dict) -> None:
    block, x = quantizers()[0], torch.randn(1, 8, 30)
    with relaxed(block, build_relaxation(spec)):
        state = torch.get_rng_state()
        first, second = block(x)["content"], block(x)["content"]
        torch.set_rng_state(state)
        assert torch.equal(block(x)["content"], first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": "nose"}, "use must be one of noise, gumbel"),
        ({}, "use must be one of"),
        ({"use": "noise", "scale": -1}, "scale must be a number from 0 to 4"),
        ({"use": "noise", "sale": 1}, "sale"),
        ({"use": "gumbel", "temperature": 0}, "temperature must be"),
    ],
)
def test_what_cannot_be_built_is_named(spec: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        build_relaxation(spec)
