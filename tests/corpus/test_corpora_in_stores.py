"""A corpus whose folder is in a store: the bytes of one in a folder, whoever renders it, and checks and repairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pyworld")
pytest.importorskip("av")
pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")

from astrape.audio.places import Place
from astrape.corpus import check_corpus, repair_corpus
from astrape.corpus.layouts import read_corpus
from astrape.jobs import Engine
from tests.corpus.tiny_packages import contents
from tests.jobs.killing import Killer

if TYPE_CHECKING:
    from tests.corpus.tiny_packages import Packages

pytestmark = [
    pytest.mark.usefixtures("read_cache"),
    pytest.mark.timeout(1800),  # how busy the machine is does not matter
]

GIVEN: dict[str, Any] = {"flite": 0.002, "recordings": True, "warps": 0.5}
TOPS = ("sets/", "flite/", "real/", "manifest.jsonl", "registers.json", "corpus.json")


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest, packages: Packages) -> Place:
    """A corpus with its packages at hand and nothing rendered."""
    name = uuid4().hex
    place = Place(f"{request.getfixturevalue('s3')}/{name}" if request.param == "s3" else f"memory://{name}")
    for path in packages.folder.iterdir():
        (place / "packages" / path.name).write(path)
    return place


def stored(place: Place) -> dict[str, bytes]:
    return {name: (place / name).read() for name in place.names() if name.startswith(TOPS)}


def test_a_corpus_in_a_store_is_that_of_a_folder_though_workers_are_killed(
    packages: Packages, whole: Path, store: Place
) -> None:
    """Stopped after a few sets, gone on with by two processes of which two are killed amid their work."""

    def stop(done: float, total: float | None) -> None:
        if len([name for name in store.names() if name.endswith("set.json")]) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packages.make(store, progress=stop, **GIVEN)
    kill = Killer(after=1)
    # A store of memory is of this process alone.
    alone = str(store).startswith("memory")
    engine = Engine(workers=1 if alone else 2)
    done = packages.make(store, engine=engine, progress=kill, **GIVEN)
    assert not done.failed
    assert done.there == 3
    assert kill.killed == (0 if alone else 2)
    assert stored(store) == contents(whole)

    assert not check_corpus(store, reads=4, engine=engine).findings
    keys = sorted(name.rpartition("/")[0] for name in store.names() if name.endswith("set.json"))
    flac = next(name for name in sorted(store.names()) if name.startswith(keys[0]) and name.endswith(".flac"))
    (store / flac).write((store / flac).read()[:-100])
    (store / keys[-1] / "set.json").remove()
    found = check_corpus(store, reads=4, engine=engine).findings
    assert {(one.key, one.kind) for one in found} == {(keys[0], "truncated"), (keys[-1], "missing")}
    given: dict[str, Any] = {"packages": packages.table, "model_sha256": packages.model_sha256}
    assert repair_corpus(store, found, **given) == (2, [])
    assert stored(store) == contents(whole)


def test_a_manifest_in_a_store_is_read_as_one_in_a_folder(whole: Path) -> None:
    place = Place(f"memory://{uuid4().hex}")
    for name in Place(whole).names():
        (place / name).write(whole / name)
    near, far = read_corpus(whole / "manifest.jsonl"), read_corpus(place / "manifest.jsonl")
    for one, other in zip(near, far, strict=True):
        for file in ("path", "phones", "pitch", "vector"):
            path, where = getattr(one, file), getattr(other, file)
            expected = None if path is None else str(place / path.relative_to(whole).as_posix())
            assert (None if where is None else str(where)) == expected
        assert (one.key, one.set, one.split, one.text) == (other.key, other.set, other.split, other.text)
    line = json.loads((whole / "manifest.jsonl").read_text().splitlines()[0])
    (place / line["path"]).remove()
    with pytest.raises(Exception, match=rf"^{place}/manifest\.jsonl:1: there is no file {place}/{line['path']}$"):
        read_corpus(place / "manifest.jsonl")
