"""Packs of parallel sets: what folders hold, read by streaming, each process its shards, resumed to the same losses."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from click.testing import CliRunner

from astrape.audio.places import Place
from astrape.cli import cli
from astrape.corpus.layouts import read_corpus
from astrape.corpus.splits import CorpusSplit, split_corpus
from astrape.jobs import Engine
from astrape.training.beside import PackedBeside
from astrape.training.caches import Cache, CacheJob, Pack, check_pack, make_cache, make_pack, repair_pack
from astrape.training.deal import Steps
from astrape.training.errors import CacheError
from astrape.training.packed_windows import PackedShares
from astrape.training.pairs import Pairs
from astrape.training.run import train
from astrape.training.sets import SetWindows
from astrape.training.windows import Cropping
from tests.training import parallel
from tests.training.launching import launch
from tests.training.test_parallel import entries
from tests.training.test_resume import stopped_and_resumed

pytestmark = pytest.mark.usefixtures("read_cache")

SIZE = 200_000
"""Bytes of a shard: two sets of three renderings, of a second each."""

NEEDS = ("audio", "pair.wav", "pair.pitch", "phones", "speaker", "pair.speaker", "random")
CROPPING = Cropping(Fraction(1, 2), Fraction(1, 100), 16000, seed=3)
SHARES = {"kokoro": 2, "flite": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen sets of two sources, and their recordings decoded."""
    folder = tmp_path_factory.mktemp("sets")
    manifest = parallel.write_corpus(folder, 18)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [row | {"source": "flite" if int(row["set"]) % 3 == 0 else "kokoro"} for row in rows]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_cache(CacheJob("audio", folder / "cache", rate=16000), read_corpus(manifest), corpus=manifest)
    return folder


@pytest.fixture(scope="module")
def caches(root: Path) -> list[Cache]:
    return [Cache(root / "cache" / "audio_16000hz")]


@pytest.fixture(scope="module")
def split(root: Path) -> CorpusSplit:
    return split_corpus(read_corpus(root / "manifest.jsonl"), 0.1, 0)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, caches: list[Cache], split: CorpusSplit) -> Path:
    place = tmp_path_factory.mktemp("packed")
    made = make_pack(caches, split, Place(place), shard_bytes=SIZE)
    assert (made.utterances, made.unseen, made.left_out) == (16 * 3 + 2 * 2, 4, 0)
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def order(pack: Pack, world: int = 1) -> Any:
    return lambda *given: PackedShares(*given, pack=pack, steps=Steps(2, world, 5))


def windows(place: Path | str, pairs: Pairs, **given: Any) -> SetWindows:
    pack = Pack(Place(place))
    beside = PackedBeside(pack)
    found = list(pack.caches.values())
    drawn = order(pack, **given)
    return SetWindows(pack.split.train, found, pairs, NEEDS, CROPPING, beside=beside, order=drawn)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0)


def test_a_set_is_in_one_shard_and_each_source_has_its_own(packed: Path, root: Path, split: CorpusSplit) -> None:
    pack = Pack(Place(packed))
    shards: dict[str, set[str]] = {}
    sources: dict[str, set[str]] = {}
    for one in (*pack.split.train, *pack.split.unseen):
        assert one.set is not None
        shards.setdefault(one.set, set()).add(str(one.path))
        sources.setdefault(str(one.path), set()).add(str(one.source))
    assert all(len(some) == 1 for some in shards.values())
    assert all(len(some) == 1 for name, some in sources.items() if name.startswith("train-"))
    assert len(pack.shards) == 8
    by_key = {one.key: one for one in (*split.train, *split.unseen)}
    name = next(iter(shards[next(iter(shards))]))
    with tarfile.open(packed / name) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    for number in {member.partition(".")[0] for member in members}:
        about = json.loads(members[f"{number}.json"])
        own = by_key[about["key"]]
        assert (about["set"], about["source"], about["rate"]) == (own.set, own.source, parallel.RATE)
        for table, path in {"phones": own.phones, "pitch": own.pitch, "vector": own.vector}.items():
            assert members[f"{number}.{table}.npy"] == Path(str(path)).read_bytes()


