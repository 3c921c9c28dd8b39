"""Caches: what is made, by whatever number of workers, how a run goes on, and what the arrays hold."""

from __future__ import annotations

import os
import random
import signal
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import astrape
from astrape.audio.atomic import is_stale, temporaries
from astrape.corpus.layouts import read_corpus
from astrape.graph import compile
from astrape.graph.recipe import Recipe
from astrape.graph.subgraph import subgraph
from astrape.jobs import Engine
from astrape.training.caches import Cache, FrontEnd, load_front, make_cache
from astrape.training.caches.files import read_array
from astrape.training.caches.recording import read_crop, read_header, read_recording
from astrape.training.errors import CacheError
from astrape.training.teachers import open_teacher
from astrape.training.voicing import voiced_frames
from astrape.voice.building import build_voicebank
from astrape.voice.speaker import MelStatistics
from tests.jobs.killing import Killer
from tests.training.corpora import LevelTeacher, arrays, order, recipe, speech, vctk, write


def test_features_are_what_the_whole_graph_streams(tmp_path: Path, corpus: list[Any]) -> None:
    wanted = order(tmp_path / "cache")
    made = make_cache(wanted, corpus)
    assert (made.made, made.there, made.failed) == (9, 0, ())
    cache = Cache(tmp_path / "cache" / "wavlm_L2_800hz")
    graph = compile(Recipe.load(wanted.recipe), training=True)
    load_front(graph, cache.folder, cache.record)
    for utterance in corpus:
        samples, rate = soundfile.read(utterance.path, dtype="float32")
        audio = torch.from_numpy(samples).reshape(1, 1, -1)
        if rate != 44100:
            spec = {
                "recipe": "to",
                "inputs": {"in": {"rate": rate, "channels": 1}},
                "blocks": {"to": {"use": "resampler", "rate": 44100}},
                "outputs": {"out": "to"},
            }
            audio = torch.cat(list(compile(spec).stream().compensated([audio])), dim=-1)
        with torch.no_grad():
            features = graph(audio)["features"][0]
            session = subgraph(graph, ["features"]).stream()
            pieces = torch.split(audio, 317 + 991 * (len(utterance.key) % 3), dim=-1)
            streamed = torch.cat([session.push(piece) for piece in pieces], dim=-1)[0]
        stored = cache.stored(utterance.key)["features"].map()
        assert stored.dtype == np.float32
        assert stored.flags.c_contiguous
        assert stored.shape == features.shape
        assert np.abs(stored - features.numpy()).max() < 1e-5
        # A stream has not waited for the last whole quantum: it gives what it can.
        assert 0 <= streamed.shape[-1] - stored.shape[-1] < graph.period * cache.rate
        assert np.abs(stored - streamed[:, : stored.shape[1]].numpy()).max() < 1e-5
        assert cache.expected(read_header(utterance.path)) == (stored.shape[1], stored.shape[1])


def test_a_second_run_makes_only_what_is_missing(tmp_path: Path, corpus: list[Any]) -> None:
    wanted = order(tmp_path / "cache")
    make_cache(wanted, corpus)
    folder = tmp_path / "cache" / "wavlm_L2_800hz"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    (folder / "p226" / "p226_002.npy").unlink()
    again = make_cache(wanted, corpus)
    assert (again.made, again.there) == (1, 8)
    changed = [path.name for path in folder.rglob("*.npy") if before[path] != path.stat().st_mtime_ns]
    assert changed == ["p226_002.npy"]


def test_processes_and_limits_make_the_same_between_them(tmp_path: Path, corpus: list[Any]) -> None:
    whole = order(tmp_path / "whole" / "cache")
    make_cache(whole, corpus)
    beside = order(tmp_path / "beside" / "cache")
    assert make_cache(beside, corpus, engine=Engine(workers=2)).made == 9
    limited = order(tmp_path / "limited" / "cache")
    assert make_cache(limited, corpus, limit=2).made == 2
    made = {one.root.parent.name: arrays(one.root / "wavlm_L2_800hz") for one in (whole, beside, limited)}
    assert made["whole"] == made["beside"]
    assert len(made["whole"]) == 9
    assert list(made["limited"]) == list(made["whole"])[:2]


