"""``recipes``, ``report``, ``check``, ``graph``, ``demo``, ``bench``, and what all commands share."""

from __future__ import annotations

import json
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from astrape.blocks import Stream, StreamBlock, block_names, register
from astrape.cli import cli
from astrape.commands.demo import told_slow
from astrape.graph.recipe import shipped_recipes
from astrape.voice.shipped import shipped_voices
from astrape.voice.voicebank import read_voicebank
from tests.cli.audio import astrape, fails, read


@register("test_cli_one_late")
class OneLate(StreamBlock):
    """Remembers a frame and says that it is not late."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)

    @property
    def receptive_field(self) -> Fraction:
        return 2 / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)

    def step(self, x: torch.Tensor, state: torch.Tensor, controls: Any) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.cat((state, x), dim=-1)
        return joined[..., :-1], joined[..., -1:].clone()


BROKEN = """
recipe: broken
inputs: {mic: {rate: 16000, channels: 1}}
blocks:
  fine: {use: gain, gain: 0.5}
  wrong: {use: test_cli_one_late}
outputs: {wav: wrong}
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    return path


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = astrape(name, "--help")
    assert result.exit_code == 0
    assert f"astrape {name}" in result.output.partition("Example:")[2]
    assert "--debug" in result.output or isinstance(cli.commands[name], click.Group)


def test_wrong_words_are_one_line() -> None:
    fails(astrape("nothing"), "No such command")
    fails(astrape("report"), "Missing argument")
    fails(astrape("report", "echo", "--nothing"), "No such option")
    fails(astrape("report", "ehco"), "echo")
    assert astrape("--help").exit_code == 0
    assert astrape("--version").exit_code == 0


@pytest.mark.parametrize("words", [[], ["voicebank"], ["wavlm"]])
def test_a_group_alone_shows_its_help(words: list[str]) -> None:
    result = astrape(*words)
    assert result.exit_code in (0, 2)
    lines = result.output.splitlines()
    assert lines[0].startswith("Usage: ")
    assert "Commands:" in lines


def test_debug_raises_wherever_it_stands() -> None:
    for words in (["--debug", "report", "nope"], ["report", "--debug", "nope"], ["report", "nope", "--debug"]):
        result = astrape(*words)
        assert result.exit_code == 1
        assert type(result.exception).__name__ == "RecipeError"


def test_a_fault_of_astrape_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*args: Any, **named: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(sys.modules["astrape.graph"], "load", fault)
    result = astrape("report", "echo")
    assert result.exit_code == 1
    assert result.stderr == "astrape: fault in astrape, RuntimeError: two lines (--debug shows the traceback)\n"


def test_recipes_lists_every_recipe_and_every_block() -> None:
    listed = json.loads(astrape("recipes", "--json").stdout)
    assert [entry["name"] for entry in listed] == list(shipped_recipes())
    assert all(entry["description"] for entry in listed)
    blocks = json.loads(astrape("recipes", "--blocks", "--json").stdout)
    assert [entry["name"] for entry in blocks] == block_names()
    gain = next(entry for entry in blocks if entry["name"] == "gain")
    assert [(p["name"], p["required"], p["default"]) for p in gain["parameters"]] == [
        ("gain", True, None),
        ("smooth_ms", False, 5.0),
    ]
    text = astrape("recipes", "--blocks").output
    assert "y[n] = x[n - frames]" in text
    assert all(name in text for name in block_names())


def test_report_is_the_table_and_the_numbers() -> None:
    content = json.loads(astrape("report", "dry-wet", "--json").stdout)
    assert content["host_samples"] == 1760 - 1
    assert content["exact"]["algorithmic"] == str(Fraction(1320, 44100))
    table = astrape("report", "dry-wet").output
    assert "delay (inserted)" in table
    assert "1759 samples" in table


