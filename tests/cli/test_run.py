"""``astrape run``: lengths, rates, channels, alignment, and everything that can be wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter

from tests.cli.audio import astrape, fails, noise, read, write


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize("frames", [0, 1, 441, 5001])
def test_output_has_the_inputs_length_and_rate(tmp_path: Path, identity: Path, rate: int, frames: int) -> None:
    source = write(tmp_path / "in.wav", noise(frames), rate)
    result = astrape("run", identity, source, tmp_path / "out.wav")
    assert result.exit_code == 0, result.output
    samples, got = read(tmp_path / "out.wav")
    assert (len(samples), got) == (frames, rate)


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 96000])
def test_output_is_aligned_to_the_sample(tmp_path: Path, identity: Path, rate: int) -> None:
    time = np.arange(rate) / rate
    x = sum(0.2 * np.sin(2 * np.pi * f * time + f) for f in (230.0, 970.0, 2900.0)).astype(np.float32)[:, None]
    astrape("run", identity, write(tmp_path / "in.wav", x, rate), tmp_path / "out.wav")
    y, _ = read(tmp_path / "out.wav")
    inside = slice(rate // 20, -rate // 20)
    assert np.abs(y - x)[inside].max() < 2e-4
    # One sample off would be seen.
    assert np.abs(np.roll(y, 1) - x)[inside].max() > 0.01


def test_latency_of_the_graph_is_compensated(tmp_path: Path) -> None:
    x = noise(20_001)
    astrape("run", "dry-wet", write(tmp_path / "in.wav", x, 44100), tmp_path / "out.wav")
    y, _ = read(tmp_path / "out.wav")
    assert y.shape == x.shape
    assert np.abs(y - x).max() < 1e-4


def test_live_latency_is_what_the_report_says(tmp_path: Path) -> None:
    x = noise(9_000)
    source = write(tmp_path / "in.wav", x, 44100)
    astrape("run", "dry-wet", source, tmp_path / "out.wav", "--live-latency")
    late = json.loads(astrape("report", "dry-wet", "--json").stdout)["host_samples"]
    y, _ = read(tmp_path / "out.wav")
    assert len(y) == len(x) + late
    assert np.abs(y[:late]).max() < 1e-6
    assert np.abs(y[late:] - x).max() < 1e-4


@pytest.mark.parametrize("chunk", ["0.0227", "3.7", "10", "2000"])
def test_echo_equals_a_recursive_filter_whatever_the_chunk(tmp_path: Path, chunk: str) -> None:
    x = noise(3_000 if chunk == "0.0227" else 40_000)
    source = write(tmp_path / "in.wav", x, 44100)
    result = astrape("run", "echo", source, tmp_path / "out.wav", "--set", "feedback=0.7", "--chunk", chunk)
    assert result.exit_code == 0, result.output
    feedback = np.zeros(11026)
    feedback[0], feedback[-1] = 1, -0.7
    y, _ = read(tmp_path / "out.wav")
    assert np.abs(y[:, 0] - lfilter([1.0], feedback, x[:, 0].astype(np.float64))).max() < 1e-5


def test_stereo_is_mixed_for_one_channel_and_one_channel_is_copied_for_two(tmp_path: Path, identity: Path) -> None:
    x = noise(2_000, channels=2)
    source = write(tmp_path / "in.wav", x, 44100)
    astrape("run", identity, source, tmp_path / "mono.wav")
    mono, _ = read(tmp_path / "mono.wav")
    assert np.abs(mono[:, 0] - x.mean(axis=1)).max() < 1e-6
    astrape("run", "nested", source, tmp_path / "stereo.wav", "--set", "width=0", "--set", "right/depth=0")
    stereo, _ = read(tmp_path / "stereo.wav")
    assert stereo.shape == (2_000, 2)
    assert np.abs(stereo - mono).max() < 1e-6


def test_keep_rate_writes_the_recipes_rate(tmp_path: Path, identity: Path) -> None:
    source = write(tmp_path / "in.wav", noise(8_001), 16000)
    result = astrape("run", identity, source, tmp_path / "out.flac", "--keep-rate", "--json")
    samples, rate = read(tmp_path / "out.flac")
    assert rate == 44100
    assert len(samples) == -(-8_001 * 44100 // 16000)
    facts = json.loads(result.stdout)
    assert facts["frames_out"] == len(samples)
    assert facts["rate_out"] == 44100


@pytest.mark.parametrize(
    ("ending", "subtype", "got"),
    [("wav", "PCM_24", "PCM_24"), ("wav", "FLOAT", "FLOAT"), ("flac", "FLOAT", "PCM_16"), ("ogg", "PCM_16", "VORBIS")],
)
def test_formats_keep_the_subtype_they_have(
    tmp_path: Path, identity: Path, ending: str, subtype: str, got: str
) -> None:
    source = write(tmp_path / "in.wav", noise(4_410), 44100, subtype)
    astrape("run", identity, source, tmp_path / f"out.{ending}")
    assert soundfile.info(tmp_path / f"out.{ending}").subtype == got
    assert soundfile.info(tmp_path / f"out.{ending}").frames == 4_410


@pytest.mark.parametrize("ending", ["mp3", "ogg", "flac", "aiff"])
def test_compressed_sources_are_read(tmp_path: Path, identity: Path, ending: str) -> None:
    source = tmp_path / f"in.{ending}"
    soundfile.write(source, noise(4_410), 44100)
    result = astrape("run", identity, source, tmp_path / "out.wav", "--json")
    assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "out.wav").subtype == "PCM_16"
    assert json.loads(result.stdout)["frames_out"] == soundfile.info(source).frames


def test_several_outputs_the_audio_one_is_taken(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", noise(4_410), 44100)
    assert astrape("run", "multirate", source, tmp_path / "out.wav").exit_code == 0
    fails(astrape("run", "multirate", source, tmp_path / "o.wav", "--output", "features"), "features")
    fails(astrape("run", "multirate", source, tmp_path / "o.wav", "--output", "nope"), "nope", "wav")
    fails(astrape("run", "tiny-encoder", source, tmp_path / "o.wav"), "audio output")


def test_clipping_is_counted_and_told(tmp_path: Path, identity: Path) -> None:
    x = np.zeros((100, 1), np.float32)
    x[10:13, 0] = 0.5, -0.6, 0.3
    source = write(tmp_path / "in.wav", x, 44100, "PCM_16")
    result = astrape("run", identity, source, tmp_path / "out.wav", "--set", "level=3", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["clipped"] == 2
    assert "2 samples clipped" in result.stderr
    y, _ = read(tmp_path / "out.wav")
    assert y[10:13, 0] == pytest.approx([1, -1, 0.9], abs=1e-4)


def test_what_is_not_finite_is_told_and_silent(tmp_path: Path, identity: Path) -> None:
    x = noise(2_000)
    x[1000, 0], x[1001, 0] = np.nan, np.inf
    result = astrape("run", identity, write(tmp_path / "in.wav", x, 44100), tmp_path / "out.wav")
    assert result.exit_code == 0
    assert "2 samples are not finite (the first at 0.023 s)" in result.stderr
    y, _ = read(tmp_path / "out.wav")
    assert np.abs(y[1000:1002]).max() == 0
    assert np.abs(y[1002:] - x[1002:]).max() < 1e-6


def test_output_that_is_not_finite_is_told_with_its_place_and_the_level_of_the_input(
    tmp_path: Path, identity: Path
) -> None:
    x = noise(2_000)
    x[882:] = 2e38
    source, out = write(tmp_path / "in.wav", x, 44100, "FLOAT"), tmp_path / "out.wav"
    result = astrape("run", identity, source, out, "--set", "level=3")
    fails(result, "in.wav: 'identity' gave output that is not finite, 'wav' from 0.020 s on", "766.0 dB", "hint: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (2_000_000_000, "rate 2000000000 Hz is out of range: give at most 1000000000 Hz"),
        (999_999_937, "whose table would take 366211 MiB (at most 64)"),
    ],
)
def test_a_rate_that_no_resampler_takes_is_told_with_the_file(
    tmp_path: Path, identity: Path, rate: int, said: str
) -> None:
    source = write(tmp_path / "in.wav", noise(100), rate)
    result = astrape("run", identity, source, tmp_path / "out.wav")
    fails(result, f"in.wav: {rate} Hz cannot be brought to 44100 Hz: ", said)
    assert "<dict>" not in result.stderr


def test_an_output_that_is_no_audio_is_told_by_its_name(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", noise(100), 44100)
    result = astrape("run", "multirate", source, tmp_path / "out.wav", "--output", "features")
    fails(result, "output 'features' of 'multirate' runs at 50 Hz and is not audio (choose from: wav)")


def test_a_range_of_large_whole_numbers_is_told_to_the_last_digit(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", noise(100), 44100)
    words = ("convert", source, tmp_path / "out.wav", "--target", "emma", "--set", "seed=16777216")
    fails(astrape(*words), "control 'seed' is 16777216, above 16777215: give at least 0 and at most 16777215")


def test_controls_must_fit(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", noise(100), 44100)
    out = tmp_path / "out.wav"
    fails(astrape("run", "echo", source, out, "--set", "feedbck=0.1"), "did you mean 'feedback'")
    fails(astrape("run", "echo", source, out, "--set", "feedback=2"), "0.95")
    fails(astrape("run", "echo", source, out, "--set", "feedback=loud"), "NAME=NUMBER")
    fails(astrape("run", "echo", source, out, "--set", "feedback=nan"), "NAME=NUMBER")
    fails(astrape("run", "echo", source, out, "--set", "feedback"), "NAME=NUMBER")
    fails(astrape("run", "echo", source, out, "--set", "feedback=0.1,0.2"), "feedback")
    fails(astrape("run", "echo", source, out, "--set", "feedback=0.1", "--set", "feedback=0.2"), "twice")
    assert not out.exists()


def test_files_must_be_audio(tmp_path: Path, identity: Path) -> None:
    out = tmp_path / "out.wav"
    empty, text = tmp_path / "empty.wav", tmp_path / "text.wav"
    empty.write_bytes(b"")
    text.write_text("this is not audio")
    fails(astrape("run", identity, tmp_path / "none.wav", out), "none.wav", "no such file")
    fails(astrape("run", identity, empty, out), "empty")
    fails(astrape("run", identity, text, out), "not a readable audio file")
    fails(astrape("run", identity, tmp_path, out), "folder")
    whole = write(tmp_path / "whole.flac", noise(44_100), 44100, "PCM_16")
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole.read_bytes()[:20_000])
    result = astrape("run", identity, cut, out)
    assert result.exit_code == 1 or "before its header says" in result.stderr


def test_targets_must_be_writable(tmp_path: Path, identity: Path) -> None:
    source = write(tmp_path / "in.wav", noise(100), 44100)
    fails(astrape("run", identity, source, tmp_path / "nowhere" / "out.wav"), "nowhere", "no folder")
    fails(astrape("run", identity, source, tmp_path / "out.doc"), "ending")
    fails(astrape("run", identity, source, tmp_path / "out"), "ending")
    fails(astrape("run", identity, source, source), "is the input itself")
    link = tmp_path / "link.wav"
    link.symlink_to(source)
    fails(astrape("run", identity, source, link), "is the input itself")
    folder = tmp_path / "folder.wav"
    folder.mkdir()
    fails(astrape("run", identity, source, folder), "not a regular file")
    fast = write(tmp_path / "fast.wav", noise(100), 96000)
    fails(astrape("run", identity, fast, tmp_path / "out.mp3"), "96000 Hz")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"identity.yaml", "in.wav", "link.wav", "folder.wav", "fast.wav"}


def test_a_failed_run_leaves_an_old_target_alone(tmp_path: Path, identity: Path) -> None:
    source = write(tmp_path / "in.wav", noise(100), 44100)
    old = write(tmp_path / "out.wav", noise(50, seed=1), 44100)
    before = old.read_bytes()
    fails(astrape("run", identity, source, old, "--set", "level=99"))
    assert old.read_bytes() == before
    assert astrape("run", identity, source, old).exit_code == 0
    assert len(read(old)[0]) == 100


@pytest.mark.parametrize("chunk", ["0", "-1", "nan", "1e9", "ten"])
def test_chunks_must_be_sensible(tmp_path: Path, identity: Path, chunk: str) -> None:
    source = write(tmp_path / "in.wav", noise(100), 44100)
    fails(astrape("run", identity, source, tmp_path / "out.wav", "--chunk", chunk), "chunk")


@pytest.mark.parametrize(("chunk", "frames"), [("0.00001", "0.000441"), ("0.01", "0.441"), ("0.022", "0.97")])
def test_a_chunk_below_one_frame_is_refused_with_its_frames(
    tmp_path: Path, identity: Path, chunk: str, frames: str
) -> None:
    """Each push costs the same, so that a chunk of one frame takes minutes, and less than a frame is not a chunk."""
    source = write(tmp_path / "in.wav", noise(100), 44100)
    out = tmp_path / "out.wav"
    words = ("a chunk of", f"is {frames} frames at 44100 Hz", "hint: --chunk 10, or 0.0227 for one frame at a time")
    fails(astrape("run", identity, source, out, "--chunk", chunk), *words)
    assert not out.exists()
    assert astrape("run", identity, source, out, "--chunk", "0.0227").exit_code == 0


def test_weights_must_fit(tmp_path: Path, identity: Path) -> None:
    source = write(tmp_path / "in.wav", noise(100), 44100)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"nothing of the kind")
    fails(astrape("run", identity, source, tmp_path / "o.wav", "--weights", weights), "safetensors")
