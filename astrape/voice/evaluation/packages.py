"""The packages that metrics are made of: whether they are here, in which version, and how to get them."""

from __future__ import annotations

import importlib
import platform
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

__all__ = ["Package", "absence", "versions"]

EVERY_RUN = ("astrape", "torch", "numpy", "soundfile", "matplotlib")
"""Packages that every run depends on, whatever it measures."""


@dataclass(frozen=True)
class Package:
    """A distribution on PyPI.

    Attributes:
        name: the distribution.
        module: what is imported of it.
        requirement: what follows ``pip install``.
    """

    name: str
    module: str
    requirement: str


def absence(packages: Iterable[Package]) -> str | None:
    """The reason why these cannot be used, with what to install; ``None`` where all can be imported."""
    for package in packages:
        try:
            # Some of them warn of what they import themselves, which nobody here can change.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(package.module)
        except ModuleNotFoundError as error:
            hint = f"pip install {package.requirement}"
            if error.name and package.module.split(".")[0] == error.name.split(".")[0]:
                return f"{package.name} is not installed: {hint}"
            return f"{package.name} lacks '{error.name}': {hint}"
        # Importing runs code of others, compiled code too, which fails in whatever way.
        except Exception as error:
            reason = " ".join(str(error).split())
            return f"{package.name} cannot be imported ({reason}): pip install --force-reinstall {package.requirement}"
    return None


def versions(packages: Iterable[Package]) -> dict[str, str]:
    """Versions by name, Python's own too; packages that are absent are left out."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys([*EVERY_RUN, *(package.name for package in packages)]):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
