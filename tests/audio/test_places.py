"""Places: folders, memory and an S3 server, read and written alike."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from astrape.audio.places import CACHE_GB, Place, PlaceError
from astrape.audio.stores import PAGED
from astrape.errors import WriteError

pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")

pytestmark = pytest.mark.usefixtures("read_cache")


@pytest.fixture(params=["path", "file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        return Place(f"{request.getfixturevalue('s3')}/{uuid4().hex}")
    return Place(
        {"path": f"{tmp_path}/at/", "file": f"file://{tmp_path}/at", "memory": f"memory://{uuid4().hex}"}[request.param]
    )


def test_what_is_written_is_read_listed_and_had_as_a_file(place: Place, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(os.urandom(3_000_000))
    contents = {"a.json": b"{}", "b/c.bin": bytes(range(256)), "b/d/e.txt": b"", "f.bin": tmp_path / "large.bin"}
    for name, content in contents.items():
        assert not (place / name).exists()
        (place / name).write(content)
    assert sorted(place.names()) == sorted(contents)
    assert (place.files(), place.folders(), (place / "b").folders()) == (["a.json", "f.bin"], ["b"], ["d"])
    assert not list((place / "none").names())
    assert not (place / "none").folders()
    for name, content in contents.items():
        expected = content.read_bytes() if isinstance(content, Path) else content
        one = place / name
        assert one.exists()
        assert one.read() == expected
        assert one.local().read_bytes() == expected
        assert one.name == name.rpartition("/")[2]
    (place / "a.json").write(b"[1]")
    assert (place / "a.json").local().read_bytes() == b"[1]"
    with pytest.raises(PlaceError, match=r"none\.json: there is no such file$"):
        (place / "none.json").read()
    with pytest.raises(PlaceError, match=r"none\.json: there is no such file$"):
        (place / "none.json").local()


def test_the_read_cache_keeps_its_size_and_what_was_asked_for_last(
    read_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_GB, "0.000003")
    place = Place(f"memory://{uuid4().hex}")
    for name in "abcd":
        (place / name).write(name.encode() * 1000)
    first = (place / "a").local()
    opened = first.open("rb")
    os.utime(first, (1, 1))
    second = (place / "b").local()
    os.utime(second, (2, 2))
    third = (place / "c").local()
    os.utime(third, (3, 3))
    # Asked for again, it is the youngest, and the next one to go is another.
    assert (place / "a").local() == first
    (place / "d").local()
    assert first.exists()
    assert not second.exists()
    assert sum(path.stat().st_size for path in read_cache.iterdir() if path.is_file()) <= 3000
    first.unlink()
    assert opened.read() == b"a" * 1000
    opened.close()
    (place / "e").write(bytes(4000))
    with pytest.raises(PlaceError, match=r"e: has 4000 bytes, and the read cache holds 3000 bytes; hint: ASTRAPE_READ"):
        (place / "e").local()


def test_an_object_that_comes_short_is_not_kept(read_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    place = Place(f"memory://{uuid4().hex}/a")
    place.write(b"0123456789")
    store = fsspec.filesystem("memory", use_listings_cache=False)

    def short(self: object, at: str, to: str, **more: object) -> None:
        Path(to).write_bytes(b"01234")

    monkeypatch.setattr(type(store), "get_file", short)
    with pytest.raises(PlaceError, match=r"a: came with 5 bytes of 10: hint: run the same command again$"):
        place.local()
    assert not [path for path in read_cache.iterdir() if path.is_file()]


class _Pages:
    """A bucket of flat names, given page by page as S3 does, which nobody holds."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, 0

    def __call__(self, method: str, **given: str) -> dict[str, Any]:
        assert method == "list_objects_v2"
        begin = int(given.get("ContinuationToken", 0))
        end = min(begin + 1000, self.count)
        self.asked += 1
        page = {"Contents": [{"Key": f"{given['Prefix']}{number:07d}.npy"} for number in range(begin, end)]}
        return page | ({"IsTruncated": True, "NextContinuationToken": str(end)} if end < self.count else {})


