from __future__ import annotations

import math
import os
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.corpus.layouts import read_corpus
from astrape.corpus.utterances import Utterance
from astrape.training.caches import Cache, Record
from astrape.training.caches.files import write_array
from astrape.training.caches.record import keep_record
from astrape.training.errors import CacheError
from astrape.training.windows import WindowLoader, Windows, common_period

SECONDS = (1.0, 2.5, 0.3, 1.72)


def stored(folder: Path, what: str, channels: int, rate: Fraction | None, codes: int | None = None) -> Cache:
    folder.mkdir(parents=True, exist_ok=True)
    keep_record(folder, Record(what, channels, rate, "a test", {}, codes=codes))
    return Cache(folder)


def clocked(
    root: Path, features: Fraction, content: Fraction, rate: int = 16000
) -> tuple[list[Utterance], list[Cache]]:
    """Two speakers, whose every frame and sample says at which second it begins, and caches of all kinds."""
    caches = [
        stored(root / "cache" / "features", "wavlm", 3, features),
        stored(root / "cache" / "content", "content", 2, content, codes=10**6),
        stored(root / "cache" / "speakers", "speakers", 5, None),
    ]
    for index, seconds in enumerate(SECONDS):
        speaker = "anna" if index < 2 else "ben"
        key = f"{speaker}/{index}"
        path = root / "corpus" / f"{key}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = int(seconds * rate)
        soundfile.write(path, 0.1 + np.arange(samples) / rate / 10, rate, subtype="FLOAT")
        for cache, signal_rate in zip(caches, (features, content), strict=False):
            frames = int(Fraction(samples, rate) * signal_rate)
            places = (np.arange(frames) / float(signal_rate)).astype(np.float32)
            one = cache.stored(key)
            write_array(one[next(iter(one))].path, np.stack([places + channel for channel in range(cache.channels)]))
            if cache.what == "content":
                write_array(one["codes"].path, np.arange(frames, dtype=np.int64)[None] + 1000 * index)
                write_array(one["voiced"].path, (np.arange(frames) % 2).astype(np.uint8)[None])
        write_array(caches[2].stored(speaker)["speaker"].path, np.full(5, len(speaker), np.float32))
    return read_corpus(root / "corpus"), caches


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[list[Utterance], list[Cache]]:
    return clocked(tmp_path, Fraction(200), Fraction(25))


def windows(corpus: Any, **changes: Any) -> Windows:
    given = {"seconds": Fraction(4, 5), "period": Fraction(1, 25), "audio": 44100, "seed": 3} | changes
    return Windows(corpus[0], corpus[1], **given)


@pytest.mark.parametrize(
    ("features", "content", "rate"),
    [
        (Fraction(200), Fraction(25), 16000),
        (Fraction(50), Fraction(50), 44100),
        (Fraction(200), Fraction(125, 2), 48000),
        (Fraction(100, 3), Fraction(25), 22050),
    ],
)
def test_all_signals_of_a_window_are_of_the_same_seconds(
    tmp_path: Path, features: Fraction, content: Fraction, rate: int
) -> None:
    made = windows(clocked(tmp_path, features, content, rate), period=Fraction(1, 100), seconds=Fraction(2))
    assert all((made.period * stream.rate).denominator == 1 for stream in made.streams.values())
    begins = set()
    for item in range(40):
        window = made[0, item]
        begin = float(window["features"][0, 0])
        begins.add(round(begin * 1e4))
        assert abs(begin / float(made.period) - round(begin / float(made.period))) < 1e-4
        assert float(window["content"][1, 0]) == pytest.approx(begin + 1, abs=1e-5)
        valid = float(window["valid"])
        for name, offset in (("features", 2), ("content", 1)):
            frames = int(valid * float(made.streams[name].rate) + 1e-6)
            heard = window[name][offset, :frames].numpy() - offset
            assert np.allclose(heard, begin + np.arange(frames) / float(made.streams[name].rate), atol=1e-5)
        middle = window["audio"][0, 2000 : int(valid * 44100) - 2000].numpy()
        assert np.allclose(middle, 0.1 + (begin + (2000 + np.arange(len(middle))) / 44100) / 10, atol=2e-4)
    assert len(begins) > 3


