"""Options that the commands of caches share: where the corpus and the caches are, and what makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import channel_option, note
from astrape.commands.engine_options import refuse_workers
from astrape.commands.gathered import gathered
from astrape.commands.place_option import LocalPath, PlaceType
from astrape.training.names import KINDS

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.jobs import Engine
    from astrape.training.caches import CacheJob

__all__ = ["CACHE_ROOT", "CorpusOptions", "MakerOptions", "corpus_options", "folder_options", "maker_options"]

CACHE_ROOT = "cache"


@dataclass(frozen=True)
class CorpusOptions:
    """The places of the corpus and the caches.

    Attributes:
        data: the corpus, where it was given.
        microphone, channel: of its recordings.
        root: the folder of all caches.
    """

    data: Path | Place | None
    microphone: str
    channel: str
    root: Path | Place

    def source(self, recorded: Mapping[str, Any] | None = None) -> tuple[Path | Place, str, str]:
        """Path, microphone and channel of the corpus: as given, else as a cache says, else the default.

        Args:
            recorded: a cache's record of what it was made of.

        Raises:
            CorpusError: where there is none.
        """
        if self.data is not None:
            return self.data, self.microphone, self.channel
        from astrape.corpus.layouts import corpus_at, default_corpus

        known = {name: value for name, value in (recorded or {}).items() if isinstance(value, str)}
        return (
            corpus_at(known.get("data")) or default_corpus(),
            known.get("microphone", self.microphone),
            known.get("channel", self.channel),
        )


@dataclass(frozen=True)
class MakerOptions:
    """The maker of a cache, and its device."""

    weights: Path | Place | None
    wavlm: Path | Place | None
    teacher: str | None
    teacher_dir: Path | None
    device: str

    def job(self, engine: Engine, **others: Any) -> CacheJob:
        """The job of making a cache.

        Args:
            engine: what does it.
            others: the job's attributes that these options do not say.

        Raises:
            AstrapeError: for a device that is absent, and workers that would share one GPU.
        """
        from astrape.training.caches import CacheJob
        from astrape.training.device import choose_device

        place, notice = choose_device(self.device)
        if notice:
            note(notice)
        if place.type != "cpu":
            refuse_workers(engine, f"is for the CPU: leave it out with --device {self.device}")
        return CacheJob(
            weights=self.weights,
            wavlm=self.wavlm,
            teacher=None if self.teacher is None else {"use": self.teacher},
            teacher_dir=self.teacher_dir,
            device=str(place),
            **others,
        )


corpus_options = gathered(
    "corpus",
    CorpusOptions,
    click.option(
        "--data",
        "--data-dir",
        "data",
        type=PlaceType(),
        metavar="PATH",
        help="A folder of audio, VCTK's folder, or a manifest (TSV, CSV, JSONL); or its URL.  [default: data, or the "
        "current folder where it has VCTK's layout]",
    ),
    click.option(
        "--mic",
        "microphone",
        type=click.Choice(["mic1", "mic2", "both"]),
        default="mic1",
        show_default=True,
        help="Of recordings by two microphones, as VCTK has them.",
    ),
    channel_option,
    click.option(
        "--cache",
        "--cache-dir",
        "root",
        type=PlaceType(),
        default=CACHE_ROOT,
        show_default=True,
        metavar="FOLDER",
        help="The folder that holds all caches, or its URL.",
    ),
)
"""``--data``, ``--mic``, ``--channel`` and ``--cache``, as :class:`CorpusOptions`."""


FOLDERS = {
    "wavlm": "Folder of the features' cache, in --cache or absolute.  [default: after the features, as in "
    "wavlm_L4_200hz]",
    "speakers": "Folder of the speakers' cache.  [default: speakers]",
    "content": "Folder of the teacher's content.  [default: content]",
    "audio": "Folder of decoded recordings.  [default: after their rate, as in audio_44100hz]",
    "pitch": "Folder of the recordings' pitch.  [default: pitch]",
}

folder_options = gathered(
    "folders",
    lambda wavlm_dir, speakers_dir, content_dir, audio_dir, pitch_dir: dict(
        zip(KINDS, (wavlm_dir, speakers_dir, content_dir, audio_dir, pitch_dir), strict=True)
    ),
    *(click.option(f"--{kind}-dir", metavar="FOLDER", help=FOLDERS[kind]) for kind in KINDS),
)
"""``--wavlm-dir``, ``--speakers-dir`` and so on, as a folder or ``None`` for each kind of cache."""

maker_options = gathered(
    "maker",
    MakerOptions,
    click.option("--weights", type=PlaceType(), metavar="FILE", help="Weights with the front end's: safetensors."),
    click.option("--wavlm", type=PlaceType(), metavar="CHECKPOINT", help="A WavLM checkpoint for the front end."),
    click.option("--teacher", metavar="NAME", help="miocodec, offline or spectral.  [default: the recipe's]"),
    click.option("--teacher-dir", type=LocalPath(), metavar="FOLDER", help="Where the teacher's weights are."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N or mps."),
)
"""``--weights``, ``--wavlm``, ``--teacher``, ``--teacher-dir`` and ``--device``, as :class:`MakerOptions`."""
