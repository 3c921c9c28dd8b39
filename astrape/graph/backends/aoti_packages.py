"""A quantum as machine code: AOTInductor's packages, for one family of machines and one version of PyTorch.

The policy ``compiler`` leaves plain linear layers, and Inductor fuses what lies between them into C++, which the
machine's compiler turns into a shared library with the weights in it. It needs PyTorch's libraries to run, and no
Python.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from astrape.errors import ExportError
from astrape.graph.backends.onnx_models import quiet, traced
from astrape.graph.quantum import Quantum, StepInPlace
from astrape.wording import one_line

__all__ = ["Family", "Packages", "aoti_packages", "need_compiler", "this_family"]

LEVELS = {"AVX2": "x86-64-v3", "AVX512": "x86-64-v4"}
"""Levels of x86-64 by what PyTorch calls the processor's capability. Inductor would take the very processor that it
runs on (``-march=native``), whose instructions others of the family may not have."""

SYSTEM, MACHINE = "Linux", "x86_64"


class Family(NamedTuple):
    """Machines that run one package.

    Attributes:
        system: ``"Linux"``.
        machine: ``"x86_64"``.
        capability: as PyTorch has it, ``"AVX2"`` or ``"AVX512"``. oneDNN lays weights out for one of them.
        torch: version without what follows a ``+``: packages call its libraries.
    """

    system: str
    machine: str
    capability: str
    torch: str


class Packages(NamedTuple):
    """Packages as bytes; ``controls`` is ``None`` for a graph that listens to none."""

    step: bytes
    controls: bytes | None


def this_family() -> Family:
    """The family that this machine belongs to, with this PyTorch.

    ``ATEN_CPU_CAPABILITY=avx2`` in the environment makes an AVX-512 machine one of the family AVX2.
    """
    version = torch.__version__.partition("+")[0]
    return Family(platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability(), version)


def need_compiler() -> str:
    """See to it that packages can be made here, and say with which compiler.

    Raises:
        ExportError: for another system or processor, another PyTorch, and without a C++ compiler.
    """
    family = this_family()
    if (family.system, family.machine) != (SYSTEM, MACHINE) or family.capability not in LEVELS:
        found = f"{family.system} on {family.machine} with {family.capability}"
        raise ExportError(
            f"format 'aoti' is for {SYSTEM} on {MACHINE} with {' or '.join(LEVELS)}, and this is {found}; "
            "hint: --format onnx runs here"
        )
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler
    except ImportError as error:
        raise ExportError(f"format 'aoti' needs a newer PyTorch than {torch.__version__}; hint: 2.13") from error
    try:
        compiler = shutil.which(get_cpp_compiler())
    except InvalidCxxCompiler:
        compiler = None
    if compiler is None:
        raise ExportError(
            "format 'aoti' needs a C++ compiler, and there is none that runs; hint: apt install g++, or name one with "
            "the environment variable CXX"
        )
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    return (said.splitlines() or [compiler])[0].strip()


def aoti_packages(quantum: Quantum, facts: Mapping[str, str]) -> Packages:
    """Both packages of a quantum, which is to have the policy ``compiler``.

    The step takes inputs, prepared values and state, gives outputs, and writes the next state where the state lies.

    Args:
        quantum: to be compiled.
        facts: what the packages are to say of themselves, see :func:`astrape.runtime.aoti.facts_of`.

    Raises:
        ExportError: without a compiler, for a graph that cannot be traced, and for one that Inductor cannot compile.
    """
    need_compiler()
    name = quantum.graph.name
    step = _package(StepInPlace(quantum), quantum.example(), name, facts)
    if not quantum.prepared:
        return Packages(step, None)
    return Packages(step, _package(quantum.controls, list(quantum.some_controls().values()), name, facts))


def _package(module: nn.Module, arguments: Sequence[Tensor], name: str, facts: Mapping[str, str]) -> bytes:
    from torch._inductor import aoti_compile_and_package

    program = traced(module, arguments, name)
    settings: dict[str, Any] = {
        "freezing": True,
        "cpp.threads": 1,
        # Inductor writes products of int64 as those of C++, where one that wraps around is undefined: GCC takes it that
        # no index of a loop can be so large, leaves out the loop's end, and writes behind a buffer (`noise` did).
        "cpp.march": f"{LEVELS[this_family().capability]} -fwrapv",
        # Without the lines of a source that nobody has.
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.metadata": dict(facts),
    }
    with tempfile.TemporaryDirectory(prefix="astrape-") as folder:
        path = Path(folder) / "model.pt2"
        try:
            with torch.no_grad(), quiet():
                aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
        except Exception as error:
            raise ExportError(f"'{name}' cannot be compiled by AOTInductor: {one_line(error, 300)}") from error
        return path.read_bytes()
