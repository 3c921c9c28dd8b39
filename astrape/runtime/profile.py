"""Profile of a session's pushes: the time of each kernel, beside the limits of the machine.

Each kernel of the captured steps is timed in its place, with what comes before and after it, so that its weights come
from where they come from in a push. The rest of a push is Python: calls of kernels, checks and copies.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.live import Live
from astrape.capture.arithmetic import quiet
from astrape.capture.lowering import Kernel
from astrape.capture.native.instructions import Instruction, codes
from astrape.capture.native.library import Program, library
from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.graph.session import Session
from astrape.runtime.machine import Machine
from astrape.runtime.operations import operations_of
from astrape.runtime.timing import one_thread

__all__ = ["KernelShare", "Profile", "profile"]

ROUNDS, WARM_UP = 60, 10
NAMES = {code: name for name, code in codes.items()}
SIZES = {"f": 4, "d": 8, "i": 4, "l": 8, "b": 1, "1": 1, "4": 4, "8": 8}
"""Bytes of a number, by the end of a native kernel's name."""


@dataclass(frozen=True)
class KernelShare:
    """All kernels of one name in a push.

    Attributes:
        name: the operator; ``kind`` is whose kernel it is: ``native``, ``PyTorch`` or ``NumPy``.
        calls: in a push.
        milliseconds: of a push. For native kernels without the call, which is one for many.
        bytes: that they read and write, everything once a kernel.
        operations: of products.
    """

    name: str
    kind: str
    calls: float
    milliseconds: float
    bytes: float
    operations: float


@dataclass(frozen=True)
class Profile:
    """Times of a push and of its parts, in milliseconds.

    Attributes:
        backend: what runs it, and why.
        push_ms: a push of the session, this thread's computing, the median.
        kernels: by time, the most first.
        kernels_ms: of all of them; ``python_ms`` is the rest of a push: calls of native programs, checks and copies.
        call_us: what a call of PyTorch's costs that adds two numbers: ``calls_ms`` is as much for each of its kernels,
            which ``kernels_ms`` contains.
        bytes_ms, operations_ms: the least time for what kernels read and write, and for products, by the machine's
            measured rates.
    """

    backend: str
    push_ms: float
    kernels: list[KernelShare]
    kernels_ms: float
    python_ms: float
    call_us: float
    calls_ms: float
    bytes_ms: float
    operations_ms: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def profile(
    graph: Graph,
    backend: str,
    frames: Mapping[str, int],
    controls: Mapping[str, Tensor | float],
    machine: Machine,
    precision: str | None = None,
) -> Profile:
    """Profile a session's pushes on noise at -20 dB, on one thread. Where patterns of pushes differ, it is their mean.

    Args:
        graph: what is streamed.
        backend: ``recorded`` or ``compiled``, the two that have captured steps.
        frames: of a push, by input.
        controls: values by name.
        machine: its measured rates.
        precision: of weights, as ``graph.stream`` takes it.

    Raises:
        AstrapeError: for a session that captured nothing.
    """
    generator = torch.Generator().manual_seed(0)
    piece = {
        name: 0.1 * torch.randn(1, stream.channels, frames[name], generator=generator)
        for name, stream in graph.inputs.items()
    }
    with one_thread(), torch.inference_mode(), Live().run(), quiet():
        session = graph.stream(chunk=frames, backend=backend, precision=precision)
        if not session.captured_steps:
            raise AstrapeError(f"backend '{backend}' has nothing to profile: {session.backend.why}")
        pushes = _push_times(session, piece, controls)
        found: dict[tuple[str, str], list[float]] = {}
        for patterns in session.captured_kernels():
            for kernels in patterns:
                for key, numbers in _timed(kernels):
                    share = found.setdefault(key, [0.0] * 4)
                    for index, number in enumerate(numbers):
                        share[index] += number / len(patterns)
        call_us = _call_us()
    shares = [KernelShare(name, kind, *numbers) for (name, kind), numbers in found.items()]
    shares.sort(key=lambda share: -share.milliseconds)
    total = sum(share.milliseconds for share in shares)
    push = statistics.median(pushes)
    return Profile(
        backend=str(session.backend),
        push_ms=push,
        kernels=shares,
        kernels_ms=total,
        python_ms=max(0.0, push - total),
        call_us=call_us,
        calls_ms=call_us / 1000 * sum(share.calls for share in shares if share.kind == "PyTorch"),
        bytes_ms=machine.floor_ms(0.0, sum(share.bytes for share in shares)),
        operations_ms=machine.floor_ms(sum(share.operations for share in shares), 0.0),
    )


