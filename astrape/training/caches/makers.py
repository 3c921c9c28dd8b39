"""Makers of a cache's arrays: the front end of a recipe, or a teacher."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from astrape.audio.downmix import MEAN
from astrape.audio.places import Place, joined
from astrape.corpus.utterances import Utterance, speakers_of
from astrape.graph.recipe import Recipe
from astrape.training.caches.cache import Cache
from astrape.training.caches.files import write_array
from astrape.training.caches.front import FrontEnd
from astrape.training.caches.record import BY_UTTERANCE, RECORD, Record, keep_record, read_record, with_corpus
from astrape.training.caches.recording import read_header, read_recording
from astrape.training.caches.teaching import Teaching, teacher_record
from astrape.training.caches.waves import (
    TRACKED_RATE,
    audio_record,
    microphone_rate,
    packed,
    pitch_record,
    tracked_pitch,
)
from astrape.training.errors import CacheError
from astrape.training.tables import PITCH_RATE
from astrape.training.teachers import TEACHERS, Teacher, open_teacher, teacher_class

__all__ = ["CacheItem", "CacheJob", "Maker", "job_of"]

RECIPE = "astrape-vc"

CODE_BYTES, VOICED_BYTES = 8, 1


@dataclass(frozen=True)
class CacheItem:
    """The work item of a cache: an utterance's arrays, or a speaker's embedding.

    Attributes:
        key: of its files in the cache.
        utterances: what it is made of; of a speaker, all there are.
    """

    key: str
    utterances: tuple[Utterance, ...]


@dataclass(frozen=True)
class CacheJob:
    """The kind of cache to be made, and its sources: plain values, which can be passed to another process.

    Attributes:
        what: ``wavlm``, ``speakers``, ``content``, ``audio`` or ``pitch``.
        root: the folder that holds all caches, of this machine or of a store.
        folder: the cache's own, in ``root`` or absolute; its usual one when left out: ``speakers``, ``content``, and
            for features one that is called after them, such as ``wavlm_L4_200hz``.
        recipe: whose front end, and whose teacher, where ``teacher`` is left out; ``astrape-vc`` when left out.
        features, weights, wavlm: see :class:`~astrape.training.caches.front.FrontEnd`.
        teacher: ``use`` and parameters; those of the recipe's training section when left out.
        teacher_dir: the teacher's parameter ``folder``, where its weights are.
        utts_per_speaker: utterances that a speaker's embedding is of.
        per_utterance: one embedding for each utterance, and not for each speaker.
        rate: of the audio, Hz; that of the recipe's microphone when left out.
        device: where to compute, as PyTorch calls it.
    """

    what: str
    root: Path | Place
    folder: str | None = None
    recipe: str | None = None
    features: str | None = None
    weights: Path | Place | None = None
    wavlm: Path | Place | None = None
    teacher: dict[str, Any] | None = None
    teacher_dir: Path | None = None
    utts_per_speaker: int = 8
    per_utterance: bool = False
    rate: int | None = None
    device: str = "cpu"

    @property
    def recipe_name(self) -> str:
        return RECIPE if self.recipe is None else self.recipe

    def open(self) -> Maker:
        """Load the front end or the teacher.

        Raises:
            AstrapeError: for whatever it cannot be made of.
        """
        if self.what == "wavlm":
            return FeatureMaker(self)
        if self.what in ("audio", "pitch"):
            return WaveMaker(self) if self.what == "audio" else PitchMaker(self)
        if self.utts_per_speaker < 1:
            raise CacheError(f"--utts-per-speaker must be at least 1, not {self.utts_per_speaker}")
        return ContentMaker(self) if self.what == "content" else SpeakerMaker(self)

    def teacher_spec(self) -> dict[str, Any]:
        """Name and parameters of the teacher.

        Raises:
            CacheError: where neither the job nor the recipe names one.
        """
        spec = self.teacher
        if spec is None:
            spec = Recipe.load(self.recipe_name).training.get("teacher")
        if not isinstance(spec, dict) or not isinstance(spec.get("use"), str):
            raise CacheError(
                f"recipe '{self.recipe_name}' names no teacher: give it `training: {{teacher: {{use: NAME}}}}`, or "
                f"name one with --teacher"
            )
        folder = {} if self.teacher_dir is None else {"folder": str(self.teacher_dir.absolute())}
        return dict(spec) | folder


class Maker(ABC):
    """Makes the items of one cache.

    Attributes:
        folder: the cache's own.
        record: what it will say of itself.
    """

    folder: Path | Place
    record: Record

    def prepare(self, corpus: Path | Place | None = None, microphone: str = "mic1", channel: str = MEAN) -> Cache:
        """Make the folder and its record, or hold the record that is there against this run.

        Raises:
            CacheError: when the folder holds another cache, or cannot be written.
        """
        wanted = self.record if corpus is None else with_corpus(self.record, corpus, microphone, channel)
        if Place(self.folder / RECORD).exists():
            keep_record(self.folder, wanted)
            self.keep()
        else:
            # The files needed to go on come first: a record alone would promise them.
            self.keep()
            keep_record(self.folder, wanted)
        return Cache(self.folder, self.record)

    def keep(self) -> None:  # noqa: B027 - teachers have nothing to keep
        """Store what else the folder has to hold; nothing by default."""

    def items(self, utterances: Sequence[Utterance]) -> list[CacheItem]:
        """The work items of a corpus, in order."""
        return [CacheItem(one.key, (one,)) for one in utterances]

    @abstractmethod
    def make(self, cache: Cache, item: CacheItem) -> list[str]:
        """Make and write one item.

        Returns:
            What could not be used of it, in words, where that did not hinder it.

        Raises:
            AstrapeError: when it cannot be made; nothing is written then.
        """

    @abstractmethod
    def size(self, seconds: float) -> float:
        """Bytes that an item of that many seconds takes."""


class FeatureMaker(Maker):
    """Features of a recipe's front end, by utterance."""

    def __init__(self, job: CacheJob) -> None:
        self.front = FrontEnd(job.recipe_name, job.features, weights=job.weights, wavlm=job.wavlm, device=job.device)
        self.folder = joined(job.root, job.folder or self.front.folder_name)
        self.front.reuse_weights(self.folder)
        self.record = self.front.record()

    def keep(self) -> None:
        self.front.keep_weights(self.folder)

    def make(self, cache: Cache, item: CacheItem) -> list[str]:
        audio = read_recording(item.utterances[0].path, self.front.rate_in, item.utterances[0].channel)
        write_array(cache.stored(item.key)["features"].path, self.front.features(audio).numpy())
        return []

    def size(self, seconds: float) -> float:
        return seconds * float(self.front.rate) * self.front.channels * 4