def test_a_million_names_of_a_bucket_are_listed_without_holding_them(monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'astrape[remote]'")
    pages = _Pages(1_000_000)
    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", staticmethod(pages))
    assert _peak(Place("s3://bucket/flat"), 1_000_000) < 5_000_000
    assert pages.asked == 1000


def test_many_names_of_a_folder_are_listed_without_holding_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder exists only as a generator: the system gives its names one by one, and so does this."""
    (tmp_path / "one").touch()

    @contextmanager
    def scandir(folder: Path) -> Iterator[Iterator[Any]]:
        with real(folder) as found:
            (entry,) = found
            yield (_Renamed(entry, f"{number:07d}.npy") for number in range(200_000))

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    assert _peak(Place(tmp_path), 200_000) < 1_000_000


class _Renamed:
    def __init__(self, entry: os.DirEntry[str], name: str) -> None:
        self.is_dir, self.name = entry.is_dir, name


def _peak(place: Place, count: int) -> int:
    """Bytes at most while all names are listed."""
    tracemalloc.start()
    try:
        listed = 0
        for name in place.names():
            listed += name.endswith(".npy")
        assert listed == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


NAMES = [f"many/{number:04d}" for number in range(2500)]


class _Google:
    """A bucket, given page by page as the JSON interface of Google Cloud Storage does."""

    def call(self, method: str, path: str, bucket: str, **given: Any) -> dict[str, Any]:
        assert (method, path, bucket, given["prefix"], given["json_out"]) == ("GET", "b/{}/o", "one", "many/", True)
        begin = int(given.get("pageToken", 0))
        end = begin + given["maxResults"]
        page = {"kind": "storage#objects", "items": [{"name": name} for name in NAMES[begin:end]]}
        return page | ({"nextPageToken": str(end)} if end < len(NAMES) else {})


class _Azure:
    """A container, given page by page as Azure's client does, which has two kinds of iterators within each other."""

    def __init__(self) -> None:
        import fsspec.asyn

        self.loop, self.service_client, self.asked = fsspec.asyn.get_loop(), self, 0

    def get_container_client(self, container: str) -> _Azure:
        assert container == "one"
        return self

    async def __aenter__(self) -> _Azure:
        return self

    async def __aexit__(self, *given: object) -> None:
        pass

    def list_blobs(self, name_starts_with: str, results_per_page: int) -> _Azure:
        assert name_starts_with == "many/"
        self.size = results_per_page
        return self

    def by_page(self, continuation_token: str | None) -> _Azure:
        self.begin, self.continuation_token = int(continuation_token or 0), continuation_token
        return self

    def __aiter__(self) -> _Azure:
        return self

    async def __anext__(self) -> Any:
        self.asked += 1
        end = self.begin + self.size
        self.continuation_token = str(end) if end < len(NAMES) else None

        async def page() -> Any:
            for name in NAMES[self.begin : end]:
                yield SimpleNamespace(name=name)

        return page()


def test_pages_of_google_and_azure_are_listed_to_their_end() -> None:
    azure = _Azure()
    assert list(PAGED["gs"](_Google(), "one", "many/")) == NAMES
    assert list(PAGED["az"](azure, "one", "many/")) == NAMES
    assert azure.asked == 3


def test_pages_of_a_bucket_are_listed_to_their_end(s3: str) -> None:
    """A real server gives a thousand names at a time; names with the same beginning lie beside the folder."""
    import boto3

    client, bucket = boto3.client("s3"), s3.removeprefix("s3://")
    names = [f"{number // 50}/{number}" for number in range(1050)]
    for name in names:
        client.put_object(Bucket=bucket, Key=f"many/{name}", Body=b"")
    for name in ("many-more/a", "many/0/"):
        client.put_object(Bucket=bucket, Key=name, Body=b"")
    assert sorted((Place(s3) / "many").names()) == sorted(names)
    assert (Place(s3) / "many").folders() == sorted({name.partition("/")[0] for name in names})
    assert not list((Place(s3) / "none").names())
    with pytest.raises(PlaceError, match=r"^s3://no-such-bucket/a: there is no such bucket: hint: make it first$"):
        list(Place("s3://no-such-bucket/a").names())


def test_places_that_there_are_not_are_told_in_a_line(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlaceError, match=r"^tape://a/b: fsspec knows no 'tape://'; hint: s3://"):
        Place("tape://a/b").read()
    with pytest.raises(PlaceError, match=r"^s3://no-such-bucket/a: (there is no such|cannot be written)[^\n]*$"):
        Place("s3://no-such-bucket/a").write(b"a")
    with pytest.raises(PlaceError, match=r"^s3://no-such-bucket/a: there is no such"):
        Place("s3://no-such-bucket/a").read()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot be written"):
        Place(str(tmp_path / "file" / "below")).write(b"")


def test_without_credentials_or_packages_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'astrape[remote]'")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PlaceError, match=r"^s3://speech/a: cannot be written: no credentials; hint: .*AWS_ACCESS"):
        Place("s3://speech/a").write(b"a")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(
        PlaceError, match=r'^memory://a: takes the package fsspec; hint: pip install "astrape\[remote\]"'
    ):
        Place("memory://a").read()
