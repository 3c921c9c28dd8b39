"""The parts of train-tiny: packages, recordings, front end and baselines."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import astrape
from astrape.blocks.base import Stream
from astrape.corpus.layouts import read_corpus
from astrape.corpus.packages import SPEECH_PACKAGES, PinnedPackage
from astrape.training.caches import Cache, CacheJob, make_cache
from astrape.training.errors import TrainingError
from astrape.training.learner import Learner
from astrape.training.objectives import LogMel
from astrape.training.tiny.baselines import FrontEndAlone, MeanSpectrum
from astrape.training.tiny.front import learn_front
from astrape.training.tiny.level import level_head, write_weights
from astrape.training.tiny.voices import VOICES, Voice, write_corpus

SPEECH = Path(__file__).parent.parent / "audio" / "speech"


def tone(seconds: float, rate: int = 16000, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(np.arange(int(seconds * rate)) * 0.1)).astype(np.float32)


PACKAGE = PinnedPackage("a-voice", "1.0", "apt", "a-voice_1.0_all.deb", "0" * 64, 1, ("*",))


def installed(work: Path, recordings: dict[str, tuple[np.ndarray, int]]) -> None:
    """The package as if it had been fetched and unpacked."""
    for name, (samples, rate) in recordings.items():
        path = work / "unpacked" / PACKAGE.folder / "usr/share/voice" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate)


@pytest.fixture(autouse=True)
def _a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPEECH_PACKAGES, PACKAGE.name, PACKAGE)


def test_short_recordings_are_joined_and_silent_ones_left_out(tmp_path: Path) -> None:
    words = {f"{index:02}.wav": (tone(3.0), 16000) for index in range(7)}
    words["03.wav"] = (tone(3.0, level=0.0), 16000)
    installed(tmp_path, words | {"99.wav": (tone(3.0, 8000), 8000), "98.ogg": (tone(2.0, 44100), 44100)})
    said: list[str] = []
    write_corpus(tmp_path, tmp_path / "corpus", said.append, [Voice("ann", "a-voice", ("voice",), "none")])
    found = [soundfile.info(path) for path in sorted((tmp_path / "corpus/ann").iterdir())]
    assert [(info.samplerate, round(info.duration)) for info in found] == [(16000, 9), (16000, 9), (16000, 2)]
    levels = [
        np.sqrt(np.square(soundfile.read(path)[0]).mean()) for path in sorted((tmp_path / "corpus/ann").iterdir())
    ]
    np.testing.assert_allclose(levels, 0.05, rtol=1e-3)
    assert "ann" in said[0]
    assert len(read_corpus(tmp_path / "corpus")) == 3


def test_a_corpus_that_is_there_is_left_alone_and_a_half_one_made_anew(tmp_path: Path) -> None:
    installed(tmp_path, {"a.wav": (tone(9.0), 16000)})
    half = tmp_path / ".corpus.partial/ann"
    half.mkdir(parents=True)
    (half / "0000.flac").write_text("half")
    voices = [Voice("ann", "a-voice", ("voice",), "none")]
    write_corpus(tmp_path, tmp_path / "corpus", print, voices)
    written = (tmp_path / "corpus/ann/0000.flac").stat().st_mtime_ns
    write_corpus(tmp_path, tmp_path / "corpus", print, voices)
    assert (tmp_path / "corpus/ann/0000.flac").stat().st_mtime_ns == written
    with pytest.raises(TrainingError, match="holds no recordings in elsewhere"):
        write_corpus(tmp_path, tmp_path / "other", print, [Voice("bob", "a-voice", ("elsewhere",), "none")])


def test_prompts_in_g722_are_read(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    time = np.arange(int(8.5 * 16000)) / 16000
    wave = (0.3 * np.sin(2 * np.pi * (100 + 90 * time) * time)).astype(np.float32)
    path = tmp_path / "unpacked" / PACKAGE.folder / "usr/share/voice/a.g722"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w", format="g722") as file:
        stream = file.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    write_corpus(tmp_path, tmp_path / "corpus", print, [Voice("ann", "a-voice", ("voice",), "none")])
    samples, rate = soundfile.read(tmp_path / "corpus/ann/0000.flac")
    lag = int(np.argmax(np.correlate(samples[:4000], wave[:3900], "valid")))
    assert rate == 16000
    assert lag < 40
    decoded, original = samples[lag + 100 : lag + 30000], wave[100:30000]
    assert np.abs(decoded / np.std(decoded) - original / np.std(original)).max() < 0.1


def test_one_person_has_one_name() -> None:
    """Allison speaks English and Spanish; a split by speaker must not hear her on both sides."""
    by_folder = {folder: voice.speaker for voice in VOICES for folder in voice.folders}
    assert len({speaker for folder, speaker in by_folder.items() if folder.endswith("_Allison")}) == 1
    assert len({voice.speaker for voice in VOICES}) == 17


def test_the_front_end_learns_spectra_and_nothing_else_changes(tmp_path: Path) -> None:
    utterances = [one for one in read_corpus(SPEECH) if one.speaker == "librivox"]
    left = learn_front("astrape-vc-small", utterances, tmp_path / "f.safetensors", steps=40, seed=5, say=print)
    assert left < 0.85
    torch.manual_seed(5)
    fresh = astrape.compile(astrape.Recipe.load("astrape-vc-small"), training=True).state_dict()
    learned = load_file(tmp_path / "f.safetensors")
    assert set(learned) == set(fresh)
    changed = {name for name, tensor in learned.items() if not torch.equal(tensor, fresh[name])}
    assert changed == {name for name in fresh if name.startswith("wavlm.")}


def test_the_front_end_alone_is_the_least_squares_answer(tmp_path: Path) -> None:
    utterances = [one for one in read_corpus(SPEECH) if one.speaker == "cards"]
    caches = {}
    for what, folder in (("wavlm", "wavlm_L4_200hz"), ("content", "content")):
        make_cache(CacheJob(what, tmp_path, recipe="astrape-vc-small"), utterances)
        caches[what] = Cache(tmp_path / folder)
    alone = FrontEndAlone(caches["wavlm"], caches["content"], utterances)
    rows, wanted = [], []
    for one in utterances:
        features = np.load(tmp_path / "wavlm_L4_200hz" / f"{one.key}.npy").astype(np.float64)
        content = np.load(tmp_path / "content" / f"{one.key}.npy").astype(np.float64)
        for frame in range(min(features.shape[1] // 8, content.shape[1])):
            rows.append([*features[:, 8 * frame : 8 * frame + 8].reshape(-1, order="F"), 1.0])
            wanted.append(content[:, frame])
    answer = np.array(rows) @ np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    norms = np.linalg.norm(answer, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = ((answer * np.array(wanted)).sum(axis=1) / np.maximum(norms, 1e-8)).mean()
    batches = []
    for one in utterances:
        content = torch.from_numpy(np.load(tmp_path / "content" / f"{one.key}.npy"))[None]
        features = torch.from_numpy(np.load(tmp_path / "wavlm_L4_200hz" / f"{one.key}.npy"))[None]
        frames = min(features.shape[-1] // 8, content.shape[-1])
        batches.append({"features": features, "content": content[..., :frames], "frames": torch.tensor([frames])})
    assert alone.cosine(batches) == pytest.approx(cosine, abs=0.01)


def test_the_mean_spectrum_is_that_of_the_valid_samples() -> None:
    mel = LogMel(Stream(16000, 1), bins=20, n_fft=512)
    heard = {"audio": torch.randn(2, 1, 8000), "valid": torch.tensor([0.5, 0.25], dtype=torch.float64)}
    heard["audio"][1, :, 4000:] = 5.0
    mean = MeanSpectrum(mel, [heard])
    bands = torch.cat([mel.bands(heard["audio"][:1])[0], mel.bands(heard["audio"][1:, :, :4000])[0]], dim=1)
    torch.testing.assert_close(mean.mean[:, 0], bands.mean(dim=1))
    other = {"audio": torch.randn(1, 1, 8000) * 2, "valid": torch.tensor([float(Fraction(1, 2))], dtype=torch.float64)}
    wanted = (mel.bands(other["audio"]) - mean.mean).abs().mean()
    assert mean.distance([other]) == pytest.approx(float(wanted), rel=1e-5)


def test_the_head_begins_at_the_level_of_what_is_heard(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = astrape.compile(astrape.Recipe.load("astrape-vc-small"), training=True).requires_grad_(False)
    learner = Learner(graph, "features", ["wav"], [], {}, {})
    wave = 0.05 * torch.randn(2, 1, 22050)
    batch = {
        "features": torch.rand(2, 16, 200),
        "speaker": torch.randn(2, 128),
        "audio": wave,
        "valid": torch.full((2,), 0.5, dtype=torch.float64),
    }
    level_head(graph, learner, [batch])
    said: list[torch.Tensor] = []
    handle = graph.nodes["head"].block.register_forward_hook(lambda module, taken, given: said.append(given))
    learner.signals(batch)
    handle.remove()
    frames = [torch.hann_window(504) * wave[row, 0, at : at + 504] for row in range(2) for at in range(0, 21500, 252)]
    wanted = torch.log(torch.fft.rfft(torch.stack(frames)).abs()).mean(dim=0)
    made = said[0][:, :253, :87].mean(dim=(0, 2))
    torch.testing.assert_close(made[5:-5], wanted[5:-5], atol=0.15, rtol=0)
    restored = load_file(write_weights(graph, tmp_path / "begin.safetensors"))
    assert torch.equal(restored["head.bias"], graph.state_dict()["head.bias"])