def _push_times(session: Session, piece: Mapping[str, Tensor], controls: Mapping[str, Tensor | float]) -> list[float]:
    times = []
    for index in range(WARM_UP + ROUNDS):
        begin = time.thread_time()
        session.push(dict(piece), **(controls if index == 0 else {}))
        times.append((time.thread_time() - begin) * 1000)
    return times[WARM_UP:]


def _timed(kernels: Sequence[Kernel]) -> Iterator[tuple[tuple[str, str], tuple[float, float, float, float]]]:
    """Name and kind of each kernel, an instruction being one; calls, milliseconds, bytes and operations."""
    parts = [part for kernel in kernels for part in _instructions(kernel)]
    times: list[list[float]] = [[] for _ in parts]
    for index in range(WARM_UP + ROUNDS):
        for part, taken in zip(parts, times, strict=True):
            begin = time.perf_counter()
            part()
            if index >= WARM_UP:
                taken.append((time.perf_counter() - begin) * 1000)
    calling = _calling()
    for part, taken in zip(parts, times, strict=True):
        # The undisturbed quarter of the runs: on a machine that does other things too, the rest are slower.
        spent = sorted(taken)[len(taken) // 4] - (calling if isinstance(part, Program) else 0.0)
        yield _named(part), (1.0, max(0.0, spent), float(_bytes(part)), float(operations_of(part)))


def _instructions(kernel: Kernel) -> list[Kernel]:
    if not isinstance(kernel, Program):
        return [kernel]
    kernels = library()
    assert kernels is not None
    return [kernels.program([Instruction(words, held)]) for words, held in zip(kernel.words, kernel.held, strict=True)]


def _calling() -> float:
    """Milliseconds of calling a native program that does next to nothing."""
    kernels = library()
    if kernels is None:
        return 0.0
    from astrape.capture.native.exact import copied

    one = copied(torch.zeros(1), torch.zeros(1))
    assert one is not None
    return _lower_quartile(kernels.program([one]))


def _call_us() -> float:
    one, out = torch.zeros(1), torch.zeros(1)
    return 1000 * _lower_quartile(lambda: torch.add(one, one, out=out))


def _lower_quartile(work: Kernel) -> float:
    taken = []
    for _ in range(200):
        begin = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begin) * 1000)
    return sorted(taken)[50]


def _named(kernel: Kernel) -> tuple[str, str]:
    if isinstance(kernel, Program):
        return NAMES[Instruction(kernel.words[0]).code].rpartition("_")[0], "native"
    inner = _inner(kernel)
    function = getattr(inner, "func", inner)
    if isinstance(function, np.ufunc):
        return function.__name__, "NumPy"
    name = str(getattr(function, "__name__", function)).removesuffix(".default").lstrip("_")
    return name, "NumPy" if str(getattr(function, "__module__", "")).startswith("numpy") else "PyTorch"


def _inner(kernel: Any) -> Any:
    """The kernel within one that copies what another returns."""
    first = kernel.args[0] if getattr(kernel, "args", ()) else None
    return _inner(first) if hasattr(first, "func") else kernel


def _bytes(kernel: Kernel) -> int:
    if isinstance(kernel, Program):
        told, count = Instruction(kernel.words[0]), 0
        name = NAMES[told.code]
        for index, strides in enumerate(told.strides):
            if told.addresses[index]:
                spanned = [int(size) for size, stride in zip(told.sizes, strides, strict=True) if stride]
                size = 2 if name.startswith("halves") and index == 1 else SIZES[name[-1]]
                count += size * int(np.prod(spanned, dtype=np.int64))
        return count
    inner = _inner(kernel)
    given = [*getattr(inner, "args", ()), *getattr(inner, "keywords", {}).values()]
    return sum(_size(one) for one in given)


def _size(given: Any) -> int:
    if isinstance(given, np.ndarray):
        return given.nbytes
    if isinstance(given, Tensor):
        return given.numel() * given.element_size()
    return sum(map(_size, given)) if isinstance(given, (list, tuple)) else 0
