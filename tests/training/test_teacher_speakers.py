"""Teachers as the speaker encoders of voicebanks."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from astrape.training.errors import TeacherError
from astrape.training.teachers import open_teacher
from astrape.training.teachers.speakers import TeacherVoices
from astrape.training.teachers.spectral import SpectralTeacher
from astrape.voice.speaker import SpeakerEncoder, speaker_encoder
from tests.forks import run_program

HERE = "astrape.training.teachers.speakers"


class Wide(SpectralTeacher):
    speaker_channels = 256


def test_a_teacher_embeds_as_it_does_by_itself() -> None:
    teacher = open_teacher("spectral")
    voices = TeacherVoices(teacher)
    audio = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    assert isinstance(voices, SpeakerEncoder)
    assert (voices.name, voices.sample_rate) == (teacher.name, 16000)
    assert torch.equal(voices.embed(audio), teacher.speaker(audio.reshape(1, 1, -1))[0])


def test_another_width_than_that_of_voicebanks_is_refused() -> None:
    with pytest.raises(TeacherError, match="gives 256 numbers for a speaker, and voicebanks hold 128"):
        TeacherVoices(Wide())


def test_the_offline_one_is_found_by_name() -> None:
    pytest.importorskip("hama")
    pytest.importorskip("resemblyzer")
    encoder = speaker_encoder(f"{HERE}:offline")
    with resources.as_file(resources.files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as path:
        samples, _ = soundfile.read(path, dtype="float32")
    embedding: Tensor = encoder.embed(torch.from_numpy(samples[:32000]))
    assert embedding.shape == (128,)
    assert embedding.dtype == torch.float32
    assert bool(torch.isfinite(embedding).all())


def test_miocodecs_without_weights_says_what_to_get(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HOME", "TORCH_HOME", "ASTRAPE_TEACHERS"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(TeacherError, match=r"hf download Aratako/MioCodec-25Hz-44\.1kHz-v2"):
        speaker_encoder(f"{HERE}:miocodec")


def test_voices_import_nothing_of_training() -> None:
    code = (
        "import sys, astrape.voice.speaker, astrape.voice.building\n"
        "print([name for name in sys.modules if name.startswith(('astrape.training', 'transformers', 'hama'))])"
    )
    done = run_program(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_teacher_itself_is_in_the_space_of_its_student() -> None:
    pytest.importorskip("resemblyzer", reason="resemblyzer is not installed")
    from resemblyzer import VoiceEncoder, preprocess_wav

    from astrape.training.teachers.resemblyzer import directions
    from astrape.voice.spaces import Space

    encoder = speaker_encoder("astrape.training.teachers.speakers:resemblyzer")
    assert Space("astrape-speaker").takes(encoder.name)
    samples = 0.1 * np.random.default_rng(0).normal(size=32000).astype(np.float32)
    heard = preprocess_wav(samples.copy())
    whole = VoiceEncoder("cpu", verbose=False).embed_utterance(heard if len(heard) > 8000 else samples)
    np.testing.assert_allclose(encoder.embed(torch.from_numpy(samples))[:96].numpy(), directions() @ whole, atol=1e-5)