def test_a_window_has_its_shapes_and_types(corpus: Any) -> None:
    made = windows(corpus)
    assert made.seconds == Fraction(4, 5)
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in made[0, 0].items()}
    assert found == {
        "features": ((3, 160), torch.float32),
        "content": ((2, 20), torch.float32),
        "codes": ((1, 20), torch.int64),
        "voiced": ((1, 20), torch.float32),
        "speaker": ((5,), torch.float32),
        "audio": ((1, 35280), torch.float32),
        "speaker_index": ((), torch.int64),
        "valid": ((), torch.float64),
        "frames": ((), torch.int64),
    }
    assert made.speaker_channels == 5
    for item in range(8):
        window = made[0, item]
        index = int(window["speaker_index"])
        assert float(window["speaker"][0]) == len(made.speakers[index])


def test_what_is_shorter_is_padded_and_says_how_much_is_real(corpus: Any) -> None:
    made = windows(corpus)
    short = next(one for one in corpus[0] if one.name == "2")
    window = made.crop(short)
    # 0.3 s: 60 frames of features, and 7 of content, which end at 0.28 s.
    assert float(window["valid"]) == 0.28
    assert int(window["frames"]) == 7
    assert float(window["features"][:, 60:].abs().max()) == 0
    assert float(window["features"][0, 59]) == pytest.approx(59 / 200)
    assert float(window["content"][:, 7:].abs().max()) == 0
    assert float(window["audio"][:, 13230:].abs().max()) == 0
    assert float(window["audio"][0, 6000]) > 0.1
    late = made.crop(short, Fraction(4, 25))
    assert float(late["valid"]) == pytest.approx(0.12)
    assert float(made.crop(short, Fraction(1))["valid"]) == 0
    with pytest.raises(CacheError, match="whole multiple of 1/25"):
        made.crop(short, Fraction(1, 100))


def test_each_pass_has_every_utterance_once_in_an_order_of_its_own(corpus: Any) -> None:
    made = windows(corpus, audio=None)
    passes = [[int(made[epoch, item]["codes"][0, 0]) // 1000 for item in range(8)] for epoch in range(12)]
    for order in passes:
        assert sorted(order[:4]) == sorted(order[4:]) == [0, 1, 2, 3]
    assert len({tuple(order[:4]) for order in passes}) > 4


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_places_depend_on_seed_epoch_and_item_alone(corpus: Any) -> None:
    one, other, seeded = windows(corpus), windows(corpus), windows(corpus, seed=4)
    for item in (5, 0, 3, 11):
        torch.manual_seed(item)
        np.random.seed(item)  # noqa: NPY002 - it is to change nothing
        assert equal(one[2, item], other[2, item])
    assert equal(one[3], one[0, 3])
    assert any(not equal(one[0, item], seeded[0, item]) for item in range(4))
    assert any(not equal(one[0, item], one[1, item]) for item in range(4))


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 5), st.integers(0, 9))
def test_processes_share_a_step_and_a_resumed_epoch_goes_on(world: int, batch: int, first: int, epoch: int) -> None:
    class Numbers(Windows):
        def __init__(self) -> None:
            pass

        def __getitem__(self, place: Any) -> Any:
            return {"place": torch.tensor(place)}

    def places(batch: int, rank: int = 0, world: int = 1, first: int = 0) -> list[list[list[int]]]:
        loader = WindowLoader(Numbers(), steps=6, batch=batch, rank=rank, world=world)
        return [found["place"].tolist() for found in loader.epoch(epoch, first)]

    whole = places(batch * world)
    apart = [places(batch, rank, world) for rank in range(world)]
    assert [[*chain.from_iterable(rows)] for rows in zip(*apart, strict=True)] == whole
    assert places(batch * world, first=first) == whole[first:]
    assert sorted(chain.from_iterable(whole)) == [[epoch, item] for item in range(6 * batch * world)]


def test_workers_give_the_same_batches_epoch_after_epoch(corpus: Any) -> None:
    made = windows(corpus)
    alone = WindowLoader(made, steps=3, batch=2)
    helped = WindowLoader(made, steps=3, batch=2, workers=2)
    for epoch, first in ((0, 0), (1, 2), (0, 1)):
        pairs = list(zip(alone.epoch(epoch, first), helped.epoch(epoch, first), strict=True))
        assert len(pairs) == 3 - first
        assert all(equal(a, b) for a, b in pairs)
        assert pairs[0][0]["audio"].shape == (2, 1, 35280)


