"""The spectral blocks against torch's and numpy's transforms, and their numbers against gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from astrape.blocks import Stream, StreamBlock
from astrape.blocks.spectral import ISTFT, STFT, ExpPolar, Magnitude, spectral_window
from astrape.errors import RateError
from astrape.testing import check_block
from tests.blocks.chunks import run_chunks

SIZES = [(1512, 252), (392, 98), (2048, 512), (50, 16), (21, 7), (33, 33 - 10), (9, 2), (8, 1)]
ISTFT_SIZES = [(n, h) for n, h in SIZES if (n - h) % 2 == 0] + [(51, 17), (25, 9), (10, 8)]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def run_cut(block: StreamBlock, x: Tensor, cuts: Sequence[int]) -> Tensor:
    return run_chunks(block, x, [*cuts, x.shape[-1] // block.quantum - sum(cuts)])[""]


def stft(n_fft: int, hop: int, window: str = "hann") -> STFT:
    return STFT(Stream(44100, 1), n_fft=n_fft, hop=hop, window=window)


def istft(n_fft: int, hop: int, window: str = "hann") -> ISTFT:
    return ISTFT(Stream(Fraction(44100, hop), 2 * (n_fft // 2 + 1)), n_fft=n_fft, hop=hop, window=window)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_istft(spectrum: Tensor, n_fft: int, hop: int) -> np.ndarray:
    """The offline transform with "same" padding, one frame after another, for one row."""
    bins = n_fft // 2 + 1
    values = spectrum.numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    count = values.shape[-1]
    total, weight = np.zeros((2, (count - 1) * hop + n_fft))
    for frame in range(count):
        where = slice(frame * hop, frame * hop + n_fft)
        total[where] += window * np.fft.irfft(values[:bins, frame] + 1j * values[bins:, frame], n=n_fft)
        weight[where] += window**2
    trim = (n_fft - hop) // 2
    inner = slice(trim, len(total) - trim)
    return total[inner] / weight[inner]


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
def test_stft_is_torchs_on_a_signal_with_silence_before_it(n_fft: int, hop: int) -> None:
    x = noise(2, 1, 7 * hop)
    padded = nn.functional.pad(x[:, 0], (n_fft - hop, 0))
    window = torch.hann_window(n_fft, periodic=True)
    expected = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
    actual = stft(n_fft, hop)(x)
    torch.testing.assert_close(actual, torch.cat([expected.real, expected.imag], dim=1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["hann", "hamming", "sine", "rectangular"])
def test_windows_are_the_periodic_ones(name: str) -> None:
    from scipy.signal import get_window

    expected = {
        "hann": lambda: get_window("hann", 24),
        "hamming": lambda: get_window("hamming", 24),
        "sine": lambda: np.sqrt(get_window("hann", 24)),
        "rectangular": lambda: np.ones(24),
    }[name]()
    np.testing.assert_allclose(spectral_window(name, 24), expected, atol=1e-14)


@pytest.mark.parametrize(("n_fft", "hop"), ISTFT_SIZES)
def test_istft_is_the_offline_transform_delayed_from_the_first_sample(n_fft: int, hop: int) -> None:
    spectrum = noise(2, 2 * (n_fft // 2 + 1), 11, seed=n_fft)
    trim = (n_fft - hop) // 2
    actual = istft(n_fft, hop)(spectrum)
    assert actual.shape == (2, 1, 11 * hop)
    assert (actual[..., :trim] == 0).all()
    for row in range(2):
        expected = same_istft(spectrum[row], n_fft, hop)[: 11 * hop - trim]
        np.testing.assert_allclose(actual[row, 0, trim:].numpy(), expected, rtol=1e-9, atol=1e-10)


def test_istft_is_torchs_where_torchs_is_defined() -> None:
    n_fft, hop, bins = 392, 98, 197
    x = noise(1, 20 * hop)
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(x, n_fft, hop, window=window, center=True, return_complex=True)
    expected = torch.istft(spectrum, n_fft, hop, window=window, center=True)
    actual = istft(n_fft, hop)(torch.cat([spectrum.real, spectrum.imag], dim=1))[:, 0]
    assert spectrum.shape[1] == bins
    start = n_fft // 2
    length = min(expected.shape[-1], actual.shape[-1] - start)
    torch.testing.assert_close(actual[:, start : start + length], expected[:, :length], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("n_fft", "hop"), ISTFT_SIZES)
def test_there_and_back_delays_by_window_less_hop(n_fft: int, hop: int) -> None:
    there, back = stft(n_fft, hop), istft(n_fft, hop)
    delay = n_fft - hop
    impulse = torch.zeros(1, 1, 14 * hop)
    impulse[..., hop + 3 % hop] = 1
    for x in (impulse, noise(2, 1, 14 * hop)):
        y = back(there(x))
        torch.testing.assert_close(y, nn.functional.pad(x, (delay, 0))[..., : 14 * hop], rtol=0, atol=1e-9)
    assert (there.latency + back.latency) * 44100 == delay


@pytest.mark.parametrize("n_fft", [16, 15])
def test_imaginary_parts_at_zero_and_nyquist_are_ignored(n_fft: int) -> None:
    block = istft(n_fft, 4 - n_fft % 2)
    bins = n_fft // 2 + 1
    spectrum = noise(1, 2 * bins, 6)
    changed = spectrum.clone()
    changed[:, bins] += 7
    if n_fft % 2 == 0:
        changed[:, -1] -= 3
    assert torch.equal(block(spectrum), block(changed))
    changed[:, bins + 1] += 1
    assert not torch.equal(block(spectrum), block(changed))


@given(data=st.data(), n_fft=st.integers(2, 40), window=st.sampled_from(["hann", "hamming", "sine"]))
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_same_spectra_and_the_same_audio(data: st.DataObject, n_fft: int, window: str) -> None:
    hop = data.draw(st.integers(1, max(1, n_fft // 2)).filter(lambda h: (n_fft - h) % 2 == 0 or n_fft == 2))
    cuts = data.draw(st.lists(st.integers(0, 4), max_size=6))
    count = sum(cuts) + data.draw(st.integers(0, 5))
    x = noise(2, 1, count * hop, seed=count)
    there = stft(n_fft, hop, window)
    spectrum = there(x)
    torch.testing.assert_close(run_cut(there, x, cuts), spectrum, rtol=0, atol=1e-10)
    if (n_fft - hop) % 2 == 0:
        back = istft(n_fft, hop, window)
        torch.testing.assert_close(run_cut(back, spectrum, cuts), back(spectrum), rtol=0, atol=1e-10)


def test_rows_that_began_at_different_times_keep_their_own_beginnings() -> None:
    block = istft(32, 8)
    spectrum = noise(2, 34, 9)
    _, state = block.step(spectrum[..., :5], block.init_state(2), {})
    fresh = block.init_state(1)
    mixed = {name: torch.cat([state[name][:1], fresh[name]]) for name in state}
    y, _ = block.step(spectrum[..., 5:], mixed, {})
    torch.testing.assert_close(y[:1], block(spectrum[:1])[..., 40:], rtol=0, atol=1e-12)
    torch.testing.assert_close(y[1:], block(spectrum[1:, :, 5:]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n_fft", "hop"), [(32, 8), (21, 7), (25, 9), (10, 8), (9, 7)])
@pytest.mark.parametrize("kind", ["stft", "istft"])
def test_declared_reach_is_the_measured_reach(n_fft: int, hop: int, kind: str) -> None:
    block = stft(n_fft, hop) if kind == "stft" else istft(n_fft, hop)
    quanta = n_fft // hop + 3
    x = noise(1, block.channels_in, quanta * block.quantum).requires_grad_()
    y = block(x)
    start = (quanta - 1) * block.quantum
    each = block.produces["out"]
    ages = []
    for frame in range(each):
        (gradient,) = torch.autograd.grad(y[0, :, (quanta - 1) * each + frame].square().sum(), x, retain_graph=True)
        touched = gradient.abs().sum(dim=(0, 1)).nonzero().flatten()
        assert int(touched[0]) - start == block.oldest_input(frame)
        middle = Fraction(int(touched[0] + touched[-1] + 1), 2) / block.rate_in
        ages.append(Fraction(2 * ((quanta - 1) * each + frame) + 1, 2) / block.rate_out - middle)
    assert block.receptive_field == (block.quantum - min(map(block.oldest_input, range(each)))) / block.rate_in
    assert abs(sum(ages) / each - block.latency) * 44100 <= 1
    assert block.latency * 44100 == Fraction(n_fft - hop, 2)


def test_gradients_are_the_same_in_both_modes() -> None:
    back, there = istft(32, 8), stft(32, 8)
    x = noise(2, 1, 80).requires_grad_()
    whole = torch.autograd.grad(back(there(x)).square().sum(), x)[0]
    cut = torch.autograd.grad(run_cut(back, run_cut(there, x, [1, 3]), [2, 1, 1]).square().sum(), x)[0]
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-10)


def test_float32_error_is_rounding() -> None:
    x = noise(1, 1, 20 * 252)
    torch.set_default_dtype(torch.float32)
    y = istft(1512, 252)(stft(1512, 252)(x.float()))
    assert (y[..., 1260:] - x[..., :-1260].float()).abs().max() < 1e-5


def test_blocks_made_in_float32_are_exact_after_they_are_widened() -> None:
    torch.set_default_dtype(torch.float32)
    x = noise(1, 1, 20 * 252).double()
    y = istft(1512, 252).double()(stft(1512, 252).double()(x))
    assert (y[..., 1260:] - x[..., :-1260]).abs().max() < 1e-12


def test_autocast_leaves_audio_in_full_precision() -> None:
    torch.set_default_dtype(torch.float32)
    there, back = stft(64, 16), istft(64, 16)
    x = noise(1, 1, 320).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = back(there(x))
    assert torch.equal(y, back(there(x)))


def test_polar_and_magnitude() -> None:
    x = noise(2, 10, 6) * 3
    x[0, 0, 0] = 1e4
    x.requires_grad_()
    y = ExpPolar(Stream(175, 10))(x)
    expected = torch.polar(torch.exp(x[:, :5]).clamp(max=100), x[:, 5:])
    torch.testing.assert_close(y, torch.cat([expected.real, expected.imag], dim=1), rtol=1e-12, atol=1e-12)
    magnitude = Magnitude(Stream(175, 10))(y)
    torch.testing.assert_close(magnitude, expected.abs(), rtol=1e-12, atol=1e-12)
    y.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad[0, 0, 0] == 0
    silence = torch.zeros(1, 10, 3, requires_grad=True)
    Magnitude(Stream(175, 10))(silence).sum().backward()
    assert silence.grad is not None
    assert torch.equal(silence.grad, torch.zeros_like(silence))


@pytest.mark.parametrize(
    "build",
    [
        lambda: stft(33, 10),
        lambda: stft(16, 16),
        lambda: istft(32, 8),
        lambda: istft(25, 9),
        lambda: ExpPolar(Stream(100, 8)),
        lambda: Magnitude(Stream(100, 8)),
    ],
)
def test_the_contract_holds(build: Callable[[], StreamBlock]) -> None:
    torch.set_default_dtype(torch.float32)
    check_block(build())


class OneStep(nn.Module):
    def __init__(self, block: StreamBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.block.step(x, state, {})


@pytest.mark.parametrize("kind", ["stft", "istft"])
def test_export_takes_one_step(kind: str) -> None:
    block = stft(32, 8) if kind == "stft" else istft(32, 8)
    x = noise(1, block.channels_in, 6 * block.quantum)
    state = block.init_state(1, dtype=x.dtype)
    exported = torch.export.export(OneStep(block), (x[..., : block.quantum], state)).module()
    parts = []
    for piece in x.split(block.quantum, dim=-1):
        y, state = exported(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=-1), block(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: stft(0, 1), ValueError, "n_fft must be a whole number from 2 to 8192, not 0"),
        (lambda: stft(10**12, 1), ValueError, "n_fft must be"),
        (lambda: stft(10**300, 1), ValueError, "from 2 to 8192, not an integer of over 19 digits"),
        (lambda: stft(16, 17), ValueError, "hop must be a whole number from 1 to 16, not 17"),
        (lambda: stft(16, 4, "kaiser"), ValueError, "window must be one of hann, hamming, rectangular, sine"),
        (lambda: istft(16, 5), ValueError, "make both even or both odd"),
        (lambda: istft(16, 16), ValueError, "hop must be small enough"),
        (lambda: STFT(Stream(44100, 2), n_fft=16, hop=4), RateError, "one channel, not 2"),
        (lambda: ISTFT(Stream(44100, 16), n_fft=16, hop=4), RateError, r"2 \* 9 channels.* not 16"),
        (lambda: ExpPolar(Stream(1, 3)), RateError, "even number of channels"),
        (lambda: ExpPolar(Stream(1, 2), limit=0), ValueError, "limit must be positive and finite, not 0"),
        (lambda: Magnitude(Stream(1, 3)), RateError, "even number of channels"),
    ],
)
def test_hostile_sizes_are_refused_in_words(build: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build()


def test_rectangular_windows_may_stand_side_by_side() -> None:
    x = noise(1, 1, 64)
    torch.testing.assert_close(istft(16, 16, "rectangular")(stft(16, 16, "rectangular")(x)), x, rtol=0, atol=1e-12)