class TeacherMaker(Maker):
    """The base of makers that ask a teacher."""

    def __init__(self, job: CacheJob) -> None:
        spec = job.teacher_spec()
        self.teacher = teacher_on(spec, job.device)
        self.folder = joined(job.root, job.folder or job.what)
        self.teaching = Teaching(self.teacher)
        self.count = job.utts_per_speaker
        self.record = teacher_record(job.what, self.teacher, spec, self.count, job.per_utterance)


class ContentMaker(TeacherMaker):
    """A teacher's content, its codes, and which frames are voiced, by utterance."""

    def make(self, cache: Cache, item: CacheItem) -> list[str]:
        made = self.teaching.content(item.utterances[0])
        files = cache.stored(item.key)
        if made.codes is not None:
            write_array(files["codes"].path, made.codes)
        write_array(files["voiced"].path, made.voiced)
        # The content last: where it is, the others are.
        write_array(files["content"].path, made.content)
        return []

    def size(self, seconds: float) -> float:
        codes = CODE_BYTES if self.teacher.code_count is not None else 0
        return seconds * float(self.teacher.content_rate) * (4 * self.teacher.content_channels + codes + VOICED_BYTES)


class SpeakerMaker(TeacherMaker):
    """A teacher's embedding of each speaker, or of each utterance."""

    def items(self, utterances: Sequence[Utterance]) -> list[CacheItem]:
        if self.record.identity.get("one for each") == BY_UTTERANCE:
            return super().items(utterances)
        return [CacheItem(speaker, tuple(theirs)) for speaker, theirs in speakers_of(utterances).items()]

    def make(self, cache: Cache, item: CacheItem) -> list[str]:
        made = self.teaching.centroid(item.utterances, self.count)
        write_array(cache.stored(item.key)["speaker"].path, made.embedding)
        return list(made.faults)

    def size(self, seconds: float) -> float:
        return 4 * self.teacher.speaker_channels


