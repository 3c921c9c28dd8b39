"""``check-cache`` of packs: every kind of damage is found, named and counted, and packed again to the same bytes."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from astrape.audio.places import Place
from astrape.cli import cli
from astrape.corpus.layouts import read_corpus
from astrape.jobs import Engine
from astrape.training.caches import Cache, check_pack, find_caches, make_pack, repair_pack
from astrape.training.errors import CacheError
from tests.audio.object_store import s3_bucket
from tests.training import grounds
from tests.training.test_packs import caches, contents, packed, split

__all__ = ["caches", "packed", "split"]

TRAIN = "train-000001.tar"

pytestmark = [
    pytest.mark.usefixtures("read_cache"),
    pytest.mark.timeout(1800),  # how busy the machine is does not matter
]


def copied(packed: Path, to: Place) -> Place:
    for name, content in contents(packed).items():
        (to / name).write(content)
    return to


def members(content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def tar_of(parts: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in parts:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def flipped(content: bytes) -> bytes:
    """A bit of the last value of the first array is another."""
    parts = members(content)
    index = next(i for i, (member, _) in enumerate(parts) if member.name.endswith(".features.npy"))
    values = bytearray(parts[index][1])
    values[-3] ^= 1
    parts[index] = (parts[index][0], bytes(values))
    return tar_of(parts)


def without(ending: str) -> Callable[[bytes], bytes]:
    def drop(content: bytes) -> bytes:
        parts = members(content)
        return tar_of(
            [part for part in parts if part[0].name != next(m.name for m, _ in parts if m.name.endswith(ending))]
        )

    return drop


def renamed(content: bytes) -> bytes:
    parts = members(content)
    about = json.loads(parts[0][1]) | {"key": "somebody/else"}
    return tar_of([(parts[0][0], json.dumps(about).encode()), *parts[1:]])


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes] | None, str, str]] = {
    "half written": (half, "truncated", r"is (cut short|not a whole tar file) \("),
    "at a member": (
        lambda content: content[: len(content) // 2 // 512 * 512],
        "truncated",
        r"is (cut short|not a whole)",
    ),
    "empty": (lambda content: b"", "truncated", r"is not a whole tar file \(empty file\)"),
    "no tar": (lambda content: bytes(5000), "truncated", r"is (cut short|not a whole tar file) \("),
    "missing": (None, "missing", r"is missing$"),
    "a bit": (flipped, "checksum", r"^\d{9}: features is damaged: its values are not what was written"),
    "an array": (without(".content.npy"), "missing", r"^\d{9}: content is missing$"),
    "an utterance": (without(".json"), "truncated", r"is cut short \(\d+ bytes, 1 of 2 utterances\)"),
    "another": (renamed, "changed", r"^\d{9}: is of 'somebody/else', and the index says otherwise$"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damage_to_a_shard_is_found_named_and_repaired(
    damage: str, packed: Path, caches: list[Cache], tmp_path: Path
) -> None:
    place = copied(packed, Place(tmp_path / "pack"))
    spoil, kind, said = DAMAGE[damage]
    content = (place / TRAIN).read()
    if spoil is None:
        (place / TRAIN).remove()
    else:
        (tmp_path / "pack" / TRAIN).write_bytes(spoil(content))
    found = check_pack(place, reads=2)
    assert [(one.path, one.kind, one.key) for one in found.findings] == [(str(place / TRAIN), kind, TRAIN)]
    assert re.search(said, found.findings[0].message), found.findings[0].message
    assert (found.what, found.items, found.strangers) == ("pack", 21, 0)
    utterances = read_corpus(grounds.ground() / "vctk")
    assert repair_pack(place, found.findings, caches, utterances) == (1, [])
    assert contents(tmp_path / "pack") == contents(packed)
    assert check_pack(place).findings == ()


def test_a_sound_pack_has_no_findings_and_strangers_are_counted(packed: Path, tmp_path: Path) -> None:
    place = copied(packed, Place(tmp_path / "pack"))
    (place / "notes.txt").write(b"of the user")
    seen: list[tuple[float, float | None]] = []
    found = check_pack(place, progress=lambda done, total: seen.append((done, total)))
    assert (found.findings, found.items, found.strangers) == ((), 21, 1)
    shards = len(list(packed.glob("*.tar")))
    assert seen == [(number, shards) for number in range(1, shards + 1)]


def test_files_beside_the_shards(packed: Path, caches: list[Cache], tmp_path: Path) -> None:
    utterances = read_corpus(grounds.ground() / "vctk")
    place = copied(packed, Place(tmp_path / "pack"))
    (place / "front.safetensors").write(b"no weights")
    (tmp_path / "pack" / ".train-000000.tar.machine.1.00ff.writing").write_bytes(b"half")
    os.utime(tmp_path / "pack" / ".train-000000.tar.machine.1.00ff.writing", (1, 1))
    found = check_pack(place)
    assert sorted(one.kind for one in found.findings) == ["temporary", "weights"]
    assert repair_pack(place, found.findings, caches, utterances) == (1, [])
    assert contents(tmp_path / "pack") == contents(packed)
    # Not finished: what is there is read, and packing goes on.
    (place / "pack.json").remove()
    (tmp_path / "pack" / TRAIN).write_bytes(half((place / TRAIN).read()))
    (tmp_path / "pack" / "index.jsonl").write_bytes(half((place / "index.jsonl").read()))
    found = check_pack(place)
    assert [(Path(one.path).name, one.kind) for one in found.findings] == [
        ("pack.json", "missing"),
        ("index.jsonl", found.findings[1].kind),
        (TRAIN, "truncated"),
    ]
    made, failed = repair_pack(place, found.findings, caches, utterances)
    assert made == 0
    assert [one.error.partition(";")[0] for one in failed][2] == "was removed, since nothing says what is in it"
    assert all("`astrape cache pack`, with the options" in one.error for one in failed)
    assert not (place / TRAIN).exists()
    with pytest.raises(CacheError, match=r"holds no pack; hint: make one with `astrape cache pack "):
        check_pack(Place(tmp_path / "nothing"))


def test_a_repair_takes_the_caches_it_was_packed_from(packed: Path, caches: list[Cache], tmp_path: Path) -> None:
    place = copied(packed, Place(tmp_path / "pack"))
    (place / TRAIN).remove()
    found = check_pack(place).findings
    utterances = read_corpus(grounds.ground() / "vctk")
    with pytest.raises(CacheError, match=r"is of a cache of content too; hint: name its folder with --content-dir"):
        repair_pack(place, found, [cache for cache in caches if cache.what != "content"], utterances)
    made, failed = repair_pack(place, found, caches, utterances[:1])
    assert made == 0
    assert "is not in the corpus; hint: name its corpus with --data" in failed[0].error
    root = grounds.copied(tmp_path)
    record = root / "cache" / "content" / "cache.json"
    told = json.loads(record.read_text())
    told["identity"] |= {"teacher": "another"}
    record.write_text(json.dumps(told))
    others = [Cache(folder) for folder in find_caches(root / "cache")]
    with pytest.raises(CacheError, match=r"was packed from another cache of content than .* \(it has teacher "):
        repair_pack(place, found, others, utterances)


def test_the_command_checks_and_repairs_in_a_bucket(caches: list[Cache], split: Any, tmp_path: Path) -> None:
    root = grounds.ground()
    with s3_bucket() as bucket:
        place = Place(bucket) / uuid4().hex
        make_pack(caches, split, place, shard_bytes=80_000, engine=Engine(workers=2))
        whole = {name: (place / name).read() for name in place.names()}

        def astrape(*more: object) -> Any:
            words = ("check-cache", "--pack", place, "--cache", root / "cache", *more)
            return CliRunner().invoke(cli, [str(word) for word in words], prog_name="astrape")

        done = astrape()
        assert done.exit_code == 0, done.output
        assert f"{place}: 21 utterances in " in done.stdout
        assert "s: all sound" in done.stdout
        (place / TRAIN).write(half(whole[TRAIN]))
        (place / "unseen-000000.tar").write(flipped(whole["unseen-000000.tar"]))
        (place / "train-000002.tar").remove()
        done = astrape("--json")
        assert done.exit_code == 1
        (said,) = json.loads(done.stdout)
        assert [one["kind"] for one in said["findings"]] == ["truncated", "missing", "checksum"]
        done = astrape("--repair")
        assert done.exit_code == 0, done.output
        assert "1 checksum, 1 missing, 1 truncated" in done.stdout
        assert f"{place}: 3 made again, 0 left" in done.stdout
        assert {name: (place / name).read() for name in place.names()} == whole
