"""Band envelopes against interpolation by numpy and minimum phase by a recursion, and products of spectra."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks import ISTFT, STFT, BandEnvelope, SpectralProduct, Stream
from astrape.errors import RateError

Array = npt.NDArray[np.float64]
RATE = 44100.0


def slaney(hertz: Array) -> Array:
    """Mels as librosa's page defines them: 200/3 Hz each up to 1 kHz, then 27 for a factor of 6.4."""
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def by_numpy(
    bands: Array, n_fft: int, fmin: float, fmax: float, slope_db: float, level_db: float, last: float
) -> Array:
    """Log-amplitudes of the bins, one by one."""
    hertz = np.arange(n_fft // 2 + 1) * RATE / n_fft
    places = np.linspace(slaney(np.array(fmin)), slaney(np.array(fmax)), len(bands))
    inside = np.interp(slaney(np.minimum(hertz, last)), places, bands)
    fall = slope_db * np.log2(np.maximum(hertz, last) / last)
    result: Array = inside + (level_db - fall) * math.log(10) / 20
    return result


@settings(max_examples=25, deadline=None)
@given(
    n_fft=st.sampled_from([512, 1023, 1323]),
    count=st.integers(2, 80),
    fmin=st.sampled_from([0.0, 50.0, 1000.0]),
    fmax=st.sampled_from([4000.0, 12000.0, 22050.0]),
    slope=st.floats(0, 30),
    level=st.floats(-60, 0),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 99),
)
def test_bins_are_interpolated_on_the_mel_scale_and_fall_above(
    n_fft: int, count: int, fmin: float, fmax: float, slope: float, level: float, share: float, seed: int
) -> None:
    last = fmin + share * (fmax - fmin)
    named = {"n_fft": n_fft, "hop": 441, "fmin": fmin, "fmax": fmax, "slope_db": slope, "level_db": level}
    block = BandEnvelope(Stream(100, count), **named, extrapolate_from=last).double()  # type: ignore[arg-type]
    bands = np.random.default_rng(seed).standard_normal((count, 3))
    got = block(torch.from_numpy(bands)[None])[0].log().numpy()
    for frame in range(3):
        want = by_numpy(bands[:, frame], n_fft, fmin, fmax, slope, level, last)
        np.testing.assert_allclose(got[:, frame], want, atol=1e-9)


