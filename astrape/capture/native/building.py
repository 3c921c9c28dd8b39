"""The build of the kernel library. Nothing of the package is imported here: ``setup.py`` runs this file by its path."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["SOURCES", "build", "build_for_others", "names"]

SOURCES = Path(__file__).resolve().parent

COMMON = ("-O3", "-fPIC", "-fno-strict-aliasing", "-fno-math-errno", "-fno-trapping-math")
FLAGS = {"exact.c": ("-ffp-contract=off",), "ordered.c": ("-ffp-contract=off",), "near.c": ("-ffast-math",)}
"""Compiler flags of each file. They are not passed to the linker: a library linked with ``-ffast-math`` changes how
the whole process treats denormal numbers."""

OWN = "-march=native"

X86 = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "bmi2", "f16c", "fma"},
}
ARM: dict[str, set[str]] = {"armv8-a": set()}
LEVELS = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}
"""By what systems call a kind of processor: what other machines of the kind can run, the best first, and what a
processor has to say of itself (Linux). NEON and float16 as it is stored are in every 64-bit ARM: more is not asked."""


@cache
def names() -> tuple[str, ...]:
    """Names of files that this machine may load, the best first: of these sources, for this processor or its kind."""
    able = _features()
    kinds = [_name(f"-march={level}") for level, needed in _levels().items() if needed <= able]
    return (*kinds,) if _levels() is ARM else (_name(OWN, platform.machine(), " ".join(sorted(able))), *kinds)


def build(folder: Path) -> Path:
    """Build the library for this machine with its C compiler, ``$CC`` or ``cc``, in a few seconds; the file.

    Raises:
        OSError: without a compiler, or where it fails; with its own words.
    """
    return _built(folder / names()[0], f"-march={next(iter(ARM))}" if _levels() is ARM else OWN)


def build_for_others(folder: Path) -> list[Path]:
    """Build a library that also runs on other machines of this kind.

    Raises:
        OSError: as :func:`build`; and for a kind of machine whose levels are unknown.
    """
    if not _levels() or os.name != "posix":
        raise OSError(f"kernels for others are built on x86-64 and 64-bit ARM with a Unix, not on {platform.machine()}")
    made = [_built(folder / _name(f"-march={level}"), f"-march={level}") for level in _levels()]
    for left in set(folder.glob("kernels-*.so")) - set(made):
        left.unlink()  # of sources as they were before
    return made


def _levels() -> dict[str, set[str]]:
    return LEVELS.get(platform.machine(), {})


def _name(*told: str) -> str:
    content = hashlib.sha256()
    for path in sorted((*SOURCES.glob("*.c"), *SOURCES.glob("*.h"))):
        content.update(path.read_bytes())
    content.update(repr((COMMON, FLAGS, told)).encode())
    return f"kernels-{content.hexdigest()[:16]}.so"


def _features() -> set[str]:
    """The processor's features, as Linux lists them; its name on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {platform.processor()}
    line = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return set(line.partition(":")[2].split())


def _built(path: Path, kind: str) -> Path:
    named = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if named is None:
        raise OSError("there is no C compiler: install gcc or clang")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        objects = []
        for source, flags in FLAGS.items():
            objects.append(str(Path(work) / f"{source}.o"))
            _run([named, *COMMON, kind, *flags, "-c", str(SOURCES / source), "-o", objects[-1]])
        made = Path(work) / path.name
        _run([named, "-shared", *objects, "-lm", "-o", str(made)])
        made.replace(path)
    return path


def _run(line: Sequence[str]) -> None:
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((text for text in done.stderr.splitlines() if "error" in text), done.stderr.strip()[:200])
        raise OSError(f"'{line[0]}' failed: {said}")
