"""The demonstration: one sentence in other people's voices, live-style, and what can be measured of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.audio.atomic import atomic_path, make_folder
from astrape.audio.levels import decibels
from astrape.audio.reader import AudioReader
from astrape.audio.writer import AudioWriter
from astrape.graph import compile, load
from astrape.graph.graph import Graph
from astrape.graph.report import Report
from astrape.graph.report.drawing import save_graph_picture
from astrape.progress import Progress
from astrape.runtime.files import Conversion, process_file
from astrape.runtime.process import settle
from astrape.runtime.spectrogram import Sound, save_spectrograms
from astrape.runtime.timing import one_thread, push_times
from astrape.voice.building import build_voicebank
from astrape.voice.conversion import Converter, voice_of
from astrape.voice.demo_page import write_page
from astrape.voice.names import RECIPE
from astrape.voice.speaker import speaker_encoder
from astrape.voice.speaking import voice_controls

__all__ = ["CHANGER", "CHANGER_SETTINGS", "VOICES", "Demo", "PushTimes", "Take", "demonstrate", "shipped_sample"]

VOICES = ("emma", "george")
"""Two registers: one far from the sample's, one near."""

CHANGER = "voice-changer"
CHANGER_SETTINGS = {"pitch": 8.0, "formant": 3.0, "gain": 1.6}
"""A comparison without weights: a low voice becomes that of a smaller speaker. The gain makes up for what the
compressor takes."""


@dataclass(frozen=True)
class Take:
    """One rendering of the sample.

    Attributes:
        voice: whose it is, or what made it.
        pitch: median F0 of the voiced frames, Hz; ``None`` where none is voiced.
        to_target, to_source: cosine of its embedding to the target's and to the sample's, by the encoder that the
            voices are of; ``None`` where there is no target.
    """

    voice: str
    path: Path
    pitch: float | None
    conversion: Conversion | None = None
    to_target: float | None = None
    to_source: float | None = None

    def facts(self) -> dict[str, Any]:
        done = self.conversion
        return {
            "file": self.path.name,
            "pitch_hz": self.pitch,
            "similar_to_target": self.to_target,
            "similar_to_source": self.to_source,
            "real_time_factor": None if done is None else done.real_time_factor,
            "rms_db": None if done is None else decibels(done.rms_out),
            "peak_db": None if done is None else decibels(done.peak_out),
        }


@dataclass(frozen=True)
class PushTimes:
    """Wall-clock time of single pushes of a live session on one thread.

    Attributes:
        chunk_ms: sound in a push.
        median_ms, worst_ms: time that a push takes.
        load: of real time, all pushes together.
    """

    chunk_ms: float
    count: int
    median_ms: float
    worst_ms: float
    load: float


@dataclass(frozen=True)
class Demo:
    """Files and measurements of a demo.

    Attributes:
        files: what each file is, by its path.
        takes: the sample, each voice, and the voice changer, in this order.
    """

    folder: Path
    files: dict[Path, str]
    recipe: str
    takes: list[Take]
    pushes: PushTimes
    host_ms: float
    host_samples: int
    seconds: float

    def facts(self) -> dict[str, Any]:
        """The measured facts as plain values."""
        return {
            "recipe": self.recipe,
            "folder": str(self.folder),
            "files": {path.name: what for path, what in self.files.items()},
            "seconds": self.seconds,
            "host_ms": self.host_ms,
            "host_samples": self.host_samples,
            "pushes": vars(self.pushes),
            "takes": {take.voice: take.facts() for take in self.takes},
        }


def shipped_sample() -> Path:
    """The speech sample that comes with the package; its licence stands beside it."""
    return Path(str(resources.files("astrape") / "recipes" / "audio" / "sense-and-sensibility.flac"))


