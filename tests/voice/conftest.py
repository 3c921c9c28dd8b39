"""Recordings, voices and weights that tests of conversion share."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import soxr
import torch
from safetensors.torch import save_file

import astrape
from astrape.voice.voicebank import write_voicebank
from tests.voice.conversion_files import SAMPLE, SMALL, THROUGH, voicebank, write


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conversion")


@pytest.fixture(scope="session")
def through(folder: Path) -> Path:
    path = folder / "through.yaml"
    path.write_text(THROUGH)
    return path


@pytest.fixture(scope="session")
def bank(folder: Path) -> Path:
    path = folder / "voice.astrape"
    write_voicebank(voicebank(1), path)
    return path


@pytest.fixture(scope="session")
def speech(folder: Path) -> Path:
    """Two seconds of the sample that ships with astrape, at the graph's own rate."""
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    return write(folder / "speech.wav", soxr.resample(samples[rate : 3 * rate], rate, 44100), 44100)


@pytest.fixture(scope="session")
def weights(folder: Path) -> Path:
    """All of the small twin's, none of them zero: fresh, its speaker says nothing yet."""
    torch.manual_seed(1)
    graph = astrape.load(SMALL)
    seeds = torch.Generator().manual_seed(3)
    drawn = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=seeds) if tensor.is_floating_point() else tensor
        for name, tensor in graph.state_dict().items()
    }
    path = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in drawn.items()}, path)
    return path
