"""Endings of audio files, and the decoder that each needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import soundfile

from astrape.audio.atomic import shown
from astrape.audio.places import Place

__all__ = ["DECODED", "ENDINGS", "READABLE", "is_audio", "is_hidden", "named"]

READABLE = {"aif", "aifc", "oga", "opus", "wave", "bwf"}
READABLE |= {one.lower() for one in soundfile.available_formats()} - {"raw"}
"""File endings that libsndfile reads. Raw samples say neither rate nor channels."""

DECODED = {
    "3gp", "aac", "ac3", "amr", "ape", "asf", "avi", "flv", "m4a", "m4b", "m4r", "m4v", "mka", "mkv", "mov", "mp2",
    "mp4", "mpeg", "mpg", "tta", "weba", "webm", "wma", "wmv", "wv",
}  # fmt: skip
"""File endings that take PyAV or ffmpeg to read."""

ENDINGS = READABLE | DECODED


NAMED = 10
"""Files that are named one by one in a message."""


def named(paths: Sequence[Path | Place]) -> str:
    """The names of files for a message: the first ten, and how many more there are."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(shown(path.name) for path in paths[:NAMED]) + more


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on its way, has a name that begins with a dot; parts are divided by ``/``."""
    return any(part.startswith(".") for part in name.split("/"))


def is_audio(path: Path | Place | str) -> bool:
    """Whether a file's name says that it is audio, or a video that has some."""
    return Path(path).suffix.removeprefix(".").lower() in ENDINGS
