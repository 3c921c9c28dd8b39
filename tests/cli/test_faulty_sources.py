"""Faulty sources are reported: cut short, longer than announced, channels that cancel, unknown formats."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from astrape.cli import cli
from tests.cli.audio import astrape, fails, noise, read, write


def test_a_wav_that_is_cut_short_is_told_by_how_much(tmp_path: Path, identity: Path) -> None:
    whole = write(tmp_path / "in.wav", noise(309_357), 44100, "PCM_16").read_bytes()
    assert len(whole) == 618_758
    (tmp_path / "in.wav").write_bytes(whole[:20_000])
    done = astrape("run", identity, tmp_path / "in.wav", tmp_path / "out.wav", "--json")
    assert done.exit_code == 0
    facts = json.loads(done.stdout)
    assert (facts["frames_out"], facts["missing"], facts["cut"]) == (9978, 309_357 - 9978, True)
    assert "in.wav: ends 6.789 s before its header says: converted what is there" in done.stderr
    struct.pack_into("<I", content := bytearray(whole), 40, 88_200)
    (tmp_path / "less.wav").write_bytes(content)
    done = astrape("run", identity, tmp_path / "less.wav", tmp_path / "out.wav", "--json")
    assert json.loads(done.stdout)["surplus"] == 309_357 - 44_100
    assert "goes on for 6.015 s behind what its header speaks of" in done.stderr


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_header_without_a_length_is_told_in_a_line_and_all_is_read(tmp_path: Path, identity: Path, size: int) -> None:
    x = noise(30_011)
    content = bytearray(write(tmp_path / "whole.wav", x, 44100, "PCM_16").read_bytes())
    struct.pack_into("<I", content, 40, size)
    (tmp_path / "in.wav").write_bytes(content)
    done = astrape("run", identity, tmp_path / "in.wav", tmp_path / "out.wav", "--json")
    assert done.exit_code == 0
    facts = json.loads(done.stdout)
    assert (facts["frames_out"], facts["unsized"], facts["surplus"], facts["missing"]) == (30_011, True, 0, 0)
    (line,) = done.stderr.splitlines()
    assert "does not say how long it is" in line
    assert "0.681 s" in line
    piped = CliRunner().invoke(cli, ["run", str(identity), "-", str(tmp_path / "piped.wav")], input=bytes(content))
    assert piped.exit_code == 0
    np.testing.assert_array_equal(read(tmp_path / "piped.wav")[0], read(tmp_path / "out.wav")[0])
    # In a stream the largest length is how its end is left open: nothing to tell.
    assert piped.stderr.count("does not say how long it is") == (size == 0)


def test_an_empty_wav_is_told_once(tmp_path: Path, identity: Path) -> None:
    write(tmp_path / "in.wav", noise(0), 44100, "PCM_16")
    done = astrape("run", identity, tmp_path / "in.wav", tmp_path / "out.wav")
    (line,) = done.stderr.splitlines()
    assert "holds no samples" in line


def test_channels_that_cancel_are_told_and_one_can_be_taken(tmp_path: Path, identity: Path) -> None:
    x = noise(44_100)
    source = write(tmp_path / "in.wav", np.hstack((x, -x)), 44100)
    done = astrape("run", identity, source, tmp_path / "out.wav", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["cancelled"] == pytest.approx(1, abs=0.06)
    assert "in.wav: its 2 channels cancel each other" in done.stderr
    assert "--channel left" in done.stderr
    for channel, sign in (("left", 1), ("right", -1), ("2", -1)):
        done = astrape("run", identity, source, tmp_path / "out.wav", "--channel", channel)
        assert done.exit_code == 0
        assert "cancel" not in done.stderr
        np.testing.assert_allclose(read(tmp_path / "out.wav")[0], sign * x, atol=1e-6)
    fails(astrape("run", identity, source, tmp_path / "out.wav", "--channel", "3"), "has 2 channels, and no '3'")
    fails(astrape("run", identity, source, tmp_path / "out.wav", "--channel", "centre"), "must be mean, left, right")
    both = write(tmp_path / "both.wav", noise(44_100, 2), 44100)
    assert "cancel" not in astrape("run", identity, both, tmp_path / "out.wav").stderr


def test_a_voice_of_channels_that_cancel_is_refused(tmp_path: Path) -> None:
    x = noise(6 * 16000)
    source = write(tmp_path / "in.wav", np.hstack((x, -x)), 16000)
    words = ("voicebank", "build", source, "-o", tmp_path / "v.astrape", "--encoder", "mel-statistics")
    fails(astrape(*words), "cancel each other", "--channel left")
    assert astrape(*words, "--channel", "left").exit_code == 0
    cut = tmp_path / "cut.wav"
    cut.write_bytes(write(cut, noise(7 * 16000), 16000).read_bytes()[:-40_000])
    fails(astrape("voicebank", "build", cut, *words[3:]), "cut.wav: ends after", "its header says 7.000 s")


def test_m4a_is_read_and_written_as_wav_in_a_folder(tmp_path: Path, identity: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "in.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(44_100).reshape(1, -1), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    done = astrape("run", identity, tmp_path / "in.m4a", tmp_path / "out.wav", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["frames_out"] == pytest.approx(44_100, abs=2200)
