"""Audio files: one reader, one writer, levels, resampling, and files that appear whole or not at all.

- :class:`~astrape.audio.reader.AudioReader`: any format, piece by piece, and what its header says that is not so.
- :class:`~astrape.audio.downmix.Downmix`: several channels to one, and whether they cancel each other.
- :class:`~astrape.audio.writer.AudioWriter`: a file that appears whole or not at all.
- :class:`~astrape.audio.atomic.atomic_path`: the same for a file of any kind.

Everything in here but :mod:`~astrape.audio.resampling` imports nothing of astrape but its errors.
"""

from __future__ import annotations

from astrape.audio.atomic import atomic_path, write_whole
from astrape.audio.downmix import Downmix
from astrape.audio.levels import Level, decibels
from astrape.audio.reader import AudioReader
from astrape.audio.writer import AudioWriter

__all__ = ["AudioReader", "AudioWriter", "Downmix", "Level", "atomic_path", "decibels", "write_whole"]
