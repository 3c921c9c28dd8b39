"""astrape-mini exported: real speech in random chunks through the runner, beside a session, and the command."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import astrape
from astrape.audio.whole import read_mono
from astrape.blocks import Stream
from astrape.blocks.resample import Resampler
from astrape.cli import cli
from astrape.runtime.portable import PortableSession
from astrape.voice.shipped import shipped_voices
from astrape.voice.voicebank import read_voicebank
from tests.runtime.exports import decibels, streamed

SECONDS = 5

pytestmark = pytest.mark.timeout(900)
"""An export takes some 15 s of computing, on a machine that may do ten other things."""


@pytest.fixture(scope="module")
def folder(mini_export: Path) -> Path:
    return mini_export


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with resources.as_file(resources.files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as path:
        samples, rate = read_mono(path)
    whole = Resampler(Stream(rate, 1), rate=44100)(torch.from_numpy(samples)[None, None])
    return whole[..., : SECONDS * 44100 // 441 * 441].numpy()


def test_latency_at_the_host_is_that_of_the_graph(folder: Path) -> None:
    graph, session = astrape.load("astrape-mini"), PortableSession(folder)
    assert {name: port.host for name, port in session.export.outputs.items()} == graph.host_latencies


def test_speech_comes_out_as_from_a_session(folder: Path, speech: np.ndarray) -> None:
    """Two voices, one after the other, of one export."""
    graph = astrape.load("astrape-mini")
    voices = [read_voicebank(shipped_voices()[name]) for name in ("emma", "michael")]
    portable, session = PortableSession(folder), graph.stream(chunk=441)
    for seed, voice in enumerate(voices):
        controls = {"speaker": np.asarray(voice.embedding, np.float32), "register": 110.0 + 90 * seed}
        got = streamed(portable, speech, 3000, seed, **controls)
        want = streamed(session, speech, 442, seed, **{name: torch.tensor(v) for name, v in controls.items()})
        assert np.array_equal(got["f0"] > 0, want["f0"] > 0)
        assert decibels(got["content"], want["content"]) < -100
        assert decibels(got["f0"], want["f0"]) < -110
        # The phase of the pulses is a sum over time of F0, whose last bits differ: see docs/export.md.
        turns = np.cumsum(got["f0"].astype(float) - want["f0"].astype(float)) / 100
        assert np.abs(turns).max() < 1e-3
        assert decibels(got["wav"][..., :44100], want["wav"][..., :44100]) < -40
        portable.reset()
        session.reset()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["astrape-mini", "--chunk", "15"], "--chunk must be a whole multiple of the quantum, 10 ms, not 15"),
        (["astrape-mini", "--chunk", "nan"], "--chunk must be a whole multiple of the quantum, 10 ms, not nan"),
        (["astrape-mini", "--chunk", "inf"], "--chunk must be a whole multiple of the quantum, 10 ms, not inf"),
        (["astrape-mini", "--batch", "0"], "batch"),
        (["nothing"], "nothing"),
    ],
)
def test_wrong_use_is_told_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["export", *arguments, "-o", str(tmp_path / "out")])
    assert done.exit_code != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
