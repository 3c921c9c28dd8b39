"""Lowering: recorded operators as kernels over fixed memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.state import map_state, state_leaves
from astrape.capture.arithmetic import exact_in_place
from astrape.capture.kernels import COPIES, Kernel, copying, into, moving, several
from astrape.capture.native.translate import Native, native, native_copy, native_in_place, native_move, native_several
from astrape.capture.record import Call, Unrecordable, addresses, tensors

__all__ = ["Kernel", "Lowering", "Memory"]

aten = torch.ops.aten

IN_PLACE: dict[Any, Callable[..., Any]] = {
    aten.add_.Tensor: Tensor.add_,
    aten.bitwise_xor_.Tensor: Tensor.bitwise_xor_,
    aten.addcmul_.default: Tensor.addcmul_,
    aten.copy_.default: Tensor.copy_,
    aten.index_copy_.default: Tensor.index_copy_,
    aten.mul_.Tensor: Tensor.mul_,
}

NEVER_RAISE = frozenset(
    getattr(aten, name)
    for name in (
        "_conj_physical",
        "_fft_c2c",
        "_fft_c2r",
        "_fft_r2c",
        "_softmax",
        "_to_copy",
        "_weight_norm_interface",
        "add_",
        "addcmul_",
        "addmm",
        "argmax",
        "argmin",
        "avg_pool1d",
        "baddbmm",
        "bmm",
        "cat",
        "clone",
        "constant_pad_nd",
        "convolution",
        "copy_",
        "cumsum",
        "fill_",
        "flip",
        "max",
        "mean",
        "min",
        "mm",
        "mul_",
        "native_group_norm",
        "native_layer_norm",
        "repeat",
        "roll",
        "sort",
        "stack",
        "sub_",
        "topk",
        "unfold",
        "upsample_nearest1d",
        "zero_",
    )
)
"""Operators that no value of their arguments makes raise, beside those on each element by itself and sums."""

DIVISIONS = frozenset((aten.remainder, aten.fmod, aten.div, aten.floor_divide))
"""Operators that raise for a whole-number divisor of 0."""

FACTORIES = frozenset(
    getattr(aten, name)
    for name in ("empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like")
)
"""Operators that use only a tensor's shape and type, not its values."""


