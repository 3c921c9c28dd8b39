"""``astrape evaluate``: the lines that users type, what is written, and what is said when something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from astrape.voice.evaluation import Context, Tools, register_metric
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.registry import _FACTORIES
from tests.forks import run_module
from tests.voice.conversion_files import fails, succeeds
from tests.voice.evaluation.runs import LIGHT, SAMPLE, run, through


def test_the_users_line(folder: Path) -> None:
    # Of this length, DNSMOS repeats it to just one of its windows.
    soundfile.write(folder / "src.wav", soundfile.read(SAMPLE)[0][16000:25600], 16000)
    built = run_module("astrape.build_voicebank", str(SAMPLE), "-o", "p225.astrape", cwd=folder)
    assert built.returncode == 0, built.stderr
    line = "--source src.wav --target p225.astrape --output out.wav"
    done = run_module("astrape.evaluate", *line.split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(folder / "out.wav").frames == 9600
    found = json.loads((folder / "out.evaluation.json").read_text())
    assert (folder / "out.evaluation.html").is_file()
    (pair,) = found["pairs"]
    assert pair["converted"] == "out.wav"
    assert pair["scores"]["real_time_factor"] > 0
    assert pair["scores"]["latency_host"] == pytest.approx(50.0, abs=0.1)
    assert "random" not in done.stderr
    assert found["system"]["weights"].endswith("astrape-mini.safetensors")
    # Every quantity is in the table: with a value, or with the reason why there is none.
    for quantity in found["quantities"]:
        (row,) = [row for row in done.stdout.splitlines() if row.startswith(_label(quantity) + "  ")]
        assert quantity["name"] in found["aggregate"] or "not measured: " in row or "skipped: " in row


def _label(quantity: dict[str, Any]) -> str:
    return f"{quantity['label']}, {quantity['unit']}" if quantity["unit"] else str(quantity["label"])


def test_a_set_is_every_source_to_every_target(folder: Path) -> None:
    soundfile.write(folder / "voices" / "ref.wav", soundfile.read(SAMPLE)[0], 16000)
    out = folder / "run"
    result = succeeds(through(folder, "--sources", folder / "speech", "--targets", folder / "voices", "-o", out))
    found = json.loads((out / "report.json").read_text())
    assert len(found["pairs"]) == 8
    for pair in found["pairs"]:
        source = soundfile.read(pair["source"], dtype="float32")[0]
        converted = soundfile.read(out / pair["converted"], dtype="float32")[0]
        # Aligned by the latency: what only delays comes out as it went in.
        assert np.abs(converted - source).max() < 1e-3
        assert pair["scores"]["log_spectral_distance_source"] < 0.5
    assert found["pairs"][0]["transcript"] == "had he married"
    assert found["aggregate"]["real_time_factor"]["value"] > 0
    assert found["aggregate"]["latency_host"]["value"] == pytest.approx(777 / 16, abs=0.1)
    assert found["system"]["parameters_sha256"]
    assert found["settings"]["bootstrap_seed"] == 0
    assert found["packages"]["torch"]
    assert "converted: 8 of 8" in result.stdout
    again = json.loads(
        succeeds(
            through(
                folder,
                "--sources",
                folder / "speech",
                "--targets",
                folder / "voices",
                "--limit",
                3,
                "--seed",
                5,
                "--no-page",
                "--json",
                "-o",
                folder / "few",
            )
        ).stdout
    )
    assert len(again["pairs"]) == 3
    assert again["system"]["parameters_sha256"] == found["system"]["parameters_sha256"]
    assert not (folder / "few" / "index.html").exists()


def test_a_run_inside_the_sources_is_no_source_of_the_next(folder: Path) -> None:
    speech = folder / "speech"
    for _ in range(2):
        words = ("--sources", speech, "--targets", folder / "voices", "-o", speech / "run", "--no-page", "--json")
        assert len(json.loads(succeeds(through(folder, *words)).stdout)["pairs"]) == 4


def test_an_own_voice_has_a_reference(folder: Path) -> None:
    source = folder / "speech" / "anna" / "1.wav"
    soundfile.write(source, soundfile.read(SAMPLE)[0], 16000)
    succeeds(through(folder, "--source", source, "--own-voice", "--output", folder / "out.wav"))
    (pair,) = json.loads((folder / "out.evaluation.json").read_text())["pairs"]
    assert pair["scores"]["log_spectral_distance"] == pair["scores"]["log_spectral_distance_source"] < 0.5


def test_what_another_system_converted(folder: Path) -> None:
    for path in (folder / "speech").rglob("*.wav"):
        samples, rate = soundfile.read(path)
        target = folder / "other" / path.relative_to(folder / "speech")
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, np.concatenate((np.zeros(960), samples)), rate)
    words = ("--sources", folder / "speech", "--converted", folder / "other", "--json", "--no-page", *LIGHT)
    late = json.loads(succeeds(run(*words, "--late", 60, "-o", folder / "a")).stdout)
    early = json.loads(succeeds(run(*words, "-o", folder / "b")).stdout)
    distance = "log_spectral_distance_source"
    assert late["aggregate"][distance]["value"] < 1 < early["aggregate"][distance]["value"]
    assert late["missing"]["real_time_factor"] == "the result was converted elsewhere"
    (folder / "other" / "ben" / "2.wav").unlink()
    result = run(*words, "-o", folder / "c")
    assert result.exit_code == 1
    assert "astrape: ben/2: " in result.stderr
    assert "holds no converted file" in result.stderr
    assert len(json.loads(result.stdout)["pairs"]) == 4


def test_listed_pairs(folder: Path) -> None:
    table = folder / "pairs.csv"
    table.write_text("source,target,text\nspeech/anna/1.wav,voices/p225.astrape,Had he.\n")
    found = json.loads(succeeds(through(folder, "--pairs", table, "-o", folder / "run", "--no-page", "--json")).stdout)
    assert found["pairs"][0]["transcript"] == "Had he."
    table.write_text(
        "source,target,converted\nspeech/anna/1.wav,voices/p225.astrape,\n"
        "speech/anna/2.wav,voices/p225.astrape,speech/anna/1.wav\n"
    )
    fails(through(folder, "--pairs", table, "-o", folder / "run"), "1 of 2 rows have a 'converted' file")


def test_a_file_that_fails_is_named_and_the_others_go_on(folder: Path) -> None:
    (folder / "speech" / "anna" / "2.wav").write_text("no audio")
    soundfile.write(folder / "speech" / "ben" / "1.wav", np.zeros(100), 16000)
    result = through(folder, "--sources", folder / "speech", "--targets", folder / "voices", "-o", folder / "run")
    assert result.exit_code == 1
    assert "anna/2 to p225: " in result.stderr
    assert "is not a readable audio file" in result.stderr
    assert "ben/1 to p225: spectrum: source or result is shorter than a frame" in result.stderr
    found = json.loads((folder / "run" / "report.json").read_text())
    assert [pair["error"] is None for pair in found["pairs"]] == [True, False, True, True]
    assert found["aggregate"]["log_spectral_distance_source"]["files"] == 2
    page = (folder / "run" / "index.html").read_text()
    assert "is not a readable audio file" in page


def test_absent_packages_are_named_with_the_line_that_helps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pesq", "moonshine_voice", "matplotlib", "resemblyzer"):
        monkeypatch.setitem(sys.modules, module, None)
    metrics = "pesq,wer,similarity_target,spectrum"
    result = succeeds(
        run(
            "--recipe",
            folder / "through.yaml",
            "--metrics",
            metrics,
            "--source",
            folder / "speech" / "anna" / "1.wav",
            "--target",
            folder / "voices" / "p225.astrape",
            "-o",
            folder / "out.wav",
        )
    )
    assert "PESQ, MOS" in result.stdout
    assert "skipped: pesq is not installed: pip install pesq" in result.stdout
    assert "skipped: moonshine-voice is not installed: pip install moonshine-voice==0.0.49" in result.stdout
    assert 'skipped: resemblyzer is not installed: pip install resemblyzer "setuptools<81"' in result.stdout
    found = json.loads((folder / "out.evaluation.json").read_text())
    assert set(found["skipped"]) == {"pesq", "intelligibility", "similarity"}
    assert set(found["aggregate"]) == {"log_spectral_distance_source", "mel_distance_source"}
    page = (folder / "out.evaluation.html").read_text()
    assert "Spectrograms are left out: matplotlib is not installed: pip install matplotlib" in page
    # Each once, however many quantities it is for.
    listed = page.partition("<h3>Not measured</h3>")[2].partition("</ul>")[0]
    for package in ("pesq", "moonshine-voice", "resemblyzer"):
        assert result.stdout.count(f"{package} is not installed") == 1
        assert listed.count(f"{package} is not installed") == 1
    assert len(found["missing"]) > listed.count("<li>") >= 3


def test_a_metric_that_breaks_is_named_with_the_file(folder: Path) -> None:
    @register_metric("broken")
    class Broken:
        name = "broken"
        packages = ()
        quantities = (Quantity("broken", "Broken", "", None, "nothing"),)

        def __init__(self, tools: Tools) -> None:
            del tools

        def score(self, context: Context) -> dict[str, float]:
            if "anna" in context.source_key:
                raise IndexError("out of everything")
            return {"broken": float("nan")}

        def pooled(self, parts: Sequence[object]) -> dict[str, float]:
            return {}

    try:
        result = run(
            "--recipe",
            folder / "through.yaml",
            "--metrics",
            "broken",
            "--sources",
            folder / "speech",
            "--targets",
            folder / "voices",
            "--no-page",
            "-o",
            folder / "run",
        )
    finally:
        del _FACTORIES["broken"]
    succeeds(result)
    assert "anna/1 to p225: broken: IndexError: out of everything" in result.stderr
    assert "ben/1 to p225: broken: 'broken' came out as nan, which is not a number" in result.stderr
    # What goes wrong in many pairs in the same way is told once.
    assert result.stderr.count("'broken' came out as nan") == 1
    assert "which is not a number (so in 1 more)" in result.stderr
    assert json.loads((folder / "run" / "report.json").read_text())["aggregate"] == {}


class TestWrongUse:
    def test_what_does_not_go_together(self, folder: Path) -> None:
        source, voice, out = folder / "speech" / "anna" / "1.wav", folder / "voices" / "p225.astrape", folder / "o.wav"
        fails(run("-o", out), "--source, --sources or --pairs")
        fails(run("--source", source, "--sources", folder, "-o", out), "exactly one of them")
        fails(run("--source", source, "-o", out), "no voice to convert to")
        fails(run("--source", source, "--target", voice), "no place for the results")
        fails(run("--source", source, "--target", voice, "-o", folder), "is a folder, and --source is one file")
        fails(run("--sources", folder / "speech", "--targets", voice, "-o", source), "is not a folder")
        fails(through(folder, "--source", source, "--target", voice, "--late", 5, "-o", out), "--late")
        fails(run("--source", source, "--converted", source, "--late", -1), "--late must be 0 to 60000 ms, not -1")
        fails(
            through(folder, "--source", source, "--target", voice, "--metrics", "beauty", "-o", out),
            "no metric 'beauty'",
        )
        fails(through(folder, "--source", source, "--target", voice, "--set", "speaker=1", "-o", out), "--set speaker")
        assert not out.exists()

    def test_files_that_are_none(self, folder: Path) -> None:
        source, voice, out = folder / "speech" / "anna" / "1.wav", folder / "voices" / "p225.astrape", folder / "o.wav"
        (folder / "text.wav").write_text("no audio")
        (folder / "bad.astrape").write_text("no voicebank")
        (folder / "none").mkdir()
        fails(
            run("--source", folder / "text.wav", "--target", voice, "-o", out), "text.wav: is not a readable audio file"
        )
        fails(run("--source", folder / "missing.wav", "--target", voice, "-o", out), "there is no such file")
        fails(run("--sources", folder / "none", "--targets", voice, "-o", folder / "run"), "holds no audio")
        fails(
            through(folder, "--source", source, "--target", folder / "bad.astrape", "-o", out),
            "bad.astrape: begins with",
        )
        fails(through(folder, "--source", source, "--target", source, "-o", out), "1.00 s of reference", "at least 5")
        fails(through(folder, "--source", source, "--target", voice, "-o", source), "is the input itself")
        fails(run("--source", source, "--target", voice, "--recipe", "denoiser", "-o", out), "converts to no voice")
        fails(
            run("--source", source, "--target", voice, "--weights", folder / "no.safetensors", "-o", out),
            "no.safetensors",
        )
        assert not out.exists()

    def test_another_language_is_said(self, folder: Path) -> None:
        pytest.importorskip("moonshine_voice", reason="moonshine-voice is not installed")
        pytest.importorskip("jiwer", reason="jiwer is not installed")
        source, voice = folder / "speech" / "anna" / "1.wav", folder / "voices" / "p225.astrape"
        words = (
            "--recipe",
            folder / "through.yaml",
            "--metrics",
            "wer",
            "--source",
            source,
            "--target",
            voice,
            "-o",
            folder / "o.wav",
            "--no-page",
        )
        result = succeeds(run(*words, "--language", "ko"))
        assert "the sources are 'ko', and the recogniser knows English only" in result.stdout
        result = succeeds(run(*words, "--text", "안녕하세요"))
        assert "the transcript is not English" in result.stdout
