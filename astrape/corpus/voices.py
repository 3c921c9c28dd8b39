"""The synthetic voices: their styles, their registers, and which of them no training may hear."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.audio.atomic import write_whole
from astrape.audio.places import Place
from astrape.corpus.errors import CorpusError
from astrape.errors import PlaceError

__all__ = ["HELD", "Voices", "measured_registers"]

ROWS, WIDTH = 510, 256
ACOUSTIC = 128
"""Count of a style's numbers that describe the sound; the rest describe the prosody."""

HELD = (
    "af_heart",
    "af_nicole",
    "am_fenrir",
    "am_michael",
    "bf_emma",
    "bm_george",
    "em_santa",
    "pm_santa",
)
"""Voices that no training hears, nor any mixture with them. The last two are nearly one: one side of the split."""

ENGLISH = ("a", "b")
"""First letters of the voices whose prosody is English."""

REGISTER_TEXTS = (
    "She had your dark suit in greasy wash water all year.",
    "The harvest was better than anyone had hoped for.",
)


class Voices:
    """The styles of all voices.

    A style is a table: its row for a text of ``n`` phones is row ``n - 1``, of which the first 128 numbers say how the
    voice sounds and the last 128 how it moves.

    Args:
        folder: with a file of 510 times 256 float32 for each voice, ``NAME.bin``.

    Raises:
        CorpusError: for a folder without voices, and a file of another size.
    """

    def __init__(self, folder: Path) -> None:
        self._styles: dict[str, npt.NDArray[np.float32]] = {}
        for path in sorted(folder.glob("*.bin")):
            values = np.fromfile(path, "<f4")
            if values.size != ROWS * WIDTH:
                raise CorpusError(
                    f"{path}: holds {values.size} numbers and not {ROWS} times {WIDTH}; hint: delete {folder.parent} "
                    f"and run the same command again"
                )
            self._styles[path.stem] = values.reshape(ROWS, WIDTH)
        self.names = tuple(self._styles)
        if not self.names:
            raise CorpusError(f"{folder}: holds no voices (*.bin); hint: delete it and run the same command again")

    def acoustic(self, voice: str, phones: int) -> npt.NDArray[np.float32]:
        """The timbre of a voice in a text of that many phones: ``(128,)``."""
        return self._styles[voice][min(phones, ROWS) - 1, :ACOUSTIC]

    def prosody(self, voice: str, phones: int) -> npt.NDArray[np.float32]:
        """The prosody of a voice in a text of that many phones: ``(128,)``."""
        return self._styles[voice][min(phones, ROWS) - 1, ACOUSTIC:]

    def mixed(self, parts: dict[str, float], phones: int) -> npt.NDArray[np.float32]:
        """The sound of a convex mixture, ``(128,)``: shares by voice, which add up to 1."""
        # Shares are float64, so that a single voice is itself to the last bit.
        summed = sum(np.float64(share) * self.acoustic(voice, phones) for voice, share in parts.items())
        return np.asarray(summed, np.float32)

    def of_split(self, split: str) -> list[str]:
        return [name for name in self.names if (name in HELD) == (split == "held")]

    def prosodies(self, split: str) -> list[str]:
        """The voices of a split whose prosody is English; all of the split where none is."""
        return [name for name in self.of_split(split) if name.startswith(ENGLISH)] or self.of_split(split)


def measured_registers(
    path: Path | Place, voices: Voices, measure: Callable[[str, tuple[str, ...]], float]
) -> dict[str, float]:
    """Each voice's register, the median F0 in Hz of two sentences in its own prosody; measured once and kept.

    Args:
        path: ``registers.json`` of the corpus.
        voices: all of them.
        measure: gives the register of a voice that speaks these texts.

    Raises:
        CorpusError: for a file that holds something else.
    """
    if Place(path).exists():
        try:
            found = {str(name): float(hertz) for name, hertz in json.loads(Place(path).read()).items()}
        except (PlaceError, ValueError, AttributeError, TypeError) as error:
            raise CorpusError(f"{path}: cannot be read: {error}; hint: delete it, it is measured again") from error
        if set(voices.names) <= set(found) and all(20 < found[name] < 1000 for name in voices.names):
            return {name: found[name] for name in voices.names}
        raise CorpusError(f"{path}: is of other voices; hint: delete it, it is measured again")
    found = {name: measure(name, REGISTER_TEXTS) for name in voices.names}
    write_whole(path, json.dumps(found, indent=1) + "\n")
    return found
