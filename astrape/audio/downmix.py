"""Several channels to one, and whether that leaves anything of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.errors import AudioError

__all__ = ["KEEP", "MEAN", "Downmix", "checked_channel"]

Samples = npt.NDArray[np.float32]

MEAN = "mean"
NAMED = {"left": 0, "right": 1}

WINDOW_SECONDS = 0.05
QUIETEST = 1e-6
"""Mean square, -60 dBFS: in windows below, nothing can be lost."""

LEFT_OVER = 0.1
"""-10 dB: what the mix has of the power that channels which have nothing to do with each other would leave."""

CANCELS = 0.1
"""Share of the windows with sound: fewer happen in any stereo recording."""


TAKE = "take one of them, with --channel left"
KEEP = "keep one of them in the file: ffmpeg -i IN -af 'pan=mono|c0=c0' OUT"


class Downmix:
    """Mixes ``(frames, channels)`` to one channel, and notes where the channels cancel each other.

    Two channels of opposite sign, as a microphone wired the wrong way round or a balanced line taken for stereo gives
    them, have a mean of zero. In windows of 50 ms, the power of the mix is held against what channels that have nothing
    to do with each other would give it; a window with less than a tenth of that counts as cancelled.

    Args:
        rate: Hz.
        channels: of the file.
        channel: ``mean`` of all, ``left``, ``right``, or the number of one, from 1.
        name: of the file, for messages.

    Attributes:
        heard_seconds: time with sound so far, of at least -60 dBFS.
        cancelled_seconds: the part of it in which the channels cancel each other.

    Raises:
        AudioError: for a channel that the file does not have.
    """

    def __init__(self, rate: int, channels: int, channel: str = MEAN, name: str = "audio") -> None:
        self.name, self.channels, self.channel = name, channels, channel
        number = checked_channel(channel)
        if number is not None and number >= channels:
            found = f"{channels} channel{'' if channels == 1 else 's'}"
            raise AudioError("channel", f"{name}: has {found}, and no '{channel}': name one of them, or 'mean'")
        self._number = number
        self._window = max(1, round(rate * WINDOW_SECONDS))
        self._seconds = self._window / rate
        self._held: npt.NDArray[np.float64] = np.zeros((0, 1 + channels))
        self._heard = self._cancelled = 0

    @property
    def heard_seconds(self) -> float:
        return self._heard * self._seconds

    @property
    def cancelled_seconds(self) -> float:
        return self._cancelled * self._seconds

    @property
    def cancels(self) -> bool:
        """Whether the channels cancel each other over a tenth of the sound or more."""
        return self._cancelled > 0 and self._cancelled >= CANCELS * self._heard

    def add(self, samples: npt.NDArray[Any]) -> Samples:
        """Go on with ``(frames, channels)``; returns ``(frames,)``, float32. Means are taken in float64."""
        if self._number is not None:
            return np.ascontiguousarray(samples[:, self._number], dtype=np.float32)
        if samples.shape[1] == 1:
            return np.ascontiguousarray(samples[:, 0], dtype=np.float32)
        mixed = samples.mean(axis=1, dtype=np.float64)
        self._count(np.column_stack((mixed, samples)))
        single: Samples = mixed.astype(np.float32)
        return single

    def fault(self, hint: str = TAKE) -> str | None:
        """A message about channels that cancel each other, with a hint; ``None`` where they do not."""
        if not self.cancels:
            return None
        return (
            f"{self.name}: its {self.channels} channels cancel each other in their mean, over "
            f"{self.cancelled_seconds:.2f} of {self.heard_seconds:.2f} s with sound: hint: {hint}"
        )

    def refuse_cancelled(self, hint: str = TAKE) -> None:
        """Refuse channels that cancel each other.

        Raises:
            AudioError: with how long they do, and what to do.
        """
        fault = self.fault(hint)
        if fault is not None:
            raise AudioError("cancelled", fault)

    def _count(self, samples: npt.NDArray[np.float64]) -> None:
        self._held = np.concatenate((self._held, samples))
        whole = len(self._held) // self._window * self._window
        if not whole:
            return
        windows = self._held[:whole].reshape(-1, self._window, 1 + self.channels)
        # Samples that are not finite are reported elsewhere, and have no level.
        with np.errstate(invalid="ignore", over="ignore"):
            power = np.square(windows).mean(axis=1)
            alone = power[:, 1:].sum(axis=1)
            heard = alone / self.channels >= QUIETEST
            self._heard += int(heard.sum())
            self._cancelled += int((heard & (power[:, 0] < LEFT_OVER * alone / self.channels**2)).sum())
        self._held = self._held[whole:].copy()


def checked_channel(channel: str) -> int | None:
    """The number of a channel, from 0; ``None`` for the mean of all.

    Raises:
        AudioError: for what is neither ``mean``, ``left``, ``right`` nor a number from 1.

    >>> checked_channel("right"), checked_channel("3"), checked_channel("mean")
    (1, 2, None)
    """
    if channel == MEAN:
        return None
    if channel in NAMED:
        return NAMED[channel]
    if channel.isascii() and channel.isdigit() and 1 <= int(channel[:6]) <= 1024 and len(channel) < 6:
        return int(channel) - 1
    raise AudioError("channel", f"channel '{channel[:40]}': must be mean, left, right, or a number from 1")