def test_a_killed_run_leaves_whole_files_and_goes_on(tmp_path: Path) -> None:
    corpus = read_corpus(vctk(tmp_path / "corpus", speakers=4, utterances=8))
    whole = order(tmp_path / "whole" / "cache")
    make_cache(whole, corpus)
    wanted = order(tmp_path / "killed" / "cache")
    folder = wanted.root / "wavlm_L2_800hz"
    generator = random.Random(7)
    seen: list[int] = []
    for _ in range(8):
        child = os.fork()
        if not child:
            try:
                make_cache(wanted, corpus)
            finally:
                os._exit(0)
        before = len(arrays(folder))
        while len(list(folder.rglob("*.npy"))) == before and not _ended(child):
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        done = arrays(folder)
        seen.append(len(done))
        for name in done:
            assert np.isfinite(read_array(folder / name, np.float32, 8)).all()
    assert seen == sorted(seen)
    assert seen[0] < len(corpus)
    final = make_cache(wanted, corpus)
    assert final.there >= seen[-1]
    assert final.failed == ()
    assert arrays(folder) == arrays(whole.root / "wavlm_L2_800hz")
    assert not list(temporaries(folder))


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_that_are_killed_cost_no_array(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From outside, amid their work: what is there in the end has the bytes of a run by this process alone."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if engine == "ray":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")
    corpus = read_corpus(vctk(tmp_path / "corpus", speakers=4, utterances=4))
    whole, killed = order(tmp_path / "whole" / "cache"), order(tmp_path / "killed" / "cache")
    make_cache(whole, corpus)
    kill = Killer()
    made = make_cache(killed, corpus, engine=Engine(engine, workers=2), progress=kill)
    assert kill.killed == 2
    assert (made.made, made.failed) == (16, ())
    folder = killed.root / "wavlm_L2_800hz"
    assert arrays(folder) == arrays(whole.root / "wavlm_L2_800hz")


