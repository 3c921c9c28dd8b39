from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astrape.corpus.errors import CorpusError
from astrape.corpus.layouts import read_corpus
from astrape.training import teachers
from astrape.training.caches import Cache, CacheJob, check_cache, find_caches, make_cache, repair_cache
from astrape.training.errors import CacheError
from tests.training.corpora import arrays, order, speech, vctk, write


@pytest.fixture
def corpus(tmp_path: Path) -> list[Any]:
    return read_corpus(vctk(tmp_path / "corpus", speakers=2))


def rewrite(path: Path, change: Any) -> None:
    np.save(path, change(np.load(path)))


def with_nan(array: Any) -> Any:
    array[0, 5] = np.nan
    return array


DAMAGE = {
    "p225/p225_001.npy": ("truncated", lambda path: path.write_bytes(path.read_bytes()[:-3])),
    "p225/p225_002.npy": ("empty", lambda path: path.write_bytes(b"")),
    "p225/p225_003.npy": ("non-finite", lambda path: rewrite(path, with_nan)),
    "p226/p226_001.npy": ("shape", lambda path: rewrite(path, lambda array: array[:-1])),
    "p226/p226_002.npy": ("shape", lambda path: rewrite(path, lambda array: array[:, :-1])),
    "p226/p226_003.npy": ("missing", lambda path: path.unlink()),
}


def test_every_kind_of_damage_is_found_and_repaired(tmp_path: Path, corpus: list[Any]) -> None:
    wanted = order(tmp_path / "cache")
    make_cache(wanted, corpus)
    (folder,) = find_caches(tmp_path / "cache")
    sound = arrays(folder)
    assert check_cache(Cache(folder), corpus).findings == ()
    for name, (_, damage) in DAMAGE.items():
        damage(folder / name)
    left = folder / "p225" / ".p225_009.npy.machine.1.ff.writing"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    found = check_cache(Cache(folder), corpus, reads=3)
    kinds = {os.path.relpath(one.path, folder): one.kind for one in found.findings}
    assert kinds == {name: kind for name, (kind, _) in DAMAGE.items()} | {os.path.relpath(left, folder): "temporary"}
    cache = Cache(folder)
    made, failed = repair_cache(cache, found.findings, corpus, CacheJob(what="wavlm", root=folder.parent))
    assert (made, failed) == (6, [])
    assert arrays(folder) == sound
    assert not left.exists()
    assert check_cache(cache, corpus).findings == ()


