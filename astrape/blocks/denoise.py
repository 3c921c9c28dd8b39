"""Noise reduction in the spectral domain, from the past alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.parameters import full_precision
from astrape.blocks.registry import register
from astrape.blocks.state import map_state
from astrape.errors import RateError

__all__ = ["SpectralDenoise"]

SPEECH_SNR = 10 ** (15 / 10)
"""SNR that speech is assumed to have where it is present, so that its presence can be told from one bin's power."""

LEAST_SNR = 10 ** (-25 / 10)
LEARNING_SECONDS = 0.08
LEAST_POWER = 1e-12
"""Least power of a bin, for signals around 1: noise is never estimated lower, and a frame with all bins below it is
digital silence."""

MUTE_FALL = 10 ** (-40 / 10)
MUTE_SECONDS = 10.0


@register("spectral_denoise")
class SpectralDenoise(StreamBlock):
    """Takes steady noise out of speech, on the spectra between stft and istft.

    The power of the noise in each bin follows T. Gerkmann and R. Hendriks, "Unbiased MMSE-based noise power estimation
    with low complexity and low tracking delay" (IEEE Trans. Audio, Speech, Lang. Process. 20(4), 2012): each frame
    updates it as far as speech is improbable there. The gain is the log-spectral amplitude estimator of Y. Ephraim and
    D. Malah (1985), on the a priori SNR of their decision-directed rule (1984), which keeps single bins from flickering
    ("musical noise"). Their constants are scaled from the hops they were given for to this one's.

    The noise is taken from the first 80 ms that are not digital silence, and followed from there: noise that falls is
    known within 0.1 s, noise that rises by 10 dB within about a second. A microphone that is muted says nothing of the
    noise: the estimate stays as it is through digital silence, however long, and for 10 s where the level falls by more
    than 40 dB at once, so that it holds when the noise comes back. A change of ``strength`` acts at once. No
    latency of its own; the gains are real, so phases stay.

    Args:
        source: spectra, ``2 * bins`` channels, real parts first, one frame per hop.
        strength: how much of the reduction, in dB, is applied: 0 none, 1 all; a number or a control's name, held
            within that range.
        floor_db: the most that a bin is turned down at full strength, -80 to 0 dB. The default of -20 leaves a quiet,
            natural rest of the noise, which masks artefacts.

    Raises:
        ValueError: for a number out of range.
        RateError: for an odd number of channels.
    """

    def __init__(
        self,
        source: Stream,
        *,
        strength: float | str = 1.0,
        floor_db: float = -20.0,
    ) -> None:
        if source.channels % 2:
            raise RateError(f"spectral_denoise takes real and imaginary parts, not {source.channels} channels")
        super().__init__(source)
        if not isinstance(strength, str) and not 0 <= strength <= 1:
            raise ValueError(f"strength must be 0 to 1, not {strength}")
        if not -80 <= floor_db <= 0:
            raise ValueError(f"floor_db must be -80 to 0 dB, not {floor_db}")
        self.strength = self.live(strength)
        self.floor = 10 ** (floor_db / 20)
        self.bins = source.channels // 2
        seconds = 1 / float(self.rate_in)
        self.noise_memory, self.presence_memory = 0.8 ** (seconds / 0.016), 0.9 ** (seconds / 0.016)
        self.snr_memory = 0.98 ** (seconds / 0.008)
        self.learning = max(1, round(LEARNING_SECONDS / seconds))
        self.mute = max(1, round(MUTE_SECONDS / seconds))

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        full_precision(dtype, self)
        state = {
            name: torch.zeros(batch_size, self.bins, device=device, dtype=dtype)
            for name in ("noise", "presence", "clean")
        }
        counts = {name: torch.zeros(batch_size, 1, device=device, dtype=torch.int64) for name in ("heard", "muted")}
        return {**state, **counts}

    def prepare(self, controls: Mapping[str, Tensor]) -> Tensor | float:
        """The strength: a number, or ``(batch, 1, 1)``."""
        return controls[self.strength].clamp(0, 1)[..., None] if isinstance(self.strength, str) else self.strength

    def step(self, x: Tensor, state: State, controls: Tensor | float) -> tuple[Tensor, State]:
        batch, _, frames = x.shape
        if not frames:
            return x.clone(), map_state(torch.clone, state)
        parts = x.reshape(batch, 2, self.bins, frames)
        power = parts.square().sum(dim=1)
        gains = []
        for frame in range(frames):
            gain, state = self._gain(power[..., frame], state)
            gains.append(gain)
        gain = torch.stack(gains, dim=-1).clamp(min=self.floor) ** controls
        return (parts * gain[:, None]).reshape(x.shape), state

    def _gain(self, power: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The gain of each bin of one frame, ``(batch, bins)``, and the state after it."""
        noise, presence = state["noise"].clamp(min=LEAST_POWER), state["presence"]
        evidence = (power / noise).clamp(max=1e6)
        speech = 1 / (1 + (1 + SPEECH_SNR) * torch.exp(-evidence * (SPEECH_SNR / (1 + SPEECH_SNR))))
        sounds = power.amax(dim=1, keepdim=True) > LEAST_POWER
        fallen = sounds & (power.sum(dim=1, keepdim=True) < MUTE_FALL * state["noise"].sum(dim=1, keepdim=True))
        muted = (state["muted"] + 1) * fallen
        counts = sounds & ((muted == 0) | (muted > self.mute))
        presence = self.presence_memory * presence + (1 - self.presence_memory) * speech
        # Where speech seems never to pause, the noise has risen: a remnant of doubt lets the estimate follow it.
        speech = torch.where(presence > 0.99, speech.clamp(max=0.99), speech)
        followed = noise + (1 - self.noise_memory) * (1 - speech) * (power - noise)
        heard = state["heard"] + counts
        # While it learns, the estimate is the mean of what was heard.
        learned = state["noise"] + (power - state["noise"]) / heard.clamp(min=1)
        noise = torch.where(counts, torch.where(heard > self.learning, followed, learned), state["noise"])
        posterior = (power / noise.clamp(min=LEAST_POWER)).clamp(max=1e6)
        before = state["clean"] / noise.clamp(min=LEAST_POWER)
        prior = self.snr_memory * before + (1 - self.snr_memory) * (posterior - 1).clamp(min=0)
        prior = prior.clamp(LEAST_SNR, 1e6)
        wiener = prior / (1 + prior)
        gain = (wiener * torch.exp(0.5 * exponential_integral(wiener * posterior))).clamp(max=1)
        after = {
            "noise": noise,
            "presence": torch.where(counts, presence, state["presence"]),
            "clean": gain.square() * power,
            "heard": heard.clamp(max=self.learning + 1),
            "muted": muted.clamp(max=self.mute + 1),
        }
        return gain, after


def exponential_integral(x: Tensor) -> Tensor:
    """``E1(x)``, the integral of ``exp(-t) / t`` from x up, to 5e-5 of its value; below 1e-6 that of 1e-6.

    M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions" (1964), 5.1.53 up to 1 and 5.1.54 above.
    """
    low, high = x.clamp(1e-6, 1.0), x.clamp(min=1.0)
    series = torch.full_like(low, 0.00107857)
    for coefficient in (-0.00976004, 0.05519968, -0.24991055, 0.99999193, -0.57721566):
        series = series * low + coefficient
    top = high.square() + 2.334733 * high + 0.250621
    bottom = high.square() + 3.330657 * high + 1.681534
    return torch.where(x < 1, series - low.log(), torch.exp(-high) / high * top / bottom)