class Memory:
    """Memory for what does not outlast a play. Captured steps share it, and within a captured step so do kernels that
    are far apart.

    It stays small, which is why a captured step is played from the processor's cache: a new tensor for every result of
    a step of astrape-vc would be 30 MB.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[torch.device, int], list[torch.UntypedStorage]] = {}

    def take(self, size: int, device: torch.device) -> torch.UntypedStorage:
        """At least ``size`` bytes that are not in use."""
        size = -(-size // 64) * 64
        free = self._free.get((device, size))
        return free.pop() if free else torch.empty(size, dtype=torch.uint8, device=device).untyped_storage()

    def give(self, storage: torch.UntypedStorage) -> None:
        """Hand memory back."""
        self._free.setdefault((storage.device, storage.nbytes()), []).append(storage)


class Lowering:
    """Recorded calls as kernels over fixed memory. A tensor is an address and a form, so views need not be known.

    Attributes:
        natives: for each kernel what it is in instructions of the native library, where that has it.
    """

    def __init__(self, calls: list[Call], memory: Memory) -> None:
        self.natives: list[Native | None] = []
        self._calls = calls
        self._memory = memory
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._own: dict[int, torch.UntypedStorage] = {}
        self._results: set[int] = set()
        self._kernels: list[Kernel] = []

    def put(self, recorded: State, fixed: State) -> None:
        """Say where tensors that were there before the first call lie."""
        for (_, tensor), (_, place) in zip(state_leaves(recorded), state_leaves(fixed), strict=True):
            if tensor.stride() != place.stride() or place.storage_offset():
                raise Unrecordable("a state that is a view of something else")
            for key in addresses(tensor):
                self._storages[key] = place.untyped_storage()

    def lower(self, result: State, held: State, after: State, state: State) -> tuple[Any, list[Kernel]]:
        """All kernels, what copies the state included; and where the result lies."""
        outside = set(self._storages)
        self._results = set(addresses(result))
        self._refuse_hidden_writes()
        constant = self._constants()
        needed = self._needed(result, after)
        passed, slid = self._passed_on(result, after), self._slid_on(result, held, after)
        passed.update({key: new for key, (new, _) in slid.items()})
        kept = set(addresses((result, after, list(passed.values()))))
        used = set(kept)
        temporary: dict[int, list[int]] = {}
        for key, (made_by, index) in self._uses().items():
            if index > made_by:
                used.add(key)
            if key not in kept:
                temporary.setdefault(index, []).append(key)
        for index, call in enumerate(self._calls):
            if index in needed and passed.keys().isdisjoint(addresses(call.result)):
                self._emit(call, used, constant)
            for key in temporary.get(index, ()):
                self._release(key)
        # The result first: where it is state, that is about to change.
        answer = map_state(partial(self._answer, outside=outside), result)
        self._write_back((held, after, state), outside, passed, slid)
        for key in self._own.keys() - self._results:
            self._release(key)
        return answer, self._kernels

    def _refuse_hidden_writes(self) -> None:
        """Memory that the calls neither made nor were given would keep from play to play what is written to it."""
        known = set(self._storages)
        for call in self._calls:
            if call.operator._schema.is_mutable and not known.issuperset(_written(call)):
                raise Unrecordable(f"'{call.operator}' writes to what is neither state nor made by an operator")
            known.update(set(addresses(call.result)).difference(addresses((call.args, call.kwargs))))

    def _constants(self) -> set[int]:
        """Addresses of what depends on no tensor's values: the results of factories, and what is made of those."""
        constant: set[int] = set()
        written = {key for call in self._calls if call.operator._schema.is_mutable for key in _written(call)}
        for call in self._calls:
            if call.operator._schema.is_mutable:
                continue
            read = set(addresses((call.args, call.kwargs)))
            made = set(addresses(call.result)) - read
            if made and made.isdisjoint(written) and (_is_factory(call) or (read and read <= constant)):
                constant |= made
        return constant

    def _passed_on(self, result: State, after: State) -> dict[int, Tensor]:
        """Copies that nothing reads but the next state, by their addresses, and what they are copies of.

        A history's newest frames are copied out of it to be in memory of their own, and then to where the state lies:
        the first of the two copies can be left out, if nothing writes to the history meanwhile.
        """
        written = {key for call in self._calls if call.operator._schema.is_mutable for key in _written(call)}
        left_alone = written.union(self._storages).isdisjoint
        states, uses = set(addresses(after)).difference(addresses(result)), self._uses()
        found: dict[int, Tensor] = {}
        for index, call in enumerate(self._calls):
            if call.operator in COPIES and isinstance(call.result, Tensor):
                (key, *_), source = addresses(call.result) or [0], call.args[0]
                alone = uses.get(key) == (index, index) and key in states and key not in written
                if alone and source.dtype == call.result.dtype and addresses(source) and left_alone(addresses(source)):
                    found[key] = source
        return found

    def _slid_on(self, result: State, held: State, after: State) -> dict[int, tuple[Tensor, int]]:
        """Histories that move on where they lie, by the address of the next one: the newest frames, and which dimension
        frames are.

        The next history is the last one without its oldest frames, and then the new ones. If that is all it is for, its
        frames need not leave their place for it.
        """
        written = {key for call in self._calls if call.operator._schema.is_mutable for key in _written(call)}
        before = {addresses(new)[0]: old for (_, old), (_, new) in _pairs(held, after) if addresses(new)}
        uses, answers = self._uses(), set(addresses(result))
        found: dict[int, tuple[Tensor, int]] = {}
        for index, call in enumerate(self._calls):
            key = next(iter(addresses(call.result)), 0) if call.operator is aten.cat.default else 0
            old, parts = before.get(key), call.args[0]
            if old is None or key in answers or uses[key] != (index, index) or len(parts) != 2:
                continue
            dim = (call.args[1] if len(call.args) > 1 else 0) % old.dim()
            kept, new = parts
            count = new.shape[dim] if new.dim() == old.dim() else 0
            oldest = old.narrow(dim, count, old.shape[dim] - count) if 0 < count < old.shape[dim] else None
            if oldest is None or not old.is_contiguous() or not _same(kept, oldest) or new.dtype != old.dtype:
                continue
            if written.isdisjoint(addresses((old, new))) and self._storages.keys().isdisjoint(addresses(new)):
                found[key] = new, dim
        return found

    def _needed(self, result: State, after: State) -> set[int]:
        """Indices of the calls that something depends on, or that are there to raise, as a check of a range is."""
        alive = set(addresses((result, after))) | set(self._storages)
        found = set()
        for index in range(len(self._calls) - 1, -1, -1):
            call = self._calls[index]
            writes = call.operator._schema.is_mutable
            if _may_raise(call) or not alive.isdisjoint(_written(call) if writes else addresses(call.result)):
                found.add(index)
                alive.update(addresses((call.args, call.kwargs)))
        return found

    def _uses(self) -> dict[int, tuple[int, int]]:
        """The indices of the first and the last call that uses each address."""
        uses: dict[int, tuple[int, int]] = {}
        for index, call in enumerate(self._calls):
            for key in addresses((call.args, call.kwargs, call.result)):
                uses[key] = (uses.get(key, (index, index))[0], index)
        return uses

    def _emit(self, call: Call, used: set[int], constant: set[int]) -> None:
        operator, read = call.operator, set(addresses((call.args, call.kwargs)))
        made = set(addresses(call.result)) - read
        if operator._schema.is_mutable:
            if made:
                raise Unrecordable(f"'{operator}' writes in place and returns something else")
            args, kwargs = self._placed((call.args, call.kwargs))
            written = partial(IN_PLACE.get(operator, operator), *args, **kwargs)
            self._add(exact_in_place(operator, args, kwargs) or written, native_in_place(operator, args, kwargs))
            return
        if not any(True for _ in tensors(call.result)):
            args, kwargs = self._placed((call.args, call.kwargs))
            self._add(partial(operator, *args, **kwargs))
            return
        if not made or made <= constant:
            return
        if set(addresses(call.result)) != made:
            raise Unrecordable(f"'{operator}' returns a view and a copy at once")
        args, kwargs = self._placed((call.args, call.kwargs))
        if isinstance(call.result, Tensor):
            self._make(call.result)
            place = self._place(call.result)
            copied = native_copy(place, args[0]) if operator in COPIES else native(operator, args, kwargs, place)
            self._add(into(operator, args, kwargs, place), copied)
            return
        places: list[Tensor | None] = []
        for part in call.result:
            if isinstance(part, Tensor) and not used.isdisjoint(addresses(part)):
                self._make(part)
                places.append(self._place(part))
            else:
                places.append(None)
        self._add(several(operator, args, kwargs, places), native_several(operator, args, places))

    def _add(self, kernel: Kernel, as_native: Native | None = None) -> None:
        self._kernels.append(kernel)
        self.natives.append(as_native)

    def _copy(self, place: Tensor, given: Tensor) -> tuple[Kernel, Native | None]:
        return copying(place, given), native_copy(place, given)

    def _make(self, tensor: Tensor) -> None:
        size = tensor.untyped_storage().nbytes()
        for key in addresses(tensor):
            # A result is there until the next play, and other captured steps play meanwhile.
            memory = Memory() if key in self._results else self._memory
            self._storages[key] = self._own[key] = memory.take(size, tensor.device)

    def _release(self, key: int) -> None:
        storage = self._own.pop(key, None)
        if storage is not None:
            self._memory.give(storage)

    def _place(self, tensor: Tensor) -> Tensor:
        """The captured step's memory for a recorded tensor; the tensor itself, if the calls did not make it."""
        for key in addresses(tensor):
            storage = self._storages.get(key)
            if storage is not None:
                empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        return tensor

    def _placed(self, tree: Any) -> Any:
        if isinstance(tree, Tensor):
            return self._place(tree)
        if isinstance(tree, (list, tuple)):
            return type(tree)([self._placed(item) for item in tree])
        return {key: self._placed(item) for key, item in tree.items()} if isinstance(tree, dict) else tree

    def _copied(self, tensor: Tensor) -> Tensor:
        """A copy that the captured step makes at its end."""
        copy = torch.empty_like(tensor)
        self._add(*self._copy(copy, self._place(tensor)))
        return copy

    def _answer(self, tensor: Tensor, outside: set[int]) -> Tensor:
        mine = any(key in self._own and key not in outside for key in addresses(tensor))
        return self._place(tensor) if mine else self._copied(tensor)

    def _write_back(
        self,
        states: tuple[State, State, State],
        outside: set[int],
        passed: dict[int, Tensor],
        slid: dict[int, tuple[Tensor, int]],
    ) -> None:
        pending = []
        for (name, old), (_, new), (_, place) in _pairs(*states):
            if new.shape != old.shape or new.dtype != old.dtype:
                raise Unrecordable(f"{name} changed from {tuple(old.shape)} to {tuple(new.shape)}")
            same = new.data_ptr() == old.data_ptr() and new.stride() == old.stride()
            if same or not addresses(new):
                continue
            key = addresses(new)[0]
            if key in slid:
                added, dim = slid[key]
                count = added.shape[dim]
                left = place.shape[dim] - count
                parts = place.narrow(dim, 0, left), place.narrow(dim, count, left)
                pending.append((moving(*parts), native_move(*parts)))
                pending.append(self._copy(place.narrow(dim, left, count), self._place(added)))
                continue
            if key in passed:
                pending.append(self._copy(place, self._place(passed[key])))
                continue
            # A state that moves to another's place is read before that one is written.
            moved = key in outside
            pending.append(self._copy(place, self._copied(new) if moved else self._place(new)))
        for kernel, as_native in pending:
            self._add(kernel, as_native)


