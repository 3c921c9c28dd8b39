"""Every example runs as its first lines say, in a process of its own, from any folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.forks import run_module, run_script

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

RUNS = {
    "own_block.py": ([], "features │ mel"),
    "wrap_torch_layer.py": ([], "CentredConv breaks it: look-ahead: "),
    "stream_generator.py": (["--seconds", "0.5"], "8000 samples at 16000 Hz in, 22050 at 44100 Hz out"),
    "nesting/run.py": ([], "near/peak/1"),
    "istft_head.py": ([], "latency 15 ms, 240 samples"),
    "serve.py": (
        ["--try", "2", "--rows", "2", "--seconds", "0.5", "--port", "0"],
        "emma: 22050 samples said, 22050 heard, 3086 late",
    ),
    "train_tiny.py": (["--steps", "12"], "a host waits 39 samples, 2.44 ms"),
}


def run(script: Path, *arguments: str, cwd: Path) -> str:
    done = run_script(script, *arguments, cwd=cwd, environment=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs_and_shows_what_it_is_for(name: str, tmp_path: Path) -> None:
    arguments, shown = RUNS[name]
    assert shown in run(EXAMPLES / name, *arguments, cwd=tmp_path)


def test_the_block_of_ones_own_is_a_test_file_too(tmp_path: Path) -> None:
    options = ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = run_module("pytest", *options, str(EXAMPLES / "own_block.py"), cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stderr


def test_no_example_is_left_out() -> None:
    scripts = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    assert scripts == set(RUNS)


def test_what_streams_from_the_generator_is_written(tmp_path: Path) -> None:
    import soundfile

    source = tmp_path / "in.wav"
    soundfile.write(source, [[0.0, 0.0]] * 4000, 48000)
    run(EXAMPLES / "stream_generator.py", str(source), "out.wav", cwd=tmp_path)
    assert soundfile.info(tmp_path / "out.wav").frames == 3675
