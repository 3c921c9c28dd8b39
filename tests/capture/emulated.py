"""The native kernels as another processor's, run under its emulator, behind the face of the library."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from astrape.capture.native import building
from astrape.capture.native.instructions import Instruction
from astrape.capture.native.library import OUT_OF_RANGE, Library, Program

__all__ = ["EmulatedLibrary", "EmulatedProgram"]

Array = npt.NDArray[Any]

HERE = Path(__file__).parent


class EmulatedLibrary(Library):
    """The kernels compiled for 64-bit ARM, in a process of QEMU's. Each program is sent there with its memory.

    Args:
        folder: where to build.
        compiler: the start of its command line.

    Attributes:
        form: what the library tells of itself.

    Raises:
        OSError: where the compiler or the emulator is missing.
    """

    def __init__(self, folder: Path, compiler: tuple[str, ...]) -> None:
        emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
        for name, found in ((compiler[0], shutil.which(compiler[0])), ("qemu-aarch64", emulator)):
            if found is None:
                raise OSError(f"'{name}' is not installed: kernels for ARM are neither built nor run")
        common, kind = building.COMMON, f"-march={next(iter(building.ARM))}"
        objects = []
        for source, flags in building.FLAGS.items():
            objects.append(str(folder / f"{source}.o"))
            line = [*compiler, *common, kind, *flags, "-c", str(building.SOURCES / source), "-o", objects[-1]]
            _run(line)
        runs = folder / "run"
        _run(
            [*compiler, "-static", f"-I{building.SOURCES}", str(HERE / "emulated.c"), *objects, "-lm", "-o", str(runs)]
        )
        self.process = subprocess.Popen([str(emulator), str(runs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        weakref.finalize(self, self.process.kill)
        self.form = np.frombuffer(self.read(32), np.int64)
        self.flushes = bool(self.form[3])

    def read(self, count: int) -> bytes:
        assert self.process.stdout is not None
        found = self.process.stdout.read(count)
        assert len(found) == count, f"the emulator ended with {self.process.wait()}"
        return found

    def program(self, instructions: list[Instruction]) -> Program:
        return EmulatedProgram(self, instructions)

    def taking(self, place: Array) -> Callable[[int], bool]:
        def take(address: int) -> bool:
            ctypes.memmove(place.ctypes.data, address, place.nbytes)
            return bool(np.isfinite(place).all())

        return take

    def pushing(self, program: Program | None, outputs: Sequence[Array]) -> Callable[[], bool]:
        def push() -> bool:
            if isinstance(program, EmulatedProgram):
                program.flush = True
                program()
            return all(bool(np.isfinite(one).all()) for one in outputs)

        return push


class EmulatedProgram(Program):
    """A program that is run in the emulator; denormals are numbers there, unless ``flush`` is set."""

    def __init__(self, library: EmulatedLibrary, instructions: list[Instruction]) -> None:
        super().__init__(lambda words, count: 0, instructions)
        self.library, self.flush = library, False

    def __call__(self) -> None:
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage() for held in self.held for one in held}
        contents = [torch.empty(0, dtype=torch.uint8).set_(storage).numpy() for storage in storages.values()]
        blocks = np.array([(at, len(content)) for at, content in zip(storages, contents, strict=True)], np.int64)
        sent = self.library.process.stdin
        assert sent is not None
        head = np.array((len(self), len(blocks), self.flush), np.int64)
        for part in (head, blocks, self.words, *contents):
            sent.write(part.tobytes())
        sent.flush()
        failed = int.from_bytes(self.library.read(8), "little")
        for content in contents:
            content[:] = np.frombuffer(self.library.read(len(content)), np.uint8)
        if failed:
            raise IndexError(OUT_OF_RANGE)


def _run(line: list[str]) -> None:
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
