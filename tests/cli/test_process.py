"""The command as its own process: interrupts, full disks, memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.audio import noise, write
from tests.forks import run_module, run_program

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_exit_codes_and_debug(tmp_path: Path) -> None:
    command = ("astrape", "run", "echo", "none.wav", "out.wav")
    plain = run_module(*command, cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == "astrape: none.wav: there is no such file\n"
    debug = run_module(*command, "--debug", cwd=tmp_path)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


def test_an_interrupt_is_quiet_and_leaves_nothing(tmp_path: Path, identity: Path) -> None:
    write(tmp_path / "long.wav", noise(44_100 * 120), 44100, "PCM_16")
    command = [sys.executable, "-m", "astrape", "run", str(identity), "long.wav", "out.wav", "--chunk", "0.5"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT
    )
    while not list(tmp_path.glob(".out.wav.*")) and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert (out.strip(), err.strip()) == ("", "astrape: interrupted: OUT is as it was before")
    assert {path.name for path in tmp_path.iterdir()} == {"identity.yaml", "long.wav"}


SMALL_DISK = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
runpy.run_module("astrape", run_name="__main__", alter_sys=True)
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, identity: Path) -> None:
    write(tmp_path / "in.wav", noise(44_100 * 4), 44100, "PCM_16")
    for name in ("out.wav", "out.flac"):
        failed = run_program(SMALL_DISK, "run", str(identity), "in.wav", name, cwd=tmp_path, environment=ENVIRONMENT)
        assert failed.returncode == 1
        assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr
        assert f"{name}: cannot be written" in failed.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"identity.yaml", "in.wav"}


def test_memory_does_not_grow_with_length(tmp_path: Path, identity: Path) -> None:
    script = """
import resource, sys, torch
torch.set_num_threads(1)
import astrape
from astrape.runtime.files import process_file
graph = astrape.load(sys.argv[1])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
process_file(graph, sys.argv[2], "short-out.wav", chunk_ms=200)
before = peak()
process_file(graph, sys.argv[3], "long-out.wav", chunk_ms=200)
print(peak() - before)
"""
    short = write(tmp_path / "short.wav", noise(48_000 * 10), 48000, "PCM_16")
    long = write(tmp_path / "long.wav", noise(48_000 * 300), 48000, "PCM_16")
    done = run_program(script, str(identity), str(short), str(long), cwd=tmp_path, environment=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    # The long file is 58 MB as floats, at each of its two rates.
    assert float(done.stdout) < 15
    assert (tmp_path / "long-out.wav").stat().st_size == long.stat().st_size