def _ended(child: int) -> bool:
    """Whether a process has ended; it can still be asked how."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_what_a_killed_writer_leaves_is_known_as_left(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "a.npy"
    reading, writing = os.pipe()
    child = os.fork()
    if not child:

        def slowly(file: Any) -> None:
            file.write(b"half")
            file.flush()
            os.write(writing, b"x")
            time.sleep(60)

        from astrape.training.caches.files import write_whole

        write_whole(path, slowly)
        os._exit(0)
    os.read(reading, 1)
    (left,) = temporaries(tmp_path)
    assert not is_stale(left)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert is_stale(left)
    assert not path.exists()
    other = left.with_name(".a.npy.another-machine.1.ff.writing")
    other.write_bytes(b"")
    assert not is_stale(other)
    os.utime(other, (1, 1))
    assert is_stale(other)


def test_random_weights_agree_everywhere_and_are_kept_beside_the_cache(tmp_path: Path, corpus: list[Any]) -> None:
    wanted = order(tmp_path / "cache")
    torch.manual_seed(1)
    said: list[str] = []
    make_cache(wanted, corpus[:1], tell=said.append)
    assert any("random" in line and "--wavlm" in line for line in said)
    folder = tmp_path / "cache" / "wavlm_L2_800hz"
    torch.manual_seed(2)
    fresh = FrontEnd(wanted.recipe)
    assert fresh.random
    kept = load_file(folder / "front.safetensors")
    assert kept.keys() == fresh.state.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in fresh.state.items())
    graph = astrape.load(wanted.recipe, training=True)
    assert set(kept) < set(graph.state_dict())


def test_a_cache_of_given_weights_goes_on_without_them(tmp_path: Path, corpus: list[Any]) -> None:
    path = recipe(tmp_path)
    torch.manual_seed(5)
    graph = astrape.load(path, training=True)
    save_file(graph.state_dict(), tmp_path / "weights.safetensors")
    wanted = order(tmp_path / "cache", weights=tmp_path / "weights.safetensors")
    assert not make_cache(wanted, corpus[:1]).random
    again = make_cache(order(tmp_path / "cache"), corpus[:2])
    assert (again.made, again.random) == (1, False)
    cache = Cache(tmp_path / "cache" / "wavlm_L2_800hz")
    assert cache.record.options["weights"] == "weights.safetensors"
    other = astrape.load(path, training=True)
    load_front(other, cache.folder, cache.record)
    assert torch.equal(
        other.state_dict()["front.conv_layers.0.conv.weight"], graph.state_dict()["front.conv_layers.0.conv.weight"]
    )
    assert not torch.equal(other.state_dict()["adapter.weight"], graph.state_dict()["adapter.weight"])


def test_a_wavlm_checkpoint_fills_the_front_end(tmp_path: Path, corpus: list[Any]) -> None:
    torch.manual_seed(6)
    graph = astrape.load(recipe(tmp_path))
    own = {name: tensor for name, tensor in graph.state_dict().items() if name.startswith("front.")}
    drawn = {name: torch.rand_like(tensor) for name, tensor in own.items()}
    checkpoint = tmp_path / "wavlm.safetensors"
    save_file({name.replace("front.", "feature_extractor."): tensor for name, tensor in drawn.items()}, checkpoint)
    front = FrontEnd(recipe(tmp_path), wavlm=checkpoint)
    assert not front.random
    assert all(torch.equal(front.state[name], tensor) for name, tensor in drawn.items())
    with pytest.raises(CacheError, match="give one of them"):
        FrontEnd(recipe(tmp_path), wavlm=checkpoint, weights=checkpoint)


def test_a_cache_of_another_maker_is_refused_by_name_of_both(
    tmp_path: Path, corpus: list[Any], level: dict[str, str]
) -> None:
    wanted = order(tmp_path / "cache")
    make_cache(wanted, corpus[:1])
    torch.manual_seed(8)
    save_file(astrape.load(wanted.recipe, training=True).state_dict(), tmp_path / "other.safetensors")
    text = Path(wanted.recipe).read_text()
    changed = tmp_path / "changed.yaml"
    changed.write_text(text.replace("layers: 3", "layers: 3, warmup: 7"))
    folder = "wavlm_L2_800hz"
    for other, said in (
        (order(tmp_path / "cache", weights=tmp_path / "other.safetensors"), "other.safetensors"),
        (order(tmp_path / "cache", recipe=str(changed), folder=folder), "front end"),
    ):
        with pytest.raises(CacheError) as caught:
            make_cache(other, corpus)
        line = str(caught.value)
        assert said in line
        assert "was made by 'features' of recipe 'small' with random weights (seed 0), and this run has" in line
        assert "--wavlm-dir" in line
    assert len(arrays(tmp_path / "cache")) == 1
    # What does not lie before the features changes nothing about them.
    later = tmp_path / "later.yaml"
    later.write_text(text.replace("channels: 4", "channels: 5").replace("recipe: small", "recipe: later"))
    assert make_cache(order(tmp_path / "cache", recipe=str(later)), corpus[:1]).there == 1
    make_cache(order(tmp_path / "cache", "content"), corpus[:1])
    with pytest.raises(
        CacheError, match=r"teacher 'astrape/spectral-v1', and this run has teacher 'level'.*content-dir"
    ):
        make_cache(order(tmp_path / "cache", "content", teacher=level), corpus[:1])
    make_cache(order(tmp_path / "cache", "speakers"), corpus)
    with pytest.raises(CacheError, match="utterances per speaker 8 and not 2"):
        make_cache(order(tmp_path / "cache", "speakers", utts_per_speaker=2), corpus)
    with pytest.raises(CacheError, match="what content and not speakers"):
        make_cache(order(tmp_path / "cache", "speakers", folder="content"), corpus)


def test_content_is_the_teachers_with_codes_and_voicing(
    tmp_path: Path, corpus: list[Any], level: dict[str, str]
) -> None:
    made = make_cache(order(tmp_path / "cache", "content", teacher=level), corpus)
    assert made.made == 9
    cache = Cache(tmp_path / "cache" / "content")
    assert (cache.rate, cache.channels, cache.record.codes) == (20, 2, 16)
    teacher = LevelTeacher()
    for utterance in corpus:
        audio = read_recording(utterance.path, Fraction(8000))
        stored = {name: one.map() for name, one in cache.stored(utterance.key).items()}
        assert np.array_equal(stored["content"], teacher.content(audio)[0].numpy())
        assert np.array_equal(stored["codes"], teacher.codes(audio)[0].numpy())
        assert stored["voiced"].shape == stored["codes"].shape
        assert 0 < stored["voiced"].mean() < 1
        least, most = cache.expected(read_header(utterance.path)) or (0, 0)
        assert least <= stored["content"].shape[1] <= most


def test_voicing_is_where_the_pitch_is() -> None:
    rate = 16000
    time_of = np.arange(2 * rate) / rate
    voice = sum(np.sin(2 * np.pi * 120 * harmonic * time_of) / harmonic for harmonic in range(1, 9)) * 0.2
    voice[: rate // 2] = 0
    noise = 0.05 * np.random.default_rng(0).standard_normal(rate // 2)
    voice[rate : rate + rate // 2] = noise
    audio = torch.from_numpy(voice.astype(np.float32)).reshape(1, 1, -1)
    for frame_rate in (Fraction(25), Fraction(50), Fraction(100, 3)):
        frames = int(2 * frame_rate) + 2
        found = voiced_frames(audio, frame_rate, frames)[0].numpy()
        middle = (np.arange(frames) + 0.5) / float(frame_rate)
        sure = np.abs((middle * 2) % 1 - 0.5) < 0.5 - 2 * 0.08
        wanted = ((middle > 0.5) & (middle < 1)) | ((middle > 1.5) & (middle < 2))
        assert np.array_equal(found[sure & (middle < 2)], wanted[sure & (middle < 2)])
        assert not found[middle > 2].any()


def test_a_speaker_is_embedded_as_a_voicebank_is(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "corpus" / "anna" / f"{number}.wav", np.tile(speech(number, 2.5), number + 1))
    corpus = read_corpus(tmp_path / "corpus")
    make_cache(order(tmp_path / "cache", "speakers"), corpus)
    cache = Cache(tmp_path / "cache" / "speakers")
    bank = build_voicebank([one.path for one in corpus], MelStatistics())
    assert np.abs(cache.stored("anna")["speaker"].map() - bank.embedding).max() < 1e-5


def test_speakers_are_of_so_many_utterances_the_same_ones_each_time(tmp_path: Path) -> None:
    from astrape.training.caches.teaching import Teaching

    for number in range(12):
        write(tmp_path / "corpus" / "anna" / f"{number}.wav", speech(number * 0.3, 1.5))
    write(tmp_path / "corpus" / "anna" / "silent.wav", np.zeros(32000, np.float32))
    write(tmp_path / "corpus" / "anna" / "short.wav", speech(0, 0.5))
    (tmp_path / "corpus" / "anna" / "broken.wav").write_bytes(b"RIFF")
    corpus = read_corpus(tmp_path / "corpus")
    teaching = Teaching(open_teacher("spectral"))
    few, mixed = teaching.centroid(corpus, 4), teaching.centroid(corpus[::-1], 4)
    assert np.array_equal(few.embedding, mixed.embedding)
    assert (few.windows, len(few.used)) == (4, 4)
    everything = teaching.centroid(corpus, 100)
    assert {one.name for one in everything.used} == {str(number) for number in range(12)}
    assert len(everything.faults) == 1
    assert "broken.wav" in everything.faults[0]
    quiet = [one for one in corpus if one.name in ("silent", "short")]
    with pytest.raises(CacheError, match="no utterance of 2 has a window"):
        teaching.centroid(quiet, 8)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_a_crop_is_what_the_whole_recording_has_there(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(2 * rate + 77).astype("f4") * 0.1, rate)
    whole = read_recording(path, Fraction(44100))[0]
    assert whole.shape[-1] == read_header(path).frames_at(Fraction(44100))
    for place in (0, 1, 9, 24, 49, 50, 60):
        begin = Fraction(place, 25)
        crop = read_crop(path, Fraction(44100), begin, Fraction(2, 5))
        wanted = whole[:, int(begin * 44100) :][:, : int(Fraction(2, 5) * 44100)]
        assert crop.shape == wanted.shape
        assert not crop.numel() or float((crop - wanted).abs().max()) < 1e-6
