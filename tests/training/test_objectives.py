"""Losses on frames, against loops in float64, and what holds for each of them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from astrape.blocks.base import Stream
from astrape.training.errors import TrainingError
from astrape.training.objectives import (
    LossContext,
    Objective,
    SpeakerAdversary,
    build_loss,
    loss_class,
    loss_names,
    register_loss,
    reversal_strength,
    reverse_gradient,
)

CONTEXT = LossContext(
    {"content": 5, "wav": 1, "pitch": 2}, {"content": Fraction(25), "wav": Fraction(16000), "pitch": Fraction(175)}, 3
)


def cosine(s, t, w):
    error = [1 - s[:, n] @ t[:, n] / np.linalg.norm(s[:, n]) / np.linalg.norm(t[:, n]) for n in range(s.shape[1])]
    return np.dot(error, w), w.sum()


def absolute(s, t, w):
    return sum(w[n] * np.mean(np.abs(s[:, n] - t[:, n])) for n in range(len(w))), w.sum()


def squared(s, t, w):
    return sum(w[n] * np.mean((s[:, n] - t[:, n]) ** 2) for n in range(len(w))), w.sum()


def delta(s, t, w):
    total = count = 0.0
    for n in range(1, len(w)):
        e = np.abs((s[:, n] - s[:, n - 1]) - (t[:, n] - t[:, n - 1]))
        total += min(w[n], w[n - 1]) * np.mean(np.where(e < 1, 0.5 * e * e, e - 0.5))
        count += min(w[n], w[n - 1])
    return total, count


def bends(s, t, w):
    total = count = 0.0
    for n in range(2, len(w)):
        e = np.abs((s - t)[:, n] - 2 * (s - t)[:, n - 1] + (s - t)[:, n - 2])
        total += min(w[n - 2 : n + 1]) * np.mean(e)
        count += min(w[n - 2 : n + 1])
    return total, count


def contrast(s, t, w):
    s, t = s / np.linalg.norm(s, axis=0), t / np.linalg.norm(t, axis=0)
    valid = np.flatnonzero(w)
    return sum(w[n] * (logsumexp(s[:, n] @ t[:, valid] / 0.1) - s[:, n] @ t[:, n] / 0.1) for n in valid), w.sum()


ORACLES: dict[str, Callable] = {
    "cosine": cosine,
    "l1": absolute,
    "mse": squared,
    "smooth_l1_delta": delta,
    "second_difference": bends,
    "info_nce": contrast,
}


def build(name: str, **params) -> Objective:
    signal = "wav" if loss_class(name).compares in ("samples", "judgements") else "pitch" if name == "f0" else "content"
    return build_loss({"use": name, "of": signal, "weight": 0.5, **params}, CONTEXT).double()


def draw(seed: int, frames: int, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Signal, target and weights of 0, 1 and 1.5, at least one frame of the first row present."""
    rng = np.random.default_rng(seed)
    signal, target = (torch.from_numpy(2 * rng.standard_normal((rows, 5, frames))) for _ in range(2))
    weights = torch.from_numpy(rng.choice([0.0, 1.0, 1.5], (rows, 1, frames)))
    weights[0, 0, 0] = 1.0
    return signal, target, weights


@pytest.mark.parametrize("name", ORACLES)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 12))
@settings(max_examples=25)
def test_equals_a_loop(name: str, seed: int, frames: int) -> None:
    signal, target, weights = draw(seed, frames)
    total, weight = build(name)(signal, target, weights)
    rows = [ORACLES[name](s.numpy(), t.numpy(), w.numpy()[0]) for s, t, w in zip(signal, target, weights, strict=True)]
    assert total.item() == pytest.approx(sum(row[0] for row in rows), abs=1e-9)
    assert weight.item() == pytest.approx(sum(row[1] for row in rows), abs=1e-12)


