"""The part of the page that is for listening: a card for each pair, its sounds beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from astrape.errors import AstrapeError
from astrape.voice.evaluation.context import Tools
from astrape.voice.evaluation.numbers import number
from astrape.voice.evaluation.packages import Package, absence
from astrape.voice.evaluation.pictures import Excerpt, curve, player, spectrogram
from astrape.voice.evaluation.pitch import Melody, PitchTrack
from astrape.voice.evaluation.recording import Recording
from astrape.voice.evaluation.result import Evaluation, PairResult
from astrape.voice.evaluation.text import normalised

__all__ = ["Listening"]

MATPLOTLIB = Package("matplotlib", "matplotlib", "matplotlib")
TICKS = {100.0: "100", 300.0: "300", 1000.0: "1k", 3000.0: "3k", 10000.0: "10k"}


Words = list[tuple[str, bool]]


@dataclass(frozen=True)
class Picture:
    """A spectrogram of that many seconds, with the pitch in it as strokes, points in thousandths of the picture."""

    seconds: float
    words: str = ""
    strokes: Sequence[str] = ()


@dataclass(frozen=True)
class Heard:
    """A sound of a card: the key of its asset, or the reason why it cannot be heard."""

    what: str
    name: str
    length: str = ""
    key: str = ""
    reason: str = ""
    picture: Picture | None = None


@dataclass(frozen=True)
class ShownPair:
    """A pair as the page shows it; ``said`` has words, each with whether it differs from what should be there."""

    anchor: str
    name: str
    sounds: Sequence[Heard]
    said: dict[str, Words]
    scores: Sequence[tuple[str, str]]


class Listening:
    """The cards, and what they share.

    Args:
        evaluation: the run.
        count: how many of its pairs to show, spread evenly.
        tracker: of pitch.

    Attributes:
        assets: sounds and pictures as data addresses, by key. What several pairs share is there once.
        anchors: the place of each pair's card on the page, by the pair's name.
        missing: what cannot be drawn, and what to install.
    """

    def __init__(self, evaluation: Evaluation, count: int, tracker: str | None) -> None:
        self.evaluation = evaluation
        self.assets: dict[str, str] = {}
        self._sounds: dict[tuple[str, float], tuple[str, Excerpt]] = {}
        self._melody = Melody(Tools(tracker=tracker))
        absent = {"Spectrograms": absence([MATPLOTLIB]), "Pitch curves": absence(self._melody.packages)}
        self.missing = {what: reason for what, reason in absent.items() if reason}
        heard = [result for result in evaluation.results if result.rendering is not None]
        places = np.linspace(0, len(heard) - 1, min(count, len(heard))).round().astype(int).tolist()
        self.shown = [heard[place] for place in places]
        self.of = len(heard)
        self.anchors = {result.pair.name: f"pair-{index}" for index, result in enumerate(self.shown, 1)}

    def cards(self) -> Iterator[ShownPair]:
        """One pair after the other."""
        for result in self.shown:
            yield self._card(result)

    def _card(self, result: PairResult) -> ShownPair:
        assert result.rendering is not None
        target = result.pair.target
        rendering = result.rendering
        sounds = [self._sound("Source", Recording(result.pair.source.path))]
        if target is not None and target.audio is not None:
            sounds.append(self._sound("Target", Recording(target.audio)))
        elif target is not None:
            reason = result.unavailable.get("similarity_target", "there is no recording of the target")
            sounds.append(Heard("Target", target.name, reason=reason))
        try:
            sounds.append(self._sound("Result", Recording(rendering.path, rendering.late)))
        except AstrapeError as error:
            sounds.append(Heard("Result", rendering.path.name, reason=str(error)))
        scores = [
            (quantity.label, f"{number(result.scores[quantity.name].value, quantity)} {quantity.unit or ''}".rstrip())
            for quantity in self.evaluation.measured
            if quantity.name in result.scores
        ]
        return ShownPair(self.anchors[result.pair.name], result.pair.name, sounds, _said(result), scores)

    def _sound(self, what: str, recording: Recording) -> Heard:
        name = recording.name
        try:
            key, sound = self._stored(recording)
        except AstrapeError as error:
            return Heard(what, name, reason=str(error))
        length = f"{recording.seconds:.1f} s"
        if sound.seconds < recording.seconds - 0.1:
            length = f"first {sound.seconds:.0f} of {recording.seconds:.0f} s"
        return Heard(what, name, length, key, picture=self._picture(key, recording, sound.seconds))

    def _stored(self, recording: Recording) -> tuple[str, Excerpt]:
        place = (str(recording.path.absolute()), recording.late)
        if place not in self._sounds:
            key = str(len(self._sounds) + 1)
            sound = player(recording)
            self.assets[f"sound-{key}"] = sound.address
            if "Spectrograms" not in self.missing:
                self.assets[f"picture-{key}"] = spectrogram(recording)
            self._sounds[place] = (key, sound)
        return self._sounds[place]

    def _picture(self, key: str, recording: Recording, seconds: float) -> Picture | None:
        if f"picture-{key}" not in self.assets:
            return None
        track = self._track(recording)
        if track is None:
            return Picture(seconds)
        shown = track.hertz[: round(seconds * track.rate)]
        voiced = shown[shown > 0]
        words = f", median pitch {np.median(voiced):.0f} Hz" if len(voiced) else ", no pitch found"
        strokes = [
            " ".join(f"{1000 * x:.1f},{1000 * (1 - y):.1f}" for x, y in stretch)
            for stretch in curve(track, seconds)
            if len(stretch) > 1
        ]
        return Picture(seconds, words, strokes)

    def _track(self, recording: Recording) -> PitchTrack | None:
        if "Pitch curves" in self.missing:
            return None
        try:
            return self._melody.track(recording)
        # A page without a curve is better than none; that the tracker fails on this file, the scores say already.
        except Exception:
            return None


def _said(result: PairResult) -> dict[str, Words]:
    """The transcript and what was understood, with the words that differ marked."""
    text = result.pair.source.text
    before, after = result.notes.get("heard_in_source"), result.notes.get("heard")
    lines = {
        "Said": None if text is None else marked(None, text),
        "Heard in the source": None if before is None else marked(text, before),
        "Heard in the result": None if after is None else marked(text or before, after),
    }
    return {what: words for what, words in lines.items() if words is not None}


def marked(reference: str | None, heard: str) -> Words:
    """The words that were heard, each with whether the reference lacks it."""
    words = heard.split()
    if reference is None:
        return [(word, False) for word in words]
    expected = normalised(reference).split()
    found = [normalised(word) for word in words]
    same = {
        block.b + offset
        for block in SequenceMatcher(None, expected, found, autojunk=False).get_matching_blocks()
        for offset in range(block.size)
    }
    return [(word, index not in same and bool(found[index])) for index, word in enumerate(words)]
