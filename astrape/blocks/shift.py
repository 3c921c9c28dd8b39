"""Pitch and formant shifting in the spectral domain: the harmonics of a voice move, its envelope moves by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.phase import TURN
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import bounded, full_precision
from astrape.blocks.pitch import UPPER_SHARE, PitchSearch, lag_grid
from astrape.blocks.policy import policy
from astrape.blocks.registry import register
from astrape.blocks.spectral import spectral_window
from astrape.blocks.state import map_state
from astrape.errors import RateError

__all__ = ["SpectralShift"]

MAX_SEMITONES = 24.0
VOICE_BAND = 3000.0
"""Hz up to which the pitch is looked for."""

SILENCE = 10 ** (-60 / 10)
"""Mean power of a frame below which it has no pitch."""

HUM = 60.0
"""Hz up to which mains hum. A Hann window spreads that over two bins to either side, where it hides the pitch."""

HUM_SECONDS = 1.5
"""Time within which even a fluent speaker pauses: a sound without a pause that long is not a voice."""

HUM_MARGIN = 8.0
"""Ratio of a voice's power to the hum's from which on the frequencies of the hum are searched at all."""

LEAK = 1e-3
"""The most of a hum's power that the window spreads further than two bins, where it looks like a voice's harmonics."""

LONGEST_QUEFRENCY = 0.0035
"""Seconds. An envelope for the harmonics of a pitch p holds nothing beyond 1/(2p); below 143 Hz this is fine enough."""

ENVELOPE_ROUNDS = 2
BANDS = 24
UNVOICED, VOICED = 0.2, 0.6
"""Band-wise periodicity at which a band counts as noise through and through, and as harmonics through and through."""

LEAST_POWER = 1e-16


class ShiftSettings(NamedTuple):
    """Prepared controls of the shifter.

    Attributes:
        pitch: the ratio by which harmonics move, ``(batch, 1)``.
        stretch: bins by which a harmonic moves for each Hz of its fundamental, ``(batch, 1)``.
        below, part: where in the envelope each bin of the warped one lies, ``(batch, 1, bins)``: a bin, and how far
            from it to the next.
    """

    pitch: Tensor
    stretch: Tensor
    below: Tensor
    part: Tensor


@register("spectral_shift")
class SpectralShift(StreamBlock, ExactTables):
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
    resolve the harmonics: about two periods of the lowest pitch at least, better three. No latency of its own. An
    offset does not disturb the search for the pitch, and neither does hum of 50 or 60 Hz. So short a window spreads it
    into the band of the voice; but hum does not pause and voices do, so the least power there within 1.5 s tells it,
    and a voice that is not well above it is known by its higher harmonics. It stays in the sound: a
    ``steep_highpass`` before the ``stft`` takes it out.

    Args:
        source: spectra: ``2 * (n_fft // 2 + 1)`` channels for an even ``n_fft`` of 128 to 8192, one frame per hop.
        hop: samples per frame, as given to ``stft``: the sample rate is that of the frames times ``hop``.
        pitch: semitones, -24 to 24; a number or a control's name, held within that range.
        formant: semitones by which the envelope moves, -24 to 24; a number or a control's name. 3 to 4 lie between a
            male and a female vocal tract.
        fmin, fmax: range of pitch in the input, Hz. A frame must hold two periods of ``fmin``.

    Raises:
        ValueError: for a number out of range.
        RateError: for a number of channels that no spectrum has.
    """

    to_lags: Tensor
    to_totals: Tensor
    low: Tensor
    to_cepstrum: Tensor
    to_envelope: Tensor
    quefrency: Tensor
    bands: Tensor
    centred: Tensor
    place: Tensor
    hertz: Tensor
    radians: Tensor
    cubic: Tensor
    hamming: Tensor
    neighbours: Tensor

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
        self.lags = lag_grid(fmin, band)
        self.search = PitchSearch(self.lags.tolist(), fmax, hop / rate)
        # An offset is in the first two bins of a Hann window's spectrum, and in no other.
        self.voice_bins = max(2, round(fmin / 2 / self.bin_hz)), int(band / self.bin_hz) + 1
        self.hum_bins = math.ceil(HUM / self.bin_hz) + 2
        self.overlap = -(-n_fft // hop)
        self.hum_frames = max(2, round(HUM_SECONDS * float(self.rate_in)))
        # The sum of a spectrum's power over the kept bins for a signal of mean power 1 (Parseval).
        self.window_power = 0.375 * n_fft * self.bins
        self.n_fft, self.rate = n_fft, rate
        self.register_buffer("neighbours", torch.arange(4)[:, None], persistent=False)
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        place = np.arange(self.bins)
        both_sides = np.where((place == 0) | (place == self.bins - 1), 1.0, 2.0)
        waves = np.cos(2 * np.pi * self.bin_hz * np.outer(place, self.lags))
        window = both_sides * np.abs(np.fft.rfft(spectral_window("hann", self.n_fft))) ** 2
        low, high = self.voice_bins
        hum = (place >= low) & (place < self.hum_bins)
        above = (place >= low) & ~hum
        count = max(8, round(LONGEST_QUEFRENCY * self.rate))
        cosines = np.cos(2 * np.pi * np.outer(place, np.arange(count + 1)) / self.n_fft)
        to_cepstrum = cosines * both_sides[:, None] / self.n_fft
        to_cepstrum[:, 1:] *= 2
        # Triangles, evenly spaced on the mel scale, that add up to 1 in each bin.
        scale = np.log1p(place * self.bin_hz / 700)
        bands = np.clip(1 - np.abs(scale[:, None] / scale[-1] * (BANDS - 1) - np.arange(BANDS)), 0, 1)
        return {
            "to_lags": (waves / (window @ waves / window.sum()))[low:high],
            # All of a frame's power; the part that is not hum; the part that may be; what periodicity is measured
            # against beside the latter.
            "to_totals": np.stack(
                [np.ones(self.bins), above, hum, above * np.where(place < high, 1.0, UPPER_SHARE)], axis=1
            ).astype(np.float64),
            "low": hum[low:high].astype(np.float64),
            "to_cepstrum": to_cepstrum,
            "to_envelope": cosines.T,
            # What phases, one period of the pitch long, are the pitch times.
            "quefrency": 2 * np.pi * np.arange(count + 1) / self.rate,
            "hamming": np.array([0.54, 0.46]),
            "bands": bands,
            # Turns phases so that they count from the middle of the window, where a bin and its neighbours agree.
            "centred": 1.0 - 2.0 * (place % 2),
            "place": place.astype(np.float64),
            "hertz": place * self.bin_hz,
            "radians": place * self.bin_hz * 2 * np.pi,
            # Lagrange's cubic through four points, transposed: what a point gives to each of them. By powers of the
            # way from the second to the third, 0 to 3.
            "cubic": np.array([[0, 6, 0, 0], [-2, -3, 6, -1], [3, -6, 3, 0], [-1, 3, -3, 1]])[..., None] / 6,
        }

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, State]:
        full_precision(dtype, self)
        return {
            "search": self.search.init_state(batch_size, device, dtype),
            "hum": torch.zeros(batch_size, self.overlap + self.hum_frames - 2, device=device, dtype=dtype),
            "f0": torch.zeros(batch_size, 1, device=device, dtype=dtype),
            "turns": torch.zeros(batch_size, 1, device=device, dtype=torch.int64),
        }

    def prepare(self, controls: Mapping[str, Tensor]) -> ShiftSettings:
        def ratio(semitones: float | str) -> Tensor:
            if isinstance(semitones, str):
                return torch.exp2(controls[semitones].clamp(-MAX_SEMITONES, MAX_SEMITONES) / 12)
            return torch.full_like(self.centred[None, :1], 2 ** (semitones / 12))

        # The top bin stands in for what lies above it.
        origin = (self.place / ratio(self.formant)).clamp(max=self.bins - 1)[:, None]
        below = origin.detach().floor().clamp(max=self.bins - 2)
        pitch = ratio(self.pitch)
        return ShiftSettings(pitch, (pitch - 1) / self.bin_hz, below.to(torch.int64), origin - below)

    def step(self, x: Tensor, state: State, controls: ShiftSettings) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.clone(), map_state(torch.clone, state)
        batch, _, frames = x.shape
        # Frame by frame all that follows is the same, so frames and batch are one dimension, and products plain ones.
        rows = batch * frames
        spectrum = x.transpose(1, 2).reshape(rows, 2, self.bins) * self.centred
        power = spectrum.square().sum(dim=1)
        totals = power @ self.to_totals
        f0, heard = self._track(power, totals.view(batch, frames, -1), state)
        turns, after = self._accumulate(f0, controls.pitch, state)
        f0 = f0.reshape(rows, 1)
        voiced = f0 > 0
        # Without a pitch nothing moves; the envelope is then smoothed as if for this one.
        pitch = torch.where(voiced, f0, 200.0)
        envelope = self._envelope(power, pitch)
        flat_power = power / envelope
        envelope = envelope.sqrt()
        flat = spectrum / envelope[:, None]
        sounding = flat * (self._voicing(flat_power, pitch) * voiced)[:, None]
        stretch = controls.stretch.expand(batch, frames).reshape(rows, 1)
        moved = self._move(sounding, pitch, turns.reshape(rows, 1), stretch)
        index, part = (table.expand(batch, frames, -1).reshape(rows, -1) for table in (controls.below, controls.part))
        warped = torch.lerp(envelope.gather(-1, index), envelope.gather(-1, index + 1), part)
        shaped = (moved + (flat - sounding)) * warped[:, None]
        level = (totals[:, 0] + LEAST_POWER) / (shaped.square().sum(dim=(1, 2)) + LEAST_POWER)
        shaped = shaped * (level.clamp(0.25, 4.0).sqrt()[:, None, None] * self.centred)
        return shaped.view(batch, frames, -1).transpose(1, 2), {**heard, **after}

    def _track(self, power: Tensor, totals: Tensor, state: State) -> tuple[Tensor, dict[str, State]]:
        (batch, frames, _), (low, high) = totals.shape, self.voice_bins
        _, above, hum, counted = totals.unbind(dim=2)
        before = torch.cat([state["hum"], hum.detach()], dim=-1)
        # Digital silence is a muted microphone, and says nothing of hum.
        signal = before.masked_fill(before <= LEAST_POWER, math.inf)
        loudest = policy().windows(signal, self.overlap, 1).amax(dim=-1)
        steady = policy().windows(loudest, self.hum_frames, 1).amin(dim=-1)
        share = (1 - HUM_MARGIN * steady / hum.detach().clamp(min=LEAST_POWER)).clamp(0, 1)
        heard = torch.addcmul(torch.ones_like(self.low), self.low, (share - 1).reshape(-1, 1))
        voice = hum * share
        product = ((power[:, low:high] * heard) @ self.to_lags).view(batch, frames, -1)
        correlation = product / (counted + voice + LEAST_POWER)[..., None]
        audible = above + voice > (hum - voice) * LEAK + SILENCE * self.window_power
        found, search = self.search.follow(correlation, audible, state["search"])
        return found.f0(), {"search": search, "hum": before[:, frames:].clone()}

    def _accumulate(self, f0: Tensor, ratio: Tensor, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """The turns, in fixed point, by which the fundamental is ahead of the input's, from each onset of voicing."""
        wide = torch.float32 if f0.device.type == "mps" else torch.float64
        before = torch.cat([state["f0"], f0[:, :-1]], dim=-1) if f0.shape[1] > 1 else state["f0"]
        goes_on = (f0 > 0) & (before > 0)
        twice = f0.detach().to(wide) + before.detach().to(wide)
        advance = ((ratio.detach().to(wide) - 1) * twice * (TURN / 2 / float(self.rate_in))).round().to(torch.int64)
        if f0.shape[1] == 1:
            turns = (state["turns"] + advance).masked_fill(~goes_on, 0) & (TURN - 1)
            return turns, {"f0": f0.detach().clone(), "turns": turns.clone()}
        turns = state["turns"] + torch.where(goes_on, advance, torch.zeros_like(advance)).cumsum(dim=-1)
        place = torch.arange(f0.shape[1], device=f0.device)
        onset = policy().running_maximum(torch.where(goes_on, torch.full_like(place, -1), place))
        at_onset = torch.where(onset >= 0, turns.gather(-1, onset.clamp(min=0)), torch.zeros_like(turns))
        turns = (turns - at_onset) & (TURN - 1)
        return turns, {"f0": f0[:, -1:].detach().clone(), "turns": turns[:, -1:].clone()}

    def _envelope(self, power: Tensor, pitch: Tensor) -> Tensor:
        """Smooth powers ``(rows, bins)`` that lie on the harmonics and not between them."""
        logarithm = power.clamp(min=LEAST_POWER).log()
        # A Hamming lifter up to half a period.
        turn = self.quefrency * pitch
        constant, cosine = self.hamming.unbind()
        lifter = torch.addcmul(constant, cosine, turn.cos()).masked_fill(turn >= math.pi, 0.0)
        smooth = (logarithm @ self.to_cepstrum * lifter) @ self.to_envelope
        for _ in range(ENVELOPE_ROUNDS):
            smooth = (torch.maximum(logarithm, smooth) @ self.to_cepstrum * lifter) @ self.to_envelope
        return smooth.exp()

    def _voicing(self, flat_power: Tensor, pitch: Tensor) -> Tensor:
        """The share of each bin that belongs to harmonics, 0 to 1, from the periodicity of the bands around it."""
        angle = self.radians / pitch
        wave = angle.cos()
        # The autocorrelation of a Hann window at this part of its length, the turns of bin 1, times 3, which even a
        # pure tone does not exceed.
        part, height = self.hertz[1:2] / pitch, wave[..., 1:2] + 2
        window = torch.add(height - height * part, angle[..., 1:2].sin(), alpha=1.5 / math.pi)
        within = (flat_power @ self.bands + LEAST_POWER) * window
        periodicity = (flat_power * wave) @ self.bands / within
        degree = (periodicity * (3 / (VOICED - UNVOICED)) - UNVOICED / (VOICED - UNVOICED)).clamp(0, 1)
        return (degree.square() * (3 - 2 * degree)) @ self.bands.T

    def _move(self, flat: Tensor, pitch: Tensor, turns: Tensor, stretch: Tensor) -> Tensor:
        """Move the surroundings of each harmonic to the new place of its frequency, turned by its share of ``turns``.

        Args:
            flat: ``(rows, 2, bins)``.
            pitch, turns, stretch: ``(rows, 1)``; for the last see :class:`ShiftSettings`.
        """
        harmonic = (self.hertz / pitch.detach()).round()
        angle = ((harmonic.to(torch.int64) * turns) & (TURN - 1)).to(flat.dtype) * (2 * math.pi / TURN)
        cosine, sine = angle.cos(), angle.sin()
        real, imaginary = flat.unbind(dim=1)
        turned = torch.stack(
            [
                torch.addcmul(real * cosine, imaginary, sine, value=-1),
                torch.addcmul(real * sine, imaginary, cosine),
            ],
            dim=1,
        )
        goal = torch.addcmul(self.place, harmonic, stretch * pitch)
        below = goal.detach().floor()
        part = (goal - below)[:, None]
        share = self.cubic[3]
        for coefficient in (2, 1, 0):
            share = torch.addcmul(self.cubic[coefficient], share, part)
        # Bins that would land outside of the spectrum go to one before it or one after it, which are cut off.
        index = (below.to(torch.int64)[:, None] + self.neighbours).clamp(0, self.bins + 1)
        index = index[:, None].expand(-1, 2, -1, -1).flatten(2)
        given = (turned[:, :, None] * share[:, None]).flatten(2)
        return turned.new_zeros(len(turned), 2, self.bins + 2).scatter_add(-1, index, given)[..., 1:-1]
