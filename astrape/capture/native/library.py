"""The library of native kernels: found where it was built, or built with the machine's own C compiler."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.capture.native import building
from astrape.capture.native.instructions import WORDS, Instruction, codes

__all__ = ["Library", "Program", "build_library", "cache_folder", "find_libraries", "library"]

Array = npt.NDArray[Any]

OUT_OF_RANGE = "an index is out of range"

LONG = 64
"""Instructions from which on Python's lock is let go meanwhile, which other threads of a live session need."""


class Library:
    """The kernels, loaded.

    Args:
        path: of the shared library.

    Attributes:
        flushes: whether :meth:`pushing` can take denormal numbers as 0, on this kind of processor.

    Raises:
        OSError: for a file that is not one, or of another version of its table of kernels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run: dict[bool, Callable[[int, int], int]] = {}
        self._push: dict[bool, Callable[[int, int, int, int], int]] = {}
        form = (ctypes.c_int64 * 4)()
        ctypes.CDLL(str(path)).astrape_form(form)
        if (form[0], form[1] + form[2]) != (8 * WORDS, len(codes)):
            raise OSError(f"'{path}' is of another version of astrape")
        for alone, kind in ((True, ctypes.PyDLL), (False, ctypes.CDLL)):
            run, push = (getattr(kind(str(path)), name) for name in ("astrape_run", "astrape_push"))
            address, number = ctypes.c_void_p, ctypes.c_int64
            run.argtypes, run.restype = (address, number), number
            push.argtypes, push.restype = (address, number, address, number), number
            self._run[alone], self._push[alone] = run, push
        self._take = ctypes.PyDLL(str(path)).astrape_take
        self._take.argtypes, self._take.restype = (address, address), number
        self.flushes = bool(form[3])

    def program(self, instructions: list[Instruction]) -> Program:
        """Instructions as something to call."""
        return Program(self._run[len(instructions) < LONG], instructions)

    def taking(self, place: Array) -> Callable[[int], bool]:
        """A function that fills an array from an address and returns whether all its numbers are finite."""
        spans = _spans([place])

        def take(address: int) -> bool:
            return bool(go(address))

        go, take.held = partial(self._take, spans.ctypes.data), (spans, place)  # type: ignore[attr-defined]
        return take

    def pushing(self, program: Program | None, outputs: Sequence[Array]) -> Callable[[], bool]:
        """A function that runs a program, if there is one, with denormals as 0, and returns whether the given arrays
        of real numbers are finite afterwards.

        It raises IndexError as the program does.
        """
        spans, count = _spans(outputs), 0 if program is None else len(program)
        words = 0 if program is None else program.words.ctypes.data
        go = partial(self._push[count < LONG], words, count, spans.ctypes.data, len(spans))

        def push() -> bool:
            failed = go()
            if failed > 0:
                raise IndexError(OUT_OF_RANGE)
            return not failed

        push.held = (spans, program, outputs)  # type: ignore[attr-defined]
        return push


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
            raise IndexError(OUT_OF_RANGE)


def _spans(arrays: Sequence[Array]) -> npt.NDArray[np.int64]:
    """Address, length and type of arrays of real numbers, a row each, as the library reads them."""
    rows = [(array.ctypes.data, array.size, array.dtype == np.float64) for array in arrays]
    return np.array(rows, np.int64).reshape(-1, 3)


def cache_folder() -> Path:
    """The folder of libraries built on this machine: ``$XDG_CACHE_HOME/astrape`` or ``~/.cache/astrape``."""
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