@given(
    st.fractions(Fraction(1, 1000), 1, max_denominator=1000),
    st.lists(st.sampled_from([Fraction(25), Fraction(200), Fraction(44100), Fraction(125, 2), Fraction(100, 3)])),
)
def test_a_common_period_is_the_shortest_multiple(period: Fraction, rates: list[Fraction]) -> None:
    found = common_period(period, rates)
    times = found / period
    assert times.denominator == 1
    assert all((found * rate).denominator == 1 for rate in rates)
    smaller = [period * n for n in range(1, min(int(times), 200))]
    assert not any(all((one * rate).denominator == 1 for rate in rates) for one in smaller)


def test_what_could_not_be_made_is_left_out_and_an_unfinished_cache_refused(tmp_path: Path) -> None:
    corpus, caches = clocked(tmp_path, Fraction(200), Fraction(25))
    twelve = [Utterance(one.path, one.speaker, f"{one.name}-{copy}") for one in corpus for copy in range(3)]
    for one in twelve:
        for cache in caches[:2]:
            for name, file in cache.stored(one.key).items():
                os.link(cache.stored(one.key.split("-")[0])[name].path, file.path)
    (caches[1].stored("anna/0-1")["codes"].path).unlink()
    with pytest.raises(CacheError, match=r"content: lacks 1 of 12 utterances, 'anna/0-1' among them.*--what content"):
        Windows(twelve, caches, seconds=Fraction(1), period=Fraction(1, 25))
    caches[1].marker("anna/0-1").write_text("it is hoarse")
    made = Windows(twelve, caches, seconds=Fraction(1), period=Fraction(1, 25))
    assert [one.key for one in made.left_out] == ["anna/0-1"]
    assert len(made) == 11
    caches[2].stored("ben")["speaker"].path.unlink()
    caches[2].marker("ben").write_text("he whispers")
    assert {one.speaker for one in Windows(twelve, caches, seconds=Fraction(1), period=Fraction(1, 25)).utterances} == {
        "anna"
    }
    for one in twelve:
        caches[0].stored(one.key)["features"].path.unlink()
        caches[0].marker(one.key).write_text("it is lost")
    with pytest.raises(CacheError, match="no utterance to take windows of: nothing could be made of any"):
        Windows(twelve, caches, seconds=Fraction(1), period=Fraction(1, 25))


def test_wrong_use_is_refused(corpus: Any, tmp_path: Path) -> None:
    utterances, caches = corpus
    for changes, said in (
        ({"seconds": Fraction(0)}, "above 0"),
        ({"speakers": ["anna"]}, "'ben' is not among the 1"),
    ):
        with pytest.raises(CacheError, match=said):
            windows(corpus, **changes)
    with pytest.raises(CacheError, match="at least one signal"):
        Windows(utterances, [caches[2]], seconds=Fraction(1), period=Fraction(1))
    with pytest.raises(CacheError, match="two caches of one kind"):
        Windows(utterances, [caches[0], caches[0]], seconds=Fraction(1), period=Fraction(1))
    with pytest.raises(CacheError, match="no utterance"):
        Windows([], [], audio=16000, seconds=Fraction(1), period=Fraction(1))
    for wrong in ({"steps": 0}, {"batch": 0}, {"rank": 1}, {"workers": -1}):
        with pytest.raises(CacheError, match="a loader takes"):
            WindowLoader(windows(corpus), **({"steps": 1, "batch": 1} | wrong))
    path = caches[0].stored("anna/0")["features"].path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheError, match=r"anna/0\.npy: has \d+ bytes.*check-cache"):
        windows(corpus).crop(utterances[0])


def test_crops_reach_the_whole_utterance(corpus: Any) -> None:
    made = windows(corpus, audio=None)
    begins = {}
    for item in range(1200):
        window = made[0, item]
        begins.setdefault(int(window["codes"][0, 0]) // 1000 if window["frames"] else -1, set()).add(
            round(float(window["features"][0, 0]) * 25)
        )
    long = begins[1]
    places = math.floor((2.5 - 0.8) * 25 + 1e-9) + 1
    assert long == set(range(places))
    assert begins[2] == {0}
