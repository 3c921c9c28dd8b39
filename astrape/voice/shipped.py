"""The voices that ship with the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["shipped_voices"]


def shipped_voices() -> dict[str, Path]:
    """Voicebanks by the name that ``--target`` takes. Two seconds of each stand beside it, ``NAME.flac``.

    They are of synthetic speakers that no training has heard, so that nobody's voice is given away.
    """
    folder = Path(str(resources.files("astrape") / "recipes" / "voices"))
    return {path.stem: path for path in sorted(folder.glob("*.astrape"))}
