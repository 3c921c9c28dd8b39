"""Discriminators: their published sizes, what they look at, and the losses on what they say."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from astrape.training.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
)
from astrape.training.objectives import Judgement, LossContext, Objective, build_loss


def build(name: str) -> Objective:
    return build_loss({"use": name, "of": "wav"}, LossContext({"wav": 1}, {"wav": Fraction(44100)}))


def test_together_they_have_70_73_million_parameters() -> None:
    """Weights by hand: kernel * channels in * out / groups, a gain of the weight norm and a bias for each out."""
    plan = [(1, 32), (32, 128), (128, 512), (512, 1024), (1024, 1024)]
    period = sum(5 * i * o + 2 * o for i, o in plan) + 3 * 1024 + 2
    layers = [(1, 128, 15, 1), (128, 128, 41, 4), (128, 256, 41, 16), (256, 512, 41, 16), (512, 1024, 41, 16)]
    layers += [(1024, 1024, 41, 16), (1024, 1024, 5, 1), (1024, 1, 3, 1)]
    scale = sum(k * i * o // g + 2 * o for i, o, k, g in layers)
    with torch.device("meta"):
        periods, scales = MultiPeriodDiscriminator(), MultiScaleDiscriminator()
    counted = [sum(p.numel() for p in model.parameters()) for model in (periods, scales)]
    assert counted == [5 * period, 3 * scale]
    assert sum(counted) == 70_728_688


def test_strides_and_slopes_are_the_published_ones() -> None:
    with torch.device("meta"):
        periods, scales = MultiPeriodDiscriminator(), MultiScaleDiscriminator()
    assert [part.period for part in periods.parts] == [2, 3, 5, 7, 11]
    assert [layer.stride for layer in periods.parts[0].layers] == [(3, 1)] * 4 + [(1, 1)] * 2
    assert [layer.stride[0] for layer in scales.parts[0].layers] == [1, 2, 2, 4, 4, 1, 1, 1]
    assert [layer.groups for layer in scales.parts[0].layers] == [1, 4, 16, 16, 16, 16, 1, 1]


def test_a_period_is_seen_column_by_column() -> None:
    """Logits of a column depend on the samples of that column alone."""
    (part,) = MultiPeriodDiscriminator([7], [4, 8, 8]).parts
    wave = torch.randn(1, 1, 700, requires_grad=True)
    judged = part(wave)
    columns = judged.logits.view(-1, 7)
    (gradient,) = torch.autograd.grad(columns[:, 3].sum(), wave)
    touched = gradient.view(-1, 7).abs().sum(dim=0)
    assert touched[3] > 0
    assert touched.count_nonzero() == 1
    assert [tuple(f.shape) for f in judged.features] == [(1, 4, 34, 7), (1, 8, 12, 7), (1, 8, 12, 7)]


def test_a_ragged_end_is_continued_by_its_mirror() -> None:
    (part,) = MultiPeriodDiscriminator([5], [4, 4]).parts
    wave = torch.randn(1, 1, 503)
    continued = torch.cat([wave, wave[..., [501, 500]]], dim=-1)
    assert torch.equal(part(wave).logits, part(continued).logits)


def test_scales_are_averages_of_the_waveform() -> None:
    model = MultiScaleDiscriminator(3, width=8)
    wave = torch.randn(2, 1, 1024)
    judged = model(wave)
    padded = torch.nn.functional.pad(wave, (2, 2))
    half = torch.stack([padded[..., at : at + 4].mean(dim=-1) for at in range(0, 1025, 2)], dim=-1)
    torch.testing.assert_close(judged[1].logits, model.parts[1](half).logits)
    assert [j.logits.shape[-1] for j in judged] == [16, 9, 5]
    assert len(judged[0].features) == 7


def test_hidden_layers_are_leaky_by_a_tenth() -> None:
    (part,) = MultiPeriodDiscriminator([2], [4, 4]).parts
    wave = torch.randn(1, 1, 64)
    first = part.layers[0](wave.view(1, 1, 32, 2))
    torch.testing.assert_close(part(wave).features[0], torch.where(first > 0, first, 0.1 * first))


def test_losses_on_judgements_by_hand() -> None:
    made = [Judgement(torch.tensor([[0.5, 0.0]]), [torch.tensor([[1.0, 3.0]])]), Judgement(torch.tensor([[1.0]]), [])]
    real = [Judgement(torch.tensor([[1.0, 0.5]]), [torch.tensor([[2.0, 2.5]])]), Judgement(torch.tensor([[0.0]]), [])]
    weights = torch.ones(1, 1, 8)
    assert build("lsgan")(made, real, weights) == (0.625, 1.0)
    assert build("lsgan_discriminator")(made, real, weights) == (0.125 + 0.125 + 1.0 + 1.0, 1.0)
    assert build("feature_matching")(made, real, weights) == (0.75, 1.0)


@pytest.mark.parametrize("name", ["lsgan", "lsgan_discriminator", "feature_matching"])
def test_rows_add_up_and_those_with_padding_do_not_count(name: str) -> None:
    torch.manual_seed(0)
    model = MultiPeriodDiscriminator([2, 3], [2, 4])
    made, real = torch.randn(3, 1, 90), torch.randn(3, 1, 90)
    weights = torch.ones(3, 1, 90)
    weights[1, :, 80:] = 0
    made[1, :, 80:] = torch.nan
    loss = build(name)
    total, weight = loss(model(made), model(real), weights)
    rows = [loss(model(made[[row]]), model(real[[row]]), weights[[row]]) for row in (0, 2)]
    assert weight.item() == 2
    torch.testing.assert_close(total, rows[0].total + rows[1].total)


def test_features_are_matched_by_the_made_side_alone() -> None:
    model = MultiScaleDiscriminator(2, width=8)
    made, real = (torch.randn(1, 1, 512, requires_grad=True) for _ in range(2))
    build("feature_matching")(model(made), model(real), torch.ones(1, 1, 512)).total.backward()
    assert made.grad is not None
    assert real.grad is None


def test_a_discriminator_learns_to_tell_noise_from_a_tone() -> None:
    torch.manual_seed(0)
    model = MultiScaleDiscriminator(1, width=8)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tone = torch.sin(torch.arange(512) * 0.2).expand(4, 1, 512)
    loss = build("lsgan_discriminator")
    for _ in range(30):
        total, weight = loss(model(torch.randn(4, 1, 512) * 0.7), model(tone), torch.ones(4, 1, 512))
        optimiser.zero_grad()
        (total / weight).backward()
        optimiser.step()
    assert (total / weight).item() < 0.1


def test_a_discriminator_by_spectra_has_a_million_parameters() -> None:
    """By hand: kernel * channels in * out, a gain of the weight norm and a bias for each out."""
    plan = [(1, 16, 27), (16, 32, 27), (32, 64, 27), (64, 128, 15), (128, 128, 9), (128, 1, 9)]
    model = MultiResolutionDiscriminator()
    assert sum(p.numel() for p in model.parameters()) == 3 * sum(k * i * o + 2 * o for i, o, k in plan) == 1_025_334
    for samples in (600, 22050):
        judged = model(torch.zeros(2, 1, samples))
        assert all(bool(torch.isfinite(one.logits).all()) for one in judged)
    assert [tuple(one.features[-1].shape[2:]) for one in judged] == [(17, 22), (33, 11), (65, 5)]


def test_a_discriminator_by_spectra_sees_magnitudes_and_no_sign() -> None:
    model = MultiResolutionDiscriminator([128, 256], 4)
    wave = torch.randn(2, 1, 2000)
    for one, other in zip(model(wave), model(-wave), strict=True):
        torch.testing.assert_close(one.logits, other.logits)
