"""PyTorch's operators as instructions of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from astrape.capture.arithmetic import IN_PLACE
from astrape.capture.native.exact import MOST, MOST_COPIED, UFUNCS, copied, exact, fits, moved_up, multiplied_on, two
from astrape.capture.native.instructions import Instruction
from astrape.capture.native.library import Library
from astrape.capture.native.near import near, normed, topmost
from astrape.capture.native.ordered import Ordered, ordered

__all__ = ["Native", "native", "native_copy", "native_in_place", "native_move", "native_several"]

aten = torch.ops.aten


class Native(NamedTuple):
    """Instructions that do what an operator does.

    Attributes:
        writes: what they write to.
        near: whether they round as they like.
        ordered: others that may round as PyTorch's kernel does.
    """

    instructions: list[Instruction]
    writes: tuple[Tensor, ...]
    near: bool = False
    ordered: Ordered | None = None

    def reading(self, read: Callable[[Instruction], Instruction | None]) -> Native | None:
        """The same with each instruction as ``read`` has it; ``None`` where that is ``None`` of one."""
        found = [read(one) for one in self.instructions]
        every = [one for one in found if one is not None]
        return self._replace(instructions=every) if len(every) == len(found) else None

    def exactly(self, library: Library) -> Native | None:
        """Instructions that give PyTorch's numbers to the last bit; ``None`` where none are known to."""
        if not self.near:
            return self
        found = self.ordered and self.ordered.right(library)
        return Native(found, self.writes) if found else None


def native(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: Tensor) -> Native | None:
    """Instructions that leave an operator's result in ``place``; ``None`` for what the library does not have."""
    if not fits(place, MOST_COPIED if operator is aten.cat.default else MOST):
        return None
    found = exact(operator, args, kwargs, place)
    if found is not None:
        return _whole(found, place)
    found = near(operator, args, kwargs, place)
    made = None if found is None else _whole(found, place, near=True)
    return made and made._replace(ordered=ordered(operator, args, kwargs, place))


def native_copy(place: Tensor, given: Tensor) -> Native | None:
    """Instructions that copy a tensor, in ``place``'s type and repeated where that is larger."""
    fit = fits(place, MOST_COPIED) and fits(given, MOST_COPIED)
    return _whole([copied(place, given)], place) if fit else None


def native_move(place: Tensor, given: Tensor) -> Native | None:
    """Instructions that copy a tensor to where part of it lies, earlier in memory."""
    return _whole([moved_up(place, given)], place) if fits(place, MOST_COPIED) and fits(given, MOST_COPIED) else None


def native_in_place(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Native | None:
    """Instructions of an operator that writes to its first argument."""
    place = args[0]
    if not isinstance(place, Tensor) or not fits(place):
        return None
    if operator is aten.copy_.default and len(args) == 2 and not kwargs:
        return native_copy(*args)
    if operator is aten.addcmul_.default and all(isinstance(one, Tensor) for one in args):
        return _whole(multiplied_on(place, *args, **kwargs), place)
    if operator in IN_PLACE and not kwargs and len(args) == 2:
        return _whole(two(UFUNCS[IN_PLACE[operator]], args, place), place)
    return None


def native_several(operator: Any, args: tuple[Any, ...], places: Sequence[Tensor | None]) -> Native | None:
    """Instructions of an operator with several results, those of them that are needed."""
    needed = tuple(place for place in places if place is not None)
    if operator is aten.topk.default and len(needed) == 2:
        found = topmost(*needed, *args)
        return None if found is None else Native([one for one in found if one is not None], needed, near=True)
    if operator is aten.native_layer_norm.default and places[0] is not None and len(needed) == 1:
        made = _whole(normed(places[0], *args), places[0], near=True)
        return made and made._replace(ordered=ordered(operator, args, {}, places[0]))
    return None


def _whole(found: Sequence[Instruction | None] | None, place: Tensor, near: bool = False) -> Native | None:
    """All instructions of an operator, or none."""
    if found is None:
        return None
    every = [one for one in found if one is not None]
    return Native(every, (place,), near) if len(every) == len(found) else None
