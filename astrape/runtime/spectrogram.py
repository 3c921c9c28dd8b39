"""Spectrograms of sounds beside each other, with their pitch drawn in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.errors import AstrapeError
from astrape.wording import lacking

__all__ = ["Sound", "save_spectrograms"]

LOWEST, HIGHEST = 60.0, 20000.0
"""Hz, what is drawn of every sound: what one lacks at the top is seen beside what another adds."""
RANGE_DB = 70.0
INK, PITCH = "#1f2933", "#ffffff"


@dataclass(frozen=True)
class Sound:
    """One channel, and its pitch in Hz at ``pitch_rate`` frames a second, 0 where unvoiced."""

    name: str
    samples: npt.NDArray[np.float32]
    rate: int
    pitch: npt.NDArray[np.float64]
    pitch_rate: float

    @property
    def median_pitch(self) -> float | None:
        voiced = self.pitch[self.pitch > 0]
        return float(np.median(voiced)) if len(voiced) else None


def save_spectrograms(sounds: list[Sound], path: str | Path) -> None:
    """Draw the sounds one below the other on one scale of level.

    Raises:
        AstrapeError: when matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AstrapeError(lacking("a picture", "matplotlib", "plot")) from error
    figure = Figure(figsize=(10, 3.1 * len(sounds) + 0.4), layout="constrained")
    panels = figure.subplots(len(sounds), 1, sharex=True, squeeze=False)[:, 0]
    spectra = [_spectrum(sound) for sound in sounds]
    loudest = max(float(level.max()) for _, _, level in spectra)
    for sound, axes, (times, frequencies, level) in zip(sounds, panels, spectra, strict=True):
        _draw(axes, sound, times, frequencies, np.clip(level - loudest, -RANGE_DB, 0))
    panels[-1].set_xlabel("s", color=INK)
    figure.colorbar(panels[0].collections[0], ax=list(panels), label="dB", shrink=0.7, pad=0.01)
    figure.savefig(path, dpi=130, facecolor="white")


def _draw(axes: Any, sound: Sound, times: Any, frequencies: Any, level: Any) -> None:
    axes.pcolormesh(times, frequencies, level, cmap="magma", shading="nearest", rasterized=True, vmin=-RANGE_DB, vmax=0)
    voiced = np.where(sound.pitch > 0, sound.pitch, np.nan)
    axes.plot(np.arange(len(voiced)) / sound.pitch_rate, voiced, color=PITCH, linewidth=1.8)
    axes.set_yscale("log")
    axes.set_facecolor("black")
    axes.set_ylim(LOWEST, HIGHEST)
    axes.set_yticks(
        [100, 200, 500, 1000, 2000, 5000, 10000, 20000], ["100", "200", "500", "1k", "2k", "5k", "10k", "20k"]
    )
    axes.minorticks_off()
    axes.set_ylabel("Hz", color=INK)
    median = sound.median_pitch
    pitch = "no pitch found" if median is None else f"pitch (white): median {median:.0f} Hz"
    axes.set_title(f"{sound.name}, {sound.rate} Hz;  {pitch}", loc="left", size=10.5, color=INK)


def _spectrum(sound: Sound) -> tuple[Any, Any, Any]:
    """Times, frequencies from ``LOWEST`` on, and levels in dB, of 40 ms Hann windows every 10 ms."""
    length, hop = round(0.04 * sound.rate), round(0.01 * sound.rate)
    padded = np.pad(sound.samples, (length // 2, length))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]
    size = 4 * length
    spectra = np.abs(np.fft.rfft(frames * np.hanning(length), n=size)) / length
    frequencies = np.arange(size // 2 + 1) * sound.rate / size
    shown = (frequencies >= LOWEST / 1.5) & (frequencies <= HIGHEST)
    level = 20 * np.log10(spectra[:, shown].T + 1e-7)
    return np.arange(len(frames)) * hop / sound.rate, frequencies[shown], level
