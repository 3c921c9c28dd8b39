"""The list of held-out conversions, made of stand-ins for Debian's packages."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from astrape.cli import cli
from astrape.corpus.packages import SPEECH_PACKAGES
from astrape.training.held_out import HELD_OUT, TARGETS
from astrape.training.speaker.sources import LICENSED
from astrape.voice.evaluation.pairs import read_pairs
from tests.corpus.described import describe_set

RATE = 16000


def sound(path: Path, seconds: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).normal(size=round(seconds * RATE))
    soundfile.write(path, samples, RATE)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder whose packages have been unpacked."""
    for speaker in {voice.speaker for voice in HELD_OUT}:
        for index in range(4):
            sound(tmp_path / "held-out-recordings" / speaker / f"{index:04}.flac", 8, index)
    data = tmp_path / "unpacked" / SPEECH_PACKAGES["pocketsphinx-testdata"].folder / "usr/share/pocketsphinx/test/data"
    for index, name in enumerate(("0870", "0880")):
        sound(data / "librivox" / f"sense_and_sensibility_01_austen_64kb-{name}.wav", 6, index)
    (data / "librivox" / "transcription").write_text(
        "<s> he was not </s> (sense_and_sensibility_01_austen_64kb-0880)\n"
    )
    for index, name in enumerate(("001", "005")):
        sound(data / "cards" / f"{name}.wav", 1 + index, index)
    (data / "cards" / "cards.transcription").write_text(
        "<s> ten of clubs  </s> (001)\n<s> eight of spades </s> (005)\n"
    )
    (data / "tidigits").mkdir()
    for index, name in enumerate(("numbers", "something", "goforward", "tidigits/dhd.2934z")):
        np.full(3 * RATE, index, "<i2").tofile(data / f"{name}.raw")
    return tmp_path


def test_every_source_goes_to_every_target_but_itself(work: Path) -> None:
    result = CliRunner().invoke(cli, ["held-out", "--work", str(work)])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((work / "set" / "real.csv").open()))
    # Cards of 2 s, two of librivox, four of dhd, four of allison: to seven targets, of which three are speakers too.
    assert len(rows) == 1 * 7 + 2 * 6 + 4 * 6 + 4 * 6
    assert all(row["speaker"] != Path(row["target"]).stem for row in rows)
    assert {Path(row["target"]).stem for row in rows} == set(TARGETS)
    assert {row["text"] for row in rows if row["speaker"] == "librivox"} == {"", "he was not"}
    pairs = read_pairs(work / "set" / "real.csv")
    assert len(pairs) == len(rows)
    for pair in pairs:
        assert pair.target is not None
        # What is compared with is not what is embedded.
        assert pair.target.audio is not None
        assert pair.target.audio.read_bytes() != pair.target.files[0].read_bytes()
        assert soundfile.info(pair.target.files[0]).duration >= 5


def test_synthetic_targets_are_voices_that_the_corpus_holds_out(work: Path) -> None:
    corpus = work / "corpus"
    for index in range(8):
        folder = corpus / "sets" / "000" / f"{index:06}"
        voices = {"bf_emma": {"bf_emma": 1.0}, "mix": {"a": 0.5, "b": 0.5}}
        for name in voices:
            sound(folder / f"{name}.flac", 3, index)
        describe_set(folder, "held" if index < 6 else "train", voices)
    result = CliRunner().invoke(cli, ["held-out", "--work", str(work), "--corpus", str(corpus), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["synthetic"] == 11
    pairs = read_pairs(work / "set" / "synthetic.csv")
    assert {pair.target.name for pair in pairs if pair.target} == {"bf_emma"}


def test_nothing_that_is_measured_on_is_trained_on() -> None:
    assert not {voice.speaker for voice in HELD_OUT} & {voice.speaker for voice in LICENSED}
    assert not {voice.package for voice in HELD_OUT} & {voice.package for voice in LICENSED}
    for voice in LICENSED:
        assert not any(word in voice.licence for word in ("GPL", "-SA", "NC"))
