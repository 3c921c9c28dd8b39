"""Caches whose folder, and whose corpus, are in a store: the bytes, checks and losses of those in folders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from click.testing import CliRunner

from astrape.audio.places import CACHE_GB, Place
from astrape.cli import cli
from astrape.corpus.layouts import passed_over, read_corpus
from astrape.jobs import Engine
from astrape.training.caches import Cache, check_cache, make_cache, repair_cache
from astrape.training.run import train
from astrape.training.windows import Windows
from tests.training import grounds
from tests.training.corpora import order, recipe, vctk

pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")

pytestmark = [
    pytest.mark.usefixtures("read_cache"),
    pytest.mark.timeout(1800),  # how busy the machine is does not matter
]


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Place:
    name = uuid4().hex
    return Place(f"{request.getfixturevalue('s3')}/{name}" if request.param == "s3" else f"memory://{name}")


def brought(folder: Path, place: Place) -> Place:
    for name in Place(folder).names():
        (place / name).write(folder / name)
    return place


def contents(where: Path | Place) -> dict[str, bytes]:
    place = Place(where)
    return {name: (place / name).read() for name in place.names() if name.endswith((".npy", ".failed", ".safetensors"))}


def test_a_cache_in_a_store_is_checked_repaired_and_read_as_one_in_a_folder(store: Place, tmp_path: Path) -> None:
    corpus = vctk(tmp_path / "corpus")
    (corpus / "wav48_silence_trimmed" / "p225" / "p225_009_mic1.flac").write_bytes(b"fLaC")
    (corpus / "notes.md").write_text("of the corpus")
    near = read_corpus(corpus)
    far = read_corpus(brought(corpus, store / "corpus"))
    assert [(one.key, one.text, one.path.name) for one in far] == [(one.key, one.text, one.path.name) for one in near]
    assert [path.name for path in passed_over(store / "corpus")] == ["notes.md"]
    made = make_cache(order(tmp_path / "cache"), near)
    given = replace(order(tmp_path / "cache"), root=store / "cache")
    # One of memory is of this process alone.
    engine = Engine() if str(store).startswith("memory") else Engine(workers=2)
    begun = make_cache(given, far, limit=3)
    assert (begun.made, begun.there, len(begun.failed)) == (3, 0, 0)
    finished = make_cache(given, far, engine=engine)
    assert (finished.made, finished.there) == (6, 3)
    assert [one.key for one in finished.failed] == [one.key for one in made.failed] == ["p225/p225_009"]
    here, there = Cache(tmp_path / "cache/wavlm_L2_800hz"), Cache(store / "cache/wavlm_L2_800hz")
    good = contents(here.folder)
    assert len(good) == 11
    # What could not be made says so of its own recording.
    same = {name: content.replace(bytes(corpus), str(store / "corpus").encode()) for name, content in good.items()}
    assert contents(there.folder) == same
    assert there.record.identity == here.record.identity

    whole = [one for one in far if one.name != "p225_009"]
    assert not check_cache(there, whole, reads=2, engine=engine).findings
    Place(there.stored(whole[1].key)["features"].path).remove()
    damaged = Place(there.stored(whole[5].key)["features"].path)
    damaged.write(damaged.read()[:-7])
    flipped = Place(there.stored(whole[7].key)["features"].path)
    flipped.write(flipped.read()[:-1] + bytes([flipped.read()[-1] ^ 1]))
    found = check_cache(there, whole, reads=2, engine=engine).findings
    assert {(one.key, one.kind) for one in found} == {
        (whole[1].key, "missing"),
        (whole[5].key, "truncated"),
        (whole[7].key, "checksum"),
    }
    assert repair_cache(there, found, whole, given, engine=engine) == (3, [])
    assert contents(there.folder) == same


def test_windows_from_a_store_are_those_of_folders_and_the_read_cache_keeps_its_size(
    store: Place, tmp_path: Path, read_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = vctk(tmp_path / "corpus")
    make_cache(order(tmp_path / "cache"), read_corpus(corpus))
    folder = tmp_path / "cache/wavlm_L2_800hz"
    brought(corpus, store / "corpus")
    brought(folder, store / "features")
    largest = max(path.stat().st_size for path in [*folder.rglob("*.npy"), *corpus.rglob("*.flac")])
    monkeypatch.setenv(CACHE_GB, str(3 * largest / 1e9))

    def windows(where: Path | Place, features: Path | Place) -> Windows:
        length = {"seconds": Fraction(4, 5), "period": Fraction(1, 25)}
        return Windows(read_corpus(where), [Cache(features)], audio=16000, seed=3, **length)

    near, far = windows(corpus, folder), windows(store / "corpus", store / "features")
    for item in range(12):
        one, other = near[0, item], far[0, item]
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=0)
        assert sum(path.stat().st_size for path in read_cache.iterdir() if path.is_file()) <= 3 * largest


def test_training_on_caches_in_a_store_has_the_losses_of_folders(store: Place, tmp_path: Path) -> None:
    grounds.run(tmp_path / "near")
    brought(grounds.ground() / "cache", store / "cache")
    brought(grounds.ground() / "vctk", store / "vctk")
    options = grounds.options(tmp_path / "far", cache=store / "cache", data=store / "vctk")
    assert train(options, lambda line: None).finished
    near, far = grounds.curve(tmp_path / "near"), grounds.curve(tmp_path / "far")
    assert [one for one in far if "train" in one] == [one for one in near if "train" in one]
    assert len(near) > 8


def test_the_commands_take_urls(s3: str, tmp_path: Path) -> None:
    corpus, place = vctk(tmp_path / "corpus", 2, 2), Place(s3) / uuid4().hex
    brought(corpus, place / "corpus")

    def astrape(*words: str) -> str:
        done = CliRunner().invoke(cli, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    small, cache = recipe(tmp_path), str(place / "cache")
    assert "4 of 4 utterances made" in astrape(
        "cache", "--what", "wavlm", "--recipe", small, "--data", str(place / "corpus"), "--cache", cache
    )
    astrape("cache", "--what", "audio", "--rate", "16000", "--data", str(place / "corpus"), "--cache", cache)
    # Where the corpus is, the caches say.
    assert astrape("check-cache", "--cache", cache).count("4 utterances") == 2
    packed = astrape("cache", "pack", str(place / "pack"), "--cache", cache, "--unseen", "0.5")
    assert "4 utterances in 2 shards" in packed
    gone = CliRunner().invoke(cli, ["check-cache", "--cache", "s3://no-such-bucket/cache"])
    assert gone.exit_code != 0
    assert "s3://no-such-bucket/cache" in gone.output
    assert "there is no such bucket: hint: make it first" in gone.output
