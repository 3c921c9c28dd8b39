"""The numbers of evaluation that are astrape's own, each against another way to compute it."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from astrape.blocks.base import Stream
from astrape.blocks.quantize import Q2D2
from astrape.voice.evaluation import Score
from astrape.voice.evaluation.codes import QuantizerUse
from astrape.voice.evaluation.context import Codes, Context, Tools
from astrape.voice.evaluation.errors import EvaluationError, MetricError
from astrape.voice.evaluation.intelligibility import cut_at_pauses
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.numbers import interval
from astrape.voice.evaluation.pitch import PitchTrack, compare_pitch
from astrape.voice.evaluation.recording import Recording
from astrape.voice.evaluation.spectra import power_spectra, spectral_distances
from astrape.voice.evaluation.statistics import aggregate
from astrape.voice.evaluation.text import check_english, normalised


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)


def cut(samples: NDArray[np.float32], size: int) -> list[NDArray[np.float32]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


class TestRecording:
    def test_pieces_join_to_what_another_resampler_gives(self, tmp_path: Path) -> None:
        stereo = np.stack([noise(66150), noise(66150, 1)], axis=1)
        low = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 6000, fs=44100, output="sos"), stereo, axis=0)
        soundfile.write(tmp_path / "a.wav", low, 44100, "FLOAT")
        recording = Recording(tmp_path / "a.wav")
        pieces = list(recording.pieces(16000, 0.37))
        assert {len(piece) for piece in pieces[:-1]} == {5920}
        found = np.concatenate(pieces)
        oracle = soxr.resample(low.mean(axis=1), 44100, 16000, "VHQ")
        assert recording.seconds == 1.5
        assert abs(len(found) - 24000) <= 1
        inner = slice(500, 23500)
        assert np.abs(found[inner] - oracle[inner]).max() < 2e-3 * np.abs(oracle).max()

    @settings(max_examples=25)
    @given(seconds=st.floats(0.002, 3), rate=st.sampled_from([8000, 16000, 44100]))
    def test_pieces_of_any_size_are_the_same_sound(
        self, tmp_path_factory: pytest.TempPathFactory, seconds: float, rate: int
    ) -> None:
        path = tmp_path_factory.mktemp("a") / "a.wav"
        soundfile.write(path, noise(5000), 8000, "FLOAT")
        recording = Recording(path)
        whole = np.concatenate(list(recording.pieces(rate, 60)))
        assert np.array_equal(np.concatenate(list(recording.pieces(rate, seconds))), whole)

    def test_what_is_late_begins_later(self, tmp_path: Path) -> None:
        samples = noise(8000)
        soundfile.write(tmp_path / "a.wav", samples, 8000, "FLOAT")
        late = Recording(tmp_path / "a.wav", late=0.25)
        assert late.seconds == 0.75
        assert np.array_equal(np.concatenate(list(late.pieces(8000, 0.1))), samples[2000:])

    def test_what_is_no_recording_is_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "text.wav").write_text("no audio at all")
        (tmp_path / "empty.wav").write_bytes(b"")
        soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
        for name, said in (
            ("text.wav", "is not a readable audio file"),
            ("empty.wav", "is empty"),
            ("none.wav", "holds no samples"),
            ("missing.wav", "there is no such file"),
            (".", "is a folder"),
        ):
            with pytest.raises(EvaluationError, match=said) as error:
                Recording(tmp_path / name)
            assert str(tmp_path) in str(error.value)

    def test_samples_that_are_not_finite_are_refused_by_their_place(self, tmp_path: Path) -> None:
        samples = noise(8000)
        samples[6000] = np.nan
        soundfile.write(tmp_path / "a.wav", samples, 8000, "FLOAT")
        with pytest.raises(MetricError, match=r"the sample at 0\.750 s is not finite"):
            list(Recording(tmp_path / "a.wav").pieces(8000, 0.1))


class TestText:
    @pytest.mark.parametrize(
        ("said", "normal"),
        [
            ("Hello, World!", "hello world"),
            ("  two\twords\n", "two words"),
            ("Don’t — it's the dogs' 'own'", "don't it's the dogs own"),
            ("co-operate café NAÏVE", "co operate cafe naive"),
            ("$20 & 3.5%", "20 3 5"),
            ("...", ""),
        ],
    )
    def test_what_is_compared(self, said: str, normal: str) -> None:
        assert normalised(said) == normal

    @given(st.text(max_size=60))
    def test_normal_text_stays_as_it_is(self, text: str) -> None:
        once = normalised(text)
        assert normalised(once) == once
        assert once == " ".join(once.split())

    def test_other_scripts_are_no_english(self) -> None:
        check_english("Nothing. 123 café")
        check_english("")
        for text in ("안녕하세요", "Доброе утро, Anna"):
            with pytest.raises(MetricError, match="is not English"):
                check_english(text)


class TestPitch:
    @given(shift=st.floats(-24, 24), seed=st.integers(0, 99))
    def test_a_shifted_melody_correlates_by_one(self, shift: float, seed: int) -> None:
        hertz = 200 * 2 ** np.random.default_rng(seed).uniform(-1, 1, 80)
        scores = compare_pitch(PitchTrack(hertz), PitchTrack(hertz * 2 ** (shift / 12)))
        assert scores["f0_correlation"] == pytest.approx(1, abs=1e-9)
        assert scores["f0_shift"] == pytest.approx(shift, abs=1e-9)
        assert scores["voicing_agreement"] == 100

    @given(seed=st.integers(0, 99))
    def test_the_correlation_is_numpys_over_what_is_voiced_in_both(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        a, b = (np.where(random.random(200) < 0.7, random.uniform(80, 400, 200), 0.0) for _ in range(2))
        scores = compare_pitch(PitchTrack(a), PitchTrack(np.append(b, [100.0, 0.0])))
        both = (a > 0) & (b > 0)
        assert scores["f0_correlation"] == pytest.approx(np.corrcoef(np.log(a[both]), np.log(b[both]))[0, 1], abs=1e-9)
        agreeing = sum((x > 0) == (y > 0) for x, y in zip(a, b, strict=True))
        assert scores["voicing_agreement"] == pytest.approx(100 * agreeing / 200)

    def test_no_value_is_made_up(self) -> None:
        voiced, silent = PitchTrack(np.linspace(100, 200, 50)), PitchTrack(np.zeros(50))
        with pytest.raises(MetricError, match="0 frames are voiced in source and result both"):
            compare_pitch(voiced, silent)
        with pytest.raises(MetricError, match="never moves"):
            compare_pitch(voiced, PitchTrack(np.full(50, 123.0)))


class TestSpectra:
    RATE = 16000

    def test_the_distance_is_that_of_scipys_spectra(self) -> None:
        a, b = noise(9000), np.cumsum(noise(9000, 1)).astype(np.float32) * 0.05
        length, hop = 512, 128
        window = scipy.signal.get_window("hann", length)

        def levels(x: NDArray[np.float32]) -> NDArray[np.float64]:
            frames = [x[start : start + length] for start in range(0, len(x) - length + 1, hop)]
            spectra = np.abs(scipy.fft.rfft(np.array(frames, np.float64) * window, axis=1)) / (window.sum() / 2)
            return 20 * np.log10(np.maximum(spectra, 1e-4))

        expected = np.sqrt(((levels(a) - levels(b)) ** 2).mean(axis=1)).mean()
        found, _ = spectral_distances([a], [b], self.RATE)
        assert found == pytest.approx(expected, rel=1e-9)

    @given(size=st.integers(129, 9000))
    def test_frames_do_not_depend_on_the_pieces(self, size: int) -> None:
        samples = noise(9000)
        pieces = list(power_spectra(cut(samples, size), self.RATE))
        (whole,) = power_spectra([samples], self.RATE)
        assert np.allclose(np.concatenate(pieces), whole, rtol=1e-12)

    def test_a_louder_copy_is_away_by_its_gain(self) -> None:
        time = np.arange(16000) / self.RATE
        saw = (0.05 * (2 * (110 * time % 1) - 1)).astype(np.float32) + 0.01 * noise(16000)
        for gain_db in (6.0, -6.0):
            log_spectral, mel = spectral_distances([saw], [saw * np.float32(10 ** (gain_db / 20))], self.RATE)
            assert log_spectral == pytest.approx(6, abs=0.15)
            assert mel == pytest.approx(6, abs=0.15)
        assert spectral_distances([saw], [saw], self.RATE) == (0, 0)

    def test_a_full_scale_sine_is_at_0_db_and_silence_at_the_floor(self) -> None:
        sine = np.sin(2 * np.pi * 1000 * np.arange(16000) / self.RATE).astype(np.float32)
        (power,) = power_spectra([sine], self.RATE)
        assert 10 * math.log10(power.max()) == pytest.approx(0, abs=1e-3)
        log_spectral, _ = spectral_distances([np.zeros(4000, np.float32)], [np.zeros(4000, np.float32)], self.RATE)
        assert log_spectral == 0

    def test_less_than_a_frame_has_no_distance(self) -> None:
        with pytest.raises(MetricError, match="shorter than a frame"):
            spectral_distances([noise(100)], [noise(9000)], self.RATE)


class TestPauses:
    @given(seconds=st.floats(0.1, 90), seed=st.integers(0, 9))
    def test_pieces_join_to_the_whole_and_have_their_lengths(self, seconds: float, seed: int) -> None:
        samples = noise(round(seconds * 100), seed)
        pieces = list(cut_at_pauses(iter(cut(samples, 800)), rate=100))
        assert np.array_equal(np.concatenate(pieces), samples)
        assert all(1200 <= len(piece) <= 2000 for piece in pieces[:-1])
        assert len(pieces[-1]) < 2000

    def test_the_cut_is_in_the_pause(self) -> None:
        samples = np.ones(4000, np.float32)
        samples[1500:1540] = 0
        first, *_ = cut_at_pauses(iter(cut(samples, 800)), rate=100)
        assert 1500 < len(first) < 1540


class TestStatistics:
    def test_the_interval_is_scipys(self) -> None:
        values = np.random.default_rng(3).gamma(2, 1, 60)
        found = aggregate([Score(value) for value in values], [str(index) for index in range(60)])
        oracle = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        assert found.value == pytest.approx(values.mean())
        assert found.low == pytest.approx(oracle.low, abs=0.03)
        assert found.high == pytest.approx(oracle.high, abs=0.03)

    def test_the_mean_is_weighted(self) -> None:
        # 1 of 2 words and 0 of 8 are 1 of 10.
        found = aggregate([Score(50.0, 2), Score(0.0, 8)], ["a", "b"])
        assert found.value == 10
        assert found.low == 0
        assert found.high == 50

    def test_pairs_of_one_source_are_drawn_together(self) -> None:
        values = np.random.default_rng(0).normal(size=12)
        alone = aggregate([Score(v) for v in values], [str(i) for i in range(12)])
        groups = [str(i) for i in range(12) for _ in range(5)]
        repeated = aggregate([Score(v) for v in values for _ in range(5)], groups)
        assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high))
        assert repeated.files == 60

    def test_a_constant_has_no_interval_to_show(self) -> None:
        quantity = Quantity("delay", "Delay", "ms", "lower", "", digits=2)
        assert interval(aggregate([Score(59.8), Score(59.8), Score(59.8)], ["a", "b", "c"]), quantity) is None
        assert interval(aggregate([Score(0.1, 3), Score(0.1, 7)], ["a", "b"]), quantity) is None
        assert interval(aggregate([Score(1.0), Score(2.0)], ["a", "b"]), quantity) == "1.00 to 2.00"
        assert interval(aggregate([Score(1.0)], ["a"]), quantity) is None

    def test_one_source_has_no_interval(self) -> None:
        found = aggregate([Score(1.0), Score(2.0)], ["a", "a"])
        assert (found.value, found.low, found.high, found.files) == (1.5, None, None, 2)

    def test_the_seed_decides(self) -> None:
        scores, groups = [Score(v) for v in range(20)], [str(i) for i in range(20)]
        assert aggregate(scores, groups, 1) == aggregate(scores, groups, 1)
        assert aggregate(scores, groups, 1) != aggregate(scores, groups, 2)


class TestCodes:
    def context(self, codes: list[int], key: str, tmp_path: Path) -> Context:
        soundfile.write(tmp_path / "a.wav", noise(8000), 8000)
        block = Q2D2(Stream(25, 8), levels=[3, 3, 3, 3], grid="rectangular", channels=4)
        radix = block.quantizer.pairs.radix
        assert radix is not None
        found = Codes(torch.tensor(codes), block.codebook_size, (9, 9), radix.split)
        recording = Recording(tmp_path / "a.wav")
        return Context(recording, recording, key, codes=found)

    def test_perplexity_and_usage_by_hand(self, tmp_path: Path) -> None:
        # Codes 0, 0, 10, 20 are digits (0, 0), (0, 0), (1, 1), (2, 2): three of nine values, a half and two quarters.
        scores = QuantizerUse(Tools()).score(self.context([0, 0, 10, 20], "a", tmp_path))
        perplexity = math.exp(0.5 * math.log(2) + 0.5 * math.log(4))
        assert scores["code_perplexity"] == pytest.approx(perplexity)
        assert scores["digit_usage"] == pytest.approx(100 * 3 / 9)
        assert scores["digit_perplexity"] == pytest.approx(100 * perplexity / 9)

    def test_the_run_counts_each_source_once(self, tmp_path: Path) -> None:
        parts = []
        for codes, key in (([0, 0], "a"), ([0, 0], "a"), ([10, 20], "b")):
            context = self.context(codes, key, tmp_path)
            # Each by a metric of its own, as in workers of a job.
            QuantizerUse(Tools()).score(context)
            parts.append(pickle.loads(pickle.dumps(context.parts["codes"])))
        whole = QuantizerUse(Tools()).score(self.context([0, 0, 10, 20], "c", tmp_path))
        assert QuantizerUse(Tools()).pooled(parts) == pytest.approx(whole)

    def test_without_codes_there_is_nothing(self, tmp_path: Path) -> None:
        context = self.context([1], "a", tmp_path)
        context.codes = None
        assert QuantizerUse(Tools()).score(context) == {}
        assert QuantizerUse(Tools()).pooled([]) == {}
        assert "no quantizer" in str(context.lacks("codes"))