def demonstrate(
    folder: str | Path,
    *,
    voices: Sequence[str] = VOICES,
    settings: Mapping[str, Any] | None = None,
    chunk_ms: float = 10.0,
    progress: Progress | None = None,
) -> Demo:
    """Convert the sample to voices in small chunks, as a live host would, and write all about it.

    Args:
        folder: where to; it is made.
        voices: names of voices that ship, voicebanks or recordings.
        settings: controls of the recipe, such as ``pitch``.
        chunk_ms: chunk size, milliseconds.
        progress: called with seconds done and in all.

    Raises:
        AstrapeError: for a folder that cannot be written, voices that cannot be read, and controls that do not fit.
    """
    folder = Path(folder)
    make_folder(folder)
    converter = Converter.load(RECIPE)
    graph, sample = converter.graph, shipped_sample()
    before = folder / "before.wav"
    seconds = _copy(sample, before)
    embeds = speaker_encoder(converter.encoder)
    own = _embedding(before, embeds)
    sounds = [_sound("before", before)]
    takes = [Take("before", before, sounds[0].median_pitch)]
    files = {before: "the sample"}
    whole = seconds * (len(voices) + 1)
    first: dict[str, Tensor | float] = {}
    for number, name in enumerate(voices):
        bank = voice_of(name, embeds)
        converter.check_voice(bank.metadata, name)
        controls = {**voice_controls(graph, bank), **(settings or {})}
        first = first or controls
        after = folder / f"{Path(name).stem}.wav"
        told = _share(progress, number * seconds, whole)
        done = process_file(
            graph, sample, after, controls=controls, chunk_ms=chunk_ms, output=converter.output, keep_rate=True,
            progress=told,
        )  # fmt: skip
        found = _embedding(after, embeds)
        sounds.append(_sound(Path(name).stem, after))
        near = _cosine(found, bank.speaker), _cosine(found, own)
        takes.append(Take(Path(name).stem, after, sounds[-1].median_pitch, done, *near))
        files[after] = f"the sample in the voice '{Path(name).stem}', aligned to the sample"
    changed = folder / "voice-changer.wav"
    told = _share(progress, len(voices) * seconds, whole)
    done = process_file(
        load(CHANGER), sample, changed, controls=CHANGER_SETTINGS, chunk_ms=chunk_ms, keep_rate=True, progress=told
    )
    sounds.append(_sound(CHANGER, changed))
    takes.append(Take(CHANGER, changed, sounds[-1].median_pitch, done))
    files[changed] = "for comparison: pitch and formants shifted by signal processing, without weights"
    report = graph.report()
    for ending, what, text in (
        ("txt", "the latency report", f"{report}\n"),
        ("json", "the latency report, to be read by machine", report.to_json()),
    ):
        _write(folder / f"report.{ending}", text)
        files[folder / f"report.{ending}"] = what
    if find_spec("matplotlib") is not None:
        files |= _pictures(folder, graph, report, sounds)
    page, facts = folder / "index.html", folder / "facts.json"
    files |= {facts: "the measured facts", page: "all of it on a page: open it in a browser"}
    demo = Demo(
        folder=folder,
        files=files,
        recipe=graph.name,
        takes=takes,
        pushes=time_pushes(graph, sounds[0], first, chunk_ms),
        host_ms=float(graph.host_latency * 1000),
        host_samples=graph.host_samples,
        seconds=seconds,
    )
    _write(facts, json.dumps(demo.facts(), indent=2))
    write_page(demo.facts(), page)
    return demo


def time_pushes(
    graph: Graph, sound: Sound, controls: Mapping[str, Tensor | float], chunk_ms: float = 10.0
) -> PushTimes:
    """Push a sound through a live session, chunk by chunk, and time each push.

    The first second is a warm-up and is not counted.

    Args:
        graph: with one audio input.
        sound: at any rate: samples are taken as they are, since time does not depend on what is said.
        controls: values by name.
        chunk_ms: chunk size, milliseconds of the graph's input.
    """
    (rate,) = (float(stream.rate) for stream in graph.inputs.values())
    size = max(1, round(rate * chunk_ms / 1000))
    samples = torch.from_numpy(np.resize(sound.samples, round(7 * rate)))[None, None]
    with one_thread():
        settle()
        took = list(push_times(graph.stream(chunk=size), torch.split(samples, size, dim=-1), controls))
    counted = took[round(1000 / chunk_ms) :] or took
    return PushTimes(
        chunk_ms=1000 * size / rate,
        count=len(counted),
        median_ms=statistics.median(counted),
        worst_ms=max(counted),
        load=sum(counted) / (len(counted) * 1000 * size / rate),
    )


def _share(progress: Progress | None, before: float, whole: float) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, whole)


def _embedding(path: Path, embeds: Any) -> Tensor:
    """The embedding of a few seconds of sound."""
    return build_voicebank(path, embeds).speaker


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def _pictures(folder: Path, graph: Graph, report: Report, sounds: list[Sound]) -> dict[Path, str]:
    latency, drawing, spectra = (folder / name for name in ("latency.png", "graph.svg", "spectrograms.png"))
    with atomic_path(latency) as temporary:
        report.save_plot(temporary)
    with atomic_path(drawing) as temporary:
        save_graph_picture(graph, temporary)
    with atomic_path(spectra) as temporary:
        save_spectrograms(sounds, temporary)
    return {
        latency: "where the latency comes from",
        drawing: "the compiled graph",
        spectra: "spectrograms before and after, with pitch",
    }


def _sound(name: str, path: Path) -> Sound:
    with AudioReader(path) as audio:
        samples = np.concatenate([block.mean(axis=1) for block in audio.blocks(10.0)])
        return Sound(name, samples, audio.rate, _pitch(samples, audio.rate), 100.0)


def _pitch(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
    """F0 a hundred times a second by the causal tracker, moved back by its latency; 0 where unvoiced."""
    graph = compile(
        {
            "recipe": "pitch",
            "inputs": {"voice": {"rate": rate, "channels": 1}},
            "blocks": {"tracked": {"use": "pitch_tracker", "hop": rate // 100, "silence_db": -45.0}},
            "outputs": {"pitch": "tracked"},
        }
    )
    with torch.no_grad():
        found = graph(torch.from_numpy(samples)[None, None])
    late = round(float(graph.latency) * 100)
    return np.asarray(found[0, 0, late:].numpy(), dtype=np.float64)


def _copy(source: Path, target: Path) -> float:
    """Copies the sound; its length in seconds."""
    with AudioReader(source) as audio, AudioWriter(target, audio.rate, audio.channels) as written:
        frames = 0
        for block in audio.blocks(10.0):
            written.write(block)
            frames += len(block)
        return frames / audio.rate


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
