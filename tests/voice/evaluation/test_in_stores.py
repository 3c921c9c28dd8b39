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
