"""The part of the page that is for listening: a card for each pair, its sounds beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from html import escape

import numpy as np

from astrape.errors import AstrapeError
from astrape.voice.evaluation.context import Tools
from astrape.voice.evaluation.numbers import number
from astrape.voice.evaluation.packages import Package, absence
from astrape.voice.evaluation.pictures import EXCERPT_SECONDS, Sound, curve, height, player, spectrogram
from astrape.voice.evaluation.pitch import Melody, PitchTrack
from astrape.voice.evaluation.recording import Recording
from astrape.voice.evaluation.result import Evaluation, PairResult
from astrape.voice.evaluation.text import normalised

__all__ = ["Listening"]

MATPLOTLIB = Package("matplotlib", "matplotlib", "matplotlib")
TICKS = {100.0: "100", 300.0: "300", 1000.0: "1k", 3000.0: "3k"}


class Listening:
    """The cards, and what they share.

    Args:
        evaluation: the run.
        count: how many of its pairs to show, spread evenly.
        tracker: of pitch.

    Attributes:
        assets: sounds and pictures as data addresses, by key. What several pairs share is there once.
        anchors: the place of each pair's card on the page, by the pair's name.
        missing: what cannot be drawn, and how to mend it.
    """

    def __init__(self, evaluation: Evaluation, count: int, tracker: str | None) -> None:
        self.evaluation = evaluation
        self.assets: dict[str, str] = {}
        self._sounds: dict[tuple[str, float], tuple[str, Sound]] = {}
        self._melody = Melody(Tools(tracker=tracker))
        absent = {"Spectrograms": absence([MATPLOTLIB]), "Pitch curves": absence(self._melody.packages)}
        self.missing = {what: reason for what, reason in absent.items() if reason}
        heard = [result for result in evaluation.results if result.rendering is not None]
        places = np.linspace(0, len(heard) - 1, min(count, len(heard))).round().astype(int).tolist()
        self.shown = [heard[place] for place in places]
        self.of = len(heard)
        self.anchors = {result.pair.name: f"pair-{index}" for index, result in enumerate(self.shown, 1)}

    def introduction(self) -> str:
        """What is to be heard, and what is missing."""
        if not self.shown:
            return "<p>There is nothing to listen to.</p>"
        some = "" if len(self.shown) == self.of else f" {len(self.shown)} of {self.of} pairs, spread evenly."
        lines = [
            f"<p>Source, target and result of each pair, up to {EXCERPT_SECONDS:g} s.{some} Source and result stand at "
            "the same time. A click into a spectrogram plays from there; the line in it is the pitch.</p>"
        ]
        missing = [escape(f"{what} are left out: {why}") for what, why in self.missing.items()]
        return "".join([*lines, *(f'<p class="warning">{line}</p>' for line in missing)])

    def cards(self) -> Iterator[str]:
        """HTML of one pair after the other."""
        for result in self.shown:
            yield self._card(result)

    def _card(self, result: PairResult) -> str:
        assert result.rendering is not None
        target = result.pair.target
        rendering = result.rendering
        sounds = [self._sound("Source", Recording(result.pair.source.path))]
        if target is not None and target.audio is not None:
            sounds.append(self._sound("Target", Recording(target.audio)))
        elif target is not None:
            reason = result.unavailable.get("similarity_target", "there is no recording of the target")
            sounds.append(_absent("Target", target.name, reason))
        try:
            sounds.append(self._sound("Result", Recording(rendering.path, rendering.late)))
        except AstrapeError as error:
            sounds.append(_absent("Result", rendering.path.name, str(error)))
        anchor = self.anchors[result.pair.name]
        return (
            f'<article class="card" id="{anchor}" aria-labelledby="{anchor}-name">'
            f'<h3 id="{anchor}-name">{escape(result.pair.name)}</h3><div class="sounds">{"".join(sounds)}</div>'
            f"{_said(result)}{self._scores(result)}</article>"
        )

    def _sound(self, what: str, recording: Recording) -> str:
        name = recording.path.name
        try:
            key, sound = self._stored(recording)
        except AstrapeError as error:
            return _absent(what, name, str(error))
        whole = f"{recording.seconds:.1f} s"
        if sound.seconds < recording.seconds - 0.1:
            whole = f"first {sound.seconds:.0f} of {recording.seconds:.0f} s"
        label = escape(f"{what}: {name}")
        return (
            f'<div class="sound"><h4>{what} <span>{escape(name)}, {whole}</span></h4>'
            f'<audio controls preload="metadata" data-asset="sound-{key}" aria-label="{label}"></audio>'
            f"{self._picture(key, recording, sound.seconds)}</div>"
        )

    def _stored(self, recording: Recording) -> tuple[str, Sound]:
        place = (str(recording.path.absolute()), recording.late)
        if place not in self._sounds:
            key = str(len(self._sounds) + 1)
            sound = player(recording)
            self.assets[f"sound-{key}"] = sound.address
            if "Spectrograms" not in self.missing:
                self.assets[f"picture-{key}"] = spectrogram(recording)
            self._sounds[place] = (key, sound)
        return self._sounds[place]

    def _picture(self, key: str, recording: Recording, seconds: float) -> str:
        if f"picture-{key}" not in self.assets:
            return ""
        track = self._track(recording)
        lines, words = "", ""
        if track is not None:
            shown = track.hertz[: round(seconds * track.rate)]
            voiced = shown[shown > 0]
            words = f", median pitch {np.median(voiced):.0f} Hz" if len(voiced) else ", no pitch found"
            strokes = [
                " ".join(f"{1000 * x:.1f},{1000 * (1 - y):.1f}" for x, y in stretch)
                for stretch in curve(track, seconds)
                if len(stretch) > 1
            ]
            # A dark edge keeps the curve visible on the bright parts of the picture.
            lines = "".join(
                f'<polyline class="{kind}" points="{points}"/>' for kind in ("edge", "pitch") for points in strokes
            )
        ticks = "".join(
            f'<span style="bottom:{100 * height(hertz):.1f}%">{name}</span>' for hertz, name in TICKS.items()
        )
        return (
            f'<div class="picture"><div class="hertz" aria-hidden="true">{ticks}</div><div class="plot">'
            f'<img data-asset="picture-{key}" alt="Spectrogram of {escape(recording.path.name)}{words}">'
            f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'
            f'<div class="now"></div></div><div class="time" aria-hidden="true"><span>0</span>'
            f"<span>Hz over time{words}</span><span>{seconds:.1f} s</span></div></div>"
        )

    def _track(self, recording: Recording) -> PitchTrack | None:
        if "Pitch curves" in self.missing:
            return None
        try:
            return self._melody.track(recording)
        # A page without a curve is better than none; that the tracker fails on this file, the scores say already.
        except Exception:
            return None

    def _scores(self, result: PairResult) -> str:
        items = "".join(
            f"<div><dt>{escape(quantity.label)}</dt><dd>{number(result.scores[quantity.name].value, quantity)}"
            f"{f' {escape(quantity.unit)}' if quantity.unit else ''}</dd></div>"
            for quantity in self.evaluation.measured
            if quantity.name in result.scores
        )
        return f'<dl class="scores">{items}</dl>'


def _said(result: PairResult) -> str:
    """What is said and what was understood, with the words that differ marked."""
    text = result.pair.source.text
    before, after = result.notes.get("heard_in_source"), result.notes.get("heard")
    reference = text or before
    lines = {
        "Said": None if text is None else escape(text),
        "Heard in the source": None if before is None else marked(text, before),
        "Heard in the result": None if after is None else marked(reference, after),
    }
    items = "".join(
        f"<dt>{what}</dt><dd>{line or '<em>nothing</em>'}</dd>" for what, line in lines.items() if line is not None
    )
    return f'<dl class="said">{items}</dl>' if items else ""


def marked(reference: str | None, heard: str) -> str:
    """``heard`` as HTML, with the words that the reference does not have marked."""
    words = heard.split()
    if reference is None:
        return escape(heard)
    expected = normalised(reference).split()
    found = [normalised(word) for word in words]
    same = {
        block.b + offset
        for block in SequenceMatcher(None, expected, found, autojunk=False).get_matching_blocks()
        for offset in range(block.size)
    }
    return " ".join(
        escape(word) if index in same or not found[index] else f"<mark>{escape(word)}</mark>"
        for index, word in enumerate(words)
    )


def _absent(what: str, name: str, reason: str) -> str:
    head = f"<h4>{what} <span>{escape(name)}</span></h4>"
    return f'<div class="sound">{head}<div class="absent">{escape(reason)}</div></div>'
