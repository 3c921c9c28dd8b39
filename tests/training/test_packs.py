"""Packs of caches: WebDataset's shards, the same windows as from folders, and trainings that go on from them."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from astrape.audio.places import Place
from astrape.cli import cli
from astrape.corpus.layouts import read_corpus
from astrape.corpus.splits import CorpusSplit, split_corpus
from astrape.jobs import Engine
from astrape.training.caches import Cache, Pack, find_caches, make_pack
from astrape.training.deal import Steps
from astrape.training.errors import CacheError
from astrape.training.packed_windows import PackedWindows
from astrape.training.run import train
from astrape.training.windows import Cropping, Windows
from tests.audio.object_store import s3_bucket
from tests.training import grounds
from tests.training.test_resume import losses, stopped_and_resumed, validations

pytestmark = pytest.mark.usefixtures("read_cache")

SIZE = 80_000
"""Bytes of a shard: two utterances."""


@pytest.fixture(scope="module")
def caches() -> list[Cache]:
    return [Cache(folder) for folder in find_caches(grounds.ground() / "cache")]


@pytest.fixture(scope="module")
def split() -> CorpusSplit:
    return split_corpus(read_corpus(grounds.ground() / "vctk"), 0.25, 0)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, caches: list[Cache], split: CorpusSplit) -> Path:
    place = tmp_path_factory.mktemp("packed")
    made = make_pack(caches, split, Place(str(place)), shard_bytes=SIZE)
    assert (made.utterances, made.left_out, made.there) == (21, 0, 0)
    assert made.shards > 6
    return place


@pytest.fixture
def memory(packed: Path) -> str:
    """The same pack in a store."""
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")
    where = f"memory://{uuid4().hex}"
    for name in Place(str(packed)).names():
        (Place(where) / name).write(packed / name)
    return where


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def windows(
    place: Path | str, *, world: int = 1, batch: int = 2, seed: int = 3, steps: int | None = None
) -> PackedWindows:
    pack = Pack(Place(str(place)))
    given = [pack.caches[kind] for kind in ("wavlm", "content", "speakers")]
    cropping = Cropping(Fraction(4, 5), Fraction(1, 25), seed=seed)
    return PackedWindows(pack, given, cropping, Steps(batch, world, steps))


def test_webdataset_reads_the_shards_as_the_caches_have_them(
    packed: Path, caches: list[Cache], split: CorpusSplit
) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed: pip install webdataset")
    shards = [str(path) for path in sorted(packed.glob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    keys = [sample["json"]["key"] for sample in samples]
    assert sorted(keys) == sorted(one.key for one in (*split.train, *split.unseen))
    unseen = {one.key for one in split.unseen}
    assert {sample["json"]["key"] for sample in samples if "unseen-" in sample["__url__"]} == unseen
    speakers = {one.key: one for one in (*split.train, *split.unseen)}
    for sample in samples:
        utterance = speakers[sample["json"]["key"]]
        assert sample["json"]["speaker"] == utterance.speaker
        for cache in caches:
            for name, stored in cache.stored(cache.key_of(utterance)).items():
                np.testing.assert_array_equal(sample[f"{name}.npy"], stored.map())


def test_bytes_do_not_depend_on_who_packs_and_a_run_goes_on(
    packed: Path, caches: list[Cache], split: CorpusSplit, tmp_path: Path
) -> None:
    many = Place(str(tmp_path / "many"))
    assert make_pack(caches, split, many, shard_bytes=SIZE, engine=Engine(workers=2)).there == 0
    assert contents(tmp_path / "many") == contents(packed)
    (tmp_path / "many" / "pack.json").unlink()
    (tmp_path / "many" / "train-000001.tar").unlink()
    again = make_pack(caches, split, many, shard_bytes=SIZE)
    assert again.there == again.shards - 1
    assert contents(tmp_path / "many") == contents(packed)
    with pytest.raises(CacheError, match=r"holds another pack, of other caches, another split, seed or size of shards"):
        make_pack(caches, split, many, shard_bytes=SIZE, seed=1)


def test_workers_pack_into_a_bucket_and_windows_come_from_there(
    packed: Path, caches: list[Cache], split: CorpusSplit, read_cache: Path
) -> None:
    with s3_bucket() as bucket:
        place = Place(bucket) / "packs/one"
        make_pack(caches, split, place, shard_bytes=SIZE, engine=Engine(workers=2))
        assert {name: (place / name).read() for name in place.names()} == contents(packed)
        far, near = windows(str(place)), windows(packed)
        # The index, the front end's weights apart, and no shard before a window asks for it.
        assert [path.suffix for path in read_cache.iterdir() if path.is_file()] == [".jsonl"]
        for item in range(3):
            for name, tensor in far[0, item].items():
                torch.testing.assert_close(tensor, near[0, item][name], rtol=0, atol=0)
        # What the read cache had to make room for is fetched again.
        for path in read_cache.glob("*.tar"):
            path.unlink()
        assert far[0, 0]["valid"] == near[0, 0]["valid"]
        (place / "train-000000.tar").write(b"")
        with pytest.raises(
            CacheError, match=r"^s3://.*train-000000\.tar: is not a whole tar file \(empty file\); hint:"
        ):
            [windows(str(place))[0, item] for item in range(20)]


def test_windows_are_those_of_the_folders(memory: str, caches: list[Cache], split: CorpusSplit) -> None:
    stored = windows(memory)
    from_folders = Windows(split.train, caches, seconds=Fraction(4, 5), period=Fraction(1, 25), seed=3)
    by_key = {one.key: one for one in split.train}
    for utterance in stored.utterances[::4]:
        begin = 2 * stored.period
        one, other = stored.crop(utterance, begin), from_folders.crop(by_key[utterance.key], begin)
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=0)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_process_reads_its_own_shards_one_after_another_and_all_of_them_once(packed: Path, world: int) -> None:
    found = windows(packed, world=world)
    shard_of = {one.key: str(one.path) for one in found.utterances}
    sizes = [len(shard) for shard in found.deal.shards]
    seen: list[str] = []
    by_process: list[set[str]] = []
    for rank in range(world):
        own = found.deal.own(0, rank, 0)
        count = sum(sizes[index] for index in own)
        places = [(j // 2) * 2 * world + rank * 2 + j % 2 for j in range(count)]
        keys = [found.at(0, place).key for place in places]
        by_process.append({shard_of[key] for key in keys})
        seen += keys
        # Four shards at a time: the next four begin when these are through.
        first = {found.deal.shards[index][0].path.name for index in own[:4]}
        together = sum(sizes[index] for index in own[:4])
        assert {shard_of[key] for key in keys[:together]} == first
    assert Counter(seen) == Counter(one.key for one in found.utterances)
    assert sum(map(len, by_process)) == len(found.deal.shards)
    assert [found.at(0, item).key for item in range(12)] != [found.at(1, item).key for item in range(12)]


def test_a_place_is_the_same_window_whenever_it_is_asked(packed: Path) -> None:
    one, other = windows(packed), windows(packed)
    ahead = [one[2, item] for item in range(9)]
    for item in (8, 3, 5):
        for name, tensor in other[2, item].items():
            torch.testing.assert_close(tensor, ahead[item][name], rtol=0, atol=0)


def test_a_training_on_a_pack_in_a_store_resumes_to_the_same_losses(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"pack": memory, "data": None, "cache": tmp_path / "nothing"}
    whole = train(grounds.options(tmp_path / "whole", **given), lambda line: None)
    parts = grounds.options(tmp_path / "parts", **given)
    stopped_and_resumed(3, parts, monkeypatch)
    assert whole.finished
    assert losses(tmp_path / "parts", "encoder") == losses(tmp_path / "whole", "encoder")
    assert validations(tmp_path / "parts", "encoder") == validations(tmp_path / "whole", "encoder")
    assert len(losses(tmp_path / "whole", "encoder")) == 8


def test_what_is_half_written_or_damaged_is_told_in_a_line(packed: Path, tmp_path: Path) -> None:
    def spoiled(name: str) -> Path:
        place = tmp_path / name
        for source, content in contents(packed).items():
            Place(str(place / source)).write(content)
        return place

    unfinished = spoiled("unfinished")
    (unfinished / "pack.json").unlink()
    with pytest.raises(CacheError, match=r"holds no pack, or one that is not finished: make it with `astrape"):
        Pack(Place(str(unfinished)))
    cut = spoiled("cut")
    for path in cut.glob("train-*.tar"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 512 * 512])
    with pytest.raises(CacheError, match=r"train-\d+\.tar: is (cut|not a whole)[^\n]*--pack \S+ --repair`$"):
        windows(cut)[0, 0]
    gone = spoiled("gone")
    for path in gone.glob("train-*.tar"):
        path.unlink()
    with pytest.raises(CacheError, match=r"train-\d+\.tar: there is no such file$"):
        windows(gone)[0, 0]
    newer = spoiled("newer")
    (newer / "pack.json").write_text(json.dumps(json.loads((newer / "pack.json").read_text()) | {"astrape_pack": 9}))
    with pytest.raises(CacheError, match=r"is a pack of version 9, and this reads 1 and 2$"):
        Pack(Place(str(newer)))
    listed = spoiled("listed")
    (listed / "index.jsonl").write_text("{}\n")
    with pytest.raises(CacheError, match=r"are not those of a pack \(KeyError\)$"):
        Pack(Place(str(listed)))
    with pytest.raises(CacheError, match=r"shards to train on, and 99 processes take one each at least; hint: pack"):
        windows(packed, world=99)


def test_damage_in_a_cache_is_not_packed(tmp_path: Path, split: CorpusSplit) -> None:
    root = grounds.copied(tmp_path)
    caches = [Cache(folder) for folder in find_caches(root / "cache")]
    (features,) = [cache for cache in caches if cache.what == "wavlm"]
    path = features.stored(split.train[4].key)["features"].path
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"is damaged: its values are not what was written.*repair it with `astrape c"):
        make_pack(caches, split, Place(str(tmp_path / "pack")))
    path.unlink()
    with pytest.raises(CacheError, match=r"lacks 1 of 15 utterances.*make these with `astrape cache --what wavlm`"):
        make_pack(caches, split, Place(str(tmp_path / "other")))


def test_the_command_packs_what_there_is(tmp_path: Path) -> None:
    def astrape(*words: object) -> Any:
        return CliRunner().invoke(cli, [str(word) for word in words], prog_name="astrape")

    root = grounds.ground()
    words = ("cache", "pack", tmp_path / "pack", "--cache", root / "cache", "--shard-size", 0.08, "--unseen", 0.25)
    done = astrape(*words, "--what", "wavlm,content", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    # The corpus is the one that the caches say they were made of.
    assert said["utterances"] == 21
    assert said["shards"] == len(list((tmp_path / "pack").glob("*.tar")))
    with tarfile.open(sorted((tmp_path / "pack").glob("*.tar"))[0]) as tar:
        assert {name.partition(".")[2] for name in tar.getnames()} == {
            "json",
            "features.npy",
            "content.npy",
            "voiced.npy",
        }
    for more, told in (
        (("--what", "mel"), "--what mel: a pack is of wavlm, speakers, content, audio"),
        (("--what", "audio"), "holds no cache of audio: make it with `astrape cache --what audio`"),
        (("--shard-size", 9), "holds another pack"),
    ):
        refused = astrape(*words, *more)
        assert refused.exit_code != 0
        assert told in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert "Missing option '--what'" in astrape("cache").stderr
    assert "astrape cache pack packs/vctk" in astrape("cache", "pack", "--help").output
