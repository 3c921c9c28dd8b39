"""The real packages, where a folder has them: `ASTRAPE_PACKAGES=DIR make slow`. Nothing is fetched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from astrape.corpus import CorpusSettings, check_corpus, make_parallel
from astrape.corpus.packages import PACKAGES
from astrape.corpus.warping import fundamental

pytestmark = pytest.mark.slow

FOLDER = Path(os.environ.get("ASTRAPE_PACKAGES", "/nowhere"))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("onnx", "onnxruntime", "pyworld"):
        pytest.importorskip(name)
    missing = [one.file for one in PACKAGES.values() if not (FOLDER / one.file).is_file() and "kokoro" in one.name]
    if missing:
        pytest.skip(f"ASTRAPE_PACKAGES={FOLDER}: has no {missing[0]}")
    # What stands in for espeak-ng in the other tests comes first.
    monkeypatch.setenv("PATH", os.environ["PATH"].partition(os.pathsep)[2])
    (tmp_path / "packages").mkdir()
    for path in FOLDER.iterdir():
        if path.is_file():
            (tmp_path / "packages" / path.name).symlink_to(path)
    return tmp_path


def band(audio: np.ndarray[Any, Any], rate: int, low: float, high: float) -> float:
    """Share of the energy between two frequencies."""
    power = np.abs(np.fft.rfft(audio)) ** 2
    hertz = np.fft.rfftfreq(len(audio), 1 / rate)
    return float(power[(hertz >= low) & (hertz < high)].sum() / power.sum())


def deviation(heard: np.ndarray[Any, Any], f0: np.ndarray[Any, Any]) -> float:
    """Median, in octaves, where both are voiced."""
    both = (heard > 0) & (f0 > 0)
    return float(np.median(np.abs(np.log2(heard[both] / f0[both]))))


def test_kokoros_voices_are_in_step_and_in_their_registers(work: Path) -> None:
    made = make_parallel(CorpusSettings(work=work, hours=0.008, flite=0, recordings=False, warps=1.0))
    assert not made.failed
    assert made.made >= 3
    assert check_corpus(work).findings == ()
    deviations, agreements = [], []
    for path in work.rglob("set.json"):
        info = json.loads(path.read_text())
        labels = np.load(path.with_name("phones.npy"))
        levels = []
        for voice, one in info["voices"].items():
            audio, rate = soundfile.read(path.with_name(f"{voice}.flac"))
            assert len(audio) == 600 * info["frames"]
            assert band(audio, rate, 60, 8000) > 0.95
            assert np.abs(audio).max() < 0.985
            levels.append(np.log(1e-3 + np.sqrt((audio.reshape(-1, 600) ** 2).mean(1))))
            f0 = np.load(path.with_name(f"{voice}.f0.npy"))
            heard = fundamental(audio.astype(np.float32), rate, len(f0))
            # Voices creak and glide: each is held against itself 100 ms earlier and later, and all against a bound.
            early, now, late = (deviation(heard, np.roll(f0, frames)) for frames in (-8, 0, 8))
            assert now < 0.7 * min(early, late), (voice, one)
            deviations.append(now)
            agreements.append(np.mean((heard > 0) == (f0 > 0)))
        for other in levels[1:]:
            assert np.corrcoef(levels[0], other)[0, 1] > 0.8, "loud and soft at the same time"
        assert len(set(labels.tolist())) > 8
    # Octaves; of 49 renderings the median is 0.025.
    assert np.median(deviations) < 0.035
    # WORLD finds breathy voices unvoiced, so this says something of all of them together alone.
    assert np.median(agreements) > 0.75
