"""Recordings, a voice and a recipe to evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from astrape.voice.metadata import Metadata
from astrape.voice.voicebank import Voicebank, write_voicebank
from tests.voice.conversion_files import delaying
from tests.voice.evaluation.runs import SAMPLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two speakers with two utterances of one second each, one of them with its words, a voice and a recipe."""
    speech, _ = soundfile.read(SAMPLE, dtype="float32")
    for index, name in enumerate(("anna/1", "anna/2", "ben/1", "ben/2")):
        path = tmp_path / "speech" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speech[index * 8000 :][:16000], 16000)
    (tmp_path / "speech" / "anna" / "1.txt").write_text("had he married")
    embedding = np.random.default_rng(0).normal(size=128).astype(np.float32)
    (tmp_path / "voices").mkdir()
    write_voicebank(Voicebank(embedding, _metadata()), tmp_path / "voices" / "p225.astrape")
    (tmp_path / "through.yaml").write_text(delaying(16000, 777))
    return tmp_path


def _metadata() -> Metadata:
    return Metadata(
        duration_seconds=6.0,
        source_sample_rate=16000,
        source_path="ref.wav",
        embedding_model="a model",
        reference_sha256="0" * 64,
        created_utc="2026-01-01T00:00:00+00:00",
        peak_amplitude=0.5,
        rms_dbfs=-20.0,
        clipping_fraction=0.0,
        active_speech_ratio=1.0,
        dc_offset=0.0,
        quality_warnings=(),
    )
