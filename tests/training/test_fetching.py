"""Shards are fetched ahead: the next ones while some are read, each once, and no more than are needed next."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from astrape.audio.fetching import Fetcher
from astrape.audio.places import CACHE_GB, Place
from tests.training.test_packs import caches, memory, packed, split, windows

__all__ = ["caches", "memory", "packed", "split"]

pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")

pytestmark = [
    pytest.mark.usefixtures("read_cache"),
    pytest.mark.timeout(1800),  # how busy the machine is does not matter
]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Objects fetched from the store, in order, with the thread of each."""
    import fsspec

    store = type(fsspec.filesystem("memory", use_listings_cache=False))
    real, seen = store.get_file, []

    def get(self: Any, at: str, to: str, **more: Any) -> None:
        if at.endswith(".tar"):
            seen.append((threading.current_thread().name, at.rpartition("/")[2]))
        real(self, at, to, **more)

    monkeypatch.setattr(store, "get_file", get)
    return seen


def groups(found: Any, epoch: int) -> list[list[str]]:
    """The shards of a pass, four at a time, in the order in which they are read."""
    names = [found.deal.shards[index][0].path.name for index in found.deal.own(epoch, 0, 0)]
    return [names[at : at + 4] for at in range(0, len(names), 4)]


def read(found: Any, epoch: int, group: int) -> None:
    sizes = {shard[0].path.name: len(shard) for shard in found.deal.shards}
    before = sum(sizes[name] for names in groups(found, epoch)[:group] for name in names)
    for item in range(before, before + sum(sizes[name] for name in groups(found, epoch)[group])):
        found[epoch, item]


def test_the_next_shards_are_fetched_while_some_are_read(memory: str, fetched: list[tuple[str, str]]) -> None:
    found = windows(memory)
    first, second = groups(found, 0)[:2]
    found[0, 0]
    found.pack._fetcher.wait()
    ahead = [name for thread, name in fetched if thread == "astrape-fetch"]
    # One shard was read, and the next ones are there in their order; none beyond these.
    assert ahead == second
    assert {name for _, name in fetched} - set(second) < set(first)
    read(found, 0, 0)
    assert sorted(name for thread, name in fetched if thread != "astrape-fetch") == sorted(first)
    assert [name for thread, name in fetched if thread == "astrape-fetch"] == second
    read(found, 0, 1)
    found.pack._fetcher.wait()
    # Nothing was fetched twice, whoever came first.
    assert len({name for _, name in fetched}) == len(fetched)


def test_at_the_end_of_an_epoch_the_next_one_is_fetched(memory: str, fetched: list[tuple[str, str]]) -> None:
    found = windows(memory, steps=2)
    found[0, 0]
    found.pack._fetcher.wait()
    there = {name for _, name in fetched}
    assert set(groups(found, 1)[0]) <= there
    assert len(there) <= 5


def test_nothing_is_fetched_ahead_into_a_cache_that_is_too_small(
    memory: str, fetched: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_GB, "0.0005")
    found = windows(memory)
    read(found, 0, 0)
    assert found.pack._fetcher is None
    assert {name for _, name in fetched} == set(groups(found, 0)[0])


def test_what_several_ask_for_at_once_is_fetched_once(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    store = type(fsspec.filesystem("memory", use_listings_cache=False))
    real, begun, go, count = store.get_file, threading.Event(), threading.Event(), []

    def slow(self: Any, at: str, to: str, **more: Any) -> None:
        count.append(at)
        begun.set()
        assert go.wait(60)
        real(self, at, to, **more)

    monkeypatch.setattr(store, "get_file", slow)
    place = Place(memory) / "train-000000.tar"
    fetcher = Fetcher()
    fetcher.ask([place])
    assert begun.wait(60)
    found: list[Path] = []
    readers = [threading.Thread(target=lambda: found.append(place.local())) for _ in range(3)]
    for reader in readers:
        reader.start()
    go.set()
    for reader in readers:
        reader.join(60)
    fetcher.wait()
    assert len(count) == 1
    assert len(set(found)) == 1
    assert found[0].read_bytes() == place.read()


def test_what_cannot_be_fetched_is_told_to_who_reads_it(memory: str) -> None:
    fetcher = Fetcher()
    there = Place(memory) / "train-000000.tar"
    fetcher.ask([Place(memory) / "none.tar", there])
    fetcher.wait()
    assert list(Path(there.local()).parent.glob("*.tar"))