@pytest.mark.parametrize("phase", ["zero", "minimum"])
def test_bands_above_the_last_that_is_taken_have_no_part(phase: str) -> None:
    block = BandEnvelope(
        Stream(100, 80), n_fft=1323, hop=441, fmax=12000.0, extrapolate_from=10000.0, phase=phase
    ).double()
    bands = torch.randn(1, 80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centres = np.linspace(0, slaney(np.array(12000.0)), 80)
    first = int(np.searchsorted(centres, slaney(np.array(10000.0)))) + 1
    other = bands.clone()
    other[:, first:] = 100
    assert first < 80
    assert torch.equal(block(bands), block(other))


def test_the_envelope_means_the_same_at_every_rate_and_length() -> None:
    """A bin at the same frequency has the same amplitude, whatever transform it belongs to."""
    bands = torch.randn(1, 20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    long = BandEnvelope(Stream(100, 20), n_fft=882, hop=441, fmax=8000.0).double()(bands)
    short = BandEnvelope(Stream(100, 20), n_fft=480, hop=240, fmax=8000.0).double()(bands)
    torch.testing.assert_close(long[:, : len(short[0])], short)


def test_the_limit_holds_and_ends_the_gradient() -> None:
    block = BandEnvelope(Stream(100, 4), n_fft=64, hop=32, limit_db=20.0, slope_db=0.0).double()
    bands = torch.tensor([1.0, 2.0, 50.0, 500.0], dtype=torch.float64).view(1, 4, 1).requires_grad_()
    y = block(bands)
    assert y.detach().max() == pytest.approx(10.0)
    y.sum().backward()
    assert bands.grad is not None
    assert bands.grad.isfinite().all()
    assert bands.grad[0, 3, 0] == 0


def minimum_phase_response(log_magnitude: Array, length: int) -> Array:
    """The response whose logarithm's power series has the folded cepstrum, by the recursion of that series.

    ``h[n] = sum_k (k / n) c[k] h[n - k]``: Oppenheim & Schafer's recursion from a complex cepstrum, with no transform.
    """
    cepstrum = np.fft.irfft(log_magnitude)
    folded = 2 * cepstrum[:length]
    h = np.zeros(length)
    h[0] = math.exp(cepstrum[0])
    for n in range(1, length):
        k = np.arange(1, n + 1)
        h[n] = (k / n * folded[k] * h[n - k]).sum()
    return h


@pytest.mark.parametrize("n_fft", [512, 1323])
def test_minimum_phase_is_that_of_the_response_of_that_magnitude(n_fft: int) -> None:
    block = BandEnvelope(Stream(100, 24), n_fft=n_fft, hop=441, fmax=12000.0, phase="minimum").double()
    bands = np.random.default_rng(1).standard_normal(24) * 0.7
    made = block(torch.from_numpy(bands).view(1, 24, 1))[0, :, 0].numpy()
    bins = n_fft // 2 + 1
    spectrum = made[:bins] + 1j * made[bins:]
    log_magnitude = by_numpy(bands, n_fft, 0.0, 12000.0, 12.0, 0.0, 12000.0)
    np.testing.assert_allclose(np.log(np.abs(spectrum)), log_magnitude, atol=1e-9)
    # An independent way to the phase: the magnitude on a fine grid, and a recursion instead of a Hilbert transform.
    times = 2 * (50000 // n_fft)
    fine = times * n_fft
    grid = np.arange(fine // 2 + 1) * RATE / fine
    places = np.linspace(0, slaney(np.array(12000.0)), 24)
    magnitude = (
        np.interp(slaney(grid), places, bands) - 12 * np.log2(np.maximum(grid, 12000) / 12000) * math.log(10) / 20
    )
    response = minimum_phase_response(magnitude, 8000)
    want = np.fft.fft(response, fine)[: bins * times : times]
    assert np.abs(np.angle(spectrum / want)).max() < 2e-3


def test_minimum_phase_rings_after_the_pulse_and_zero_phase_as_much_before() -> None:
    """A formant on a pulse amid a window."""
    bands = torch.full((1, 40, 3), -4.0, dtype=torch.float64)
    bands[:, 10:15] = torch.tensor([-2.0, -1.0, 0.0, -1.0, -2.0], dtype=torch.float64)[:, None]
    energy = {}
    for phase in ("zero", "minimum"):
        envelope = BandEnvelope(Stream(100, 40), n_fft=1323, hop=441, phase=phase).double()
        pulse = torch.zeros(1, 1, 3 * 441, dtype=torch.float64)
        pulse[..., 661] = 1.0
        stft = STFT(Stream(44100, 1), n_fft=1323, hop=441, window="rectangular").double()
        product = SpectralProduct({"s": stft.output, "e": envelope.output})
        y = product({"s": stft(pulse), "e": envelope(bands)})[0, :, 2].numpy()
        response = np.fft.irfft(y[:662] + 1j * y[662:], 1323) ** 2
        energy[phase] = response[:661].sum() / response.sum()
    assert energy["zero"] == pytest.approx(0.5, abs=0.2)
    assert energy["minimum"] < 0.05


@settings(max_examples=20, deadline=None)
@given(bins=st.integers(1, 9), frames=st.integers(0, 5), seed=st.integers(0, 99), complex_=st.booleans())
def test_a_product_is_that_of_complex_numbers(bins: int, frames: int, seed: int, complex_: bool) -> None:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((2, bins, frames)) + 1j * rng.standard_normal((2, bins, frames))
    b = rng.standard_normal((2, bins, frames)) + 1j * complex_ * rng.standard_normal((2, bins, frames))
    envelope = np.concatenate([b.real, b.imag], axis=1) if complex_ else b.real
    block = SpectralProduct({"s": Stream(50, 2 * bins), "e": Stream(50, envelope.shape[1])})
    given_ = {"s": torch.from_numpy(np.concatenate([a.real, a.imag], axis=1)), "e": torch.from_numpy(envelope)}
    y = block(given_).numpy()
    np.testing.assert_allclose(y[:, :bins] + 1j * y[:, bins:], a * b, atol=1e-12)


def test_a_flat_envelope_passes_sound_through_transform_and_inverse() -> None:
    source, sound = Stream(44100, 1), torch.randn(1, 1, 441 * 12, dtype=torch.float64)
    stft = STFT(source, n_fft=1323, hop=441).double()
    envelope = BandEnvelope(Stream(100, 8), n_fft=1323, hop=441, slope_db=0.0, phase="minimum").double()
    product = SpectralProduct({"s": stft.output, "e": envelope.output})
    istft = ISTFT(product.output, n_fft=1323, hop=441).double()
    y = istft(product({"s": stft(sound), "e": envelope(torch.zeros(1, 8, 12, dtype=torch.float64))}))
    torch.testing.assert_close(y[..., 882:], sound[..., : 441 * 12 - 882], atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_fft": 1}, "n_fft must be"),
        ({"hop": 0}, "hop must be"),
        ({"fmax": 30000.0}, "fmax must be a number from 0 to 22050"),
        ({"fmin": 9000.0, "fmax": 8000.0}, "fmin must be a number from 0 to 8000"),
        ({"fmin": 8000.0, "fmax": 8000.0}, "must differ, not both be 8000 Hz"),
        ({"extrapolate_from": 22051.0}, "extrapolate_from must be a number from 0 to 22050"),
        ({"fmin": 500.0, "extrapolate_from": 500.0}, "extrapolate_from must be above fmin, not 500 Hz as well"),
        ({"phase": "linear"}, "phase must be one of zero, minimum"),
        ({"limit_db": math.nan}, "limit_db must be"),
    ],
)
def test_envelopes_refuse(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BandEnvelope(Stream(100, 8), **{"n_fft": 882, "hop": 441, **params})  # type: ignore[arg-type]


def test_products_refuse() -> None:
    with pytest.raises(ValueError, match="two inputs, a spectrum and an envelope, not 1"):
        SpectralProduct({"s": Stream(50, 10)})
    with pytest.raises(RateError, match="not 10 and 4"):
        SpectralProduct({"s": Stream(50, 10), "e": Stream(50, 4)})
    with pytest.raises(RateError, match="not 9 and 9"):
        SpectralProduct({"s": Stream(50, 9), "e": Stream(50, 9)})