def _pairs(*trees: State) -> Iterator[tuple[tuple[str, Tensor], ...]]:
    """Leaves of trees of one form, with their names."""
    return zip(*map(state_leaves, trees), strict=True)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same memory in the same form."""
    return (one.data_ptr(), one.shape, one.stride()) == (other.data_ptr(), other.shape, other.stride())


def _is_factory(call: Call) -> bool:
    return call.operator.overloadpacket in FACTORIES or not any(True for _ in tensors((call.args, call.kwargs)))


def _may_raise(call: Call) -> bool:
    """Whether values could make an operator raise. What is not known not to is taken to."""
    kind, tags = call.operator.overloadpacket, call.operator.tags
    results = list(tensors(call.result))
    if not results:
        # With no tensor in it, it has done all it does.
        return any(True for _ in tensors((call.args, call.kwargs)))
    if kind in DIVISIONS:
        return not all(tensor.is_floating_point() for tensor in results)
    if torch.Tag.pointwise in tags or torch.Tag.reduction in tags or kind in NEVER_RAISE or _is_factory(call):
        return False
    # A view computes nothing.
    return call.operator._schema.is_mutable or not set(addresses((call.args, call.kwargs))).issuperset(
        addresses(results)
    )


def _written(call: Call) -> list[int]:
    """Addresses of the arguments that an operator writes to."""
    found: list[int] = []
    for index, argument in enumerate(call.operator._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = call.args[index] if index < len(call.args) else call.kwargs.get(argument.name)
            found += addresses(value)
    return found
