"""Evaluations whose results go to a store: the scores and sounds of one in a folder, and faults in a line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import soundfile

from astrape.audio.places import Place
from astrape.voice.building import build_voicebank
from astrape.voice.voicebank import write_voicebank
from tests.voice.evaluation.test_engines import folder, run, sounds, timeless

__all__ = ["folder"]

pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")

pytestmark = [
    pytest.mark.usefixtures("read_cache"),
    pytest.mark.timeout(1800),  # how busy the machine is does not matter
]


@pytest.mark.parametrize(("store", "more"), [("memory", ()), ("s3", ("--jobs", 2))])
def test_scores_sounds_and_page_are_those_of_a_folder(
    folder: Path, store: str, more: tuple[object, ...], request: pytest.FixtureRequest
) -> None:
    name = uuid4().hex
    far = Place(f"{request.getfixturevalue('s3')}/{name}" if store == "s3" else f"memory://{name}")
    words = ("--sources", folder / "speech", "--targets", folder / "target.wav", "--recipe", folder / "through.yaml")
    beside = ("--baselines", "source", "--conditions", "noise-room", "--metrics", "spectrum,speed,codes")
    for out, given in ((folder / "near", ()), (far, more)):
        result = run(*words, *beside, *given, "--listen", 1, "-o", out)
        assert result.exit_code == 0, result.output
        assert f"scores:    {out}/report.json" in result.output
    near = folder / "near"
    assert sorted(far.names()) == sorted(Place(near).names())
    texts = [(Place(out) / "report.json").read().decode().replace(str(out), "OUT") for out in (near, far)]
    reports = [timeless(json.loads(text)) for text in texts]
    assert reports[1] == reports[0]
    assert reports[1]["pairs"][0]["converted"].startswith("converted/target/")
    for path, sound in sounds(near).items():
        there, rate = soundfile.read(io.BytesIO((far / path).read()), dtype="int16")
        assert rate == 16000
        np.testing.assert_array_equal(there, sound)
    assert b"data:audio" in (far / "index.html").read()


@pytest.mark.parametrize(("store", "more"), [("memory", ()), ("s3", ("--jobs", 2))])
def test_sources_targets_and_pairs_of_a_store_give_the_scores_of_those_in_a_folder(
    folder: Path, store: str, more: tuple[object, ...], request: pytest.FixtureRequest
) -> None:
    name = uuid4().hex
    far = Place(f"{request.getfixturevalue('s3')}/{name}" if store == "s3" else f"memory://{name}")
    (folder / "speech" / "anna" / "0.txt").write_text("the family of Dashwood")
    (folder / "voices").mkdir()
    write_voicebank(build_voicebank(folder / "target.wav"), folder / "voices" / "bank.astrape")
    (folder / "target.wav").rename(folder / "voices" / "bank.wav")
    (folder / "pairs.csv").write_text(
        "source,target,target_audio,text\n"
        "speech/anna/0.wav,voices/bank.astrape,voices/bank.wav,\n"
        "speech/ben/0.wav,emma,,words\n"
        "speech/anna/1.wav,voices/bank.wav,,\n"
    )
    for path in Place(folder).names():
        (far / path).write(folder / path)
    words = ("--recipe", folder / "through.yaml", "--metrics", "spectrum,speed", "--encoder", "mel-statistics")
    given = [
        ("--sources", "IN/speech", "--targets", "IN/voices", "--baselines", "source,own-voice"),
        ("--sources", "IN/speech/ben/0.wav", "--targets", "IN/voices/bank.astrape", "--target-audio", "IN/voices"),
        ("--pairs", "IN/pairs.csv"),
        ("--sources", "IN/voices/bank.wav", "--own-voice"),
    ]
    for number, options in enumerate(given):
        reports = []
        for place, jobs in ((folder, ()), (far, more)):
            out = place / f"out{number}"
            options_there = (str(word).replace("IN/", f"{place}/") for word in options)
            result = run(*options_there, *words, *jobs, "-o", out, "--listen", 1)
            assert result.exit_code == 0, result.output
            text = (Place(out) / "report.json").read().decode()
            reports.append(timeless(json.loads(text.replace(f"{out}/", "").replace(str(place), "IN"))))
        assert reports[1] == reports[0]
    assert len(reports[0]["pairs"]) == 1
    # What the run before converted is read as another system's results.
    words = ("--sources", f"{far}/speech", "--targets", f"{far}/voices", "--metrics", "spectrum")
    result = run(*words, "--converted", f"{far}/out0/converted", "-o", far / "again", "--no-page", *more)
    assert result.exit_code == 0, result.output
    again = json.loads((far / "again" / "report.json").read())
    first = json.loads((far / "out0" / "report.json").read())
    assert [one["converted"] for one in again["pairs"]] == [f"{far}/out0/{one['converted']}" for one in first["pairs"]]
    assert again["aggregate"] == {name: one for name, one in first["aggregate"].items() if name in again["aggregate"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sources", "memory://none/speech"), "memory://none/speech: holds no audio"),
        (("--sources", "memory://none/a.csv"), "memory://none/a.csv: holds no audio"),
        (("--pairs", "memory://none/a.csv"), "memory://none/a.csv: there is no such file"),
        (("--source", "memory://none/a.wav"), "memory://none/a.wav: there is no such file"),
        (("--sources", "SPEECH", "--targets", "memory://none/v"), "memory://none/v: holds no voicebank"),
        (("--sources", "SPEECH", "--targets", "emma", "--target-audio", "memory://none/v"), "no such recording of the"),
        (("--sources", "SPEECH", "--converted", "memory://none/v"), "memory://none/v: there is no such converted file"),
        (("--sources", "s3://no-such-bucket/a", "--targets", "emma"), "there is no such bucket: hint: make it first"),
        (("--sources", "SPEECH", "--targets", "s3://no-such-bucket/a.astrape"), "there is no such bucket"),
    ],
)
def test_what_is_not_in_a_store_is_told_in_a_line(s3: str, folder: Path, words: tuple[str, ...], said: str) -> None:
    if words[0] != "--pairs" and "--targets" not in words and "--converted" not in words:
        words = (*words, "--target" if words[0] == "--source" else "--targets", "emma")
    given = (word.replace("SPEECH", str(folder / "speech")) for word in words)
    result = run(*given, "--recipe", folder / "through.yaml", "-o", folder / "out")
    assert result.exit_code == 1
    (line,) = [one for one in result.stderr.strip().splitlines() if "warning" not in one]
    assert line.startswith("astrape: ")
    assert said in line


def test_one_recording_goes_to_a_store(folder: Path) -> None:
    out = Place(f"memory://{uuid4().hex}/out.wav")
    source = folder / "speech" / "anna" / "0.wav"
    words = ("--source", source, "--target", folder / "target.wav", "--recipe", folder / "through.yaml")
    result = run(*words, "--metrics", "speed", "-o", out)
    assert result.exit_code == 0, result.output
    assert out.parent.files() == ["out.evaluation.html", "out.evaluation.json", "out.wav"]
    found = json.loads((out.parent / "out.evaluation.json").read())
    assert found["pairs"][0]["converted"] == "out.wav"


def test_a_place_that_cannot_be_had_is_told_before_anything_is_converted(s3: str, folder: Path) -> None:
    words = ("--sources", folder / "speech", "--targets", folder / "target.wav", "--recipe", folder / "through.yaml")
    for where, said in (
        ("s3://no-such-bucket/run", "there is no such bucket: hint: make it first"),
        ("tape://run", "fsspec knows no 'tape://'; hint: s3://, gs://, file:// or a plain path"),
    ):
        result = run(*words, "--metrics", "speed", "-o", where)
        assert result.exit_code == 1
        (line,) = [one for one in result.stderr.strip().splitlines() if "warning" not in one]
        assert line.startswith(f"astrape: {where}/")
        assert line.endswith(said)
