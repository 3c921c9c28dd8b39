"""The library of native kernels: found where it was built, or built with the machine's own C compiler."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from astrape.capture.native.instructions import SOURCES, WORDS, Instruction, codes

__all__ = ["Library", "Program", "build_library", "find_library", "library"]

COMMON = ("-O3", "-march=native", "-fPIC", "-fno-strict-aliasing", "-fno-math-errno", "-fno-trapping-math")
FLAGS = {"exact.c": ("-ffp-contract=off",), "near.c": ("-ffast-math",)}
"""How each file is compiled. Linking goes without ``-ffast-math``, with which a library changes how the whole process
treats denormal numbers."""

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

    Raises:
        IndexError: when called, where a place that was computed is none of what it is to pick from.
    """

    def __init__(self, run: Callable[[int, int], int], instructions: list[Instruction]) -> None:
        self._words = np.ascontiguousarray(np.stack([one.words for one in instructions]))
        self._held = [one.held for one in instructions]
        self._go = partial(run, self._words.ctypes.data, len(instructions))

    def __len__(self) -> int:
        return len(self._held)

    def __call__(self) -> None:
        if self._go():
            raise IndexError("an index is out of range")


def cache_folder() -> Path:
    """Where libraries are kept that were built here: ``$XDG_CACHE_HOME/astrape`` or ``~/.cache/astrape``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astrape"


@cache
def library_name() -> str:
    """The name of the file: of these sources for this processor, or it is built anew."""
    told = hashlib.sha256()
    for path in sorted((*SOURCES.glob("*.c"), *SOURCES.glob("*.h"))):
        told.update(path.read_bytes())
    told.update(repr((COMMON, FLAGS, platform.machine(), _features())).encode())
    return f"kernels-{told.hexdigest()[:16]}.so"


def _features() -> str:
    """What the processor can do, as Linux tells it; its name elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def build_library(folder: Path | None = None) -> Path:
    """Build the library with the C compiler ``cc`` (or ``$CC``), in a few seconds; the file.

    Raises:
        OSError: without a compiler, or where it fails; with its own words.
    """
    compiler = os.environ.get("CC") or next(
        (found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None
    )
    if compiler is None:
        raise OSError("there is no C compiler: install gcc or clang")
    path = (cache_folder() if folder is None else folder) / library_name()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        objects = []
        for source, flags in FLAGS.items():
            objects.append(str(Path(work) / f"{source}.o"))
            _compile([compiler, *COMMON, *flags, "-c", str(SOURCES / source), "-o", objects[-1]])
        made = Path(work) / path.name
        _compile([compiler, "-shared", *objects, "-lm", "-o", str(made)])
        made.replace(path)
    return path


def _compile(line: list[str]) -> None:
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((text for text in done.stderr.splitlines() if "error" in text), done.stderr.strip()[:200])
        raise OSError(f"'{' '.join(line[:1])}' failed: {said}")


def find_library() -> Path | None:
    """The library where it has been built: beside these sources, or in the cache."""
    try:
        places = [folder / library_name() for folder in (SOURCES, cache_folder())]
        return next((path for path in places if path.is_file()), None)
    except (OSError, RuntimeError):  # without a home, say
        return None


@cache
def _loaded(path: Path) -> Library | None:
    try:
        return Library(path)
    except OSError:
        return None


def library(build: bool = False) -> Library | None:
    """The library; ``None`` where it has not been built, or cannot be loaded.

    Args:
        build: build it where it has not been.

    Raises:
        OSError: if it was to be built and cannot be.
    """
    path = find_library()
    if path is None and build:
        path = build_library()
    return None if path is None else _loaded(path)
