"""Evaluations as jobs: the same scores and files from any engine, and what kills a worker named."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import astrape
from astrape.jobs import Engine
from astrape.voice import Converter
from astrape.voice.evaluation import Conversions, EvaluationError, Pair, Target, evaluate, register_metric
from astrape.voice.evaluation.pairs import all_pairs, read_sources, utterance
from astrape.voice.evaluation.registry import _FACTORIES
from astrape.voice.evaluation.speed import Speed
from astrape.voice.evaluation.systems import ConvertedFile
from tests.voice.conversion_files import SMALL, delaying
from tests.voice.evaluation.runs import run

RATE = 16000
SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"
TIMES = {"elapsed", "graph_seconds", "real_time_factor", "created_utc"}
"""Values from the clock, which differ between two runs."""


class Deadly:
    """Gives the source itself, and one of them ends whoever converts it."""

    converts = False

    def __init__(self, key: str) -> None:
        self.key = key

    def render(self, pair: Pair, progress: Callable[[float, float | None], None] | None = None) -> ConvertedFile:
        if pair.source.key == self.key:
            os.kill(os.getpid(), signal.SIGKILL)
        return ConvertedFile(pair.heard)

    def describe(self) -> dict[str, Any]:
        return {"recipe": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three short sources of two speakers, a target, and a recipe that only delays."""
    speech, _ = soundfile.read(SAMPLE, dtype="float32")
    for index, key in enumerate(("anna/0", "anna/1", "ben/0")):
        path = tmp_path / "speech" / f"{key}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speech[index * 8000 :][: 2 * RATE], RATE)
    soundfile.write(tmp_path / "target.wav", speech, RATE)
    (tmp_path / "through.yaml").write_text(delaying(RATE, 777))
    return tmp_path


def timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: timeless(value) for key, value in content.items() if key not in TIMES}
    return [timeless(value) for value in content] if isinstance(content, list) else content


def sounds(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.relative_to(folder).as_posix(): soundfile.read(path, dtype="int16")[0]
        for path in sorted(folder.rglob("*.wav"))
    }


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_engine_gives_the_same_scores_and_files(
    folder: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3]), *_path()]))
    words = ("--sources", folder / "speech", "--targets", folder / "target.wav", "--recipe", folder / "through.yaml")
    beside = ("--baselines", "source", "--conditions", "noise-room", "--metrics", "spectrum,speed,codes")
    reports = {}
    for name, more in {"one": (), "many": ("--jobs", 2, "--engine", engine)}.items():
        out = folder / name
        result = run(*words, *beside, *more, "--no-page", "-o", out)
        assert result.exit_code == 0, result.output
        reports[name] = timeless(json.loads((out / "report.json").read_text().replace(str(out), "OUT")))
    assert reports["many"] == reports["one"]
    assert [len(column["pairs"]) for column in reports["one"]["beside"]] == [3] * 3
    here, there = sounds(folder / "one"), sounds(folder / "many")
    assert list(here) == list(there)
    assert len(here) == 3 * (2 + 1)
    for name, sound in here.items():
        np.testing.assert_array_equal(there[name], sound)


def _path() -> list[str]:
    return [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []


def test_codes_of_all_workers_are_counted_together(folder: Path) -> None:
    """A graph with a quantizer, whose perplexity over all sources is not the mean over workers or files."""
    pairs = all_pairs(read_sources([folder / "speech"]), [Target("t", (folder / "target.wav",))])
    found = {}
    for workers in (1, 2):
        system = Conversions(Converter.load(SMALL, codes=True), folder / str(workers))
        found[workers] = evaluate(pairs, system, metrics=["codes"], engine=Engine(workers=workers))
    one, many = found[1], found[2]
    assert one.aggregate["code_perplexity"].pooled
    assert many.aggregate == one.aggregate
    assert all(result.rendering is not None and result.rendering.codes is None for result in many.results)


def test_a_pair_that_ends_its_worker_is_named_and_the_rest_is_measured(folder: Path) -> None:
    pairs = all_pairs(read_sources([folder / "speech"]), [Target("t", (folder / "target.wav",))])
    found = evaluate(pairs, Deadly("anna/1"), metrics=["spectrum"], engine=Engine(workers=2))
    (failed,) = found.failed
    assert failed.pair == pairs[1]
    assert failed.error is not None
    assert failed.error.startswith("left out: ended its worker 3 times, at last: killed by SIGKILL")
    assert [len(result.scores) > 0 for result in found.results] == [True, False, True]


def test_a_graph_that_workers_cannot_load_is_refused_before_any_pair(folder: Path) -> None:
    system = Conversions(Converter(astrape.load(folder / "through.yaml")), folder / "out")
    pair = Pair(utterance(folder / "target.wav"), Target("t", (folder / "target.wav",)))
    with pytest.raises(EvaluationError, match=r"^'through': workers load it themselves; hint: make it with Converter"):
        evaluate([pair], system, metrics=["speed"], engine=Engine(workers=2))
    assert not (folder / "out").exists()


def test_a_metric_that_workers_do_not_know_is_told_in_a_line(folder: Path) -> None:
    pairs = all_pairs(read_sources([folder / "speech"]), [Target("t", (folder / "target.wav",))])
    register_metric("here-alone")(type("Alone", (Speed,), {"name": "here-alone"}))
    try:
        with pytest.raises(EvaluationError, match=r"^there is no metric 'here-alone' \(choose from: "):
            evaluate(pairs, Deadly(""), metrics=["here-alone"], engine=Engine(workers=2))
    finally:
        del _FACTORIES["here-alone"]


def test_one_recording_takes_no_workers(folder: Path) -> None:
    words = ("--source", folder / "target.wav", "--target", folder / "target.wav", "-o", folder / "out.wav")
    result = run(*words, "--jobs", 2)
    assert result.exit_code == 1
    assert result.stderr == ("astrape: --jobs 2: is for a set, and --source is one recording: leave it out\n")
    assert not (folder / "out.wav").exists()
