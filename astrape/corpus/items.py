"""The sets of a corpus, in order: the same on every machine, however they are divided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from astrape.audio.places import Place
from astrape.corpus.flite import FliteStudio
from astrape.corpus.materials import Materials
from astrape.corpus.phonemes import Vocabulary
from astrape.corpus.plan import FLITE, KOKORO, RECORDINGS, SetPlan, draw_flite, draw_set, estimated_seconds
from astrape.corpus.recordings import find_recordings, render_recording
from astrape.corpus.rendering import KokoroStudio, RenderedSet
from astrape.corpus.sentences import read_sentences
from astrape.corpus.sources import licence_of
from astrape.corpus.voices import Voices, measured_registers

__all__ = ["FOLDERS", "REGISTERS", "UNFIT", "CorpusSettings", "SetItem", "SetStudio"]

REGISTERS = "registers.json"

UNFIT = ".unfit"
"""The ending of a file that says why there is no set."""

FOLDERS = {KOKORO: "sets", FLITE: FLITE, RECORDINGS: "real"}
"""Folders of the sets, by source."""

COSTS = {KOKORO: 0.85, FLITE: 0.03, RECORDINGS: 0.15}
"""Seconds of one core for a second of a rendering."""

WARP_COST = 0.05


@dataclass(frozen=True)
class CorpusSettings:
    """The settings of a corpus to make.

    Attributes:
        work: its folder, of this machine or of a store.
        hours: of Kokoro's renderings, all voices counted, about.
        flite: hours of flite's.
        recordings: whether the recordings of real people are in it.
        warps: share of the sets with a pseudo-speaker more.
        seed: of all that is drawn.
    """

    work: Path | Place
    hours: float = 8.0
    flite: float = 1.0
    recordings: bool = True
    warps: float = 0.3
    seed: int = 7

    @property
    def kinds(self) -> set[str]:
        wanted = {KOKORO: self.hours > 0, FLITE: self.flite > 0, RECORDINGS: self.recordings}
        return {kind for kind, is_wanted in wanted.items() if is_wanted}


@dataclass(frozen=True)
class SetItem:
    """A set to be rendered.

    Attributes:
        kind: its source.
        key: its folder below the corpus.
        name: as manifests have it.
        number: of the set; of the recording in its list.
        seconds: of all renderings together, about.
        cost: seconds of one core, about.
        licence: of what it is made of.
    """

    kind: str
    key: str
    name: str
    number: int
    seconds: float
    cost: float
    licence: str

    def folder(self, work: Path | Place) -> Path | Place:
        return work / self.key

    def marker(self, work: Path | Place) -> Path | Place:
        """The file that says why there is no such set, where its sentence is unfit."""
        return work / f"{self.key}{UNFIT}"


class SetStudio:
    """Lists and renders the sets of a corpus; one in each process.

    Args:
        settings: what the corpus is to be.
        materials: what it is made from.
    """

    def __init__(self, settings: CorpusSettings, materials: Materials) -> None:
        self.settings, self.materials = settings, materials
        self.sentences = read_sentences(materials.wordnet)
        self._vocabulary = Vocabulary.read(materials.vocabulary)
        self._recordings = find_recordings(materials.unpacked) if settings.recordings else []
        self._voices: Voices | None = None
        self._studio: KokoroStudio | None = None
        self._flite: FliteStudio | None = None
        self._registers: dict[str, float] = {}

    def items(self) -> list[SetItem]:
        """All sets: recordings, then flite's until its hours are full, then Kokoro's. Registers are measured first."""
        found = [self._recording_item(index) for index in range(len(self._recordings))]
        for kind, hours in ((FLITE, self.settings.flite), (KOKORO, self.settings.hours)):
            seconds = 0.0
            for number in range(len(self.sentences)):
                if seconds >= 3600 * hours:
                    break
                plan = self.plan(kind, number)
                if plan is not None:
                    found.append(self._item(plan))
                    seconds += found[-1].seconds
        return found

    def plan(self, kind: str, number: int) -> SetPlan | None:
        """The plan of a set, drawn anew; ``None`` where its sentence is held out of it."""
        settings = self.settings
        if kind == FLITE:
            return draw_flite(settings.seed, number, self.sentences, settings.warps)
        voices = self._styles()
        if not self._registers:
            path = settings.work / REGISTERS
            self._registers = measured_registers(path, voices, lambda *given: self._kokoro().register(*given))
        return draw_set(settings.seed, number, self.sentences, voices, self._registers, settings.warps)

    def render(self, item: SetItem, plan: SetPlan | None = None) -> RenderedSet:
        """A set, of the plan that is drawn for it or of another one.

        Raises:
            UnfitError: for a sentence that no set can be made of.
            CorpusError: for what goes wrong beyond that.
        """
        if item.kind == RECORDINGS:
            return render_recording(self._recordings[item.number])
        chosen = plan or self.plan(item.kind, item.number)
        assert chosen is not None
        return self._renderer(item.kind).render(chosen)

    def _renderer(self, kind: str) -> KokoroStudio | FliteStudio:
        if kind == KOKORO:
            return self._kokoro()
        if self._flite is None:
            self._flite = FliteStudio(self._vocabulary)
        return self._flite

    def _kokoro(self) -> KokoroStudio:
        if self._studio is None:
            # onnx and onnxruntime come with the extra `corpus`.
            from astrape.corpus.kokoro import SAMPLE_RATE, Kokoro

            kokoro = Kokoro(self.materials.model)
            self._studio = KokoroStudio(kokoro, self._styles(), self._vocabulary, SAMPLE_RATE)
        return self._studio

    def _styles(self) -> Voices:
        if self._voices is None:
            self._voices = Voices(self.materials.voices)
        return self._voices

    def _recording_item(self, index: int) -> SetItem:
        one = self._recordings[index]
        key = f"{FOLDERS[RECORDINGS]}/{one.speaker.name}/{one.name}"
        cost = COSTS[RECORDINGS] * one.seconds
        return SetItem(RECORDINGS, key, one.set_name, index, one.seconds, cost, one.speaker.licence)

    def _item(self, plan: SetPlan) -> SetItem:
        seconds = estimated_seconds(plan.text, plan.speed)
        warps = sum(one.warp is not None for one in plan.renderings)
        plain = len(plan.renderings) - warps
        number = f"{plan.number:06d}"
        return SetItem(
            kind=plan.source,
            key=f"{FOLDERS[plan.source]}/{number[:3]}/{number}",
            name=number if plan.source == KOKORO else f"{plan.source}-{number}",
            number=plan.number,
            seconds=seconds * len(plan.renderings),
            cost=seconds * (COSTS[plan.source] * plain + WARP_COST * warps),
            licence=licence_of(plan.source),
        )
