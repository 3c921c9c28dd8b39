"""A whole run on small packages: what is in the sets, and that it is the same however the run went."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pyworld")
pytest.importorskip("av")

from astrape.corpus.errors import CorpusError, ToolError
from astrape.corpus.items import CorpusSettings
from astrape.corpus.kokoro import Kokoro
from astrape.corpus.layouts import read_corpus
from astrape.jobs import Engine
from tests.corpus import tiny_model
from tests.corpus.tiny_packages import HELD, VOCABULARY, contents, sentences
from tests.jobs.killing import Killer

if TYPE_CHECKING:
    from tests.corpus.tiny_packages import Packages


def infos(work: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.relative_to(work).as_posix(): json.loads(path.read_text()) for path in work.rglob("set.json")}


def pitch_of(audio: np.ndarray[Any, Any], rate: int) -> float:
    """The strongest line of a spectrum, to a hundredth of its bin."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 17))
    return float(spectrum.argmax() * rate / (1 << 17))


def test_the_model_falls_into_parts_that_say_what_they_are_to_say(packages: Packages, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tiny_model.write_model(path)
    parts = Kokoro(path)
    tokens, prosody = np.array([5, 9, 31, 7], np.int64), np.full(128, 0.6, np.float32)
    frames = parts.durations(tokens, prosody, 1.1)
    assert frames.tolist() == tiny_model.durations(tokens, prosody, 1.1).tolist()
    contours = parts.contours(tokens, prosody, frames)
    np.testing.assert_allclose(contours.f0[0], tiny_model.contour(tokens, prosody, frames), rtol=1e-6)
    assert len(parts.render(contours, prosody)) == 600 * frames.sum()


def test_every_rendering_is_in_step_and_all_that_is_known_of_it_is_so(whole: Path) -> None:
    """By the tone that the small model makes of F0, and the durations that it is known to have."""
    found = {key: info for key, info in infos(whole).items() if info["source"] == "kokoro"}
    assert len(found) >= 6
    assert {info["split"] for info in found.values()} == {"train", "held"}
    looked = 0
    for key, info in found.items():
        folder, frames = whole / key, info["frames"]
        labels = np.load(folder / "phones.npy")
        assert (labels.dtype, labels.shape) == (np.int16, (frames,))
        tokens = np.array([VOCABULARY[sign] for sign in info["phones"] if sign in VOCABULARY])
        prosody = np.frombuffer(tiny_style(info["prosody"]), "<f4").reshape(510, 256)[len(tokens) - 1, 128:]
        due = np.repeat([0, *tokens, 0], tiny_model.durations(tokens, prosody, info["speed"])).astype(np.int16)
        # What sounds: a stress mark is the beginning of its sound, and punctuation is silence.
        heard = due.copy()
        for at in reversed(range(len(due))):
            if due[at] in [VOCABULARY[sign] for sign in "ˈˌ"]:
                heard[at] = heard[at + 1]
            elif due[at] in [VOCABULARY[sign] for sign in ";:,.!? "]:
                heard[at] = 0
        begins = [b for b in range(len(due) - frames + 1) if (heard[b : b + frames] == labels).all()]
        assert begins, "labels are the sounds by their durations, cut at both ends"
        curves = []
        for voice, one in info["voices"].items():
            audio, rate = soundfile.read(folder / f"{voice}.flac")
            f0 = np.load(folder / f"{voice}.f0.npy")
            assert (rate, audio.shape, f0.dtype, f0.shape) == (24000, (600 * frames,), np.float32, (2 * frames,))
            voiced = f0 > 0
            assert any((voiced == np.repeat(due[b : b + frames] > 0, 2)).all() for b in begins)
            curves.append(f0[voiced] / np.exp(np.log(f0[voiced]).mean()))
            if "warp" in one:
                continue
            whole_f0 = tiny_model.contour(tokens, prosody, tiny_model.durations(tokens, prosody, info["speed"]))
            moved = whole_f0 * one["register"] / np.exp(np.log(whole_f0[whole_f0 > 0]).mean())
            between = [
                0 if not now else (now + after) / 2 if after else now
                for now, after in zip(moved, [*moved[1:], 0], strict=True)
            ]
            np.testing.assert_allclose(f0, between[2 * begins[0] :][: 2 * frames], rtol=1e-5)
            run = np.flatnonzero(np.diff(np.flatnonzero(np.diff(f0, prepend=-1, append=-1))) >= 6)
            edges = np.flatnonzero(np.diff(f0, prepend=-1, append=-1))
            for first, last in ((edges[r], edges[r + 1]) for r in run):
                if f0[first] > 0:
                    heard = pitch_of(audio[300 * first : 300 * last], rate)
                    assert heard == pytest.approx(f0[first], rel=0.03), (key, voice)
                    looked += 1
        for curve in curves[1:]:
            np.testing.assert_allclose(curve, curves[0], rtol=1e-4, err_msg="one contour, moved")
    assert looked > 20


def tiny_style(name: str) -> bytes:
    from tests.corpus.tiny_packages import style

    return style(name)


def test_held_voices_and_held_sentences_are_in_held_sets_alone(whole: Path) -> None:
    texts = {split: set() for split in ("train", "held")}
    for info in infos(whole).values():
        parts = {part for one in info["voices"].values() for part in one["parts"]} | {info["prosody"]}
        if info["source"] == "kokoro":
            assert parts <= set(HELD) if info["split"] == "held" else not parts & set(HELD)
        if info["text"]:
            texts[info["split"]].add(info["text"])
    assert len(texts["held"]) >= 2
    assert not texts["train"] & texts["held"]


def test_recordings_and_flites_sets_have_the_same_form(whole: Path) -> None:
    by_source = Counter(info["source"] for info in infos(whole).values())
    assert by_source["recordings"] == 6
    assert by_source["flite"] >= 2
    real = json.loads((whole / "real/nsh/ru_0001/set.json").read_text())
    assert (real["text"], real["split"], real["phones"], real["rate"]) == ("два", "train", None, 16000)
    f0 = np.load(whole / "real/nsh/ru_0001/nsh.f0.npy")
    assert len(f0) == 2 * real["frames"] == 256
    assert np.median(f0) == pytest.approx(121, rel=0.01)
    joined = (
        json.loads((whole / "real/carlo/it_IT_m_Carlo_one/set.json").read_text())
        if (whole / "real/carlo/it_IT_m_Carlo_one").is_dir()
        else json.loads((whole / "real/carlo/digits_two/set.json").read_text())
    )
    assert joined["frames"] == 40 * 4 + 6, (
        "two prompts of two seconds, a pause of 150 ms between, and none of the silences"
    )
    for key, info in infos(whole).items():
        if info["source"] == "flite":
            (voice,) = [name for name, one in info["voices"].items() if "warp" not in one]
            labels, f0 = np.load(whole / key / "phones.npy"), np.load(whole / key / f"{voice}.f0.npy")
            assert set(labels.tolist()) == {0, VOCABULARY["s"], VOCABULARY["ɑ"]}
            assert np.median(f0[f0 > 0]) == pytest.approx(info["voices"][voice]["register"], rel=0.01)
            heard = np.flatnonzero(labels)
            assert heard[-1] - heard[0] + 1 == 4 * len(info["text"]), "100 ms a letter"


def test_the_manifest_has_every_rendering_with_its_licence_and_training_reads_it(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "manifest.jsonl").read_text().splitlines()]
    assert sorted(line["path"] for line in lines) == sorted(
        path.relative_to(whole).as_posix() for path in whole.rglob("*.flac")
    )
    licences = {(line["source"], line["licence"]) for line in lines}
    assert licences == {
        ("kokoro", "Apache-2.0"),
        ("flite", "BSD-like"),
        ("recordings", "BSD-like"),
        ("recordings", "CC-BY-3.0"),
        ("recordings", "BSD-2"),
    }
    evaluated = {line["speaker"] for line in lines if line["use"] == "evaluate"}
    assert evaluated == {"austen", "cards"}
    assert all(line["split"] == "held" for line in lines if line["use"] == "evaluate")
    utterances = read_corpus(whole / "manifest.jsonl")
    assert sorted(one.key for one in utterances) == sorted(f"{line['speaker']}/{line['set']}" for line in lines)
    record = json.loads((whole / "corpus.json").read_text())
    assert {"sha256", "version"} == set(record["packages"]["kokoro-js"])
    assert record["settings"]["seed"] == 7
    for package in record["packages"]:
        assert list((whole / "licences" / package).iterdir()), f"no licence of {package}"
    assert not list(whole.rglob("run.js")), "nothing is unpacked but what is needed"


