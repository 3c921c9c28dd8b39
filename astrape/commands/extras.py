"""Packages that a command takes beside the plain install, named before it begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

from astrape.errors import AstrapeError
from astrape.wording import lacking

__all__ = ["require"]


def require(command: str, extra: str) -> None:
    """Refuse to begin where packages of an extra are missing, rather than after an hour of fetching.

    Args:
        command: its name.
        extra: a key of ``[project.optional-dependencies]``.

    Raises:
        AstrapeError: names what is missing, and the line that installs it.
    """
    missing = [name for name in _named(extra) if not _installed(name)]
    if missing:
        raise AstrapeError(lacking(f"astrape {command}", ", ".join(missing), extra))


def _named(extra: str) -> Iterator[str]:
    """Distributions of an extra, those of the extras it names among them."""
    try:
        lines = metadata.requires("astrape") or []
    except metadata.PackageNotFoundError:  # run from a source tree that nobody installed
        return
    for line in lines:
        requirement, _, marker = line.partition(";")
        found = re.match(r"\s*([\w.-]+)(?:\[([\w,\s-]*)\])?", requirement)
        if found is None or not re.search(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""", marker):
            continue
        if found[1] == "astrape":
            for other in (found[2] or "").split(","):
                yield from _named(other.strip())
        else:
            yield found[1]


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
