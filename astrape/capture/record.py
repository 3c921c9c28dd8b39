"""Recording: the operators that a function of tensors comes down to, in order."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "MOST_SECONDS",
    "Call",
    "OutOfTime",
    "Recorder",
    "TimeLimit",
    "Unrecordable",
    "Watched",
    "addresses",
    "inference",
    "tensors",
]

aten = torch.ops.aten

MOST_KERNELS = 20_000
"""Longest captured step: 25 times that of a 40 million parameter voice converter, and still recorded within a
second."""

MOST_SECONDS = 8.0
"""Seconds of computing in which what a session captures has to be there: astrape-vc takes 1 to 3, on one core."""

inference = torch._C._InferenceMode
"""``torch.inference_mode`` without its Python, in which an interrupt would leave the mode on for all that follows."""

REFUSED = frozenset((torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape))
TURNS = frozenset((aten.t_, aten.transpose_, aten.squeeze_, aten.unsqueeze_))
"""Operators that change a tensor's shape in place, as torch's own GRU does with its result."""

RANDOM = torch.Tag.nondeterministic_seeded


READS = frozenset((Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__))
"""Methods that hand a tensor's values to Python without calling an operator."""


class Unrecordable(Exception):
    """Raised where a function cannot be recorded as a captured step; the message says why."""


class OutOfTime(Unrecordable):
    """Recording takes longer than it may."""


class TimeLimit:
    """Time that recording may take, from the making of this on.

    Args:
        seconds: of this thread's own computing. The clock on the wall has no say, or a busy machine would capture less
            than a quiet one.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._until = time.thread_time() + seconds

    def check(self, needed: float = 0.0) -> None:
        """Raise ``OutOfTime`` if the time is over, or will be before ``needed`` more seconds of computing."""
        if time.thread_time() + needed > self._until:
            raise OutOfTime(f"recording takes more than {self.seconds:g} s")


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context in which operators run until a limit is reached. Last bits may differ: composed operators part later."""

    def __init__(self, limit: TimeLimit) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit = limit

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled in here, and telling the compiler so would load it: 1.7 s of imports.
        return False

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._limit.check()
        return operator(*args, **(kwargs or {}))


class Call(NamedTuple):
    """One operator's call, as the recorder noted it."""

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class Recorder(Watched):
    """Notes every operator. All tensors stay alive as long as it does, so that an address is one tensor's.

    Raises:
        Unrecordable: for what would not be the same the next time: random numbers, sizes that depend on values, values
            that Python asks for. Memory is all that a captured step knows of a tensor, so sparse ones are refused too.
            ``OutOfTime`` where the limit is reached.
    """

    def __init__(self, limit: TimeLimit) -> None:
        super().__init__(limit)
        self.calls: list[Call] = []
        self._reads = _Reads()

    def __enter__(self) -> Recorder:
        self._reads.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._reads.__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not REFUSED.isdisjoint(operator.tags) and not _by_numbers(operator, args):
            raise Unrecordable(f"'{operator}' depends on values: what follows could differ from step to step")
        if RANDOM in operator.tags and _argument(operator, "dropout_p", args, kwargs or {}) != 0:
            raise Unrecordable(f"'{operator}' draws random numbers")
        if torch.Tag.inplace_view in operator.tags:
            return self._turn(operator, args, kwargs or {})
        if len(self.calls) >= MOST_KERNELS:
            raise Unrecordable(f"more than {MOST_KERNELS} operators in one step")
        result = super().__torch_dispatch__(operator, types, args, kwargs)
        for tensor in tensors(result):
            if tensor.layout != torch.strided or tensor.is_conj() or tensor.is_neg():
                raise Unrecordable(f"'{operator}' gives a tensor that is more than its memory")
        self.calls.append(Call(operator, args, kwargs or {}, result))
        return result

    def _turn(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Change a tensor's form; for the calls so far it goes on as it was."""
        if operator.overloadpacket not in TURNS:
            raise Unrecordable(f"'{operator}' changes what memory a tensor stands for")
        turned, as_it_was = args[0], aten.alias(args[0])
        self.calls = [Call(*_replaced(tuple(call), turned, as_it_was)) for call in self.calls]
        return operator(*args, **kwargs)


class _Reads(TorchFunctionMode):
    """Refuses what no operator shows."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in READS:
            raise Unrecordable(f"'{function.__name__}' depends on values: what follows could differ from step to step")
        return function(*args, **(kwargs or {}))


def addresses(tree: Any) -> list[int]:
    """Addresses of the memory of a tree's tensors; empty and opaque tensors have none."""
    return [
        tensor.untyped_storage().data_ptr()
        for tensor in tensors(tree)
        if tensor.layout == torch.strided and tensor.numel()
    ]


def tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors(item)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors(item)


def _replaced(tree: Any, old: Tensor, new: Tensor) -> Any:
    if tree is old:
        return new
    if type(tree) in (list, tuple):
        return type(tree)(_replaced(item, old, new) for item in tree)
    return {key: _replaced(item, old, new) for key, item in tree.items()} if isinstance(tree, dict) else tree


def _by_numbers(operator: Any, args: tuple[Any, ...]) -> bool:
    """Indexing by whole numbers, whose result has the indices' shape; by truth values it would have as many as hold."""
    return operator is aten.index.Tensor and all(
        index.dtype in (torch.int32, torch.int64) for index in tensors(args[1])
    )


def _argument(operator: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value of an operator's argument; ``None`` if it has none of that name."""
    for index, argument in enumerate(operator._schema.arguments):
        if argument.name == name:
            return args[index] if index < len(args) else kwargs.get(name, argument.default_value)
    return None