@pytest.mark.parametrize("name", ORACLES)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 12), junk=st.sampled_from([np.nan, np.inf, -3.0, 1e30]))
@settings(max_examples=15)
def test_absent_frames_change_nothing(name: str, seed: int, frames: int, junk: float) -> None:
    """Neither the value nor the gradient, whatever they hold; and they have no gradient themselves."""
    loss = build(name)
    signal, target, weights = draw(seed, frames)
    absent = (weights == 0).expand_as(signal)
    values = []
    for filler in (0.25, junk):
        leaf = signal.masked_fill(absent, filler).requires_grad_()
        total, weight = loss(leaf, target.masked_fill(absent, filler), weights)
        (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
        gradient = torch.zeros_like(leaf) if gradient is None else gradient
        assert torch.isfinite(gradient).all()
        assert not gradient[absent].any()
        values.append((total.detach(), weight, gradient))
    for before, after in zip(*values, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", [*ORACLES, "speaker_adversary"])
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 12), cut=st.integers(1, 2), padding=st.integers(0, 4))
@settings(max_examples=15)
def test_parts_add_up_to_the_whole(name: str, seed: int, frames: int, cut: int, padding: int) -> None:
    """Two processes that share a batch, each with its own padding, sum what one process sums."""
    loss = build(name)
    signal, target, weights = draw(seed, frames)
    if name == "speaker_adversary":
        target = torch.randint(3, (3,))
    whole = loss(signal, target, weights)
    pad = torch.nn.functional.pad
    parts = [
        loss(
            pad(signal[rows], (0, padding), value=torch.nan),
            target[rows] if target.dim() == 1 else pad(target[rows], (0, padding)),
            pad(weights[rows], (0, padding)),
        )
        for rows in (slice(0, cut), slice(cut, 3))
    ]
    for index in range(2):
        assert whole[index].item() == pytest.approx(parts[0][index].item() + parts[1][index].item(), abs=1e-9)


ELSEWHERE = {"lsgan", "lsgan_discriminator", "feature_matching", "speaker_likeness"}
"""Losses that are tested by themselves."""


@pytest.mark.parametrize("name", sorted(name for name in set(loss_names()) - ELSEWHERE if not name.startswith("test_")))
def test_nothing_valid_is_zero_over_zero_frames(name: str) -> None:
    loss = build(name)
    leaf = torch.rand(2, loss.source.channels, 3000, dtype=torch.float64, requires_grad=True)
    target = torch.zeros(2, dtype=torch.int64) if loss.compares == "speakers" else torch.rand_like(leaf)
    if name == "cross_entropy":
        target = torch.zeros(2, 1, 3000, dtype=torch.int64)
    total, weight = loss(leaf, target, torch.zeros(2, 1, 3000))
    total.backward()
    assert (total.item(), weight.item()) == (0.0, 0.0)
    assert leaf.grad is not None
    assert not leaf.grad.any()


@pytest.mark.parametrize("name", ["cosine", "smooth_l1_delta", "info_nce", "second_difference"])
def test_gradients_are_those_of_the_value(name: str) -> None:
    signal, target, weights = draw(5, 7)
    loss = build(name)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weights).total, signal.requires_grad_())


def test_knowing_nothing_scores_the_logarithm_of_the_candidates() -> None:
    signal = torch.ones(1, 5, 8, dtype=torch.float64)
    weights = torch.ones(1, 1, 8, dtype=torch.float64)
    weights[..., 6:] = 0
    total, weight = build("info_nce")(signal, signal, weights)
    assert (total / weight).item() == pytest.approx(np.log(6), abs=1e-12)


def test_no_gradient_goes_to_the_target() -> None:
    signal, target, weights = draw(1, 6)
    target.requires_grad_()
    for name in ORACLES:
        build(name)(signal.requires_grad_(), target, weights).total.backward()
    assert target.grad is None


@given(strength=st.floats(0, 4), seed=st.integers(0, 100))
@settings(max_examples=20)
def test_a_reversed_gradient_is_minus_its_numeric_one(strength: float, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal(6)).requires_grad_()

    def value(at: torch.Tensor) -> torch.Tensor:
        return (reverse_gradient(at, strength).sin() * torch.arange(6)).sum()

    (gradient,) = torch.autograd.grad(value(x), x)
    moved = torch.eye(6, dtype=torch.float64) * 1e-6
    numeric = torch.stack([(value(x + step) - value(x - step)) / 2e-6 for step in moved])
    torch.testing.assert_close(gradient, -strength * numeric.detach(), atol=1e-8, rtol=1e-6)
    assert torch.equal(reverse_gradient(x, strength), x)


