"""Tables beside recordings, for training on parallel sets: phones, pitch and vectors, in files or in a pack."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.audio.atomic import shown
from astrape.audio.places import Place
from astrape.corpus.utterances import Utterance
from astrape.training.caches.files import ArrayFault
from astrape.training.caches.packed import Pack
from astrape.training.caches.recording import read_header
from astrape.training.errors import CacheError
from astrape.training.tables import read_phones, read_pitch, read_vector

__all__ = ["Beside", "PackedBeside"]


class Beside:
    """Tables beside recordings, and the recordings' own headers.

    Each method raises a :class:`CacheError` for what is missing or damaged.
    """

    def phones(self, utterance: Utterance) -> npt.NDArray[np.int64]:
        """The phones of an utterance that has a table of them."""
        assert utterance.phones is not None
        return read_phones(utterance.phones)

    def pitch(self, utterance: Utterance) -> npt.NDArray[np.float32]:
        """The fundamental of an utterance that has a table of it."""
        assert utterance.pitch is not None
        return read_pitch(utterance.pitch)

    def vector(self, utterance: Utterance) -> npt.NDArray[np.float32]:
        """The vector of an utterance that has one."""
        assert utterance.vector is not None
        return read_vector(utterance.vector)

    def rate(self, utterance: Utterance) -> int:
        """The rate of the recording itself, Hz."""
        return read_header(utterance.path).rate

    def check(self, table: Path | Place) -> None:
        """Look for a table on this machine; of a store, it is told when it is read."""
        if isinstance(table, Path) and not table.is_file():
            raise CacheError(f"{shown(table)}: there is no such table")


class PackedBeside(Beside):
    """:class:`Beside` that reads the shards of a pack."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack

    def phones(self, utterance: Utterance) -> npt.NDArray[np.int64]:
        return read_phones(self._named(utterance, "phones"), self._opened(utterance, "phones"))

    def pitch(self, utterance: Utterance) -> npt.NDArray[np.float32]:
        return read_pitch(self._named(utterance, "pitch"), self._opened(utterance, "pitch"))

    def vector(self, utterance: Utterance) -> npt.NDArray[np.float32]:
        return read_vector(self._named(utterance, "vector"), self._opened(utterance, "vector"))

    def rate(self, utterance: Utterance) -> int:
        return self.pack.rate(utterance.key)

    def check(self, table: Path | Place) -> None:
        """Nothing: the index says that it is there."""

    def _named(self, utterance: Utterance, name: str) -> str:
        return f"{self.pack.place}/{utterance.path}: {name} of {utterance.key}"

    def _opened(self, utterance: Utterance, name: str) -> io.BytesIO:
        try:
            return io.BytesIO(self.pack.member(utterance.key, f"{name}.npy"))
        except ArrayFault as fault:
            raise CacheError(f"{self._named(utterance, name)}: {fault}") from fault
