"""The demonstration: a shipped recipe on a shipped sample, and what can be measured of the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from astrape.audio.atomic import atomic_path
from astrape.audio.levels import decibels
from astrape.audio.reader import AudioReader
from astrape.audio.writer import AudioWriter
from astrape.errors import AstrapeError
from astrape.graph.compile import compile, load
from astrape.graph.graph import Graph
from astrape.graph.picture import save_graph_picture
from astrape.runtime.files import Conversion, process_file
from astrape.runtime.spectrogram import Sound, save_spectrograms

__all__ = ["DEFAULT_SETTINGS", "Demo", "demonstrate", "shipped_sample"]

RECIPE = "voice-changer"
DEFAULT_SETTINGS = {"pitch": 8.0, "formant": 3.0, "gain": 1.6}
"""A low voice becomes that of a smaller speaker; the gain makes up for what the compressor takes."""


@dataclass(frozen=True)
class Demo:
    """What was written, and what was measured.

    Attributes:
        files: what each file is, by its path.
        pitch_in, pitch_out: median F0 of the voiced frames, Hz; ``None`` where none is voiced.
    """

    folder: Path
    files: dict[Path, str]
    conversion: Conversion
    settings: dict[str, float]
    host_ms: float
    host_samples: int
    pitch_in: float | None
    pitch_out: float | None

    def facts(self) -> dict[str, Any]:
        """The measured facts as plain values."""
        return {
            "recipe": RECIPE,
            "settings": self.settings,
            "folder": str(self.folder),
            "files": {path.name: what for path, what in self.files.items()},
            "real_time_factor": self.conversion.real_time_factor,
            "host_ms": self.host_ms,
            "host_samples": self.host_samples,
            "rms_db_before": decibels(self.conversion.rms_in),
            "rms_db_after": decibels(self.conversion.rms_out),
            "peak_db_after": decibels(self.conversion.peak_out),
            "pitch_hz_before": self.pitch_in,
            "pitch_hz_after": self.pitch_out,
            "conversion": self.conversion.to_dict(),
        }


def shipped_sample() -> Path:
    """The speech sample that comes with the package; its licence stands beside it."""
    return Path(str(resources.files("astrape") / "recipes" / "audio" / "sense-and-sensibility.flac"))


def demonstrate(
    folder: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    chunk_ms: float = 10.0,
    progress: Callable[[float, float | None], None] | None = None,
) -> Demo:
    """Convert the sample with the voice changer in small chunks, as a live host would, and write all about it.

    Args:
        folder: where to; it is made.
        settings: controls of the recipe; ``DEFAULT_SETTINGS`` when left out.
        chunk_ms: chunk size, milliseconds.
        progress: as in ``process_file``.

    Raises:
        AstrapeError: for a folder that cannot be written, and for controls that do not fit.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AstrapeError(f"{folder}: cannot be made: {error.strerror or error}") from error
    graph = load(RECIPE)
    sample = shipped_sample()
    chosen = dict(DEFAULT_SETTINGS if settings is None else settings)
    before, after = folder / "before.wav", folder / "after.wav"
    _copy(sample, before)
    conversion = process_file(
        graph, sample, after, controls=chosen, chunk_ms=chunk_ms, keep_rate=True, progress=progress
    )
    files = {before: "the sample", after: "the sample converted, aligned to the sample"}
    sounds = [_sound("before", before), _sound("after", after)]
    report = graph.report()
    for name, what, text in (
        ("report.txt", "the latency report", f"{report}\n"),
        ("report.json", "the latency report, to be read by machine", report.to_json()),
    ):
        _write(folder / name, text)
        files[folder / name] = what
    if find_spec("matplotlib") is not None:
        files |= _pictures(folder, graph, sounds)
    demo = Demo(
        folder=folder,
        files=files,
        conversion=conversion,
        settings={name: float(torch.as_tensor(value).flatten()[0]) for name, value in chosen.items()},
        host_ms=float(graph.host_latency * 1000),
        host_samples=graph.host_samples,
        pitch_in=sounds[0].median_pitch,
        pitch_out=sounds[1].median_pitch,
    )
    files[folder / "facts.json"] = "the measured facts"
    _write(folder / "facts.json", json.dumps(demo.facts(), indent=2))
    return demo


def _pictures(folder: Path, graph: Graph, sounds: list[Sound]) -> dict[Path, str]:
    latency, drawing, spectra = (folder / name for name in ("latency.png", "graph.svg", "spectrograms.png"))
    with atomic_path(latency) as temporary:
        graph.report().save_plot(temporary)
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


def _copy(source: Path, target: Path) -> None:
    with AudioReader(source) as audio, AudioWriter(target, audio.rate, audio.channels) as written:
        for block in audio.blocks(10.0):
            written.write(block)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