class WaveMaker(Maker):
    """The recordings themselves, at one rate."""

    def __init__(self, job: CacheJob) -> None:
        self.rate = Fraction(job.rate) if job.rate is not None else microphone_rate(job.recipe_name)
        self.folder = joined(job.root, job.folder or f"audio_{self.rate}hz")
        self.record = audio_record(self.rate)

    def make(self, cache: Cache, item: CacheItem) -> list[str]:
        audio = read_recording(item.utterances[0].path, self.rate, item.utterances[0].channel)
        write_array(cache.stored(item.key)["audio"].path, packed(audio[0].numpy()))
        return []

    def size(self, seconds: float) -> float:
        return seconds * float(self.rate) * 2


class PitchMaker(Maker):
    """The fundamental of recordings that no table is beside."""

    def __init__(self, job: CacheJob) -> None:
        self.folder = joined(job.root, job.folder or "pitch")
        self.record = pitch_record()

    def items(self, utterances: Sequence[Utterance]) -> list[CacheItem]:
        return [CacheItem(one.key, (one,)) for one in utterances if one.pitch is None]

    def make(self, cache: Cache, item: CacheItem) -> list[str]:
        header = read_header(item.utterances[0].path)
        audio = read_recording(item.utterances[0].path, TRACKED_RATE, item.utterances[0].channel)
        table = tracked_pitch(audio, header.frames_at(PITCH_RATE))
        write_array(cache.stored(item.key)["pitch"].path, table.numpy())
        return []

    def size(self, seconds: float) -> float:
        return seconds * float(PITCH_RATE) * 4


def teacher_on(spec: dict[str, Any], device: str) -> Teacher:
    """A teacher, on a device where it can be told one."""
    params = {name: value for name, value in spec.items() if name != "use"}
    if device != "cpu" and "device" not in params and _takes_device(spec["use"]):
        params["device"] = device
    return open_teacher(spec["use"], **params)


def _takes_device(name: str) -> bool:
    return name in TEACHERS and "device" in inspect.signature(teacher_class(name)).parameters


def job_of(folder: Path | Place, given: CacheJob) -> CacheJob:
    """The job that goes on with the cache in a folder.

    Args:
        folder: the cache's own.
        given: recipe, weights, teacher and device, where they are given; all else is as the cache's record has it.

    Raises:
        CacheError: for a folder without a cache.
    """
    record = read_record(folder)
    options = record.options
    if record.what == "wavlm":
        return CacheJob(
            what="wavlm",
            root=folder.parent,
            folder=folder.name,
            recipe=options.get("recipe") if given.recipe is None else given.recipe,
            features=options.get("features"),
            weights=given.weights,
            wavlm=given.wavlm,
            device=given.device,
        )
    if record.what in ("audio", "pitch"):
        rate = None if record.what == "pitch" or record.rate is None else int(record.rate)
        return CacheJob(what=record.what, root=folder.parent, folder=folder.name, rate=rate)
    spec = given.teacher if given.teacher is not None else options.get("teacher")
    return CacheJob(
        what=record.what,
        root=folder.parent,
        folder=folder.name,
        recipe=given.recipe,
        teacher=spec,
        teacher_dir=given.teacher_dir,
        utts_per_speaker=int(record.identity.get("utterances per speaker", given.utts_per_speaker)),
        per_utterance=record.identity.get("one for each") == BY_UTTERANCE,
        device=given.device,
    )
