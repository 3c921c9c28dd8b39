"""Pitch and formant shifting in the spectral domain: the harmonics of a voice move, its envelope moves by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.bounds import bounded
from astrape.blocks.pitch import UPPER_SHARE, PitchSearch, lag_grid
from astrape.blocks.registry import register
from astrape.blocks.spectral import spectral_window
from astrape.blocks.state import map_state
from astrape.errors import RateError

__all__ = ["SpectralShift"]

TURN = 2**48
"""Fixed-point units of a turn of phase. Sums of them are exact, and wrap at a whole number of turns (2^64 / 2^48)."""

MAX_SEMITONES = 24.0
VOICE_BAND = 3000.0
"""Hz up to which the pitch is looked for."""

SILENCE = 10 ** (-60 / 10)
"""Mean power of a frame below which it has no pitch."""

LONGEST_QUEFRENCY = 0.0035
"""Seconds. An envelope for the harmonics of a pitch p holds nothing beyond 1/(2p); below 143 Hz this is fine enough."""

ENVELOPE_ROUNDS = 2
BANDS = 24
UNVOICED, VOICED = 0.2, 0.6
"""Band-wise periodicity at which a band counts as noise through and through, and as harmonics through and through."""

LEAST_POWER = 1e-16


class ShiftSettings(NamedTuple):
    """What the shifter derives from its controls: the ratios by which frequencies move, ``(batch, 1)``."""

    pitch: Tensor
    formant: Tensor


@register("spectral_shift")
class SpectralShift(StreamBlock):
    """Moves the pitch and the formants of a voice apart from each other, on the spectra between stft and istft.

    Each frame is taken apart and put together again:

    1. Pitch: the autocorrelation of the frame, from its power spectrum, and :class:`astrape.blocks.pitch.PitchSearch`.
    2. Envelope: a true envelope (A. Roebel, X. Rodet, "Efficient spectral envelope estimation and its application to
       pitch shifting and envelope preservation", DAFx 2005), whose cepstral lifter follows the pitch so that it never
       resolves single harmonics. The spectrum is divided by it.
    3. Voicing: the periodicity of each of 24 bands splits the rest into harmonics, which move, and noise, which has no
       pitch and stays: moved noise would sound like tones, since it comes in slices with gaps between.
    4. Shift: as J. Laroche and M. Dolson move peaks ("New phase-vocoder techniques for pitch-shifting, harmonizing and
       other exotic effects", WASPAA 1999), each harmonic's surroundings move as a whole, by a whole number of bins
       and a fraction by cubic interpolation, and turn by one phase. The phase of harmonic h is h times that of the
       fundamental, whose turns are ``(ratio - 1) f0 hop`` a frame more: so harmonics keep their phases to each other,
       a pulse stays a pulse, and the voice does not sound as if from a barrel as it does with a phase per peak
       (A. Roebel, "A shape-invariant phase vocoder for speech transformation", DAFx 2010).
    5. The envelope, warped by the formant ratio, is put back, at the frame's own level (within 6 dB).

    The phase of the fundamental is kept in int64 fixed point, 2^48 units a turn: sums are exact, independent of how the
    stream is cut, and do not drift in a week. It starts from zero with every onset of voicing. With both shifts at 0
    from such an onset on, spectra pass unchanged up to rounding.

    Spectra of Hann windows (the default of ``stft``) are expected, real parts first. They should be long enough to
    resolve the harmonics: about two periods of the lowest pitch at least, better three. No latency of its own.

    Args:
        source: spectra: ``2 * (n_fft // 2 + 1)`` channels for an even ``n_fft`` of 128 to 8192, one frame per hop.
        hop: samples per frame, as given to ``stft``: the sample rate is that of the frames times ``hop``.
        pitch: semitones, -24 to 24; a number or a control's name, held within that range.
        formant: semitones by which the envelope moves, -24 to 24; a number or a control's name. 3 to 4 lie between a
            male and a female vocal tract.
        fmin, fmax: range of pitch in the input, Hz. A frame must hold two periods of ``fmin``.

    Raises:
        ValueError: for a number out of range.
        RateError: for a number of channels that is no spectrum's.
    """

    to_lags: Tensor
    to_cepstrum: Tensor
    to_envelope: Tensor
    quefrency: Tensor
    bands: Tensor
    centred: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        hop: int,
        pitch: float | str = 0.0,
        formant: float | str = 0.0,
        fmin: float = 70.0,
        fmax: float = 500.0,
    ) -> None:
        self.bins = source.channels // 2
        n_fft = 2 * (self.bins - 1)
        if source.channels % 2 or not 128 <= n_fft <= 8192:
            raise RateError(
                f"spectral_shift takes the 130 to 8194 channels of a spectrum with an even n_fft, not {source.channels}"
            )
        bounded("hop", hop, 1, n_fft // 2)
        super().__init__(source)
        for name, value in (("pitch", pitch), ("formant", formant)):
            if not isinstance(value, str) and not abs(value) <= MAX_SEMITONES:
                raise ValueError(f"{name} must be -24 to 24 semitones, not {value}")
        rate = float(self.rate_in) * hop
        lowest = 2 * rate / n_fft
        band = min(VOICE_BAND, rate / 2)
        if not lowest <= fmin <= fmax / 1.5 or not fmax <= band / 2:
            raise ValueError(
                f"fmin and fmax must lie within {lowest:.1f} Hz (two periods in a window of {n_fft}) and "
                f"{band / 2:g} Hz, fmax at least 1.5 times fmin, not {fmin} and {fmax}: a longer window reaches lower"
            )
        self.pitch, self.formant = self.live(pitch), self.live(formant)
        self.bin_hz = rate / n_fft
        self.search = PitchSearch(lag_grid(fmin, fmax, band).tolist(), hop / rate)
        self.voice_bins = round(fmin / 2 / self.bin_hz), int(band / self.bin_hz) + 1
        # What a spectrum's power sums to for a signal of mean power 1 (Parseval), over the bins that are kept.
        self.window_power = 0.375 * n_fft * self.bins
        self._build_tables(lag_grid(fmin, fmax, band), n_fft, rate)

    def _build_tables(self, lags: npt.NDArray[np.float64], n_fft: int, rate: float) -> None:
        place = np.arange(self.bins)
        both_sides = np.where((place == 0) | (place == self.bins - 1), 1.0, 2.0)
        waves = np.cos(2 * np.pi * self.bin_hz * np.outer(place, lags))
        window = both_sides * np.abs(np.fft.rfft(spectral_window("hann", n_fft))) ** 2
        low, high = self.voice_bins
        count = max(8, round(LONGEST_QUEFRENCY * rate))
        cosines = np.cos(2 * np.pi * np.outer(place, np.arange(count + 1)) / n_fft)
        to_cepstrum = cosines * both_sides[:, None] / n_fft
        to_cepstrum[:, 1:] *= 2
        # Triangles, evenly spaced on the mel scale, that add up to 1 in each bin.
        scale = np.log1p(place * self.bin_hz / 700)
        bands = np.clip(1 - np.abs(scale[:, None] / scale[-1] * (BANDS - 1) - np.arange(BANDS)), 0, 1)
        for name, table in (
            ("to_lags", (waves / (window @ waves / window.sum()))[low:high]),
            ("to_cepstrum", to_cepstrum),
            ("to_envelope", cosines.T),
            ("quefrency", np.arange(count + 1) / rate),
            ("bands", bands),
            # Turns phases so that they count from the middle of the window, where a bin and its neighbours agree.
            ("centred", 1.0 - 2.0 * (place % 2)),
        ):
            tensor = torch.from_numpy(np.ascontiguousarray(table)).to(torch.get_default_dtype())
            self.register_buffer(name, tensor, persistent=False)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, State]:
        return {
            "search": self.search.init_state(batch_size, device, dtype),
            "f0": torch.zeros(batch_size, 1, device=device, dtype=dtype),
            "turns": torch.zeros(batch_size, 1, device=device, dtype=torch.int64),
        }

    def prepare(self, controls: Mapping[str, Tensor]) -> ShiftSettings:
        def ratio(semitones: float | str) -> Tensor:
            if isinstance(semitones, str):
                return torch.exp2(controls[semitones].clamp(-MAX_SEMITONES, MAX_SEMITONES) / 12)
            return torch.full_like(self.centred[None, :1], 2 ** (semitones / 12))

        return ShiftSettings(ratio(self.pitch), ratio(self.formant))

    def step(self, x: Tensor, state: State, controls: ShiftSettings) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.clone(), map_state(torch.clone, state)
        batch, _, frames = x.shape
        spectrum = x.transpose(1, 2).reshape(batch, frames, 2, self.bins) * self.centred
        power = spectrum.square().sum(dim=2)
        f0, search = self._track(power, state["search"])
        turns, after = self._accumulate(f0, controls.pitch, state)
        # Without a pitch nothing moves; the envelope is then smoothed as if for this one.
        pitch = torch.where(f0 > 0, f0, torch.full_like(f0, 200.0))[..., None]
        envelope = self._envelope(power, pitch)
        flat = spectrum / envelope[:, :, None]
        voicing = (self._voicing(power / envelope.square(), pitch) * (f0 > 0)[..., None])[:, :, None]
        moved = self._move(flat * voicing, pitch, turns[..., None], controls.pitch[..., None])
        shaped = (moved + flat * (1 - voicing)) * self._warp(envelope, controls.formant[..., None])[:, :, None]
        level = (power.sum(dim=-1) + LEAST_POWER) / (shaped.square().sum(dim=(2, 3)) + LEAST_POWER)
        shaped = shaped * level.clamp(0.25, 4).sqrt()[..., None, None] * self.centred
        return shaped.reshape(batch, frames, -1).transpose(1, 2), {"search": search, **after}

    def _track(self, power: Tensor, state: State) -> tuple[Tensor, State]:
        low, high = self.voice_bins
        inside = power[..., low:high]
        total = inside.sum(dim=-1) + UPPER_SHARE * power[..., high:].sum(dim=-1)
        correlation = inside @ self.to_lags / (total[..., None] + LEAST_POWER)
        f0, _, state = self.search.follow(correlation, power.sum(dim=-1) > SILENCE * self.window_power, state)
        return f0, state

    def _accumulate(self, f0: Tensor, ratio: Tensor, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """The turns, in fixed point, by which the fundamental is ahead of the input's, from each onset of voicing."""
        wide = torch.float32 if f0.device.type == "mps" else torch.float64
        before = torch.cat([state["f0"], f0[:, :-1]], dim=-1)
        goes_on = (f0 > 0) & (before > 0)
        mean = (f0.detach().to(wide) + before.detach().to(wide)) / 2
        advance = ((ratio.detach().to(wide) - 1) * mean * (TURN / float(self.rate_in))).round().to(torch.int64)
        turns = state["turns"] + torch.where(goes_on, advance, torch.zeros_like(advance)).cumsum(dim=-1)
        place = torch.arange(f0.shape[1], device=f0.device)
        onset = torch.where(goes_on, torch.full_like(place, -1), place).cummax(dim=-1).values
        at_onset = torch.where(onset >= 0, turns.gather(-1, onset.clamp(min=0)), torch.zeros_like(turns))
        turns = (turns - at_onset).remainder(TURN)
        return turns, {"f0": f0[:, -1:].detach().clone(), "turns": turns[:, -1:].clone()}

    def _envelope(self, power: Tensor, pitch: Tensor) -> Tensor:
        """Smooth magnitudes ``(batch, frames, bins)`` that lie on the harmonics and not between them."""
        logarithm = 0.5 * power.clamp(min=LEAST_POWER).log()
        reach = 0.5 / pitch
        lifter = 0.54 + 0.46 * torch.cos(math.pi * self.quefrency / reach)
        lifter = torch.where(self.quefrency < reach, lifter, torch.zeros_like(lifter))
        smooth = (logarithm @ self.to_cepstrum * lifter) @ self.to_envelope
        for _ in range(ENVELOPE_ROUNDS):
            smooth = (torch.maximum(logarithm, smooth) @ self.to_cepstrum * lifter) @ self.to_envelope
        return smooth.exp()

    def _voicing(self, flat_power: Tensor, pitch: Tensor) -> Tensor:
        """How much of each bin belongs to harmonics, 0 to 1, from the periodicity of the bands around it."""
        place = torch.arange(self.bins, device=pitch.device, dtype=pitch.dtype)
        wave = torch.cos(2 * math.pi * self.bin_hz * place / pitch)
        lag = self.bin_hz / pitch
        # The autocorrelation of a Hann window at this part of its length, which even a pure tone does not exceed.
        window = (1 - lag) * (2 + torch.cos(2 * math.pi * lag)) / 3 + torch.sin(2 * math.pi * lag) / (2 * math.pi)
        periodicity = (flat_power * wave) @ self.bands / ((flat_power @ self.bands + LEAST_POWER) * window)
        degree = ((periodicity - UNVOICED) / (VOICED - UNVOICED)).clamp(0, 1)
        return (degree.square() * (3 - 2 * degree)) @ self.bands.T

    def _move(self, flat: Tensor, pitch: Tensor, turns: Tensor, ratio: Tensor) -> Tensor:
        """Move the surroundings of each harmonic to ``ratio`` times its frequency, turned by its share of ``turns``.

        Args:
            flat: ``(batch, frames, 2, bins)``; ``pitch`` and ``turns`` are ``(batch, frames, 1)``.
        """
        place = torch.arange(self.bins, device=flat.device, dtype=flat.dtype)
        harmonic = (place * (self.bin_hz / pitch.detach())).round()
        angle = (harmonic.to(torch.int64) * turns).remainder(TURN).to(flat.dtype) * (2 * math.pi / TURN)
        cosine, sine = angle.cos(), angle.sin()
        real, imaginary = flat.unbind(dim=2)
        turned = torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=2)
        goal = place + (ratio - 1) * harmonic * (pitch / self.bin_hz)
        below = goal.detach().floor()
        part = goal - below
        # Lagrange's cubic through the four bins around the goal, transposed: each bin gives to four.
        shares = (
            part * (1 - part) * (part - 2) / 6,
            (part + 1) * (1 - part) * (2 - part) / 2,
            (part + 1) * part * (2 - part) / 2,
            (part + 1) * part * (part - 1) / 6,
        )
        share = torch.stack(shares, dim=2)
        index = below.to(torch.int64)[:, :, None] + torch.arange(-1, 3, device=flat.device)[:, None]
        share = torch.where((index >= 0) & (index < self.bins), share, torch.zeros_like(share))
        index = index.clamp(0, self.bins - 1)[:, :, None].expand(-1, -1, 2, -1, -1)
        given = turned[:, :, :, None] * share[:, :, None]
        return torch.zeros_like(turned).scatter_add(-1, index.flatten(3), given.flatten(3))

    def _warp(self, envelope: Tensor, ratio: Tensor) -> Tensor:
        """The envelope with its frequencies multiplied by ``ratio``; the top bin stands in for what lies above it."""
        place = torch.arange(self.bins, device=envelope.device, dtype=envelope.dtype)
        origin = (place / ratio).clamp(max=self.bins - 1).expand_as(envelope)
        below = origin.detach().floor().clamp(max=self.bins - 2)
        index, part = below.to(torch.int64), origin - below
        return envelope.gather(-1, index) * (1 - part) + envelope.gather(-1, index + 1) * part
