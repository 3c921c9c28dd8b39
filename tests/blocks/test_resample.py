from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import astrape.blocks.resample as family
from astrape.blocks import Stream, block_class
from astrape.blocks.resample import Resampler
from astrape.errors import RateError
from tests.blocks.chunks import assert_chunks_agree, assert_declared, chunk_lists, noise, run_chunks

Array = npt.NDArray[np.float64]

SMALL = {"zeros": 8, "stopband_db": 60.0}
"""A short filter, so that probes of the receptive field stay short."""


@pytest.fixture(autouse=True)
def _float64() -> object:
    """Tables in float64, so that the filter is tested and not the rounding of its weights."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def prototype(block: Resampler, cutoff: float, shape: float) -> Array:
    """The filter on the grid of ``up`` points per input frame, each phase summing to 1, as resample_poly takes it."""
    up, down = block.ratio.numerator, block.ratio.denominator
    reach = block.delay * down
    grid = np.arange(-reach + 1, reach)
    taps = np.sinc(2 * cutoff * grid / up) * np.i0(shape * np.sqrt(1 - (grid / reach) ** 2))
    for phase in range(up):
        taps[phase::up] /= taps[phase::up].sum()
    return taps / up


pairs = st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda pair: pair[0] != pair[1])


@settings(max_examples=40, deadline=None)
@given(pair=pairs, seed=st.integers(0, 99))
def test_equals_scipy_with_the_same_filter_delayed(pair: tuple[int, int], seed: int) -> None:
    block = Resampler(Stream(pair[0], 1), rate=pair[1], **SMALL)
    up, down = block.ratio.numerator, block.ratio.denominator
    nyquist = 0.5 * min(1.0, up / down)
    width = (60 - 7.95) / (14.357 * 2 * block.delay * down / up)
    taps = prototype(block, nyquist - width / 2, 0.1102 * (60 - 8.7))
    quanta = 40 * 8 // down + 20
    x = noise(block, quanta, batch=1, seed=seed)
    reference = scipy.signal.resample_poly(x[0, 0].numpy(), up, down, window=taps)
    y = block(x)[0, 0].numpy()
    lag = min(block.delay, len(y))
    assert len(y) == quanta * up
    np.testing.assert_allclose(y[lag:], reference[: len(y) - lag], rtol=0, atol=1e-10)


shifts = st.fractions(0, 1, max_denominator=64).filter(lambda shift: shift < 1)


@settings(max_examples=30, deadline=None)
@given(pair=pairs, shift=shifts, seed=st.integers(0, 99))
def test_with_a_shift_it_equals_a_sum_over_the_filter(pair: tuple[int, int], shift: Fraction, seed: int) -> None:
    block = Resampler(Stream(pair[0], 1), rate=pair[1], shift=shift, **SMALL)
    assert block.latency == (block.delay + shift) / pair[1]
    half = Fraction(block.delay) / block.ratio
    cutoff = 0.5 * min(1.0, float(block.ratio)) - (60 - 7.95) / (14.357 * 2 * float(half)) / 2
    x = noise(block, 20 * 8 // block.quantum + 3, batch=1, seed=seed)
    y = block(x)[0, 0].numpy()
    for frame in range(0, len(y), 1 + len(y) // 12):
        centre = (frame - block.delay - shift) / block.ratio
        near = range(math.floor(centre - half) + 1, math.ceil(centre + half))
        far = np.array([float(n - centre) for n in near])
        weights = np.sinc(2 * cutoff * far) * np.i0(0.1102 * (60 - 8.7) * np.sqrt(1 - (far / float(half)) ** 2))
        heard = [float(x[0, 0, n]) if n >= 0 else 0.0 for n in near]
        assert max(near) < math.floor(frame / block.ratio) + 1
        assert y[frame] == pytest.approx(weights @ heard / weights.sum(), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(pair=pairs, chunks=chunk_lists, shift=shifts, seed=st.integers(0, 99))
def test_chunks_agree(pair: tuple[int, int], chunks: list[int], shift: Fraction, seed: int) -> None:
    assert_chunks_agree(Resampler(Stream(pair[0], 2), rate=pair[1], shift=shift, **SMALL), chunks, seed=seed)


@pytest.mark.parametrize("pair", [(44100, 16000), (16000, 44100), (48000, 16000)])
def test_chunks_agree_at_audio_rates(pair: tuple[int, int]) -> None:
    assert_chunks_agree(Resampler(Stream(pair[0], 1), rate=pair[1]), [1, 0, 2, 1])


@pytest.mark.parametrize("shift", [0, Fraction(1, 2), "127/128"])
@pytest.mark.parametrize("pair", [(3, 1), (1, 3), (3, 2), (2, 3), (40, 39), (147, 160), (441, 160), (1, 64)])
def test_declared_times_are_measured(pair: tuple[int, int], shift: Fraction | int | str) -> None:
    block = Resampler(Stream(pair[0], 1), rate=pair[1], shift=shift, **SMALL)
    assert_declared(block, quanta=block.history // block.quantum + 4)


def test_every_phase_passes_a_constant() -> None:
    for pair in [(44100, 16000), (16000, 44100), (44100, 48000), (3, 1)]:
        block = Resampler(Stream(pair[0], 1), rate=pair[1])
        quanta = 2 * block.history // block.quantum + 4
        y = block(torch.ones(1, 1, quanta * block.quantum))
        np.testing.assert_allclose(y[0, 0, 2 * block.delay :].numpy(), 1, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rate", [16000, 48000, Fraction(88200), "44100/7"])
def test_there_and_back_is_a_delay_of_both_latencies(rate: int | Fraction | str) -> None:
    there = Resampler(Stream(44100, 1), rate=rate)
    back = Resampler(there.output, rate=44100)
    time = np.arange(44100) / 44100

    def tone(delay: float) -> Array:
        return np.sin(2 * np.pi * 500 * (time - delay)) * np.exp(-(((time - delay - 0.3) / 0.05) ** 2))

    y = back(there(torch.from_numpy(tone(0))[None, None]))[0, 0].numpy()
    late = tone(float(there.latency + back.latency))[: len(y)]
    np.testing.assert_allclose(y, late, rtol=0, atol=1e-4)


def test_latency_is_whole_output_frames_and_short() -> None:
    for pair in [(44100, 16000), (16000, 44100), (44100, 48000), (8000, 44100)]:
        block = Resampler(Stream(pair[0], 1), rate=pair[1])
        assert (block.latency * block.rate_out).denominator == 1
    assert Resampler(Stream(44100, 1), rate=16000).latency == Fraction(3, 1000)
    assert Resampler(Stream(44100, 1), rate=16000, zeros=24, rolloff=1.0).latency == Fraction(3, 2000)


def test_equal_rates_pass_through() -> None:
    block = Resampler(Stream(44100, 2), rate="44100")
    x = torch.randn(1, 2, 10)
    assert torch.equal(block(x), x)
    assert (block.latency, block.receptive_field, block.quantum) == (0, Fraction(1, 44100), 1)


def test_long_input_is_filtered_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for pair in [(7, 5), (3, 1)]:
        block = Resampler(Stream(pair[0], 2), rate=pair[1], **SMALL)
        x = noise(block, 50)
        monkeypatch.setattr(family, "WINDOWS_AT_ONCE", 1 << 40)
        whole = block(x)
        monkeypatch.setattr(family, "WINDOWS_AT_ONCE", 7 * block.index.numel() * 4)
        torch.testing.assert_close(block(x), whole, rtol=1e-12, atol=1e-12)


def test_nearly_equal_rates_fit_and_coprime_large_ones_are_refused() -> None:
    block = Resampler(Stream(44100, 1), rate=44101)
    assert (block.quantum, block.weight.numel() * 4 < 64 << 20) == (44100, True)
    time = np.arange(2 * 44100) / 44100
    y = block(torch.from_numpy(np.sin(2 * np.pi * 1000 * time))[None, None])[0, 0].numpy()
    want = np.sin(2 * np.pi * 1000 * (np.arange(len(y)) / 44101 - float(block.latency)))
    np.testing.assert_allclose(y[1000:], want[1000:], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"MiB .at most 64.*common divisor"):
        Resampler(Stream(44100, 1), rate="44101001/1000")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": 16000, "zeros": 0}, "zeros"),
        ({"rate": 16000, "zeros": 10**9}, "zeros"),
        ({"rate": 16000, "zeros": 2}, "zeros must be 6 or more"),
        ({"rate": 16000, "stopband_db": 500}, "stopband_db"),
        ({"rate": 16000, "rolloff": 0}, "rolloff"),
        ({"rate": 16000, "shift": 1}, "shift must be from 0 to below 1"),
        ({"rate": 16000, "shift": "-1/2"}, "shift must be from 0"),
        ({"rate": 16000, "shift": 0.5}, "shift must be a whole number, or a string"),
        ({"rate": 16000, "shift": f"1/{10**17}"}, "shift must be"),
        ({"rate": 44100, "shift": "1/2"}, "shift must be 0 between equal rates"),
        ({"rate": 10**12}, "MiB"),
        ({"rate": 10**2000}, "MiB"),
        ({"rate": Fraction(1, 10**12)}, "MiB"),
    ],
)
def test_refuses(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resampler(Stream(44100, 1), **given)  # type: ignore[arg-type]


def test_refuses_rates_that_are_no_exact_number() -> None:
    for rate in (16000.0, 0, -5, "1/0", "fast", "1e999999999", None, True):
        with pytest.raises(RateError, match="rate"):
            Resampler(Stream(44100, 1), rate=rate)  # type: ignore[arg-type]
    assert block_class("resampler") is Resampler


def test_float32_stays_within_its_rounding() -> None:
    torch.set_default_dtype(torch.float32)
    block = Resampler(Stream(44100, 1), rate=16000)
    x = noise(block, 30, batch=1).float()
    single = run_chunks(block, x, [1] * 30)[""]
    double = block.double()(x.double())
    assert float((single.double() - double).abs().max()) < 2e-6 * float(double.abs().max())


def test_step_exports_with_its_state() -> None:
    torch.set_default_dtype(torch.float32)

    class Step(torch.nn.Module):
        def __init__(self, block: Resampler) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.block.step(x, state, {})

    block = Resampler(Stream(44100, 1), rate=16000)
    given_ = (torch.randn(1, 1, 441), torch.randn_like(block.init_state(1)))
    exported = torch.export.export(Step(block), given_)
    for found, want in zip(exported.module()(*given_), block.step(*given_, {}), strict=True):
        torch.testing.assert_close(found, want)


Convert = Callable[[Array], Array]


def tones(rate: float, frequencies: Array, seconds: float) -> Array:
    time = np.arange(round(rate * seconds)) / rate
    return np.cos(2 * np.pi * frequencies[:, None] * time)


def quality(convert: Convert, rate_in: int, rate_out: int) -> dict[str, float]:
    """A converter's errors on steady tones, in dB.

    ``ripple``: largest deviation of a tone's level, up to 0.9 of the lower Nyquist frequency. ``images``: largest
    residue beside the tone itself. ``aliases``: loudest remains of a tone from the lower Nyquist frequency on up, at
    least 0.1 % above it; minus infinity where the input has no room for one.
    """
    nyquist = min(rate_in, rate_out) / 2
    passed = np.append(np.linspace(0.01, 0.895, 24), 0.9) * nyquist
    y = convert(tones(rate_in, passed, 0.25))
    middle = slice(y.shape[1] // 4, y.shape[1] * 3 // 4)
    time = np.arange(y.shape[1])[middle] / rate_out
    levels, residues = [], []
    for frequency, row in zip(passed, y[:, middle], strict=True):
        angle = 2 * np.pi * frequency * time
        basis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        amplitudes = np.linalg.lstsq(basis, row, rcond=None)[0]
        levels.append(np.hypot(*amplitudes))
        residues.append(np.sqrt(2 * np.mean((row - basis @ amplitudes) ** 2)))
    found = {
        "ripple": float(np.abs(20 * np.log10(levels)).max()),
        "images": float(20 * np.log10(max(residues) + 1e-15)),
        "aliases": -np.inf,
    }
    if rate_in > 1.02 * rate_out:
        stopped = np.linspace(1.001 * nyquist, 0.999 * rate_in / 2, 25)
        y = convert(tones(rate_in, stopped, 0.25))
        middle = slice(y.shape[1] // 4, y.shape[1] * 3 // 4)
        found["aliases"] = float(20 * np.log10(np.sqrt(2 * np.mean(y[:, middle] ** 2, axis=1)).max() + 1e-15))
    return found


def ours(rate_in: int, rate_out: int, **given: float | None) -> Convert:
    block = Resampler(Stream(rate_in, 1), rate=rate_out, **given)  # type: ignore[arg-type]
    return lambda x: block(torch.from_numpy(x).unsqueeze(1))[:, 0].numpy()


def others(rate_in: int, rate_out: int) -> dict[str, Convert]:
    ratio = Fraction(rate_out, rate_in)
    return {
        "scipy": lambda x: scipy.signal.resample_poly(x, ratio.numerator, ratio.denominator, axis=1),
        "soxr HQ": lambda x: soxr.resample(np.ascontiguousarray(x.T), rate_in, rate_out, quality="HQ").T,
    }


@pytest.mark.parametrize("pair", [(44100, 16000), (16000, 44100), (48000, 16000), (44100, 48000)])
def test_quality_is_transparent_for_speech(pair: tuple[int, int]) -> None:
    found = {"astrape": quality(ours(*pair), *pair)} | {
        name: quality(convert, *pair) for name, convert in others(*pair).items()
    }
    for name, numbers in found.items():
        print(pair, name, {key: round(value, 3) for key, value in numbers.items()})
    assert found["astrape"]["ripple"] < 0.1
    assert found["astrape"]["images"] < -80
    assert found["astrape"]["aliases"] < -80
    assert found["astrape"]["aliases"] < found["scipy"]["aliases"] or pair[0] < pair[1]


@pytest.mark.parametrize(
    ("zeros", "rolloff", "top", "stop"),
    [(48, None, 0.9, 1.0), (40, None, 0.88, 1.0), (32, None, 0.85, 1.0), (24, 1.0, 0.91, 1.11), (16, 1.0, 0.87, 1.17)],
)
def test_documented_trade_of_latency_for_bandwidth(zeros: int, rolloff: float | None, top: float, stop: float) -> None:
    convert = ours(44100, 16000, zeros=zeros, rolloff=rolloff)
    y = convert(tones(44100, np.array([top - 0.01, top, stop + 0.002, stop + 0.02]) * 8000, 0.4))[:, 1000:6000]
    levels = 20 * np.log10(np.sqrt(2 * np.mean(y**2, axis=1)))
    assert np.abs(levels[:2]).max() < 0.1
    assert levels[2:].max() < -84.5


if __name__ == "__main__":
    for pair in [(44100, 16000), (16000, 44100), (48000, 16000), (44100, 48000)]:
        print(pair, "astrape", quality(ours(*pair), *pair))
