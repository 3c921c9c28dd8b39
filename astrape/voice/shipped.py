"""The voices that ship with the package, by name."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from astrape.audio.places import Place, anywhere

__all__ = ["shipped_voice", "shipped_voices"]


def shipped_voices() -> dict[str, Path]:
    """Voicebanks by the name that ``--target`` takes. Two seconds of each stand beside it, ``NAME.flac``.

    They are of synthetic speakers that no training has heard, so that nobody's voice is given away.
    """
    folder = Path(str(resources.files("astrape") / "recipes" / "voices"))
    return {path.stem: path for path in sorted(folder.glob("*.astrape"))}


def shipped_voice(target: str | os.PathLike[str]) -> Path | None:
    """The voicebank of a voice that ships, by name; ``None`` for any other target, and where a file is called so."""
    found, path = shipped_voices().get(os.fspath(target)), anywhere(target)
    return None if isinstance(path, Place) or path.exists() else found
