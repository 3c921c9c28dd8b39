"""Resemblyzer as a teacher of speakers alone."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch

from astrape.training.errors import TeacherError
from astrape.training.teachers import open_teacher
from astrape.training.teachers.resemblyzer import directions
from astrape.voice.own_encoder import AstrapeSpeaker


def test_directions_are_orthonormal_and_those_of_the_corpus() -> None:
    """The corpus's vectors were made so: the first factor of the QR decomposition of NumPy's normal numbers."""
    drawn = np.random.default_rng(0).standard_normal((256, 128))
    expected = np.linalg.qr(drawn)[0].T[:96]
    assert np.array_equal(directions(), expected)
    assert np.abs(expected @ expected.T - np.eye(96)).max() < 1e-12


def test_directions_keep_three_eighths_of_a_distance() -> None:
    vectors = np.abs(np.random.default_rng(1).normal(size=(200, 256)))
    kept = np.linalg.norm((vectors[1:] - vectors[:-1]) @ directions().T, axis=1) ** 2
    whole = np.linalg.norm(vectors[1:] - vectors[:-1], axis=1) ** 2
    assert (kept / whole).mean() == pytest.approx(0.375, abs=0.01)


def test_it_hears_who_speaks_and_nothing_else() -> None:
    resemblyzer = pytest.importorskip("resemblyzer")
    teacher = open_teacher("resemblyzer")
    draw = np.random.default_rng(3)
    speech = (0.1 * draw.standard_normal(24000)).astype(np.float32)
    found = teacher.speaker(torch.from_numpy(speech).reshape(1, 1, -1))
    heard = resemblyzer.preprocess_wav(speech.copy())
    own = resemblyzer.VoiceEncoder("cpu", verbose=False).embed_utterance(heard if len(heard) > 8000 else speech)
    np.testing.assert_allclose(found[0, :96].numpy(), directions() @ own, atol=1e-6)
    tone = AstrapeSpeaker().embed(torch.from_numpy(soxr.resample(speech, 16000, 44100)))[96:]
    np.testing.assert_allclose(found[0, 96:].numpy(), tone.numpy(), atol=0.01)
    assert tone.abs().max() > 0.05
    with pytest.raises(TeacherError, match="silent"):
        teacher.speaker(torch.zeros(1, 1, 16000))
    for refused in (teacher.content, teacher.codes):
        with pytest.raises(TeacherError, match="hears who speaks, and not what is said"):
            refused(torch.zeros(1, 1, 16000))
    with pytest.raises(TeacherError, match="no decoder"):
        teacher.decode(torch.zeros(1, 1, 5), torch.zeros(1, 128))
