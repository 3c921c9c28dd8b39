"""Voices fitted to recordings: nearer to the speaker in sentences that the fit has not heard, the same each time."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from click.testing import CliRunner
from scipy.signal import stft

import astrape
from astrape.commands.convert import convert
from astrape.commands.evaluate import evaluate
from astrape.commands.voicebank import voicebank
from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.training.fitting import fit_voice
from astrape.voice.building import build_voicebank
from astrape.voice.conversion import Converter
from astrape.voice.errors import VoicebankError
from astrape.voice.evaluation.pairs import Target
from astrape.voice.evaluation.systems import Conversions
from astrape.voice.voicebank import Voicebank, read_voicebank, write_voicebank

SPEECH = Path(__file__).parents[1] / "audio" / "speech" / "librivox"
HEARD, OTHERS = SPEECH / "0870.flac", (SPEECH / "0880.flac", SPEECH / "0890.flac")


@pytest.fixture(scope="module")
def converter() -> Converter:
    return Converter.load()


@pytest.fixture(scope="module")
def graph(converter: Converter) -> Graph:
    return converter.graph


@pytest.fixture(scope="module")
def bank() -> Voicebank:
    return build_voicebank(HEARD)


@pytest.fixture(scope="module")
def fitted(bank: Voicebank, graph: Graph) -> Voicebank:
    return fit_voice(bank, [HEARD], graph, steps=12)


def bands(path: Path) -> npt.NDArray[np.float64]:
    """Levels of third octaves up to 7 kHz, dB, frame by frame, by SciPy."""
    samples, rate = soundfile.read(path)
    hertz, _, found = stft(samples, rate, nperseg=512)
    power = np.abs(found) ** 2
    edges = 150 * 2 ** (np.arange(18) / 3)
    means = [power[(hertz >= low) & (hertz < high)].mean(axis=0) for low, high in pairwise(edges)]
    return np.asarray(10 * np.log10(np.stack(means) + 1e-9))


def test_sentences_that_the_fit_has_not_heard_are_nearer_to_the_speaker(
    converter: Converter, bank: Voicebank, fitted: Voicebank, tmp_path: Path
) -> None:
    for source in OTHERS:
        wanted = bands(source)
        loud = wanted.mean(axis=0) > wanted.mean(axis=0).max() - 30
        distances = []
        for name, voice in (("encoder", bank), ("fitted", fitted)):
            out = tmp_path / f"{name}.wav"
            converter.file(source, out, voice)
            distances.append(np.abs(bands(out) - wanted)[:, loud].mean())
        # Of about 4 dB, 12 steps take .14 to .16.
        assert distances[1] < distances[0] - 0.05


def test_all_but_the_numbers_stays_and_the_voice_says_for_whom_it_is(
    bank: Voicebank, fitted: Voicebank, tmp_path: Path
) -> None:
    assert not np.allclose(fitted.embedding, bank.embedding)
    before, after = bank.metadata.to_dict(), fitted.metadata.to_dict()
    assert "fitted_to" not in before
    assert after == before | {"fitted_to": "astrape-mini"}
    write_voicebank(fitted, tmp_path / "her.astrape")
    assert read_voicebank(tmp_path / "her.astrape") == fitted


def test_the_same_recordings_give_the_same_numbers(bank: Voicebank, graph: Graph) -> None:
    told: list[tuple[float, float | None]] = []

    def tell(done: float, whole: float | None) -> None:
        told.append((done, whole))

    one, other = (fit_voice(bank, [HEARD], graph, steps=2, progress=tell) for _ in range(2))
    assert np.array_equal(one.embedding, other.embedding)
    assert told == [(1, 2), (2, 2)] * 2
    assert all(parameter.grad is None for parameter in graph.parameters())


def test_silence_and_graphs_without_a_speaker_are_refused(bank: Voicebank, graph: Graph, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16000 * 6), 16000)
    with pytest.raises(VoicebankError, match=r"no 4 s of the recordings reach -45 dBFS"):
        fit_voice(bank, [tmp_path / "quiet.wav"], graph, steps=1)
    with pytest.raises(AstrapeError, match="'voice-changer' converts to no voice"):
        fit_voice(bank, [HEARD], astrape.load("voice-changer"), steps=1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            [str(OTHERS[0]), "--target", "emma", "--fit"],
            "--fit: emma is a voice already: hint: `astrape voicebank build",
        ),
        (
            [str(OTHERS[0]), "--target", str(HEARD), "--recipe", "astrape-vc-small", "--fit"],
            "--fit: 'astrape-vc-small' has random weights: hint: name trained ones with --weights",
        ),
    ],
)
def test_the_command_says_what_cannot_be_fitted(line: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(convert, [*line, "-o", str(tmp_path / "out.wav")])
    assert result.exit_code != 0
    assert said in f"{result.output}{result.exception}"
    assert not (tmp_path / "out.wav").exists()


def test_an_evaluation_does_not_fit_voices_to_weights_that_were_drawn(tmp_path: Path) -> None:
    line = ["--source", str(OTHERS[0]), "--target", str(HEARD), "--recipe", "astrape-vc-small", "--fit"]
    result = CliRunner().invoke(evaluate, [*line, "-o", str(tmp_path / "out.wav")])
    assert result.exit_code != 0
    assert "--fit: 'astrape-vc-small' has random weights" in f"{result.output}{result.exception}"


def test_the_command_builds_a_fitted_voice(tmp_path: Path) -> None:
    line = ["build", str(HEARD), "-o", str(tmp_path / "her.astrape"), "--fit"]
    assert CliRunner().invoke(voicebank, line, catch_exceptions=False).exit_code == 0
    assert read_voicebank(tmp_path / "her.astrape").metadata.fitted_to == "astrape-mini"
    assert torch.isfinite(read_voicebank(tmp_path / "her.astrape").speaker).all()


def test_an_evaluation_fits_voices_of_recordings_alone_and_its_report_says_so(
    converter: Converter, bank: Voicebank, tmp_path: Path
) -> None:
    write_voicebank(bank, file := tmp_path / "her.astrape")
    system = Conversions(converter, tmp_path / "out", fit=partial(fit_voice, steps=1))
    assert system.voice(Target("heard", (HEARD,))).metadata.fitted_to == "astrape-mini"
    assert system.voice(Target("built", (file,))).metadata.fitted_to == ""
    assert system.describe()["voices_fitted"] is True
    plain = Conversions(converter, tmp_path / "out")
    assert plain.voice(Target("heard", (HEARD,))).metadata.fitted_to == ""
    assert plain.describe()["voices_fitted"] is False
