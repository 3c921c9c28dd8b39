"""The library of native kernels: found where it was built, or built with the machine's own C compiler."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from astrape.capture.native import building
from astrape.capture.native.instructions import WORDS, Instruction, codes

__all__ = ["Library", "Program", "build_library", "find_libraries", "library"]

LONG = 64
"""Instructions from which on Python's lock is let go meanwhile, which other threads of a live session need."""


class Library:
    """The kernels, loaded.

    Args:
        path: of the shared library.

    Raises:
        OSError: for a file that is not one, or of another version of its table of kernels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run: dict[bool, Callable[[int, int], int]] = {}
        for alone, kind in ((True, ctypes.PyDLL), (False, ctypes.CDLL)):
            run = kind(str(path)).astrape_run
            run.argtypes, run.restype = (ctypes.c_void_p, ctypes.c_int64), ctypes.c_int64
            self._run[alone] = run
        form = (ctypes.c_int64 * 3)()
        ctypes.CDLL(str(path)).astrape_form(form)
        if (form[0], form[1] + form[2]) != (8 * WORDS, len(codes)):
            raise OSError(f"'{path}' is of another version of astrape")

    def program(self, instructions: list[Instruction]) -> Program:
        """Instructions as something to call."""
        return Program(self._run[len(instructions) < LONG], instructions)


class Program:
    """Instructions that are run one after the other, without Python between them.

    Attributes:
        words: of the instructions, a row each.
        held: what has to outlast them.

    Raises:
        IndexError: when called, where a computed index lies outside of what it picks from.
    """

    def __init__(self, run: Callable[[int, int], int], instructions: list[Instruction]) -> None:
        self.words = np.ascontiguousarray(np.stack([one.words for one in instructions]))
        self.held = [one.held for one in instructions]
        self._go = partial(run, self.words.ctypes.data, len(instructions))

    def __len__(self) -> int:
        return len(self.held)

    def __call__(self) -> None:
        if self._go():
            raise IndexError("an index is out of range")


def cache_folder() -> Path:
    """Where libraries are kept that were built here: ``$XDG_CACHE_HOME/astrape`` or ``~/.cache/astrape``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astrape"


def build_library(folder: Path | None = None) -> Path:
    """Build the library for this machine, into the cache or a folder; the file.

    Raises:
        OSError: without a C compiler, or where it fails; with its own words.
    """
    return building.build(cache_folder() if folder is None else folder)


def find_libraries() -> list[Path]:
    """The library where it has been built: in the cache, for this machine, or with the package, for its kind."""
    try:
        places = [folder / name for name in building.names() for folder in (cache_folder(), building.SOURCES)]
        return [path for path in places if path.is_file()]
    except (OSError, RuntimeError):  # without a home, say
        return []


@cache
def _loaded(path: Path) -> Library | None:
    try:
        return Library(path)
    except OSError:  # made for a newer system than this one
        return None


def library(build: bool = False) -> Library | None:
    """The library; ``None`` where it has not been built, or cannot be loaded.

    Args:
        build: build it then.

    Raises:
        OSError: if it was to be built and cannot be.
    """
    found = next((one for path in find_libraries() if (one := _loaded(path)) is not None), None)
    return Library(build_library()) if found is None and build else found