@pytest.mark.parametrize("how", ["again", "jobs", pytest.param("ray", marks=pytest.mark.slow)])
def test_bytes_do_not_depend_on_how_the_work_is_divided(
    packages: Packages, whole: Path, work: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if how == "ray":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")
    given: dict[str, Any] = {"flite": 0.002, "recordings": True, "warps": 0.5}
    engine = {"again": Engine(), "jobs": Engine(workers=2), "ray": Engine("ray", workers=2)}[how]
    packages.make(work, engine=engine, **given)
    assert contents(work) == contents(whole)


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_in_the_middle_costs_no_set(
    packages: Packages, whole: Path, work: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are killed at random, from outside, while they render."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if engine == "ray":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")
    kill = Killer()
    given: dict[str, Any] = {"flite": 0.002, "recordings": True, "warps": 0.5}
    made = packages.make(work, engine=Engine(engine, workers=2), progress=kill, **given)
    assert kill.killed == 2
    assert not made.failed
    for path in work.rglob("*.writing"):
        path.unlink()
    assert contents(work) == contents(whole)


def test_more_hours_extend_a_corpus_and_leave_what_is_there(packages: Packages, work: Path) -> None:
    first = packages.make(work, hours=0.004)
    before = contents(work)
    more = packages.make(work, hours=0.008)
    assert (more.there, more.made) == (first.made, more.sets - first.made)
    assert more.made > 1
    after = contents(work)
    assert all(after[name] == content for name, content in before.items() if name.startswith("sets/"))
    again = packages.make(work, hours=0.004)
    assert again.made == 0
    assert contents(work) == after, "a smaller order takes nothing away"
    (work / "manifest.jsonl").unlink()
    nothing = packages.make(work, hours=0)
    assert (nothing.sets, nothing.corpus) == (0, again.corpus)
    assert contents(work) == after, "an order of nothing writes the manifest of what is there"


def test_another_seed_is_another_corpus(packages: Packages, work: Path) -> None:
    packages.make(work, hours=0.004)
    with pytest.raises(CorpusError, match=r"made with seed 7, and this run has 8; hint: give what it was made with"):
        packages.make(work, hours=0.004, seed=8)
    with pytest.raises(CorpusError, match=r"made with warps 0\.0, and this run has 0\.5"):
        packages.make(work, hours=0.004, warps=0.5)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import pickle
from astrape.audio.places import Place
from tests.corpus.tiny_packages import Packages
packages = pickle.loads(Path({pickled!r}).read_bytes())
left = [{after}]
writes = Place.write
def write(place, content):
    left[0] -= "sets" in place.path.parts
    if left[0] < 0:
        # In the middle of a file.
        place.path.parent.mkdir(parents=True, exist_ok=True)
        name = place.path.with_name(f".{{place.path.name}}.{machine}.{{os.getpid()}}.0.writing")
        name.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    writes(place, content)
Place.write = write
packages.make(Path({work!r}), hours=0.006, warps=0.5)
"""


@pytest.mark.parametrize("after", [0, 4, 13])
def test_a_killed_run_goes_on_where_it_was(packages: Packages, work: Path, tmp_path: Path, after: int) -> None:
    import pickle
    import socket

    pickled = tmp_path / "packages"
    pickled.write_bytes(pickle.dumps(packages))
    machine = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:32]
    script = KILLED.format(
        tests=str(Path(__file__).parents[2]), pickled=str(pickled), after=after, work=str(work), machine=machine
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    there = {path.parent: path.read_bytes() for path in work.rglob("set.json")}
    assert list(work.rglob("*.writing"))
    made = packages.make(work, hours=0.006, warps=0.5)
    assert made.there == len(there)
    assert not made.failed
    assert not list(work.rglob("*.writing"))
    assert all((folder / "set.json").read_bytes() == content for folder, content in there.items())
    untouched = packages.put(tmp_path / "untouched")
    packages.make(untouched, hours=0.006, warps=0.5)
    assert contents(work) == contents(untouched)


def test_a_sentence_that_cannot_be_a_set_is_left_out_once(packages: Packages, work: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("astrape.corpus.rendering.LEAST_TOKENS", 33)
    made = packages.make(work, hours=0.01)
    assert made.unfit > 0
    assert made.made > 0
    assert not made.failed
    markers = list(work.rglob("*.unfit"))
    assert len(markers) == made.unfit
    assert "phones, and sentences have 33 to 200" in markers[0].read_text()
    again = packages.make(work, hours=0.01)
    assert (again.made, again.unfit, again.there) == (0, made.unfit, made.made)


def test_a_disk_that_is_too_small_is_told_before_anything_is_rendered(
    packages: Packages, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(work)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=500_000))
    with pytest.raises(CorpusError, match=r"takes \d\.\d\d MB more, and 0\.50 MB are free there; hint: free space"):
        packages.make(work)
    assert not list(work.rglob("set.json"))


def test_progress_ends_at_all_that_there_is(packages: Packages, work: Path) -> None:
    told: list[tuple[float, float | None]] = []
    said: list[str] = []
    made = packages.make(work, hours=0.006, progress=lambda *now: told.append(now), tell=said.append)
    assert len(told) == made.made
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == pytest.approx(told[-1][1])
    assert f"{made.made} of {made.sets} sets to make" in said[-1]


def test_a_program_that_goes_missing_stops_the_run(packages: Packages, work: Path, monkeypatch: Any) -> None:
    packages.make(work, hours=0.004)
    monkeypatch.setenv("PATH", str(work))
    with pytest.raises(ToolError, match="hint: apt-get install espeak-ng"):
        packages.make(work, hours=0.008)


def test_the_order_of_sentences_is_one(whole: Path) -> None:
    numbers = {info["number"]: info["text"] for info in infos(whole).values() if info["source"] == "kokoro"}
    order = sorted(sentences())
    np.random.default_rng(1).shuffle(order)
    assert all(order[number] == text for number, text in numbers.items())
    assert sorted(numbers) == list(range(len(numbers)))
    assert CorpusSettings(work=whole).kinds == {"kokoro", "flite", "recordings"}
