"""Debian packages as a source of files: fetched and unpacked into a folder, without root and without installing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from astrape.training.errors import TrainingError

__all__ = ["fetch", "unpack"]

UPDATE_SECONDS = 300
DOWNLOAD_SECONDS = 900


def fetch(package: str, folder: Path) -> Path:
    """The package's ``.deb``, downloaded into ``folder`` unless it is there.

    Where the lists of packages are missing, as in a fresh container, they are fetched first; that takes root.

    Raises:
        TrainingError: on a system without ``apt-get``, and where it does not get the package: with what it said.
    """
    there = sorted(folder.glob(f"{package}_*.deb"))
    if there:
        return there[-1]
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise TrainingError(
            "the speech comes from Debian packages, and there is no apt-get and dpkg-deb here: run this on Debian or "
            "Ubuntu, or name a folder of your own with a folder of recordings for each speaker (--data FOLDER)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # apt hands downloads to a user of its own, who may not write here; then it says so and downloads them itself.
    problem = _apt(["download", "-qq", package], folder, DOWNLOAD_SECONDS)
    if problem and os.geteuid() == 0 and not _apt(["update", "-qq"], folder, UPDATE_SECONDS):
        problem = _apt(["download", "-qq", package], folder, DOWNLOAD_SECONDS)
    there = sorted(folder.glob(f"{package}_*.deb"))
    if problem or not there:
        raise TrainingError(
            f"apt-get did not get '{package}': {problem or 'it wrote no file'}: run `apt-get update` as root and try "
            f"again, or name a folder of your own with --data"
        )
    return there[-1]


def unpack(archive: Path, folder: Path) -> Path:
    """The files of a ``.deb`` below ``folder / NAME``, unless they are there; whole, or not at all.

    Raises:
        TrainingError: where ``dpkg-deb`` refuses the archive, with what it said.
    """
    target = folder / archive.name.split("_")[0]
    if target.is_dir():
        return target
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    problem = _run(["dpkg-deb", "-x", str(archive), str(partial)], folder, DOWNLOAD_SECONDS)
    if problem:
        raise TrainingError(f"{archive}: dpkg-deb cannot unpack it: {problem}: delete it and try again")
    partial.rename(target)
    return target


def _apt(arguments: Sequence[str], folder: Path, seconds: float) -> str | None:
    return _run(["apt-get", *arguments], folder, seconds)


def _run(command: Sequence[str], folder: Path, seconds: float) -> str | None:
    """``None``, or in one line why it failed."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("W:")]
    return None if done.returncode == 0 else lines[-1] if lines else f"exit status {done.returncode}"
