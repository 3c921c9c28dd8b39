"""The commands ``voicebank build`` and ``voicebank info``, and the module that the user's description runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from astrape.cli import cli
from astrape.voice.voicebank import read_voicebank
from tests.forks import run_module
from tests.voice.test_voicebank_building import voice, wav
from tests.voice.test_voicebank_format import FIELDS, VALUES, astrape, compact, save


def run(*args: Any) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="astrape")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wav(tmp_path_factory.mktemp("speech") / "speech.wav", voice(6, 22050, 130, 8), 22050)


@pytest.mark.parametrize("name", ["a.astrape", "a.npz"])
def test_build_then_info(tmp_path: Path, speech: Path, name: str) -> None:
    path = tmp_path / name
    built = run("voicebank", "build", speech, "-o", path, "--json")
    assert built.exit_code == 0, built.output
    assert "not trained" not in built.stderr
    shown = run("voicebank", "info", path, "--json")
    assert shown.exit_code == 0
    found = json.loads(shown.stdout)
    assert found == json.loads(built.stdout)
    assert found["version"] == (3 if name == "a.astrape" else 2)
    assert found["bytes"] == path.stat().st_size
    assert found["embedding"] == read_voicebank(path).embedding.tolist()
    assert found["metadata"]["embedding_model"] == "astrape-speaker"
    assert found["metadata"]["source_path"] == str(speech)
    assert "22050" in run("voicebank", "info", path).stdout


def test_an_encoder_that_is_not_trained_says_so(tmp_path: Path, speech: Path) -> None:
    built = run("voicebank", "build", speech, "-o", tmp_path / "a.astrape", "--encoder", "mel-statistics", "--json")
    assert built.exit_code == 0, built.output
    assert "not trained" in built.stderr
    assert json.loads(built.stdout)["metadata"]["embedding_model"] == "astrape/mel-statistics-v1 (untrained)"


def test_build_says_what_is_wrong_with_the_recording(tmp_path: Path) -> None:
    path = wav(tmp_path / "quiet.wav", voice(6, 16000, 130, 8) * 0.3, 16000)
    built = run("voicebank", "build", path, "-o", tmp_path / "a.astrape")
    assert built.exit_code == 0
    assert "reference_too_quiet: under -35 dBFS" in built.stderr


def test_another_encoder(tmp_path: Path, speech: Path) -> None:
    path = tmp_path / "a.astrape"
    built = run("voicebank", "build", speech, "-o", path, "--encoder", "tests.voice.test_voicebank_building:Windows")
    assert built.exit_code == 0
    assert "not trained" not in built.stderr
    assert np.array_equal(read_voicebank(path).embedding, np.ones(128, dtype=np.float32))


def test_info_lets_no_file_command_the_terminal(tmp_path: Path) -> None:
    hostile = {
        **FIELDS,
        "source_path": "\x1b]0;x\x07[red]a\x9bb\u202ec",
        "\x1b[2J": 1,
        "quality_warnings": ["\x1b[31m"],
    }
    shown = run("voicebank", "info", save(tmp_path / "a.astrape", astrape(compact(hostile))))
    assert shown.exit_code == 0
    for char in ("\x1b", "\x07", "\x9b", "\u202e"):
        assert char not in shown.output
    assert "[red]a" in shown.output


REFUSED = {
    "ending": (["build", "{speech}", "-o", "{folder}/a.wav"], ".astrape"),
    "folder": (["build", "{speech}", "-o", "{folder}/none/a.astrape"], "no folder"),
    "reference": (["build", "{folder}/none.wav", "-o", "{folder}/a.astrape"], "none.wav: there is no such file"),
    "encoder": (["build", "{speech}", "-o", "{folder}/a.astrape", "--encoder", "none"], "no speaker encoder 'none'"),
    "no reference": (["build", "-o", "{folder}/a.astrape"], "REF"),
    "no output": (["build", "{speech}"], "-o"),
    "no voicebank": (["info", "{speech}"], "RIFF"),
    "no file": (["info", "{folder}/none.astrape"], "No such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_take_one_line_and_leave_nothing(tmp_path: Path, speech: Path, case: str) -> None:
    args, said = REFUSED[case]
    failed = run("voicebank", *(arg.format(folder=tmp_path, speech=speech) for arg in args))
    assert failed.exit_code != 0
    assert failed.stdout == ""
    assert failed.stderr.startswith("astrape: ")
    assert failed.stderr.count("\n") == 1
    assert said in failed.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_when_the_build_fails(tmp_path: Path) -> None:
    path = save(tmp_path / "a.astrape", astrape())
    short = wav(tmp_path / "short.wav", voice(3, 16000, 130, 8), 16000)
    assert run("voicebank", "build", short, "-o", path).exit_code == 1
    assert read_voicebank(path).embedding.tobytes() == VALUES.tobytes()


def test_the_line_of_the_users_description(tmp_path: Path, speech: Path) -> None:
    second = wav(tmp_path / "ref2.wav", voice(2, 16000, 130, 8), 16000)
    done = run_module("astrape.build_voicebank", str(speech), str(second), "-o", "p225.astrape", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_voicebank(tmp_path / "p225.astrape").metadata.duration_seconds == 8.0


@pytest.mark.parametrize("args", [["voicebank"], ["voicebank", "build"], ["voicebank", "info"]])
def test_help_has_an_example(args: list[str]) -> None:
    shown = run(*args, "--help")
    assert shown.exit_code == 0
    assert "Example:" in shown.output