def test_report_measures_and_fails_on_a_wrong_number(tmp_path: Path, broken: Path) -> None:
    good = astrape("report", "nested", "--measure", "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout)["disagreements"] == []
    bad = astrape("report", broken, "--measure", "--plot", tmp_path / "plot.png")
    assert bad.exit_code == 1
    assert (tmp_path / "plot.png").stat().st_size > 5_000
    assert "differ from the measured ones" in bad.stderr


def test_check_names_what_passed_and_what_broke(broken: Path) -> None:
    good = astrape("check", "nested-voice", "--examples", 4)
    assert good.exit_code == 0, good.output
    assert [line.split("  ")[0] for line in good.output.splitlines()[:-1]] == ["passed"] * 4
    bad = astrape("check", broken, "--examples", 4, "--json")
    fails_in = json.loads(bad.stdout)
    assert bad.exit_code == 1
    assert not fails_in["passed"]
    outcome = {entry["name"]: (entry["passed"], entry["property"]) for entry in fails_in["checks"]}
    assert outcome["fine"] == (True, None)
    assert outcome["wrong"] == (False, "latency")
    assert len(bad.stderr.strip().splitlines()) == 1


def test_check_takes_copies_once() -> None:
    result = astrape("check", "tiny-encoder", "--examples", 2, "--json")
    assert result.exit_code == 0, result.output
    checks = {entry["name"]: entry["alike"] for entry in json.loads(result.stdout)["checks"]}
    assert checks["near/0"] == ["near/1", "near/2", "near/3"]


def test_bench_measures_both_chunk_sizes() -> None:
    result = astrape("bench", "nested-voice", "--seconds", 0.3, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [part["frames"] for part in found["chunks"]] == [441, 1764]
    for part in found["chunks"]:
        assert 0 < part["median_ms"] <= part["p999_ms"] <= part["worst_ms"]
        assert part["blocks_ms"] > part["floor_ms"] > 0
        assert sum(row["share"] for row in part["blocks"]) == pytest.approx(1)
    assert found["threads"] == 1
    fails(astrape("bench", "echo", "--chunk", 0), "chunks must be")
    fails(astrape("bench", "echo", "--seconds", 0), "seconds must be")
    fails(astrape("bench", "echo", "--set", "nothing=1"), "nothing")


def test_demo_writes_voices_report_pictures_and_a_page(tmp_path: Path) -> None:
    result = astrape("demo", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    for name in facts["files"]:
        assert (tmp_path / "out" / name).stat().st_size > 1000 or name == "facts.json"
    named = {"emma.wav", "george.wav", "voice-changer.wav", "report.txt", "report.json", "latency.png", "index.html"}
    assert set(facts["files"]) >= named
    before, rate_before = read(tmp_path / "out" / "before.wav")
    fine = resample_poly(before[:, 0], 441, 160)
    pitches = {}
    for voice in ("emma", "george", "voice-changer"):
        after, rate_after = read(tmp_path / "out" / f"{voice}.wav")
        assert rate_after == 44100
        assert len(after) * rate_before == len(before) * rate_after
        # The words stay where they are: both envelopes rise and fall together.
        envelopes = [np.sqrt((x[: len(x) // 2205 * 2205].reshape(-1, 2205) ** 2).mean(1)) for x in (fine, after[:, 0])]
        same, late = (np.corrcoef(envelopes[0][:-2], np.roll(envelopes[1], -lag)[:-2])[0, 1] for lag in (0, 1))
        assert same > 0.8, voice
        assert same > late, voice
        pitches[voice] = facts["takes"][voice]["pitch_hz"]
    # Each voice in its own register, the voice changer eight semitones up; medians move a little with what is voiced.
    for voice in ("emma", "george"):
        register = read_voicebank(shipped_voices()[voice]).metadata.median_f0_hz
        assert pitches[voice] == pytest.approx(register, rel=0.2), voice
        assert facts["takes"][voice]["peak_db"] < 0
    assert pitches["voice-changer"] / facts["takes"]["before"]["pitch_hz"] == pytest.approx(2 ** (8 / 12), rel=0.06)
    assert facts["host_samples"] == json.loads((tmp_path / "out" / "report.json").read_text())["host_samples"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<audio") == 4
    assert "http:" not in page
    assert "https:" not in page


def test_demo_says_what_to_make_of_a_machine_that_is_too_slow() -> None:
    """Told beside the number, so that nobody takes a busy machine's for the voice's own."""
    assert told_slow("astrape-mini", 0.2, 10.0) is None
    said = told_slow("astrape-mini", 2.04, 10.0)
    assert said is not None
    # The command that it names is one.
    line = re.search(r"`astrape (bench [^`]+)`", said)
    assert line is not None
    assert astrape(*line[1].split(), "--help").exit_code == 0


def test_demo_needs_a_folder_it_can_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(astrape("demo", "-o", tmp_path / "file"), "cannot be made")
    fails(astrape("demo", "-o", tmp_path / "out", "--set", "pitch=40"), "pitch")
    fails(astrape("demo", "-o", tmp_path / "out", "--voice", "nobody"), "nobody")


def test_the_sample_ships_with_its_licence() -> None:
    folder = shipped_recipes()["echo"].parent / "audio"
    for sound in folder.glob("*.flac"):
        info = soundfile.info(sound)
        assert 5 < info.duration < 8
        licence = (folder / f"LICENSE-{sound.stem}.txt").read_text()
        assert "Copyright" in licence
        assert "Redistribution" in licence
