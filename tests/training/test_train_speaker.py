"""Distillation of the speaker encoder: what it reads, what it does to it, and that stopping changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from scipy.signal import lfilter, resample_poly

import astrape
from astrape.audio.places import Place
from astrape.cli import cli
from astrape.errors import AstrapeError
from astrape.graph.subgraph import subgraph
from astrape.training.speaker.augment import SILENCE, augmented
from astrape.training.speaker.distil import DistilSettings, agreement, distilled, save_student
from astrape.training.speaker.features import Example, examples, read_examples
from astrape.training.speaker.sources import rendered
from astrape.training.speaker.tone import fit_tone, tone_weights
from tests.corpus.described import describe_set

SETTINGS = DistilSettings(steps=6, batch=4, frames=(10, 20), every=3)


@pytest.fixture(scope="module")
def voices() -> list[Example]:
    """Eight voices that are each a spectrum of their own, and say so."""
    random = np.random.default_rng(0)
    made = []
    for index in range(8):
        mel = random.normal(size=(64, 1)) + 0.1 * random.normal(size=(64, 40)) - 4
        vector = 0.05 * random.normal(size=96)
        made.append(Example(mel.astype(np.float16), vector.astype(np.float32), f"speaker-{index}"))
    return made


def test_tone_is_scaled_by_the_recordings_and_reads_no_level(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    paths = []
    for index in range(6):
        # White noise and dull noise, at a level of its own, none near the floor of the mel spectrum.
        noise = lfilter([1.0], [1.0, -0.15 * (index + 1) * (index % 2)], random.normal(size=24000))
        paths.append(tmp_path / f"{index}.wav")
        soundfile.write(paths[-1], 0.5 * 2.0 ** -(index / 3) * noise / np.abs(noise).max(), 24000, subtype="FLOAT")
    graph = astrape.load("astrape-speaker", training=True)
    assert fit_tone(graph, paths) == 6
    part = subgraph(graph, ["embedding"], ["down"])
    found = []
    with torch.no_grad():
        for path in paths:
            samples = resample_poly(soundfile.read(path, dtype="float32")[0], 2, 3).astype(np.float32)
            whole, half = (part(gain * torch.from_numpy(samples).reshape(1, 1, -1)) for gain in (1.0, 0.5))
            found.append(whole[0, 96:, -1].numpy())
            quiet = half[0, 96:, -1].numpy()
            np.testing.assert_allclose(quiet, found[-1], atol=0.02)
    np.testing.assert_allclose(np.std(found, axis=0), 0.1, atol=1e-3)
    np.testing.assert_allclose(np.mean(found, axis=0), 0, atol=1e-3)
    # Dull and bright noise differ first of all in the slope of the spectrum, the first number.
    slopes = np.array(found)[:, 0]
    assert slopes[1::2].min() > slopes[::2].max()
    with pytest.raises(AstrapeError, match="1 recordings to measure the tone of voices on, and it takes 2 or more"):
        tone_weights(np.zeros((1, 128)))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two sets of one voice, one of them held, and the teacher's vector of the other."""
    random = np.random.default_rng(0)
    for name, split in (("000001", "train"), ("000002", "held")):
        folder = tmp_path / "corpus" / "sets" / "000" / name
        describe_set(folder, split, {"af_sky": {"af_sky": 1.0}})
        soundfile.write(folder / "af_sky.flac", 0.1 * random.normal(size=36000), 24000)
    np.save(tmp_path / "corpus" / "sets" / "000" / "000001" / "af_sky.spk.npy", np.linspace(0, 1, 128, dtype="f4"))
    return tmp_path / "corpus"


def test_a_corpus_is_read_with_its_split_and_the_teachers_vectors(corpus: Path) -> None:
    first, second = rendered(corpus)
    assert (first.speaker, first.held, second.held) == ("kokoro-af_sky", False, True)
    assert first.vector == first.path.with_suffix(".spk.npy")
    assert second.vector is None


