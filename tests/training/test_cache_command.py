from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from astrape.cli import cli
from astrape.training.caches.files import read_array
from tests.forks import run_module, run_program
from tests.training.corpora import arrays, recipe, speech, vctk, write


def astrape(*words: Any) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def module(*words: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_module(*map(str, words), cwd=cwd)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words for a small recipe, in a folder whose corpus and caches are where they are by default."""
    monkeypatch.chdir(tmp_path)
    vctk(tmp_path / "data", speakers=2, utterances=2)
    return ["--recipe", recipe(tmp_path)]


def test_the_users_command_lines_work_as_written_in_vctk(tmp_path: Path) -> None:
    for name in ("p225/p225_001_mic1", "p226/p226_001_mic2"):
        write(tmp_path / "wav48_silence_trimmed" / f"{name}.flac", speech(0, 0.5, 48000), 48000)
    made = module("astrape.cache", "--what", "wavlm", "--limit", "0", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "2 of 2 utterances made" in made.stdout
    assert "weights are random: give --wavlm CHECKPOINT" in made.stderr
    folder = tmp_path / "cache" / "wavlm_L4_200hz"
    assert {name: read_array(folder / name, np.float32, 512).shape for name in arrays(folder)} == {
        "p225/p225_001.npy": (512, 100),
        "p226/p226_001.npy": (512, 100),
    }
    checked = module("astrape.check_cache", "--wavlm-only", "--wavlm-dir", "wavlm_L4_200hz", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "2 utterances" in checked.stdout
    assert "all sound" in checked.stdout


def test_speakers_without_the_teachers_weights_say_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vctk(tmp_path, speakers=1, utterances=1)
    monkeypatch.chdir(tmp_path)
    result = astrape("cache", "--what", "speakers", "--utts-per-speaker", 8)
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert "miocodec" in line
    assert not (tmp_path / "cache").exists()


def test_of_headers_without_a_length_all_is_cached_and_it_is_told(tmp_path: Path) -> None:
    for name, size in (("a", None), ("b", 0), ("c", 0xFFFFFFFF)):
        write(tmp_path / "data" / "p1" / f"{name}.wav", speech(0, 0.5, 16000), 16000)
        content = bytearray((tmp_path / "data" / "p1" / f"{name}.wav").read_bytes())
        if size is not None:
            place = content.index(b"data") + 4
            content[place : place + 4] = size.to_bytes(4, "little")
        (tmp_path / "data" / "p1" / f"{name}.wav").write_bytes(content)
    result = astrape("cache", "--what", "audio", "--data", tmp_path / "data", "--cache", tmp_path)
    assert result.exit_code == 0, result.output
    assert "3 of 3 utterances made" in result.stdout
    (line,) = [line for line in result.stderr.splitlines() if "how long" in line]
    assert "2 headers do not say" in line
    assert "b.wav, c.wav" in line
    (folder,) = {path.parent for path in tmp_path.rglob("*.npy")}
    made = [path.read_bytes() for path in sorted(folder.glob("*.npy"))]
    assert len(made) == 3
    assert made[0] == made[1] == made[2]


def test_all_caches_are_made_checked_and_repaired_without_a_path(tmp_path: Path, small: list[str]) -> None:
    for what in ("wavlm", "speakers", "content"):
        result = astrape("cache", "--what", what, *small, "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert (found["what"], found["made"], found["failed"]) == (what, 2 if what == "speakers" else 4, [])
        assert found["random"] == (what == "wavlm")
    checked = astrape("check-cache", "--json")
    assert checked.exit_code == 0
    assert [(one["what"], one["items"], one["findings"]) for one in json.loads(checked.stdout)] == [
        ("wavlm", 4, []),
        ("speakers", 2, []),
        ("content", 4, []),
    ]
    sound = arrays(tmp_path / "cache")
    (tmp_path / "cache" / "wavlm_L2_800hz" / "p225" / "p225_001.npy").unlink()
    (tmp_path / "cache" / "content" / "p226" / "p226_002.npy").write_bytes(b"")
    result = astrape("check-cache")
    assert result.exit_code == 1
    assert "p225_001.npy: is missing" in result.stdout
    assert "p226_002.npy: is empty (0 bytes)" in result.stdout
    assert astrape("check-cache", "--speakers-only").exit_code == 0
    assert astrape("check-cache", "--wavlm-only").exit_code == 1
    repaired = astrape("check-cache", "--repair", "--jobs", "2")
    assert repaired.exit_code == 0, repaired.output
    assert "1 made again, 0 left" in repaired.stdout
    assert arrays(tmp_path / "cache") == sound


def test_a_check_from_elsewhere_finds_the_corpus_by_the_caches_record(
    tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert astrape("cache", "--what", "wavlm", *small).exit_code == 0
    (tmp_path / "cache" / "wavlm_L2_800hz" / "p225" / "p225_001.npy").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert astrape("check-cache", "--cache", tmp_path / "cache", "--repair").exit_code == 0
    assert len(arrays(tmp_path / "cache")) == 4
    (tmp_path / "data").rename(tmp_path / "moved")
    result = astrape("check-cache", "--cache", tmp_path / "cache")
    assert result.exit_code == 0
    assert "no corpus is known" in result.stderr
    assert astrape("check-cache", "--cache", tmp_path / "cache", "--data", tmp_path / "moved").exit_code == 0
    assert "--data" in astrape("check-cache", "--cache", tmp_path / "cache", "--repair").stderr


def test_faults_are_told_at_the_end_and_the_exit_code_says_so(tmp_path: Path, small: list[str]) -> None:
    for number in range(25):
        (tmp_path / "data" / "wav48_silence_trimmed" / "p225" / f"bad_{number}.flac").write_bytes(b"junk")
    result = astrape("cache", "--what", "wavlm", *small)
    assert result.exit_code == 1
    assert "4 of 29 utterances made, 0 were there, 25 faults" in result.stdout
    lines = result.stderr.strip().splitlines()
    assert sum("is not a readable audio file" in line for line in lines) == 20
    assert lines[-1] == "astrape: and 5 more (--json lists all)"
    found = json.loads(astrape("cache", "--what", "wavlm", *small, "--json").stdout)
    assert len(found["failed"]) == 25
    assert found["there"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cache", "--what", "wavlm", "--data", "nowhere"], "no such folder or manifest"),
        (["cache", "--what", "wavlm", "--device", "tpu"], "there is cpu, cuda"),
        (["cache", "--what", "wavlm", "--recipe", "wavetable"], "there is no recipe"),
        (["cache", "--what", "wavlm", "--recipe", "echo"], "does not say where training enters"),
        (["cache", "--what", "content", "--recipe", "echo"], "names no teacher"),
        (["cache", "--what", "content", "--teacher", "owl"], "there is no teacher 'owl'"),
        (["cache", "--what", "content", "--teacher", "spectral", "--teacher-dir", "x"], "no parameter 'folder'"),
        (["cache", "--what", "wavlm", "--wavlm", "none.safetensors"], "none.safetensors"),
        (["cache", "--what", "mel"], "'mel'"),
        (["check-cache"], "holds no cache"),
        (["check-cache", "--wavlm-only", "--wavlm-dir", "none"], "holds no cache"),
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, small: list[str], words: list[str], said: str) -> None:
    result = astrape(*words)
    assert result.exit_code in (1, 2)
    (line,) = result.stderr.strip().splitlines()
    assert said in line
    assert "fault in astrape" not in line
    assert not list(tmp_path.rglob("*.npy"))


def test_a_folder_of_another_kind_is_told(small: list[str]) -> None:
    assert astrape("cache", "--what", "content", *small).exit_code == 0
    result = astrape("check-cache", "--wavlm-only", "--wavlm-dir", "content")
    assert "is a cache of content: name it with --content-dir" in result.stderr


def test_an_absent_device_is_replaced_with_a_notice(small: list[str]) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    result = astrape("cache", "--what", "wavlm", *small, "--device", "mps", "--limit", 1)
    assert result.exit_code == 0
    assert "device 'mps' is absent here: running on the CPU" in result.stderr


def test_a_command_that_is_killed_goes_on(tmp_path: Path) -> None:
    vctk(tmp_path / "data", speakers=4, utterances=12)
    words = ["astrape.cache", "--what", "wavlm", "--recipe", recipe(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", *words], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not arrays(tmp_path / "cache") and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.Random().uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = arrays(tmp_path / "cache")
    assert done
    for name in done:
        assert np.isfinite(read_array(tmp_path / "cache" / name, np.float32, 8)).all()
    again = module(*words, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["there"] >= len(done)
    assert found["made"] + found["there"] == 48
    assert done.items() <= arrays(tmp_path / "cache").items()


def test_files_that_the_system_refuses_to_write_are_named(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    vctk(tmp_path / "data", speakers=1, utterances=2)
    limited = (
        "import resource, runpy\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "runpy.run_module('astrape.cache', run_name='__main__', alter_sys=True)"
    )
    refused = run_program(limited, "--what", "wavlm", "--recipe", str(recipe(tmp_path)), cwd=tmp_path)
    assert refused.returncode == 1
    line = refused.stderr.strip().splitlines()[-1]
    assert line.startswith("astrape: ")
    assert "file too large" in line
    assert "run the same command again" in line
    assert [path.name for path in (tmp_path / "cache").rglob("*.writing*")] == []
    assert not arrays(tmp_path / "cache")


@pytest.mark.parametrize("name", ["cache", "check-cache"])
def test_help_has_an_example(name: str) -> None:
    result = astrape(name, "--help")
    assert result.exit_code == 0
    assert f"astrape {name} --" in result.output