def test_the_schedule_rises_from_nothing_to_one() -> None:
    values = [reversal_strength(p) for p in np.linspace(0, 1, 11)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[1] == pytest.approx(np.tanh(0.5))
    assert 0.9999 < values[-1] < 1
    assert reversal_strength(7.0) == values[-1]


def test_the_adversary_learns_while_what_it_reads_unlearns() -> None:
    """A step along both gradients lowers the classifier's error with its own and raises it with the signal's."""
    loss = SpeakerAdversary(Stream(25, 5), speakers=3).double()
    signal, _, weights = draw(3, 9)
    weights[:] = 1
    target = torch.tensor([0, 1, 2])
    leaf = signal.requires_grad_()
    before = loss(leaf, target, weights).total
    before.backward()
    with torch.no_grad():
        assert loss(leaf - 0.1 * leaf.grad, target, weights).total > before
        for parameter in loss.parameters():
            parameter -= 0.01 * parameter.grad
        assert loss(leaf, target, weights).total < before


def test_the_adversary_hears_the_mean_of_valid_frames() -> None:
    loss = SpeakerAdversary(Stream(25, 5), speakers=3).double()
    signal, _, weights = draw(4, 9)
    weights[2] = 0
    target = torch.tensor([2, 0, 1])
    logits = [loss.net(signal[row][:, weights[row, 0] > 0].mean(dim=1)) for row in range(2)]
    wanted = sum(torch.logsumexp(y, 0) - y[target[row]] for row, y in enumerate(logits))
    present = sum(bool(w.any()) for w in weights)
    total, weight = loss(signal, target, weights)
    torch.testing.assert_close(total, wanted)
    assert weight.item() == present


def test_the_adversary_has_the_sizes_of_the_paper() -> None:
    loss = build_loss(
        {"use": "speaker_adversary", "of": "content"}, LossContext({"content": 768}, {"content": Fraction(25)}, 109)
    )
    shapes = {name: tuple(p.shape) for name, p in loss.named_parameters()}
    assert shapes == {
        "net.0.weight": (256, 768),
        "net.0.bias": (256,),
        "net.2.weight": (109, 256),
        "net.2.bias": (109,),
    }


def test_the_fundamental_counts_where_it_is_voiced() -> None:
    made = torch.tensor([[[100.0, 200.0, 300.0], [0.9, 0.2, 0.5]]], dtype=torch.float64)
    wanted = torch.tensor([[[200.0, 0.0, 300.0], [0.7, 0.1, 1.0]]], dtype=torch.float64)
    total, weight = build("f0", voicing=0.5)(made, wanted, torch.tensor([[[1.0, 1.0, 2.0]]]))
    assert weight.item() == 4
    assert total.item() == pytest.approx(1 - 0.5 * (np.log(0.9) + np.log(0.8) + 2 * np.log(0.5)), abs=1e-9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": "cosin", "of": "content"}, "unknown loss 'cosin': did you mean 'cosine'"),
        ({"of": "content"}, "unknown loss None"),
        ({"use": "l1"}, "does not say which signal"),
        ({"use": "l1", "of": "contents"}, "no signal 'contents' for a loss: did you mean 'content'"),
        ({"use": "info_nce", "of": "content", "taw": 1}, "no parameter 'taw': did you mean 'tau'"),
        ({"use": "info_nce", "of": "content", "tau": 0}, "tau must be a number from 0.001 to 10, not 0"),
        ({"use": "info_nce", "of": "content", "speakers": 4}, "no parameter 'speakers'"),
        ({"use": "log_mel", "of": "content"}, "audio of 1 channel, not 5"),
        ({"use": "log_mel", "of": "wav", "bins": 1025}, "bins must be"),
        ({"use": "f0", "of": "wav"}, "must be 2 channels"),
        ({"use": "multi_resolution_stft", "of": "wav", "sizes": [512, 8]}, "n_fft must be"),
        ({"use": "multi_resolution_stft", "of": "wav", "sizes": 512}, "sizes must be a list"),
        ({"use": "multi_resolution_stft", "of": "wav", "hops": [1]}, "hops must be as many as sizes"),
    ],
)
def test_what_cannot_be_built_is_named(spec: dict, message: str) -> None:
    with pytest.raises(TrainingError) as caught:
        build_loss(spec, CONTEXT)
    assert message in str(caught.value)


def test_one_speaker_needs_no_adversary() -> None:
    alone = LossContext({"content": 5}, {"content": Fraction(25)}, 1)
    with pytest.raises(TrainingError, match="at least 2"):
        build_loss({"use": "speaker_adversary", "of": "content"}, alone)


@pytest.mark.parametrize("name", ["l1", "speaker_adversary"])
def test_shapes_that_do_not_fit_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(2, 5, 7\)"):
        build(name)(torch.zeros(2, 5, 7), torch.zeros(2, 5, 6), torch.ones(2, 1, 7))


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(TrainingError, match="taken by astrape"):
        register_loss("cosine")(SpeakerAdversary)