def test_codes_and_voicing_are_held_against_the_content(
    tmp_path: Path, corpus: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(teachers.TEACHERS, "level", "tests.training.corpora:LevelTeacher")
    make_cache(order(tmp_path / "cache", "content", teacher={"use": "level"}), corpus)
    folder = tmp_path / "cache" / "content"
    sound = arrays(folder)
    rewrite(folder / "p225" / "p225_001.codes.npy", lambda array: array + 16)
    rewrite(folder / "p225" / "p225_002.codes.npy", lambda array: array[:, :-1])
    rewrite(folder / "p225" / "p225_003.codes.npy", lambda array: array.astype(np.int32))
    rewrite(folder / "p226" / "p226_001.voiced.npy", lambda array: array + 2)
    (folder / "p226" / "p226_002.voiced.npy").unlink()
    found = check_cache(Cache(folder), corpus)
    assert [(Path(one.path).name, one.kind) for one in found.findings] == [
        ("p225_001.codes.npy", "shape"),
        ("p225_002.codes.npy", "shape"),
        ("p225_003.codes.npy", "shape"),
        ("p226_001.voiced.npy", "shape"),
        ("p226_002.voiced.npy", "missing"),
    ]
    assert "codes of 16 to" in found.findings[0].message
    made, failed = repair_cache(Cache(folder), found.findings, corpus, CacheJob(what="content", root=folder.parent))
    assert (made, failed) == (5, [])
    assert arrays(folder) == sound


def test_speakers_are_checked_too(tmp_path: Path, corpus: list[Any]) -> None:
    make_cache(order(tmp_path / "cache", "speakers"), corpus)
    folder = tmp_path / "cache" / "speakers"
    sound = arrays(folder)
    rewrite(folder / "p225.npy", lambda array: array[:64])
    (folder / "p226.npy").unlink()
    found = check_cache(Cache(folder), corpus)
    assert [one.kind for one in found.findings] == ["shape", "missing"]
    assert repair_cache(Cache(folder), found.findings, corpus, CacheJob(what="speakers", root=folder.parent))[0] == 2
    assert arrays(folder) == sound


def test_without_a_corpus_what_is_there_is_read(tmp_path: Path, corpus: list[Any]) -> None:
    make_cache(order(tmp_path / "cache"), corpus)
    (folder,) = find_caches(tmp_path / "cache")
    (folder / "p225" / "p225_001.npy").unlink()
    (folder / "p225" / "p225_002.npy").write_bytes(b"")
    found = check_cache(Cache(folder), None)
    assert found.items == 5
    assert [one.kind for one in found.findings] == ["empty"]


def test_a_limit_is_what_should_be_there(tmp_path: Path, corpus: list[Any]) -> None:
    make_cache(order(tmp_path / "cache"), corpus, limit=4)
    (folder,) = find_caches(tmp_path / "cache")
    assert [one.kind for one in check_cache(Cache(folder), corpus).findings] == ["missing"] * 2
    assert check_cache(Cache(folder), corpus, limit=4).findings == ()
    (folder / "p226" / "p226_001.npy").write_bytes(b"")
    # Beyond the limit nothing is missing, but what is there is read.
    found = check_cache(Cache(folder), corpus, limit=2)
    assert (found.items, [one.kind for one in found.findings]) == (4, ["empty"])


def test_files_of_no_utterance_are_counted_and_left_alone(tmp_path: Path, corpus: list[Any]) -> None:
    make_cache(order(tmp_path / "cache"), corpus)
    (folder,) = find_caches(tmp_path / "cache")
    shutil.copytree(folder / "p225", folder / "p999")
    found = check_cache(Cache(folder), corpus)
    assert (found.strangers, found.findings) == (3, ())


def test_audio_that_cannot_be_read_is_why_its_cache_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "corpus" / "anna" / "good.wav", speech(0, 1))
    (tmp_path / "corpus" / "anna" / "bad.wav").write_bytes(b"RIFF")
    corpus = read_corpus(tmp_path / "corpus")
    make_cache(order(tmp_path / "cache"), corpus)
    (folder,) = find_caches(tmp_path / "cache")
    (finding,) = check_cache(Cache(folder), corpus).findings
    assert finding.kind == "missing"
    assert finding.path.endswith("bad.wav")
    assert "not a readable audio file" in finding.message
    made, failed = repair_cache(Cache(folder), [finding], corpus, CacheJob(what="wavlm", root=folder.parent))
    assert made == 0
    assert [one.key for one in failed] == ["anna/bad"]


def test_weights_beside_the_cache_that_are_others_are_found(tmp_path: Path, corpus: list[Any]) -> None:
    make_cache(order(tmp_path / "cache"), corpus)
    (folder,) = find_caches(tmp_path / "cache")
    weights = folder / "front.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\0\0?")
    (finding,) = check_cache(Cache(folder), corpus).findings
    assert (finding.kind, finding.key) == ("weights", None)
    (folder / "p225" / "p225_001.npy").unlink()
    found = check_cache(Cache(folder), corpus)
    with pytest.raises(CacheError, match="weights"):
        repair_cache(Cache(folder), found.findings, corpus, CacheJob(what="wavlm", root=folder.parent))
    weights.unlink()
    assert [one.kind for one in check_cache(Cache(folder), corpus).findings] == ["weights", "missing"]


def test_stereo_that_cancels_is_a_fault_and_one_channel_is_taken(tmp_path: Path) -> None:
    x = speech(0, 1)
    write(tmp_path / "corpus" / "anna" / "good.wav", x)
    write(tmp_path / "corpus" / "anna" / "both.wav", np.stack((x, -x), axis=1))
    corpus = read_corpus(tmp_path / "corpus")
    made = make_cache(order(tmp_path / "cache"), corpus)
    assert [(one.key, "cancel each other" in one.error) for one in made.failed] == [("anna/both", True)]
    assert "--channel left" in made.failed[0].error
    (folder,) = find_caches(tmp_path / "cache")
    (finding,) = check_cache(Cache(folder), corpus).findings
    assert finding.kind == "missing"
    assert "cancel each other" in finding.message
    left = read_corpus(tmp_path / "corpus", channel="left")
    assert make_cache(order(tmp_path / "cache"), left, channel="left").failed == ()
    assert arrays(folder)["anna/both.npy"] == arrays(folder)["anna/good.npy"]
    with pytest.raises(CorpusError, match="must be mean, left"):
        read_corpus(tmp_path / "corpus", channel="middle")
