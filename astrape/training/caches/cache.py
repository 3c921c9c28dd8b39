"""A cache on disk, to read from: which files an utterance has in it, and what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.audio.atomic import shown
from astrape.audio.places import CACHE_GB, Place, anywhere
from astrape.corpus.utterances import Utterance
from astrape.errors import PlaceError
from astrape.training.caches.files import ArrayFault, array_file, check_sum, read_array
from astrape.training.caches.record import BY_UTTERANCE, RECORD, Record, check_record, read_record
from astrape.training.caches.recording import Header
from astrape.training.errors import CacheError
from astrape.training.names import SIGNALS

__all__ = ["Cache", "Holdings", "Stored", "check_values", "find_caches"]

INT16 = np.dtype(np.int16)

FAILED = ".failed"
"""The ending of a file that says why nothing could be made."""

TRIES = 3
"""Times that an array is fetched from a store that others make room for meanwhile."""


@dataclass(frozen=True)
class Stored:
    """One array of a cache.

    Attributes:
        path: its file, here or in a store.
        dtype: what it holds.
        channels: rows; ``None`` for a vector without a clock.
    """

    path: Path | Place
    dtype: np.dtype[Any]
    channels: int | None

    def map(self) -> npt.NDArray[Any]:
        """The array, mapped into memory.

        Raises:
            ArrayFault: for what is missing or damaged, as far as header and size tell.
        """
        for _ in range(TRIES):
            local = array_file(self.path)
            try:
                return read_array(local, self.dtype, self.channels)
            except ArrayFault as fault:
                # For a store: another process has just made room in the read cache.
                if fault.kind != "missing" or local == self.path:
                    raise
        raise ArrayFault(
            "unreadable", f"was removed from the read cache {TRIES} times before it was read; hint: a larger {CACHE_GB}"
        )

    def read(self) -> npt.NDArray[Any]:
        """The array, read in full, so that what a disk cannot give is found out.

        Raises:
            ArrayFault: as :meth:`map`.
        """
        self.map()
        try:
            found: npt.NDArray[Any] = np.load(array_file(self.path), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ArrayFault("unreadable", f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        return found


@dataclass(frozen=True)
class Holdings:
    """The contents of a cache.

    Attributes:
        complete: keys of which all files are there.
        failed: keys of which nothing could be made, and a file says why.
        begun: keys of which any array is there, with or without the others.
    """

    complete: set[str]
    failed: set[str]
    begun: set[str]


class Cache:
    """One cache: ``FOLDER/SPEAKER/NAME.npy``, or ``FOLDER/SPEAKER.npy`` of speakers.

    Features and content are float32 ``(channels, frames)``, of which frame ``j`` stands at ``j / rate`` seconds of the
    utterance. Beside content there are ``NAME.codes.npy``, int64 ``(1, frames)``, where the teacher has codes, and
    ``NAME.voiced.npy``, uint8 ``(1, frames)``. Audio is int16 ``(1, frames)``, pitch float32 ``(1, frames)``; see
    :mod:`astrape.training.caches.waves`. ``NAME.failed`` says why there is nothing of an utterance.

    Args:
        folder: the cache's own, of this machine or of a store.
        expected: what it has to be, for a caller who depends on it.

    Raises:
        CacheError: for a folder without a cache, or with another one than is expected.
    """

    def __init__(self, folder: Path | Place, expected: Record | None = None) -> None:
        self.folder = anywhere(folder)
        self.record = read_record(folder)
        if expected is not None:
            check_record(folder, self.record, expected)

    @property
    def what(self) -> str:
        return self.record.what

    @property
    def channels(self) -> int:
        return self.record.channels

    @property
    def rate(self) -> Fraction:
        """Frames a second.

        Raises:
            CacheError: for speakers, who have no clock.
        """
        if self.record.rate is None:
            raise CacheError(f"{shown(self.folder)}: a cache of {self.what} has no rate")
        return self.record.rate

    @property
    def by_speaker(self) -> bool:
        """One array a speaker, and not one an utterance."""
        return self.record.rate is None and self.record.identity.get("one for each") != BY_UTTERANCE

    def key_of(self, utterance: Utterance) -> str:
        return utterance.speaker if self.by_speaker else utterance.key

    def wants(self, utterance: Utterance) -> bool:
        """Whether it is to hold anything of an utterance: pitch only where no table is beside the recording."""
        return self.what != "pitch" or utterance.pitch is None

    def stored(self, key: str) -> dict[str, Stored]:
        """The arrays of an utterance or a speaker by the names that batches have for them, its own first."""
        base = self.folder / key
        channels = None if self.record.rate is None else self.channels
        dtype = INT16 if self.what == "audio" else np.dtype(np.float32)
        found = {SIGNALS[self.what][0]: Stored(_with(base, ".npy"), dtype, channels)}
        if self.what == "content":
            if self.record.codes is not None:
                found["codes"] = Stored(_with(base, ".codes.npy"), np.dtype(np.int64), 1)
            found["voiced"] = Stored(_with(base, ".voiced.npy"), np.dtype(np.uint8), 1)
        return found

    def has(self, key: str) -> bool:
        """Whether all files of an utterance or a speaker are there. They are whole, or were damaged by others."""
        return all(Place(one.path).exists() for one in self.stored(key).values())

    def holdings(self) -> Holdings:
        """The keys that are there, found by listing the folder once; of the names, these are held."""
        endings = [one.path.name.removeprefix("key") for one in self.stored("key").values()]
        # The longest ending counts: `x.codes.npy` is the codes of `x`, not the array of `x.codes`.
        longest = sorted(endings, key=len, reverse=True)
        found: Counter[str] = Counter()
        failed: set[str] = set()
        for name in Place(self.folder).names():
            if name.endswith(FAILED):
                failed.add(name.removesuffix(FAILED))
            elif (ending := next((one for one in longest if name.endswith(one)), None)) is not None:
                found[name.removesuffix(ending)] += 1
        complete = {key for key, count in found.items() if count == len(endings)}
        # Files that are being written, or were left by a killed writer, begin with a dot.
        begun = {key for key in found if not key.rpartition("/")[2].startswith(".")}
        return Holdings(complete, failed - complete, begun)

    def left_out(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """Utterances of which nothing could be made.

        Raises:
            CacheError: for one that has not been tried yet.
        """
        held = self.holdings()
        lacking = [one for one in utterances if self.key_of(one) not in held.complete]
        undone = [one for one in lacking if self.key_of(one) not in held.failed]
        if undone:
            raise CacheError(
                f"{shown(self.folder)}: lacks {len(undone)} of {len(utterances)} utterances, "
                f"'{shown(undone[0].key)}' among them: make these with `astrape cache --what {self.what}`"
            )
        return lacking

    def reason(self, key: str) -> str | None:
        """The reason why an utterance or a speaker failed; ``None`` if it has not failed."""
        try:
            return Place(self.marker(key)).read().decode("utf-8", "replace").strip()
        except PlaceError:
            return None

    def marker(self, key: str) -> Path | Place:
        """The file that says why nothing could be made of an utterance or a speaker."""
        return _with(self.folder / key, FAILED)

    def expected(self, header: Header) -> tuple[int, int] | None:
        """Least and most frames that an utterance of this length has; ``None`` where that cannot be told."""
        if self.record.rate is None:
            return None
        if self.what in ("audio", "pitch"):
            count = header.frames_at(self.rate)
            return count, count
        if self.what == "content":
            # A teacher gives the whole frames, or one more, of the audio at its own rate, which rounds up.
            frames = int(header.seconds * self.rate)
            return frames, frames + 2
        try:
            taken, made = (int(count) for count in self.record.options["quantum"])
            count = header.frames_at(Fraction(self.record.options["rate_in"])) // taken * made
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        return count, count

    def fault(self, key: str, frames: tuple[int, int] | None = None) -> tuple[Path | Place, ArrayFault] | None:
        """A fault of the arrays of an utterance or a speaker, after reading all of them; ``None``: nothing.

        Args:
            key: the utterance's, or the speaker.
            frames: least and most that the first array may have, where that is known.
        """
        counts: list[int] = []
        for name, one in self.stored(key).items():
            try:
                array = one.read()
                if one.channels is None and array.shape != (self.channels,):
                    raise ArrayFault("shape", f"holds {array.shape} and not ({self.channels},)")
                check_values(name, array, self.record.codes)
                check_sum(array_file(one.path))
                counts.append(array.shape[-1])
                if frames is not None and one.channels is not None and not frames[0] <= counts[0] <= frames[1]:
                    raise ArrayFault("shape", f"holds {counts[0]} frames, and its audio makes {_span(*frames)}")
                if counts[-1] != counts[0]:
                    raise ArrayFault("shape", f"holds {counts[-1]} frames, and the array beside it {counts[0]}")
            except ArrayFault as fault:
                return one.path, fault
        return None


def find_caches(root: Path | Place) -> list[Path | Place]:
    """The folders with a cache below a root, of this machine or of a store, sorted.

    Raises:
        PlaceError: for a store that cannot be listed.
    """
    return [root / name for name in Place(root).folders() if (Place(root) / name / RECORD).exists()]


def check_values(name: str, array: npt.NDArray[Any], codes: int | None) -> None:
    """Refuse values that no array of this name has.

    Raises:
        ArrayFault: for values that are not finite, and codes out of range.
    """
    if array.dtype.kind == "f":
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise ArrayFault("non-finite", f"has {bad} values that are not finite")
        return
    if array.dtype == INT16:
        return
    least, most = int(array.min()), int(array.max())
    limit = 2 if name == "voiced" else codes or 1
    if least < 0 or most >= limit:
        raise ArrayFault("shape", f"holds {name} of {least} to {most}, and there are 0 to {limit - 1}")


def _span(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _with(base: Path | Place, ending: str) -> Path | Place:
    return base.with_name(base.name + ending)