@pytest.mark.usefixtures("read_cache")
def test_a_corpus_in_a_store_gives_the_examples_and_the_tone_of_one_in_a_folder(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")

    class Teacher:
        def who(self, samples: np.ndarray) -> np.ndarray:
            return np.resize(samples, 96)

    monkeypatch.setattr("astrape.training.speaker.features.ResemblyzerTeacher", Teacher)
    far = Place(f"memory://{uuid4().hex}")
    for name in Place(corpus).names():
        (far / name).write(corpus / name)
    tones = []
    for place, examples_of in ((corpus, tmp_path / "near"), (far, tmp_path / "far")):
        examples(rendered(place), examples_of, lambda line: None)
        graph = astrape.load("astrape-speaker", training=True)
        assert fit_tone(graph, (one.path for one in rendered(place))) == 2
        tones.append(dict(graph.nodes["tone"].block.named_parameters()))
    near = {path.name: path.read_bytes() for path in (tmp_path / "near").iterdir()}
    assert len(near) > 3
    assert {path.name: path.read_bytes() for path in (tmp_path / "far").iterdir()} == near
    assert all(torch.equal(tensor, tones[1][name]) for name, tensor in tones[0].items())
    weights = far / "out.safetensors"
    save_student(graph, weights)
    again = astrape.load("astrape-speaker", weights=weights)
    tensors = dict(again.named_parameters())
    assert all(torch.equal(tensors[name], one.half().float()) for name, one in graph.named_parameters())
    result = CliRunner().invoke(cli, ["train-speaker", "--corpus", f"{far}/none", "--work", "w", "-o", f"{far}/o.st"])
    assert result.exit_code == 1
    assert result.stderr == (
        f"astrape: {far}/none: holds no renderings to train on: `astrape corpus make parallel` makes some\n"
    )


def test_examples_are_read_by_split(tmp_path: Path, voices: list[Example]) -> None:
    for index, one in enumerate(voices):
        held = np.bool_(index == 7)
        np.savez(tmp_path / f"{index}.npz", mel=one.mel, vector=one.vector, speaker=np.str_(one.speaker), held=held)
    assert [one.speaker for one in read_examples(tmp_path, held=True)] == ["speaker-7"]
    assert len(read_examples(tmp_path)) == 7


class TestAugmentation:
    def test_it_is_drawn_from_the_seed_alone_and_differs_by_row(self) -> None:
        mel = torch.randn(1, 64, 30, generator=torch.Generator().manual_seed(0)).repeat(5, 1, 1) - 3
        first, again, other = (augmented(mel, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert all(not torch.equal(first[0], first[row]) for row in range(1, 5))
        assert first.shape == mel.shape
        assert torch.isfinite(first).all()

    def test_nothing_is_quieter_than_the_floor(self) -> None:
        silence = torch.full((20, 64, 30), math.log(SILENCE))
        found = augmented(silence, torch.Generator().manual_seed(0))
        # A room and noise of silence are as quiet as it is, and gain is 12 dB at most, an equaliser some more.
        assert found.min() >= math.log(SILENCE) - 1e-6
        assert found.max() <= math.log(SILENCE) + 5

    def test_a_room_rings_after_the_sound_and_never_before(self) -> None:
        click = torch.full((200, 64, 30), math.log(SILENCE))
        click[:, :, 10] = 0.0
        found = augmented(click, torch.Generator().manual_seed(0))
        # Frame by frame within a row, what is after the click is at least as loud as what is before it.
        before, after = found[..., :10].mean(dim=(1, 2)), found[..., 11:14].mean(dim=(1, 2))
        ringing = after - before > 1
        assert 0.2 < ringing.float().mean() < 0.9
        assert (before - after).max() < 0.5


class TestDistillation:
    def test_stopped_and_resumed_it_is_the_same_to_the_last_bit(self, tmp_path: Path, voices: list[Example]) -> None:
        said: list[str] = []
        whole = distilled(voices, [], tmp_path / "whole.pt", SETTINGS, said.append)
        kept = tmp_path / "parts.pt"

        class Stopped(Exception):
            pass

        def stop(line: str) -> None:
            raise Stopped(line)

        with pytest.raises(Stopped, match="step 3"):
            distilled(voices, [], kept, SETTINGS, stop)
        parts = distilled(voices, [], kept, SETTINGS, said.append)
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, parts.state_dict()[name]), name

    def test_it_learns_to_say_what_the_teacher_says(self, tmp_path: Path, voices: list[Example]) -> None:
        settings = replace(SETTINGS, steps=150, batch=8, every=150)
        fresh = astrape.load("astrape-speaker", training=True)
        graph = distilled(voices, voices, tmp_path / "c.pt", settings, lambda line: None)
        assert agreement(graph, voices) > max(0.5, agreement(fresh, voices) + 0.3)
        path = tmp_path / "w.safetensors"
        save_student(graph, path)
        assert path.stat().st_size < 1_000_000
        again = astrape.load("astrape-speaker", weights=path)
        assert agreement(again, voices) == pytest.approx(agreement(graph, voices), abs=0.02)

    def test_too_few_examples_are_refused(self, tmp_path: Path, voices: list[Example]) -> None:
        with pytest.raises(AstrapeError, match="3 examples to train on, and a batch takes 4"):
            distilled(voices[:3], [], tmp_path / "c.pt", SETTINGS, lambda line: None)
