"""``astrape evaluate``: the lines that users type, what is written, and what is said when something is wrong."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

import astrape
from astrape.cli import cli
from astrape.voice.evaluation import Context, Tools, register_metric
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.page import write_page
from astrape.voice.evaluation.pictures import curve, height
from astrape.voice.evaluation.pitch import PitchTrack
from astrape.voice.evaluation.registry import _FACTORIES
from astrape.voice.metadata import Metadata
from astrape.voice.voicebank import Voicebank, write_voicebank
from tests.forks import run_module
from tests.voice.conversion_files import delaying

SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"

THROUGH = delaying(16000, 777)

LIGHT = ("--metrics", "spectrum,speed")
"""What takes no package."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two speakers with two utterances of one second each, one of them with its words, a voice and a recipe."""
    speech, _ = soundfile.read(SAMPLE, dtype="float32")
    for index, name in enumerate(("anna/1", "anna/2", "ben/1", "ben/2")):
        path = tmp_path / "speech" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speech[index * 8000 :][:16000], 16000)
    (tmp_path / "speech" / "anna" / "1.txt").write_text("had he married")
    embedding = np.random.default_rng(0).normal(size=128).astype(np.float32)
    (tmp_path / "voices").mkdir()
    write_voicebank(Voicebank(embedding, _metadata()), tmp_path / "voices" / "p225.astrape")
    (tmp_path / "through.yaml").write_text(THROUGH)
    return tmp_path


def _metadata() -> Metadata:
    return Metadata(
        duration_seconds=6.0,
        source_sample_rate=16000,
        source_path="ref.wav",
        embedding_model="a model",
        reference_sha256="0" * 64,
        created_utc="2026-01-01T00:00:00+00:00",
        peak_amplitude=0.5,
        rms_dbfs=-20.0,
        clipping_fraction=0.0,
        active_speech_ratio=1.0,
        dc_offset=0.0,
        quality_warnings=(),
    )


def run(*words: Any) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *(str(word) for word in words)], prog_name="astrape")


def through(folder: Path, *words: Any) -> Result:
    return run("--recipe", folder / "through.yaml", *LIGHT, *words)


def succeeds(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def fails(result: Result, *said: str) -> None:
    """Failed, with a code and one line that says so; warnings may stand before it."""
    assert result.exit_code in (1, 2), result.output
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("astrape: warning: ")]
    assert len(lines) == 1, result.stderr
    assert "fault in astrape" not in lines[0]
    for text in said:
        assert text in lines[0], lines[0]


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


class Page(HTMLParser):
    """What a page refers to, and whether its elements close."""

    VOID = ("meta", "img", "polyline", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.assets = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.found[-1:] and self.found[-1][1].get("id") == "assets" and not self.assets:
            self.assets = data

    def attributes(self, name: str) -> Iterator[str]:
        return (value for _, attributes in self.found if (value := attributes.get(name)))


def test_the_page_is_one_file_with_its_sounds_and_pictures(folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    name = "anna/1<b>&'\"ü.wav"
    source = folder / "speech" / "anna" / "1.wav"
    source = source.rename(source.with_name(Path(name).name.replace("/", "")))
    source.with_suffix(".txt").write_text("had </script><script>alert(1)</script> he")
    words = ("--sources", folder / "speech", "--targets", folder / "voices", "-o", folder / "run")
    succeeds(through(folder, *words))
    text = (folder / "run" / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text
    page = Page(text)
    assert not page.open
    assert sum(tag == "script" for tag, _ in page.found) == 2
    # Nothing is fetched from elsewhere: links lead inside, sounds and pictures are stored.
    links = [value for name in ("src", "href", "action", "data") for value in page.attributes(name)]
    assert all(link.startswith("#") for link in links)
    anchors = set(page.attributes("id"))
    assert {link[1:] for link in links} <= anchors
    assert "default-src 'none'" in next(page.attributes("content"), "") + " ".join(page.attributes("content"))
    stored = json.loads(page.assets)
    wanted = set(page.attributes("data-asset"))
    assert wanted == set(stored)
    # Four sources and four results, each with its picture.
    assert len(stored) == 16
    for key, address in stored.items():
        head, body = address.split(",", 1)
        content = base64.b64decode(body, validate=True)
        if key.startswith("sound"):
            assert head == "data:audio/flac;base64"
            samples, rate = soundfile.read(io.BytesIO(content))
            assert (len(samples), rate) == (16000, 16000)
        else:
            assert content.startswith(b"\x89PNG")
    assert all(tag != "img" or attributes.get("alt") for tag, attributes in page.found)
    assert all(tag != "audio" or attributes.get("aria-label") for tag, attributes in page.found)


def test_a_page_with_nothing_to_hear(folder: Path) -> None:
    from astrape.voice.evaluation import Converted, all_pairs, evaluate, read_sources, read_targets

    pairs = all_pairs(read_sources([folder / "speech"]), read_targets([folder / "voices"]))
    found = evaluate(pairs, Converted(folder / "voices"), metrics=["spectrum"])
    assert len(found.failed) == 4
    write_page(found, folder / "page.html")
    text = (folder / "page.html").read_text()
    assert "There is nothing to listen to" in text
    assert "4 pairs could not be converted" in text


def test_the_curve_stands_where_the_pitch_is() -> None:
    hertz = np.array([0, 100, 101, 0, 100, 300, 300])
    stretches = curve(PitchTrack(hertz.astype(float)), 7 / 62.5)
    assert [len(stretch) for stretch in stretches] == [2, 1, 2]
    assert stretches[0][0] == pytest.approx((1 / 7, height(100)))
    assert (height(60), height(8000), height(20)) == (0, 1, 0)
    assert height(np.sqrt(60 * 8000)) == pytest.approx(0.5)


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