def test_windows_are_those_of_the_folders(packed: Path, caches: list[Cache], split: CorpusSplit) -> None:
    """The window of each rendering, at a begin; and of what is drawn, the same source, target and seconds."""
    stored, near = windows(packed, Pairs()), SetWindows(split.train, caches, Pairs(), NEEDS, CROPPING)
    by_key = {one.key: one for one in split.train}
    assert [[one.key for one in some] for some in stored.sets] == [[one.key for one in some] for some in near.sets]
    for utterance in stored.utterances[::5]:
        same(stored.crop(utterance, stored.period), near.crop(by_key[utterance.key], near.period))
    near.drawn = stored.drawn
    for item in range(6):
        same(stored[1, item], near[1, item])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_process_reads_its_own_shards_and_of_each_source_its_share(packed: Path, world: int) -> None:
    """So few draws that no process comes to the end of its shards."""
    found, draws = windows(packed, Pairs(shares=SHARES), world=world), {1: 12, 2: 6, 3: 3}[world]
    by_source: dict[int, Counter[str]] = {}
    shards: list[set[str]] = []
    for rank in range(world):
        # Two draws of a process in each step.
        places = [(own // 2) * 2 * world + rank * 2 + own % 2 for own in range(draws)]
        sets = [found.sets[found.drawn(0, place)] for place in places]
        by_source[rank] = Counter(str(some[0].source) for some in sets)
        shards.append({str(some[0].path) for some in sets})
        # What is mixed in is of the shards that are read, not of any.
        near = found.drawn.near(0, places[0])
        assert near is not None
        assert found.drawn(0, places[0]) in near
        assert len({str(found.sets[index][0].path) for index in near}) <= 2
    assert all(some == {"kokoro": draws * 2 // 3, "flite": draws // 3} for some in by_source.values())
    assert sum(map(len, shards)) == len(set().union(*shards))
    if world == 1:
        alone = windows(packed, Pairs())
        once = [alone.drawn(0, place) for place in range(len(alone.sets))]
        assert sorted(once) == list(range(len(alone.sets)))


def test_bytes_do_not_depend_on_who_packs_and_damage_is_found_and_repaired(
    packed: Path, caches: list[Cache], split: CorpusSplit, tmp_path: Path
) -> None:
    many = Place(tmp_path / "many")
    make_pack(caches, split, many, shard_bytes=SIZE, engine=Engine(workers=2))
    assert contents(tmp_path / "many") == contents(packed)
    assert not check_pack(many).findings
    shard = tmp_path / "many" / "train-000002.tar"
    with tarfile.open(shard) as tar:
        member = next(one for one in tar if one.name.endswith(".pitch.npy"))
    content = bytearray(shard.read_bytes())
    content[member.offset_data + member.size - 2] ^= 1
    shard.write_bytes(content)
    (finding,) = check_pack(many).findings
    assert (finding.key, finding.kind) == ("train-000002.tar", "damaged")
    assert "pitch is damaged: its bytes are not what was written" in finding.message
    assert repair_pack(many, [finding], caches, [*split.train, *split.unseen]) == (1, [])
    assert contents(tmp_path / "many") == contents(packed)


def test_a_damaged_table_is_not_packed(caches: list[Cache], split: CorpusSplit, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.f0.npy"
    wrong.write_bytes(b"no table")
    first = replace(split.train[0], pitch=wrong)
    with pytest.raises(CacheError, match=r"wrong\.f0\.npy: is not a readable table"):
        make_pack(
            caches, CorpusSplit([first, *split.train[1:]], split.unseen), Place(tmp_path / "pack"), shard_bytes=SIZE
        )


def test_a_training_on_a_pack_in_a_store_resumes_to_the_same_losses(
    root: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within an epoch, with windows of others at hand mixed in. Nothing is read of folders."""
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")
    place = Place(f"memory://{uuid4().hex}")
    for name in Place(packed).names():
        (place / name).write(packed / name)
    given: dict[str, Any] = {"pack": str(place), "data": None, "cache": tmp_path / "nothing"}
    more = ((("pairs", "shares"), SHARES), (("augment",), [{"use": "babble", "snr": [10, 20]}]))
    whole = train(parallel.options(root, tmp_path / "whole", *more, **given), lambda line: None)
    parts = parallel.options(root, tmp_path / "parts", *more, **given)
    stopped_and_resumed(3, parts, monkeypatch)
    assert whole.finished
    for kind in ("train", "valid"):
        assert entries(tmp_path / "parts", kind) == entries(tmp_path / "whole", kind)
    assert len(entries(tmp_path / "whole", "train")) == 8


def test_the_command_packs_sets_and_trains_on_them(root: Path, tmp_path: Path) -> None:
    def astrape(*words: object) -> Any:
        return CliRunner().invoke(cli, [str(word) for word in words], prog_name="astrape")

    pack = tmp_path / "pack"
    done = astrape("cache", "pack", pack, "--cache", root / "cache", "--shard-size", SIZE / 1e6, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["utterances"] == 52
    assert astrape("check-cache", "--pack", pack).exit_code == 0
    recipe = Path(parallel.options(root, tmp_path).recipe or "")
    words = ("train-voice", "--recipe", recipe, "--out-dir", tmp_path / "out", "--epochs", 1, "--steps-per-epoch", 2)
    trained = astrape(*words, "--pack", pack, "--run-name", "a")
    assert trained.exit_code == 0, trained.output
    assert (tmp_path / "out" / "a.best.safetensors").exists()
    refused = astrape(*words, "--pack", pack, "--run-name", "b", "--batch-size", 3)
    assert refused.exit_code == 1
    assert "rows come in twos" in refused.stderr


def test_two_processes_read_shards_of_their_own(root: Path, packed: Path, tmp_path: Path) -> None:
    launch("tests.training.two_processes_of_packs", 2, tmp_path / "processes.log", root, packed, tmp_path, "voice")
    read = [
        {line.split()[2] for line in (tmp_path / f"process.{rank}").read_text().splitlines() if " 0 " in line}
        for rank in range(2)
    ]
    assert all(read)
    assert not {name for name in read[0] & read[1] if name.startswith("train-")}
    assert len(entries(tmp_path / "run", "train")) > 2
