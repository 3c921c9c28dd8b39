"""Windows of the corpus to train on: crops of caches and audio that lie on one clock, the same wherever they are drawn.

A window begins at a whole multiple of a period that holds a whole number of frames of every signal, so that no crop
begins within a frame, whatever the rates are. Which window comes at which place is a function of the seed, the epoch
and the place alone: a training that resumes, or runs in any number of processes, sees the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from astrape.audio.atomic import shown
from astrape.blocks.base import Stream
from astrape.corpus.utterances import Utterance, speakers_of
from astrape.training.caches.cache import Cache
from astrape.training.caches.files import ArrayFault
from astrape.training.caches.recording import Header, read_crop, read_header
from astrape.training.caches.waves import unpacked
from astrape.training.errors import CacheError

__all__ = ["Cropping", "Crops", "WindowLoader", "WindowPlace", "Windows", "common_period", "cut", "mapped"]

WindowPlace = tuple[int, int]
"""An epoch and an item in it, from 0 on. There is no last item: a pass over the corpus is followed by another one."""


@dataclass(frozen=True)
class Cropping:
    """The crops that windows are: how long, where they may begin, and the seed of which is drawn when.

    Attributes:
        seconds: length of a window, rounded up to a whole number of periods.
        period: windows begin at whole multiples of it: the graph's. It is lengthened to a multiple with a whole number
            of frames of every signal, where it has none.
        audio: rate of the audio, Hz; ``None``: no audio.
        seed: of order and crops.
    """

    seconds: Fraction
    period: Fraction
    audio: Fraction | int | None = None
    seed: int = 0


class Crops(Dataset[dict[str, Tensor]]):
    """Crops of utterances on one clock, in an order that the seed gives: what all windows have in common.

    Args:
        utterances, speakers: as of :class:`Windows`.
        caches: what to read, by kind.
        streams: rate and channels of each signal by name.
        cropping: how long windows are, and where they begin.

    Attributes:
        seconds, period: as they are.
        streams: rate and channels of each signal by name; of ``speaker`` there are only ``speaker_channels``.
        utterances: those that have all signals.
        left_out: those that have not.
        speakers: by index.

    Raises:
        CacheError: for a cache that is not finished, no utterance, and a speaker that has no index.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        caches: dict[str, Cache],
        streams: dict[str, Stream],
        cropping: Cropping,
        speakers: Sequence[str] | None,
    ) -> None:
        self.caches, self.streams, self.seed = caches, streams, cropping.seed
        self.period = common_period(cropping.period, [stream.rate for stream in streams.values()])
        self.seconds = math.ceil(cropping.seconds / self.period) * self.period
        self.utterances, self.left_out = self.held(sorted(utterances, key=lambda one: one.key))
        self.speakers = list(speakers_of(self.utterances)) if speakers is None else list(speakers)
        self._index = {name: index for index, name in enumerate(self.speakers)}
        unknown = {one.speaker for one in self.utterances} - set(self._index)
        if unknown:
            raise CacheError(f"speaker '{min(unknown)}' is not among the {len(self.speakers)} that have an index")
        self._order: tuple[tuple[int, int], npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Items of one pass: utterances."""
        return len(self.utterances)

    @property
    def speaker_channels(self) -> int:
        """Channels of ``speaker``; 0 without it."""
        return self.caches["speakers"].channels if "speakers" in self.caches else 0

    def frames(self, name: str) -> int:
        """Frames of a signal in each window."""
        return int(self.seconds * self.streams[name].rate)

    def check_begin(self, begin: Fraction) -> None:
        """Refuse a window that begins amid a frame.

        Raises:
            CacheError: for a begin that is not a whole multiple of the period.
        """
        if begin < 0 or (begin / self.period).denominator != 1:
            raise CacheError(f"a window begins at a whole multiple of {self.period} s, not at {begin} s")

    def held(self, utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
        """Utterances that have all signals, and those of which some could not be made."""
        left: set[str] = set()
        for cache in self.caches.values():
            left.update(one.key for one in cache.left_out([one for one in utterances if cache.wants(one)]))
        held = [one for one in utterances if one.key not in left]
        if not held:
            why = "nothing could be made of any of them" if utterances else "the corpus is empty"
            raise CacheError(f"no utterance to take windows of: {why}")
        return held, [one for one in utterances if one.key in left]

    def _permutation(self, epoch: int, passes: int) -> npt.NDArray[np.int64]:
        if self._order is None or self._order[0] != (epoch, passes):
            # The fourth number keeps these draws apart from those of crops.
            draw = np.random.default_rng((self.seed, epoch, passes, 1))
            self._order = (epoch, passes), draw.permutation(len(self))
        return self._order[1]

    def places(self, length: Fraction) -> int:
        """Multiples of the period at which a window of a recording of that many seconds may begin."""
        return max(0, math.floor((length - self.seconds) / self.period)) + 1

    def about(self, speaker: str, length: Fraction) -> dict[str, Tensor]:
        """``speaker_index``, ``valid`` and ``frames`` of a window whose signals go on for ``length`` seconds."""
        valid = min(self.seconds, max(Fraction(0), length))
        slowest = min(stream.rate for stream in self.streams.values())
        judged = self.streams["content"].rate if "content" in self.streams else slowest
        return {
            "speaker_index": torch.tensor(self._index[speaker]),
            "valid": torch.tensor(float(valid), dtype=torch.float64),
            "frames": torch.tensor(int(valid * judged)),
        }


class Windows(Crops):
    """Crops of utterances, of one length, all signals of a crop from the same seconds.

    Each epoch takes the utterances in a new order, each once before any comes again, and of each a random crop. What is
    shorter than a window is padded with zeros at its end. A window is a dict of

    - ``features``: float32 ``(channels, frames)``, where their cache is given,
    - ``content``: float32 ``(channels, frames)``; ``codes``, int64 ``(1, frames)``, where the teacher has them;
      ``voiced``: float32 ``(1, frames)``, 1 where a frame is voiced,
    - ``speaker``: float32 ``(channels,)``,
    - ``audio``: float32 ``(1, samples)``, where a rate is given: mono, from a cache of audio where that is given, else
      read from the recording and resampled,
    - ``speaker_index``: int64, the place of the speaker in ``speakers``,
    - ``valid``: float64, seconds without padding in any signal,
    - ``frames``: int64, whole content frames in these (frames of the slowest signal, without content).

    Args:
        utterances: of the corpus, or of its part to train on. Those of which a cache could not be made are left out.
        caches: what to read, at most one of each kind.
        seconds, period, audio, seed: how long windows are, and where they begin, as of :class:`Cropping`.
        speakers: names that ``speaker_index`` counts by; all of the utterances' when left out.

    Attributes:
        seconds, period, streams, utterances, left_out, speakers: as of :class:`Crops`.

    Raises:
        CacheError: for no signal at all, two caches of a kind, a cache that is not finished, a speaker that has no
            index.

    Example, windows of 4 s for an encoder whose period is 40 ms::

        windows = Windows(split.train, [features, content], seconds=Fraction(4), period=graph.period, seed=1)
        windows[0, 0]["features"].shape                     # (512, 800): the first item of the first epoch
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        caches: Sequence[Cache],
        *,
        seconds: Fraction,
        period: Fraction,
        audio: Fraction | int | None = None,
        speakers: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        by_kind = {cache.what: cache for cache in caches}
        if len(by_kind) < len(caches):
            raise CacheError("two caches of one kind are given: leave one out")
        streams: dict[str, Stream] = {}
        for cache in caches:
            for name, stored in cache.stored("any").items():
                if stored.channels is not None:
                    streams[name] = Stream(cache.rate, stored.channels)
        if audio is not None and "audio" not in by_kind:
            streams["audio"] = Stream(Fraction(audio), 1)
        if not streams:
            raise CacheError(
                "a window takes at least one signal: give a cache of features or content, or a rate of audio"
            )
        if seconds <= 0 or period <= 0:
            raise CacheError(f"windows take seconds and a period above 0, not {seconds} and {period}")
        super().__init__(utterances, by_kind, streams, Cropping(seconds, period, audio, seed), speakers)

    def __getitem__(self, place: WindowPlace | int) -> dict[str, Tensor]:
        """The window at a place; of epoch 0 for a number alone.

        Raises:
            CacheError: for a file that is damaged or gone.
        """
        epoch, item = (0, place) if isinstance(place, int) else place
        utterance = self.at(epoch, item)
        arrays = self._arrays(utterance)
        header = self._header(utterance)
        places = self.places(self._length(arrays, header))
        draw = np.random.default_rng((self.seed, epoch, item))
        return self._cut(utterance, arrays, header, int(draw.integers(places)) * self.period)

    def at(self, epoch: int, item: int) -> Utterance:
        """The utterance at a place."""
        passes, index = divmod(item, len(self.utterances))
        return self.utterances[int(self._permutation(epoch, passes)[index])]

    def crop(self, utterance: Utterance, begin: Fraction = Fraction(0)) -> dict[str, Tensor]:
        """The window of an utterance that begins at a whole multiple of the period.

        Raises:
            CacheError: for a file that is damaged or gone, and a begin between multiples.
        """
        self.check_begin(begin)
        return self._cut(utterance, self._arrays(utterance), self._header(utterance), begin)

    def _header(self, utterance: Utterance) -> Header | None:
        """The header of a recording that is read itself, not from its cache."""
        decoded = "audio" in self.streams and "audio" not in self.caches
        return read_header(utterance.path) if decoded else None

    def _arrays(self, utterance: Utterance) -> dict[str, npt.NDArray[Any]]:
        return mapped(self.caches.values(), utterance)

    def _length(self, arrays: Mapping[str, npt.NDArray[Any]], header: Header | None) -> Fraction:
        """Seconds that all signals of an utterance have."""
        timed = [
            Fraction(array.shape[-1]) / self.streams[name].rate
            for name, array in arrays.items()
            if name in self.streams
        ]
        if header is not None:
            timed.append(header.frames_at(self.streams["audio"].rate) / self.streams["audio"].rate)
        return min(timed)

    def _cut(
        self, utterance: Utterance, arrays: Mapping[str, npt.NDArray[Any]], header: Header | None, begin: Fraction
    ) -> dict[str, Tensor]:
        window: dict[str, Tensor] = {}
        for name, array in arrays.items():
            if name not in self.streams:
                window[name] = torch.from_numpy(np.array(array))
                continue
            piece = cut(array, int(begin * self.streams[name].rate), self.frames(name))
            window[name] = unpacked(piece) if name == "audio" else torch.from_numpy(piece)
            if name == "voiced":
                window[name] = window[name].float()
        if header is not None:
            heard = read_crop(utterance.path, self.streams["audio"].rate, begin, self.seconds, utterance.channel)
            window["audio"] = torch.nn.functional.pad(heard, (0, self.frames("audio") - heard.shape[-1]))
        return window | self.about(utterance.speaker, self._length(arrays, header) - begin)


class WindowLoader:
    """Batches of windows, epoch by epoch, for one of several processes.

    The global batch of a step is ``batch * world`` items in a row, of which process ``rank`` takes the ``rank``th part:
    two processes with one item each see what one process with two sees.

    Args:
        windows: what to draw from: a window for each ``WindowPlace``.
        steps: batches of an epoch.
        batch: items of each, in this process.
        rank, world: which process of how many.
        workers: processes that read ahead; 0: this one reads. They are kept from epoch to epoch.
        pin: put batches into memory that a CUDA device reads faster.
    """

    def __init__(
        self,
        windows: Dataset[dict[str, Tensor]],
        *,
        steps: int,
        batch: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        if steps < 1 or batch < 1 or not 0 <= rank < world or workers < 0:
            raise CacheError(
                f"a loader takes steps and a batch of 1 or more and a rank below its world, not {steps}, {batch} and "
                f"{rank} of {world}"
            )
        self.windows = windows
        self._places = _Places(steps, batch, rank, world)
        self._loader: DataLoader[dict[str, Tensor]] = DataLoader(
            windows,
            batch_sampler=self._places,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            worker_init_fn=_one_thread if workers else None,
        )

    def epoch(self, epoch: int, first: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch, from step ``first`` on. Each signal has the batch as its first dimension."""
        self._places.epoch, self._places.first = epoch, first
        yield from self._loader


class _Places(Sampler[list[WindowPlace]]):
    """The places of each batch of one process."""

    def __init__(self, steps: int, batch: int, rank: int, world: int) -> None:
        self.steps, self.batch, self.rank, self.world = steps, batch, rank, world
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return max(0, self.steps - self.first)

    def __iter__(self) -> Iterator[list[WindowPlace]]:
        epoch = self.epoch
        for step in range(self.first, self.steps):
            begin = (step * self.world + self.rank) * self.batch
            yield [(epoch, item) for item in range(begin, begin + self.batch)]


def mapped(caches: Iterable[Cache], utterance: Utterance) -> dict[str, npt.NDArray[Any]]:
    """The arrays that caches have of an utterance, by the names that batches have for them.

    Raises:
        CacheError: for a file that is damaged or gone.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for cache in caches:
        for name, stored in cache.stored(cache.key_of(utterance)).items():
            try:
                found[name] = stored.map()
            except ArrayFault as fault:
                raise CacheError(
                    f"{shown(stored.path)}: {fault}: look at it with `astrape check-cache`, repair it with --repair"
                ) from fault
    return found


def cut(array: npt.NDArray[Any], first: int, count: int) -> npt.NDArray[Any]:
    """Frames of ``(channels, frames)`` from one on, ``count`` of them, zeros where there are none."""
    made = np.zeros((array.shape[0], count), array.dtype)
    piece = array[:, first : first + count]
    made[:, : piece.shape[1]] = piece
    return made


def common_period(period: Fraction, rates: Sequence[Fraction]) -> Fraction:
    """The shortest multiple of a period with a whole number of frames at every rate.

    >>> common_period(Fraction(1, 100), [Fraction(200), Fraction(25), Fraction(44100)])
    Fraction(1, 25)
    """
    return period * math.lcm(*(Fraction(period * rate).denominator for rate in rates))


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
