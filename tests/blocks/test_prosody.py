"""Loudness, register and log pitch, against what they are defined by, frame by frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrape.blocks import LogPitch, Loudness, Register, Stream
from astrape.errors import RateError
from tests.blocks.chunks import chunk_lists, run_chunks

AUDIO, FRAMES = Stream(16000, 1), Stream(100, 1)
Array = npt.NDArray[np.float64]


# Loudness


@settings(max_examples=20, deadline=None)
@given(hop=st.integers(1, 40), extra=st.integers(0, 90), frames=st.integers(1, 12), seed=st.integers(0, 99))
def test_loudness_is_the_weighted_level_of_each_window(hop: int, extra: int, frames: int, seed: int) -> None:
    window = hop + extra
    x = np.random.default_rng(seed).standard_normal(hop * frames)
    got = Loudness(AUDIO, hop=hop, window=window).double()(torch.from_numpy(x).view(1, 1, -1)).flatten().numpy()
    heard = np.concatenate([np.zeros(extra), x])
    weights = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    want = [0.5 * np.log(np.average(heard[hop * k : hop * k + window] ** 2, weights=weights)) for k in range(frames)]
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_loudness_of_a_sine_and_of_silence() -> None:
    turns = torch.arange(16000, dtype=torch.float64) * 440 / 16000
    y = Loudness(AUDIO, hop=160, window=640).double()((0.5 * (2 * math.pi * turns).sin()).view(1, 1, -1))
    assert y[..., 5:].sub(math.log(0.5 * math.sqrt(0.5))).abs().max() < 1e-3
    silent = Loudness(AUDIO, hop=160, floor_db=-80.0).double()(torch.zeros(1, 1, 1600, dtype=torch.float64))
    torch.testing.assert_close(silent, torch.full_like(silent, -80 / 20 * math.log(10)))


def test_loudness_refuses() -> None:
    with pytest.raises(RateError, match="one channel, not 2"):
        Loudness(Stream(16000, 2), hop=160)
    with pytest.raises(ValueError, match="window must be a whole number from 160"):
        Loudness(AUDIO, hop=160, window=159)


# Register


def contour(register: float, seconds: float, seed: int, spread: float = 0.2) -> Array:
    """F0 of a voice: voiced three frames of four, in phrases, each a walk around the register, in octaves."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 100)
    walk = np.zeros(count)
    for frame in range(1, count):
        walk[frame] = 0.97 * walk[frame - 1] + spread * math.sqrt(1 - 0.97**2) * rng.standard_normal()
    f0: Array = register * 2**walk
    return np.where((np.arange(count) // 30) % 4 < 3, f0, 0.0)


def run(f0: Array, **params: float) -> tuple[Array, Array]:
    y = Register(FRAMES, **params).double()(torch.from_numpy(f0).view(1, 1, -1))
    return y["f0"].flatten().numpy(), y["register"].flatten().numpy()


def octaves(a: Array | float, b: Array | float) -> Array:
    return np.abs(np.log2(np.asarray(a) / b))


@pytest.mark.parametrize("register", [75.0, 110.0, 150.0, 210.0, 300.0])
def test_the_register_is_known_within_the_first_second_and_is_the_median(register: float) -> None:
    for seed in range(3):
        f0 = contour(register, 8.0, seed)
        found = run(f0)[1]
        voiced = np.flatnonzero(f0 > 0)
        # A voice that holds its register is known to a third of an octave after 0.15 s, and to a semitone after 0.5 s.
        flat = run(np.where(f0 > 0, register, 0.0))[1]
        assert octaves(flat[voiced[14]], register) < 1 / 3
        assert octaves(flat[voiced[49]], register) < 1 / 12
        # One that moves is where the median of what was heard is.
        for second in (2, 4, 8):
            heard = f0[: 100 * second]
            assert octaves(found[100 * second - 1], np.median(heard[heard > 0])) < 1 / 12


def test_it_starts_at_the_prior() -> None:
    assert run(np.zeros(10))[1] == pytest.approx(150.0, rel=1e-3)
    assert run(np.zeros(10), start=200.0)[1] == pytest.approx(200.0, rel=1e-3)


def test_silence_changes_nothing() -> None:
    f0 = contour(180.0, 3.0, 1)
    found = run(np.concatenate([f0, np.zeros(5000), [180.0]]))[1]
    assert bool((found[len(f0) : -1] == found[len(f0) - 1]).all())
    assert run(f0[f0 > 0])[1][-1] == pytest.approx(found[len(f0) - 1], rel=1e-12)


def test_wrong_octaves_do_not_move_it() -> None:
    f0 = contour(120.0, 10.0, 2)
    wrong = f0 * np.where(np.random.default_rng(3).random(len(f0)) < 0.1, 2.0, 1.0)
    assert octaves(run(wrong)[1][-1], run(f0)[1][-1]) < 1 / 12
    mean = 2 ** np.log2(wrong[wrong > 0]).mean() / 2 ** np.log2(f0[f0 > 0]).mean()
    assert math.log2(mean) > 1 / 12, "a mean would have moved"


def test_it_forgets_in_some_ten_seconds() -> None:
    f0 = np.concatenate([np.full(3000, 100.0), np.full(3000, 200.0)])
    found = run(f0)[1]
    # The half of all weight is new after memory * log(2) = 6.9 s, and the register has settled there two seconds later.
    assert octaves(found[3000 + 650], 100.0) < 1 / 12
    assert octaves(found[3000 + 900], 200.0) < 1 / 12
    assert octaves(run(f0, memory=1.0)[1][3000 + 270], 200.0) < 1 / 12


@settings(max_examples=20, deadline=None)
@given(target=st.floats(60, 400), pitch=st.floats(-12, 12), seed=st.integers(0, 99))
def test_f0_moves_by_the_registers_and_the_pitch(target: float, pitch: float, seed: int) -> None:
    f0 = contour(130.0, 1.0, seed)
    moved, register = run(f0, target=target, pitch=pitch)
    np.testing.assert_allclose(moved, f0 * target / register * 2 ** (pitch / 12), rtol=1e-9)
    assert bool(((moved == 0) == (f0 == 0)).all())


@settings(max_examples=20, deadline=None)
@given(register=st.floats(70, 350), settle=st.sampled_from([0.0, 0.05, 0.5, 2.0]), seed=st.integers(0, 99))
def test_the_register_is_the_mean_of_the_medians_so_far_and_later_follows(
    register: float, settle: float, seed: int
) -> None:
    f0 = contour(register, 3.0, seed)
    at_once, found = run(f0, settle=0.0)[1], run(f0, settle=settle)[1]
    place, count = math.log2(run(np.zeros(1))[1][0]), 0
    for frame, hertz in enumerate(f0):
        if hertz > 0:
            count += 1
            place += (math.log2(at_once[frame]) - place) / max(1, min(count, settle * 100))
        assert found[frame] == pytest.approx(2**place, rel=1e-9)


def test_intonation_is_kept_from_the_first_word() -> None:
    kept: dict[float, list[float]] = {0.0: [], 0.5: []}
    for settle, correlations in kept.items():
        for seed in range(20):
            f0 = contour(float(np.random.default_rng(seed).choice([90.0, 120.0, 200.0, 260.0])), 2.0, seed)
            heard = f0 > 0
            logs = np.log(f0[heard]), np.log(run(f0, target=180.0, settle=settle)[0][heard])
            correlations.append(float(np.corrcoef(*logs)[0, 1]))
    assert np.mean(kept[0.5]) > 0.9
    assert np.mean(kept[0.5]) > np.mean(kept[0.0]) + 0.02


def test_intonation_is_kept() -> None:
    f0 = contour(110.0, 20.0, 4)
    moved, _ = run(f0, target=220.0)
    voiced = f0[1500:] > 0
    correlation = np.corrcoef(np.log(f0[1500:][voiced]), np.log(moved[1500:][voiced]))[0, 1]
    assert correlation > 0.98
    assert octaves(np.median(moved[1500:][voiced]), 220.0) < 1 / 12


@settings(max_examples=20, deadline=None)
@given(chunks=chunk_lists, seed=st.integers(0, 99))
def test_registers_are_the_same_however_they_are_cut(chunks: list[int], seed: int) -> None:
    f0 = torch.from_numpy(np.stack([contour(r, max(1, sum(chunks)) / 100, seed) for r in (90.0, 240.0)]))[:, None]
    f0 = f0[..., : sum(chunks)]
    block = Register(FRAMES, target="register").double()
    controls = {"register": torch.tensor([[150.0], [200.0]], dtype=torch.float64)}
    whole, parts = block(f0, **controls), run_chunks(block, f0, chunks, controls)
    for port in ("f0", "register"):
        torch.testing.assert_close(whole[port], parts[port], atol=1e-10, rtol=0)


def test_controls_by_row_and_a_second_channel_that_is_not_looked_at() -> None:
    f0 = torch.from_numpy(contour(130.0, 1.0, 5)).view(1, 1, -1).expand(2, 1, -1)
    tracked = torch.cat([f0, torch.rand_like(f0)], dim=1)
    block = Register(Stream(100, 2), target="register", pitch="pitch").double()
    controls = {"register": torch.tensor([[100.0], [200.0]]).double(), "pitch": torch.tensor([[0.0], [12.0]]).double()}
    y = block(tracked, **controls)["f0"]
    torch.testing.assert_close(y[1], y[0] * 4)


def test_a_week_of_voice_is_as_its_first_minute() -> None:
    block = Register(FRAMES).double()
    x = torch.full((1, 1, 3000), 170.0, dtype=torch.float64)
    state = block.init_state(1, dtype=torch.float64)
    for _ in range(5):
        _, state = block.step(x, state, block.prepare({}))
    # The weights have come to the limit that they keep for ever: the memory in frames.
    assert state["weights"].sum() == pytest.approx(1 / (1 - math.exp(-1 / 1000)), rel=1e-6)
    assert block.step(x[..., :1], state, block.prepare({}))[0]["register"].item() == pytest.approx(170.0, rel=1e-2)


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -1.0, 1e-30, 1e30])
def test_odd_f0_leaves_nothing_behind(odd: float) -> None:
    f0: Tensor = torch.from_numpy(contour(130.0, 2.0, 6)).view(1, 1, -1)
    hurt = f0.clone()
    hurt[..., 40] = odd
    block = Register(FRAMES, target=200.0).double()
    want, got = block(f0)["register"][..., 50:], block(hurt)["register"][..., 50:]
    assert bool(got.isfinite().all())
    assert (got / want).log2().abs().max() < 1 / 24


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"target": 0.0}, "target must be"),
        ({"pitch": 40.0}, "pitch must be"),
        ({"start": 10.0}, "start must be a number from 40 to 1280"),
        ({"trust": 0.0}, "trust must be"),
        ({"settle": -1.0}, "settle must be"),
        ({"memory": 0.0}, "memory must be"),
    ],
)
def test_registers_refuse(params: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Register(FRAMES, **params)


def test_f0_of_three_channels_is_refused() -> None:
    with pytest.raises(RateError, match="not 3 channels"):
        Register(Stream(100, 3))
    with pytest.raises(RateError, match="not 3 channels"):
        LogPitch(Stream(100, 3))


# Log pitch


def test_log_pitch_is_octaves_and_a_flag() -> None:
    f0 = torch.tensor([0.0, 75.0, 150.0, 300.0, 0.0], dtype=torch.float64).view(1, 1, -1).requires_grad_()
    y = LogPitch(FRAMES)(f0)
    want = [[0.0, -1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0, 0.0]]
    torch.testing.assert_close(y, torch.tensor([want], dtype=torch.float64))
    y[:, 0].sum().backward()
    assert f0.grad is not None
    expected = torch.tensor([0, 1 / 75, 1 / 150, 1 / 300, 0], dtype=torch.float64) / math.log(2)
    torch.testing.assert_close(f0.grad.flatten(), expected)
