"""A voice of another speaker encoder than the decoder's is refused, and the right one is made unasked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch

import astrape
from astrape.audio.places import Place
from astrape.errors import AstrapeError
from astrape.training.checkpoint import save_weights
from astrape.voice.building import build_voicebank
from astrape.voice.conversion import Converter, convert
from astrape.voice.errors import VoicebankError
from astrape.voice.live import LiveVoice
from astrape.voice.metadata import Metadata
from astrape.voice.names import MIOCODEC, SPEAKER_ENCODER
from astrape.voice.shipped import shipped_voices
from astrape.voice.spaces import Space, check_voice, encoder_for, space_of, space_of_weights
from astrape.voice.voicebank import Voicebank, read_voicebank, write_voicebank
from tests.voice.conversion_files import fails, run, sines, succeeds, voicebank, write

EMMA = shipped_voices()["emma"]
MEL = "astrape/mel-statistics-v1 (untrained)"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, through: Path) -> Path:
    """Weights of two encoders, a source, a reference, and voices of both and of none that is known."""
    folder = tmp_path_factory.mktemp("spaces")
    state = astrape.load(through).state_dict()
    for name, about in {"mel": {SPEAKER_ENCODER: MEL}, "mio": {SPEAKER_ENCODER: MIOCODEC}, "none": {}}.items():
        save_weights(folder / f"{name}.safetensors", state, about)
    write(folder / "in.wav", sines(0.2, 44100), 44100)
    write(folder / "reference.wav", np.random.default_rng(0).normal(0, 0.1, (16000 * 6, 1)), 16000)
    for name, model in {"mel": MEL, "mio": MIOCODEC, "unknown": "", "other": "someone/else-v3"}.items():
        bank = voicebank(1)
        write_voicebank(
            Voicebank(bank.embedding, replace(bank.metadata, embedding_model=model)), folder / f"{name}.astrape"
        )
    return folder


def test_spaces_are_compared_by_model_and_not_by_package_versions() -> None:
    offline = Space("astrape/offline-v1 (hama 1.7, resemblyzer 0.1.4)")
    assert offline.takes("astrape/offline-v1 (hama 1.8, resemblyzer 0.1.4)")
    assert offline.takes("astrape/offline-v1")
    assert not offline.takes("astrape/offline-v2 (hama 1.7, resemblyzer 0.1.4)")
    assert not offline.takes(MEL)
    assert offline.encoder == "offline"
    both = Space("astrape-speaker; astrape/offline-v1")
    assert both.takes("astrape-speaker")
    assert both.takes("astrape/offline-v1 (hama 1.7)")
    assert Space(MIOCODEC).encoder == "miocodec"
    # The encoder that ships is distilled onto the numbers that decoders are trained with; the teacher `offline` has
    # Resemblyzer's on other directions.
    for name in ("resemblyzer", "astrape/resemblyzer-96 (resemblyzer 0.1.4)", "astrape-speaker"):
        assert Space(name).encoder == "astrape-speaker"
        assert Space(name).takes("astrape-speaker")
        assert Space(name).takes("astrape/resemblyzer-96 (resemblyzer 0.1.5)")
        assert not Space(name).takes("astrape/offline-v1 (hama 1.7, resemblyzer 0.1.4)")
    assert Space("of.package:factory").encoder == "of.package:factory"
    assert space_of({}) is space_of({SPEAKER_ENCODER: " ; "}) is None


def test_what_either_side_does_not_say_is_not_refused() -> None:
    about = Metadata(6.0, 44100, "a.wav")
    check_voice(about, Space(MIOCODEC), "a", "w")
    check_voice(replace(about, embedding_model="x"), None, "a", "w")
    with pytest.raises(VoicebankError) as caught:
        check_voice(replace(about, embedding_model="x\ny" * 90), Space(MIOCODEC), "a", "w")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_convert_refuses_with_the_command_that_makes_the_right_one(files: Path, through: Path) -> None:
    words = ("convert", files / "in.wav", "--recipe", through, "-o", files / "out.wav")
    for weights, voice, encoder in (
        ("mio", "mel", "miocodec"),
        ("mel", "mio", "mel-statistics"),
        ("mel", "other", "mel-s"),
    ):
        result = run(*words, "--weights", files / f"{weights}.safetensors", "--target", files / f"{voice}.astrape")
        fails(result, f"{voice}.astrape: is a voice of", f"{weights}.safetensors takes", f"--encoder {encoder}")
        assert "astrape voicebank build" in result.stderr
        assert not (files / "out.wav").exists()
    for weights, voice in (("mel", "mel"), ("mio", "mio"), ("none", "other"), ("mio", "unknown")):
        succeeds(run(*words, "--weights", files / f"{weights}.safetensors", "--target", files / f"{voice}.astrape"))
        (files / "out.wav").unlink()


def test_in_python_too(files: Path, through: Path) -> None:
    converter = Converter.load(through, files / "mio.safetensors")
    with pytest.raises(VoicebankError, match="takes voices of 'Aratako"):
        converter.file(files / "in.wav", files / "python.wav", read_voicebank(files / "mel.astrape"))
    with pytest.raises(VoicebankError, match="--encoder mel-statistics"):
        convert(
            files / "in.wav",
            files / "mio.astrape",
            files / "python.wav",
            recipe=through,
            weights=files / "mel.safetensors",
        )
    assert not (files / "python.wav").exists()


def test_a_recording_is_embedded_by_the_encoder_of_the_weights(files: Path, through: Path) -> None:
    assert encoder_for(None, files / "mel.safetensors") == "mel-statistics"
    assert encoder_for(None, files / "mio.safetensors") == "miocodec"
    assert encoder_for("offline", files / "mio.safetensors") == "offline"
    assert encoder_for(None, files / "none.safetensors") == "mel-statistics"
    space = space_of_weights(files / "mio.safetensors")
    assert space is not None
    assert space.names == (MIOCODEC,)
    bank = build_voicebank(files / "reference.wav", weights=files / "mel.safetensors")
    assert bank.metadata.embedding_model == MEL
    out = files / "made.astrape"
    succeeds(run("voicebank", "build", files / "reference.wav", "--weights", files / "mel.safetensors", "-o", out))
    assert read_voicebank(out).metadata.embedding_model == MEL
    assert read_voicebank(out).metadata.sealed
    # Whose weights are not here, nor the package: it is named, and nothing else is taken in its place.
    result = run("voicebank", "build", files / "reference.wav", "--weights", files / "mio.safetensors", "-o", out)
    assert result.exit_code == 1
    assert "miocodec" in result.stderr.lower()


def test_evaluate_refuses_before_anything_is_converted(files: Path, through: Path) -> None:
    words = ("evaluate", "--source", files / "in.wav", "--target", files / "mel.astrape", "--recipe", through)
    result = run(*words, "--weights", files / "mio.safetensors", "-o", files / "evaluated.wav", "--metrics", "speed")
    fails(result, "mel.astrape: is a voice of", "--encoder miocodec")
    assert not (files / "evaluated.wav").exists()


@pytest.mark.usefixtures("read_cache")
def test_live_speaks_from_a_store(files: Path, through: Path, s3: str) -> None:
    """Recipe, weights and voice by URL: the page and `astrape live` open all three here."""
    for place in (Place(f"memory://{uuid4().hex}"), Place(s3)):
        for path in (through, files / "mel.safetensors", files / "mel.astrape"):
            (place / path.name).write(path)
        voice = str(place / "mel.astrape")
        live = LiveVoice(str(place / through.name), weights=place / "mel.safetensors", voice=voice)
        here = LiveVoice(through, weights=files / "mel.safetensors", voice=files / "mel.astrape")
        assert live.voices == [voice]
        assert not live.random
        for name, tensor in here.graph.state_dict().items():
            torch.testing.assert_close(live.graph.state_dict()[name], tensor, rtol=0, atol=0)
        assert live.controls.keys() == here.controls.keys()
        with pytest.raises(AstrapeError, match=r"lost\.safetensors: there is no such"):
            LiveVoice(through, weights=place / "lost.safetensors")


def test_live_voices_are_of_the_encoder_of_the_weights(files: Path, through: Path) -> None:
    """In `astrape live` and the studio voices that ship are offered where they fit, and made ones are built so."""
    live = LiveVoice(through, weights=files / "mel.safetensors", voice=files / "mel.astrape")
    assert live.voices == [str(files / "mel.astrape")]
    made = live.build(files / "reference.wav")
    assert made.metadata.embedding_model == MEL
    live.add("mine", made)
    live.speak_as("mine")
    for name, bank in (("mio", read_voicebank(files / "mio.astrape")), ("emma", read_voicebank(EMMA))):
        with pytest.raises(VoicebankError, match="--encoder mel-statistics"):
            live.add(name, bank)
    with pytest.raises(VoicebankError, match=r"takes voices of 'astrape/mel"):
        live.speak_as("emma")
    assert live.voice == "mine"
    for voice in (None, files / "mio.astrape"):
        with pytest.raises(VoicebankError, match="astrape voicebank build"):
            LiveVoice(through, weights=files / "mel.safetensors", voice=voice)
    free = LiveVoice(through, weights=files / "none.safetensors", voice=files / "mio.astrape")
    assert {"emma", str(files / "mio.astrape")} <= set(free.voices)
