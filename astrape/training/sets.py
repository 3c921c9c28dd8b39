"""Windows of parallel sets: the same seconds of two renderings, one as source and one as target.

As with :mod:`astrape.training.windows`, what comes at a place is a function of the seed, the epoch and the place alone:
which set, which of its renderings, which seconds of them, and what happens to the source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.audio.atomic import shown
from astrape.blocks.base import Stream
from astrape.corpus.utterances import Utterance, sets_of
from astrape.training.augment import augmented
from astrape.training.beside import Beside
from astrape.training.blur import blurred
from astrape.training.caches.cache import Cache
from astrape.training.caches.recording import read_crop, read_header
from astrape.training.caches.waves import unpacked
from astrape.training.colour import coloured, draw_colour
from astrape.training.errors import CacheError
from astrape.training.pairs import BAND, PAIR, Pairs
from astrape.training.shares import Shares
from astrape.training.tables import NO_PHONE, PHONE_RATE, PITCH_RATE
from astrape.training.windows import Cropping, Crops, WindowPlace, cut, mapped

__all__ = ["SetWindows"]

APART = Fraction(1, 40)
"""Seconds by which two renderings of a set may differ in length, for whatever rounding there was."""

ONSET = Fraction(3, 5)
"""Seconds of silence, at most, before speech that begins in its window, and no more than half of the window: after
that long, a network has heard silence alone."""

EDGE = 0.96
"""Share of half the rate up to which a resampler leaves a recording as it was."""


class SetWindows(Crops):
    """Crops of two renderings of a set, of one length, from the same seconds.

    Each epoch takes the sets in a new order, those of a source once before any of it comes again
    (:mod:`astrape.training.shares`), and of each a random source, a random target and a random crop; where the pairs go
    both ways, two windows in a row are of one draw. A recording without a set is a set by itself, and its own target. A
    window is a dict of, as far as they are asked for,

    - ``audio``: the source, float32 ``(1, samples)``, augmented; ``pair.wav``: the target, at the level of the source's
      gain,
    - ``pair.band``: float32, how high the target's recording reaches, Hz: half its rate, less 4 % for whatever brought
      it to that,
    - ``pair.pitch``: the target's fundamental, float32 ``(1, frames)`` at 80 Hz, 0 where there is none,
    - ``phones``: int64 ``(1, frames)`` at 40 Hz, ``NO_PHONE`` where unknown,
    - ``speaker``, ``pair.speaker``: float32 ``(channels,)``, of the rendering or its speaker, as the cache has them;
      without a cache, the vectors beside the recordings,
    - ``content``, ``codes``, ``voiced``: of the source, from the teacher's cache,
    - ``random``: float32 ``(1,)``, a whole number below 2^24,
    - ``speaker_index``, ``valid``, ``frames``: as in :class:`~astrape.training.windows.Windows`, of the source.

    Args:
        utterances: those to train on, or to validate on.
        caches: what to read, at most one of each kind; recordings are decoded where there is none of audio.
        pairs: how to draw.
        needs: names of signals, as above.
        cropping: how long windows are, and where they begin; the audio's rate must be there.
        speakers: as for ``Windows``.
        beside: reads what is known of a recording beside its audio; files, when left out.
        order: makes what says which set comes at a place, of the sets, their shares and the seed.

    Attributes:
        seconds, period, streams, utterances, left_out, speakers: as of ``Windows``.
        sets: renderings of each set, sorted.
        drawn: says which of them comes at a place.

    Raises:
        CacheError: for a cache that is missing or not finished, a recording without a pitch where that is needed, and
            silence before speech with a cache of content.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        caches: Sequence[Cache],
        pairs: Pairs,
        needs: Iterable[str],
        cropping: Cropping,
        *,
        speakers: Sequence[str] | None = None,
        beside: Beside | None = None,
        order: Callable[[Sequence[Sequence[Utterance]], Mapping[str, int], int], Shares] = Shares,
    ) -> None:
        by_kind = {cache.what: cache for cache in caches}
        self.pairs, self.needs, self.beside = pairs, frozenset(needs), beside or Beside()
        assert cropping.audio is not None, "sources are recordings"
        streams = {"audio": Stream(Fraction(cropping.audio), 1), "phones": Stream(PHONE_RATE, 1)}
        streams["pair.pitch"] = Stream(PITCH_RATE, 1)
        if "content" in by_kind:
            if pairs.onsets:
                raise CacheError(
                    f"`onsets: {pairs.onsets:g}` puts silence before speech, and what the teacher hears in silence is "
                    "not in the cache of content: hint: leave `onsets` out, or train without that cache"
                )
            streams["content"] = Stream(by_kind["content"].rate, by_kind["content"].channels)
        super().__init__(utterances, by_kind, streams, cropping, speakers)
        self.sets = sets_of(self.utterances)
        self.drawn = order(self.sets, pairs.shares, cropping.seed)
        self._set_of = {one.key: renderings for renderings in self.sets for one in renderings}
        self._bands: dict[str, float] = {}

    def frames(self, name: str) -> int:
        """Frames of a signal in each window."""
        return super().frames("audio" if name == "pair.wav" else name)

    def __len__(self) -> int:
        """Sets: items of one pass."""
        return len(self.sets)

    def __getitem__(self, place: WindowPlace | int) -> dict[str, Tensor]:
        """The window at a place; of epoch 0 for a number alone.

        Raises:
            CacheError: for a file that is damaged or gone, and renderings of unlike length.
        """
        epoch, item = (0, place) if isinstance(place, int) else place
        drawn, back = divmod(item, 2) if self.pairs.both else (item, 0)
        renderings = self.sets[self.drawn(epoch, drawn)]
        draw = np.random.default_rng((self.seed, epoch, drawn))
        at = int(draw.integers(len(renderings)))
        same = draw.random() < self.pairs.same or len(renderings) == 1
        other = at if same else (at + 1 + int(draw.integers(len(renderings) - 1))) % len(renderings)
        source, target = (renderings[at], renderings[other])[:: -1 if back else 1]
        begin = int(draw.integers(self.places(self._length(source, target)))) * self.period
        # Four numbers or more keep these draws apart from those above, and from those of the order.
        silence = self._silence(np.random.default_rng((self.seed, epoch, drawn, 6)))
        number = np.random.default_rng((self.seed, epoch, item, 3)).integers(1 << 24)
        window = self._cut(source, target, begin) if silence is None else self._begun(source, target, silence)
        window["random"] = torch.tensor([float(number)])
        if self.pairs.colour and {"pair.wav", "pair.speaker"} <= window.keys():
            colour = draw_colour(np.random.default_rng((self.seed, epoch, item, 4)), self.pairs.colour)
            rate = float(self.streams["audio"].rate)
            wave, vector = coloured(window["pair.wav"], window["pair.speaker"], colour, rate)
            window |= {"pair.wav": wave, "pair.speaker": vector}
        if self.pairs.blur and "pair.speaker" in window:
            noise = np.random.default_rng((self.seed, epoch, item, 5))
            window["pair.speaker"] = blurred(window["pair.speaker"], noise, self.pairs.blur)
        return self._augmented(window, (self.seed, epoch, item, 2), self.drawn.near(epoch, drawn))

    def crop(self, utterance: Utterance, begin: Fraction = Fraction(0)) -> dict[str, Tensor]:
        """The window of a source as it is, to the next rendering of its set.

        Raises:
            CacheError: for a file that is damaged or gone, and a begin that is not a whole multiple of the period.
        """
        self.check_begin(begin)
        renderings = self._set_of[utterance.key]
        following = renderings[(renderings.index(utterance) + 1) % len(renderings)]
        return self._cut(utterance, following, begin) | {"random": torch.zeros(1)}

    def check(self, utterance: Utterance) -> None:
        """Open what will be read of an utterance.

        Raises:
            CacheError: for what is damaged or gone.
        """
        mapped(self._of(utterance), utterance)
        if "audio" not in self.caches:
            read_header(utterance.path)
        tables = {"phones": utterance.phones, "pair.pitch": utterance.pitch}
        if "speakers" not in self.caches:
            tables |= {"speaker": utterance.vector, "pair.speaker": utterance.vector}
        for wanted, table in tables.items():
            if wanted in self.needs and table is not None:
                self.beside.check(table)

    def held(self, utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
        parted = super().held(utterances)
        unpitched = [one for one in utterances if one.pitch is None]
        if "pair.pitch" in self.needs and "pitch" not in self.caches and unpitched:
            raise CacheError(
                f"{len(unpitched)} of {len(utterances)} utterances, '{shown(unpitched[0].key)}' among them, have no "
                f"table of their pitch beside them: make it with `astrape cache --what pitch`"
            )
        unknown = [one for one in utterances if one.vector is None]
        if {"speaker", "pair.speaker"} & self.needs and "speakers" not in self.caches and unknown:
            raise CacheError(
                f"{len(unknown)} of {len(utterances)} utterances, '{shown(unknown[0].key)}' among them, have no vector "
                f"of their speaker beside them: make these with `astrape cache --what speakers`"
            )
        return parted

    def _of(self, utterance: Utterance) -> list[Cache]:
        return [cache for cache in self.caches.values() if cache.wants(utterance)]

    def _seconds(self, utterance: Utterance) -> Fraction:
        rate = self.streams["audio"].rate
        if "audio" in self.caches:
            return Fraction(mapped([self.caches["audio"]], utterance)["audio"].shape[-1]) / rate
        return read_header(utterance.path).frames_at(rate) / rate

    def _length(self, source: Utterance, target: Utterance) -> Fraction:
        """Seconds that both renderings have."""
        own = self._seconds(source)
        if source is target:
            return own
        other = self._seconds(target)
        if abs(own - other) > APART:
            raise CacheError(
                f"{shown(source.path)} has {float(own):.3f} s and {shown(target.path)} {float(other):.3f} s, and "
                f"renderings of a set are in step to the sample: give them sets of their own, or render them again"
            )
        return min(own, other)

    def _wave(self, utterance: Utterance, begin: Fraction) -> Tensor:
        count, rate = self.frames("audio"), self.streams["audio"].rate
        if "audio" in self.caches:
            return unpacked(cut(mapped([self.caches["audio"]], utterance)["audio"], int(begin * rate), count))
        heard = read_crop(utterance.path, rate, begin, self.seconds, utterance.channel)
        return torch.nn.functional.pad(heard, (0, count - heard.shape[-1]))

    def _band(self, utterance: Utterance) -> float:
        if utterance.key not in self._bands:
            self._bands[utterance.key] = EDGE * self.beside.rate(utterance) / 2
        return self._bands[utterance.key]

    def _table(self, name: str, table: npt.NDArray[Any], begin: Fraction, empty: float) -> Tensor:
        """Frames of a table in a window."""
        made = np.full(self.frames(name), empty, table.dtype)
        piece = table[int(begin * self.streams[name].rate) :][: len(made)]
        made[: len(piece)] = piece
        return torch.from_numpy(made).unsqueeze(0)

    def _pitch(self, utterance: Utterance) -> npt.NDArray[np.float32]:
        if utterance.pitch is not None:
            return self.beside.pitch(utterance)
        tracked: npt.NDArray[np.float32] = mapped([self.caches["pitch"]], utterance)["pitch"][0]
        return tracked

    def _vector(self, utterance: Utterance) -> Tensor:
        if "speakers" in self.caches:
            return torch.from_numpy(np.array(mapped([self.caches["speakers"]], utterance)["speaker"]))
        return torch.from_numpy(self.beside.vector(utterance))

    def _cut(self, source: Utterance, target: Utterance, begin: Fraction) -> dict[str, Tensor]:
        window = {"audio": self._wave(source, begin)}
        if PAIR + "wav" in self.needs:
            window["pair.wav"] = window["audio"] if source is target else self._wave(target, begin)
            window[BAND] = torch.tensor(self._band(target))
        if PAIR + "pitch" in self.needs:
            window["pair.pitch"] = self._table("pair.pitch", self._pitch(target), begin, 0.0)
        if "phones" in self.needs:
            known = np.empty(0, np.int64) if source.phones is None else self.beside.phones(source)
            window["phones"] = self._table("phones", known, begin, NO_PHONE)
        for name, one in (("speaker", source), (PAIR + "speaker", target)):
            if name in self.needs:
                window[name] = self._vector(one)
        if "content" in self.caches:
            content = self.streams["content"]
            for name, array in mapped([self.caches["content"]], source).items():
                piece = torch.from_numpy(cut(array, int(begin * content.rate), self.frames("content")))
                window[name] = piece.float() if name == "voiced" else piece
        return window | self.about(source.speaker, self._length(source, target) - begin)

    def _silence(self, draw: np.random.Generator) -> Fraction | None:
        """Seconds of silence before speech that begins in its window, a whole multiple of the period; or none is to."""
        if draw.random() >= self.pairs.onsets:
            return None
        return int(draw.integers(math.floor(min(ONSET, self.seconds / 2) / self.period) + 1)) * self.period

    def _begun(self, source: Utterance, target: Utterance, silence: Fraction) -> dict[str, Tensor]:
        """The window of speech that begins after silence."""
        window = self._cut(source, target, Fraction(0))
        for name, empty in (("audio", 0), (PAIR + "wav", 0), (PAIR + "pitch", 0), ("phones", NO_PHONE)):
            if name in window:
                lead = math.ceil(silence * self.streams["audio" if name == PAIR + "wav" else name].rate)
                # Cut by ``narrow``, where a lead of nothing cuts nothing.
                kept = window[name].narrow(-1, 0, max(0, window[name].shape[-1] - lead))
                window[name] = torch.nn.functional.pad(kept, (window[name].shape[-1] - kept.shape[-1], 0), value=empty)
        return window | self.about(source.speaker, self._length(source, target) + silence)

    def _augmented(
        self, window: dict[str, Tensor], seeds: tuple[int, ...], near: Sequence[int] | None
    ) -> dict[str, Tensor]:
        rate = float(self.streams["audio"].rate)
        wave, gain = augmented(window["audio"][0], rate, self.pairs.augment, seeds, partial(self._other, near))
        changed = {"audio": wave.unsqueeze(0)}
        if "pair.wav" in window:
            changed["pair.wav"] = window["pair.wav"] * gain
        return window | changed

    def _other(self, near: Sequence[int] | None, draw: np.random.Generator) -> Tensor:
        """A window of any recording, of any of those sets where some are at hand, ``(samples,)``."""
        among = self.utterances if near is None else self.sets[near[int(draw.integers(len(near)))]]
        other = among[int(draw.integers(len(among)))]
        return self._wave(other, int(draw.integers(self.places(self._seconds(other)))) * self.period)[0]
