"""The teacher from packages: without network, on real speech, at the right time, and as the packages say."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from fractions import Fraction
from importlib import resources

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional

from astrape.training.errors import TeacherError
from astrape.training.teachers import Teacher, open_teacher
from astrape.training.teachers.offline import OfflineTeacher, projection

hama = pytest.importorskip("hama")
resemblyzer = pytest.importorskip("resemblyzer")


@pytest.fixture(scope="module")
def speech() -> Tensor:
    with resources.as_file(resources.files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as path:
        samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000
    return torch.from_numpy(samples[: 3 * rate]).reshape(1, 1, -1)


@pytest.fixture(scope="module")
def teacher() -> Iterator[OfflineTeacher]:
    """Opened and used with every way to a network closed."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("the offline teacher asked for the network")

        patch.setattr(socket, "socket", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        found = open_teacher("offline")
        assert isinstance(found, OfflineTeacher)
        yield found


def alike(one: Tensor, other: Tensor) -> float:
    return functional.cosine_similarity(one, other, dim=1).mean().item()


def test_it_is_a_teacher_and_names_the_versions(teacher: OfflineTeacher) -> None:
    assert isinstance(teacher, Teacher)
    assert (teacher.sample_rate, teacher.content_rate, teacher.content_channels) == (16000, Fraction(25), 191)
    assert "hama 1." in teacher.name
    assert "resemblyzer 0." in teacher.name
    assert (teacher.code_count, teacher.decodes) == (None, False)


def test_content_is_the_recognisers_evidence(teacher: OfflineTeacher, speech: Tensor) -> None:
    """From its own log-probabilities, frame by frame; the symbols that it recognises are the highest in their frame."""
    content = teacher.content(speech)
    model = hama.ASRModel()
    samples = speech[0, 0].numpy()
    feeds = {"waveform": samples[None], "waveform_lengths": np.array([len(samples)])}
    (logs,) = model.session.run(["log_probs"], feeds)
    ratios = [frame - frame.mean() for frame in logs[0].astype(np.float64)]
    expected = np.stack([(ratios[2 * j] + 2 * ratios[2 * j + 1] + ratios[2 * j + 2]) / 4 for j in range(75)])
    expected = (expected - expected.mean(0)) / 3
    np.testing.assert_allclose(content[0].T, expected, atol=1e-5)
    assert content.shape == (1, 191, 75)
    result = model(samples, 16000)
    assert result.phoneme_text.startswith("h æ d h i m ɛ ɹ i d")
    blank = model.blank_id
    for frame, token in enumerate(result.frame_token_ids[1:-1:2]):
        if token != blank:
            rank = int((content[0, :, frame] > content[0, token, frame]).sum())
            assert rank < 12, (frame, model.decoder_tokens[token])


def test_frames_stand_where_they_say(teacher: OfflineTeacher, speech: Tensor) -> None:
    """A burst of noise changes the frame it is in more than any other."""
    rng = np.random.default_rng(0)
    speech = speech[..., :32000]
    before = teacher.content(speech)
    change = torch.zeros(50)
    for frame in range(10, 40, 5):
        burst = speech.clone()
        burst[0, 0, frame * 640 + 160 : frame * 640 + 480] += torch.from_numpy(rng.normal(0, 0.1, 320)).float()
        change += (teacher.content(burst) - before).abs().mean((0, 1)).roll(25 - frame)
    assert int(change.argmax()) == 25


@pytest.mark.parametrize("samples", [640, 641, 959, 960, 1279, 1280, 16000])
def test_one_frame_for_each_whole_40_ms(teacher: OfflineTeacher, speech: Tensor, samples: int) -> None:
    found = teacher.content(speech[..., 8000 : 8000 + samples])
    assert found.shape[2] == samples // 640
    assert bool(torch.isfinite(found).all())


def test_sound_and_not_level_is_what_counts(teacher: OfflineTeacher, speech: Tensor) -> None:
    content = teacher.content(speech)
    assert alike(teacher.content(speech * 0.2), content) > 0.95
    assert alike(content[..., 10:], content[..., :-10]) < 0.3


def test_a_batch_gives_what_its_items_give(teacher: OfflineTeacher, speech: Tensor) -> None:
    both = torch.cat((speech[..., :16000], speech[..., 16000:32000]))
    content, codes = teacher.encode(both)
    assert codes is None
    assert torch.equal(content[1:], teacher.content(both[1:]))
    assert torch.equal(teacher.speaker(both)[1:], teacher.speaker(both[1:]))


def test_speakers_are_resemblyzers_on_the_projection(teacher: OfflineTeacher, speech: Tensor) -> None:
    encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)
    embedded = encoder.embed_utterance(resemblyzer.preprocess_wav(speech[0, 0].numpy()))
    found = teacher.speaker(speech)
    np.testing.assert_allclose(found[0], projection() @ embedded, atol=1e-6)
    halves = teacher.speaker(torch.cat((speech[..., :24000], speech[..., 24000:])))
    noise = 0.1 * torch.randn(1, 1, 24000, generator=torch.Generator().manual_seed(0))
    assert alike(halves[:1], halves[1:]) > alike(teacher.speaker(noise), halves[:1]) + 0.2


def test_the_projection_is_orthonormal_and_fixed() -> None:
    basis = projection()
    np.testing.assert_allclose(basis @ basis.T, np.eye(128), atol=1e-12)
    assert np.array_equal(basis, projection())
    # What a voicebank was built with must be what a later one is built with.
    assert basis[0, :3] == pytest.approx([-0.06867498225174473, -0.005774187859918047, -0.03107212426718888], abs=1e-12)


def test_silence_and_pauses(teacher: OfflineTeacher) -> None:
    with pytest.raises(TeacherError, match="silent: there is no voice"):
        teacher.speaker(torch.zeros(1, 1, 16000))
    hiss = 1e-4 * torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(teacher.speaker(hiss)).all())
    assert bool(torch.isfinite(teacher.content(torch.zeros(1, 1, 16000))).all())


def test_what_it_cannot_do_is_said(teacher: OfflineTeacher) -> None:
    with pytest.raises(TeacherError, match="no decoder: a recogniser only hears"):
        teacher.decode(torch.zeros(1, 191, 5), torch.zeros(1, 128))
    with pytest.raises(TeacherError, match="no codes"):
        teacher.codes(torch.zeros(1, 1, 16000))
    with pytest.raises(TeacherError, match=r"0.25 s to 3600 s of audio at once, not 0.1 s"):
        teacher.speaker(torch.zeros(1, 1, 1600))


@pytest.mark.parametrize("package", ["hama", "resemblyzer"])
def test_missing_packages_are_named_with_the_line_that_gets_them(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TeacherError, match=rf'takes the package {package}; hint: pip install "astrape\[teachers'):
        open_teacher("offline")


def test_a_package_that_lacks_another_is_told_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "resemblyzer"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    with pytest.raises(
        TeacherError, match=r"resemblyzer in teacher 'offline' takes the package webrtcvad; hint: pip install "
    ):
        open_teacher("offline")
    monkeypatch.delitem(sys.modules, "webrtcvad")
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(TeacherError, match=r'gone from setuptools 81; hint: pip install "setuptools<81"'):
        open_teacher("offline")
