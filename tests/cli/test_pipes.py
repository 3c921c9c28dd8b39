"""``-`` for standard input and output: a stream between two other programs, as live as they are."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from click.testing import CliRunner

from astrape.audio.pcm import Pcm, encoded, wav_header
from astrape.cli import cli
from tests.cli.audio import astrape, fails, noise, read, write

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_pipe_gives_what_a_file_gives(tmp_path: Path, identity: Path) -> None:
    source = write(tmp_path / "in.wav", noise(20_001, 2), 48000, "PCM_16")
    assert astrape("run", identity, source, tmp_path / "out.wav").exit_code == 0
    wanted, _ = read(tmp_path / "out.wav")
    through = CliRunner().invoke(cli, ["run", str(identity), "-", "-", "--json"], input=source.read_bytes())
    assert through.exit_code == 0, through.stderr
    (tmp_path / "through.wav").write_bytes(through.stdout_bytes)
    found, rate = read(tmp_path / "through.wav")
    assert rate == 48000
    assert soundfile.info(tmp_path / "through.wav").subtype == "PCM_16"
    np.testing.assert_allclose(found, wanted, atol=2 / 32768)
    assert len(found) == 20_001
    assert '"frames_out": 20001' in through.stderr
    words = ["run", str(identity), "-", "-", "--from", "s16le:48000:2", "--to", "f32le"]
    raw = CliRunner().invoke(cli, words, input=source.read_bytes()[44:])
    assert raw.exit_code == 0, raw.stderr
    np.testing.assert_allclose(np.frombuffer(raw.stdout_bytes, "<f4")[:, None], wanted, atol=1 / 32768)
    # And one end of it a file.
    half = CliRunner().invoke(cli, ["run", str(identity), "-", str(tmp_path / "half.flac")], input=source.read_bytes())
    assert half.exit_code == 0, half.stderr
    assert soundfile.info(tmp_path / "half.flac").frames == 20_001
    other = CliRunner().invoke(cli, ["run", str(identity), str(source), "-", "--to", "s16le"])
    assert len(other.stdout_bytes) == 2 * 20_001


def test_what_is_wrong_with_a_stream_is_said(tmp_path: Path, identity: Path) -> None:
    source = write(tmp_path / "in.wav", noise(1000), 44100, "PCM_16").read_bytes()
    run = ["run", str(identity)]

    def piped(*words: str, data: bytes) -> str:
        return fails(CliRunner().invoke(cli, [*run, *words], input=data))

    assert "it should be WAV" in piped("-", "-", data=b"")
    assert "--from s16le:48000:1" in piped("-", "-", data=b"fLaC and so on, whatever")
    assert "is not an encoding" in piped("-", "-", "--from", "s17le:8000", data=source)
    assert "of raw samples u8" in piped("-", "-", "--to", "flac", data=source)
    assert "is for standard input" in piped(str(tmp_path / "in.wav"), "-", "--from", "s16le:8000", data=b"")
    assert "is for standard output" in piped("-", str(tmp_path / "o.wav"), "--to", "s16le", data=source)
    cut = CliRunner().invoke(cli, [*run, "-", "-"], input=source[:1044])
    assert cut.exit_code == 0
    assert "standard input: ends 0.011 s before its header says" in cut.stderr


def test_a_stream_is_live_and_ends_when_nobody_listens(tmp_path: Path, identity: Path) -> None:
    """Fed 10 ms at a time in their own time: each comes back before the next but one is there."""
    x = noise(44_100, 1)
    command = [sys.executable, "-m", "astrape", "run", str(identity), "-", "-", "--from", "s16le:44100"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given = encoded(x, "s16le")
    back = b""
    for begin in range(0, 40 * 882, 882):
        process.stdin.write(given[begin : begin + 882])
        # The graph has no latency: 10 ms in, and 10 ms are out, with standard input still open.
        while len(back) < begin + 882 and process.poll() is None:
            if select.select([process.stdout], [], [], 1.0)[0]:
                back += os.read(process.stdout.fileno(), 65536)
        assert len(back) == begin + 882
    assert back == given[: len(back)]
    process.stdout.close()
    try:
        while True:
            process.stdin.write(given)
    except BrokenPipeError:
        pass
    process.stdin.close()
    assert process.wait() == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_full_device_is_told(tmp_path: Path, identity: Path) -> None:
    header = wav_header(Pcm("s16le", 44100, 1)) + encoded(noise(44_100), "s16le")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "astrape", "run", str(identity), "-", "-"],
            input=header, stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT,
        )  # fmt: skip
    assert done.returncode == 1
    assert b"astrape: standard output: cannot be written: no space left on the device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
