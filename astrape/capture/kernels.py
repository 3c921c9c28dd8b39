"""Kernels: an operator and its arguments, bound to the memory where its result goes, in the form that is fastest.

Small operators are most of a live step, and for them the way to the kernel takes longer than the kernel. One core, us::

    torch.add(x, y, out=)        1.1        torch.add(x, 1.5, out=)             3.2    the number becomes a tensor
    torch.log(x, out=)           1.5        torch.ops.aten.log.out(x, out=)     5.7

The numbers are the same to the last bit: a recording is compared with what it was made of before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from astrape.capture.arithmetic import Kernel, exact, exact_copy

__all__ = ["COPIES", "Kernel", "copying", "into", "moving", "several"]

aten = torch.ops.aten

WITH_OUT: dict[Any, Callable[..., Any]] = {
    aten.__lshift__.Scalar: torch.bitwise_left_shift,
    aten.__rshift__.Scalar: torch.bitwise_right_shift,
    aten.add.Tensor: torch.add,
    aten.addmm.default: torch.addmm,
    aten.argmax.default: torch.argmax,
    aten.baddbmm.default: torch.baddbmm,
    aten.bitwise_and.Scalar: torch.bitwise_and,
    aten.bitwise_and.Tensor: torch.bitwise_and,
    aten.bitwise_not.default: torch.bitwise_not,
    aten.bitwise_or.Tensor: torch.bitwise_or,
    aten.bitwise_xor.Tensor: torch.bitwise_xor,
    aten.cat.default: torch.cat,
    aten.clamp.default: torch.clamp,
    aten.cumsum.default: torch.cumsum,
    aten.div.Tensor: torch.div,
    aten.gather.default: torch.gather,
    aten.gelu.default: torch._C._nn.gelu,
    aten.index_select.default: torch.index_select,
    aten.lerp.Tensor: torch.lerp,
    aten.pow.Tensor_Scalar: torch.pow,
    aten.remainder.Scalar: torch.remainder,
    aten.silu.default: torch._C._nn.silu,
    aten.stack.default: torch.stack,
    aten.sum.dim_IntList: torch.sum,
    aten.where.self: torch.where,
    **{
        getattr(aten, name).default: getattr(torch, name)
        for name in (
            *("abs", "addcmul", "amax", "amin", "bmm", "ceil", "cos", "exp", "exp2", "floor", "log", "log10", "log2"),
            *("maximum", "minimum", "mm", "neg", "reciprocal", "round", "rsqrt", "sigmoid", "sign", "sin", "sqrt"),
            *("tan", "tanh"),
        )
    },
    **{
        getattr(getattr(aten, name), form): getattr(torch, name)
        for name in ("eq", "ge", "gt", "le", "lt", "ne")
        for form in ("Scalar", "Tensor")
    },
    aten.mul.Tensor: torch.mul,
    aten.sub.Tensor: torch.sub,
}
"""Operators whose function in ``torch`` takes the same arguments and ``out``."""

PLAIN: dict[Any, Callable[..., Any]] = {aten.native_layer_norm.default: torch.native_layer_norm}
"""Operators without ``out`` whose function in ``torch`` takes the same arguments."""

SEVERAL: dict[Any, Callable[..., Any]] = {
    aten.max.dim: torch.max,
    aten.min.dim: torch.min,
    aten.topk.default: torch.topk,
}
"""Operators of two results whose function in ``torch`` takes the same arguments and a pair as ``out``."""

COPIES = frozenset((aten.clone.default, aten._to_copy.default))

TAKE_A_NUMBER = frozenset(
    (
        torch.add,
        torch.sub,
        torch.mul,
        torch.div,
        torch.bitwise_and,
        torch.bitwise_left_shift,
        torch.bitwise_right_shift,
        torch.eq,
        torch.ge,
        torch.gt,
        torch.le,
        torch.lt,
        torch.ne,
    )
)
"""Functions of two tensors of which the second may be a number, which each call would make a tensor of."""


def into(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: Tensor) -> Kernel:
    """The kernel that leaves an operator's result in ``place``."""
    if operator in COPIES:
        return copying(place, args[0])
    kernel = exact(operator, args, kwargs, place)
    if kernel is not None:
        return kernel
    if operator is aten.masked_fill.Scalar:
        given, mask, value = args
        return partial(torch.where, mask, torch.tensor(value, dtype=place.dtype, device=place.device), given, out=place)
    if operator is aten.constant_pad_nd.default and min(args[1]) >= 0:
        return partial(_pad, place, _inside(place, args[1]), args[0], args[2] if len(args) > 2 else 0)
    if operator is aten.pow.Tensor_Scalar and args[1] == 2:
        return partial(torch.mul, args[0], args[0], out=place)
    if operator is aten.rsub.Scalar and len(args) == 2 and not kwargs:
        return partial(torch.sub, *reversed(_tensors(args)), out=place)
    if operator is aten.mean.dim and not kwargs and args[1] and place.is_floating_point() and len(args) < 4:
        count = args[0].numel() // max(1, place.numel())
        return partial(_mean, partial(torch.sum, *args, out=place), place, torch.tensor(count, dtype=place.dtype))
    if operator is aten.flip.default and len(args[1]) == 1:
        size = args[0].shape[args[1][0]]
        backwards = torch.arange(size - 1, -1, -1, device=place.device)
        return partial(torch.index_select, args[0], args[1][0], backwards, out=place)
    if operator in WITH_OUT:
        function = WITH_OUT[operator]
        return partial(function, *(_tensors(args) if function in TAKE_A_NUMBER else args), **kwargs, out=place)
    native = _out_form(operator, place.device)
    if native is not None:
        form, name = native
        return partial(form, *args, **kwargs, **{name: place})
    return partial(spread, partial(operator, *args, **kwargs), place)


def copying(place: Tensor, given: Tensor) -> Kernel:
    """The kernel that copies ``given`` to ``place``."""
    return exact_copy(place, given) or partial(Tensor.copy_, place, given)


def moving(place: Tensor, given: Tensor) -> Kernel:
    """The kernel that copies ``given`` to ``place``, which may be partly the same memory."""
    between = torch.empty_like(given, memory_format=torch.contiguous_format)
    return partial(_one_by_one, (copying(between, given), copying(place, between)))


def several(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], places: list[Tensor | None]) -> Kernel:
    """The kernel that leaves the results of an operator that has several in ``places``; ``None`` for one not needed."""
    if operator in SEVERAL and len(places) == 2 and None not in places:
        return partial(SEVERAL[operator], *args, **kwargs, out=tuple(places))
    kernel = partial(PLAIN.get(operator, operator), *args, **kwargs)
    if places[0] is not None and not any(place is not None for place in places[1:]):
        return partial(_first, kernel, places[0])
    return partial(spread, kernel, places)


def spread(kernel: Kernel, places: Any) -> None:
    """Copy what a kernel returns to where it belongs."""
    found = kernel()
    if isinstance(places, Tensor):
        places.copy_(found)
        return
    for place, part in zip(places, found, strict=True):
        if place is not None:
            place.copy_(part)


def _one_by_one(kernels: tuple[Kernel, ...]) -> None:
    for kernel in kernels:
        kernel()


def _first(kernel: Kernel, place: Tensor) -> None:
    place.copy_(kernel()[0])


def _tensors(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments, the second a tensor without dimensions where it is a number of the first one's kind."""
    first, second, *rest = args
    whole = not (first.is_floating_point() or first.is_complex() or first.dtype == torch.bool)
    fits = isinstance(second, int) if whole else first.is_floating_point() and isinstance(second, (int, float))
    if isinstance(second, bool) or not fits:
        return args
    return (first, torch.tensor(second, dtype=first.dtype, device=first.device), *rest)


def _inside(place: Tensor, widths: list[int]) -> Tensor:
    """The part of a padded tensor that is not padding; widths are those of the last dimension first."""
    for index in range(len(widths) // 2):
        dim = place.dim() - 1 - index
        before, after = widths[2 * index : 2 * index + 2]
        place = place.narrow(dim, before, place.shape[dim] - before - after)
    return place


def _pad(place: Tensor, inside: Tensor, given: Tensor, value: float) -> None:
    place.fill_(value)
    inside.copy_(given)


def _mean(total: Kernel, place: Tensor, count: Tensor) -> None:
    total()
    place.div_(count)


def _out_form(operator: Any, device: torch.device) -> tuple[Any, str] | None:
    """The operator's form with ``out``, where the device has a kernel for it and it is not made of the other one."""
    wanted = [(argument.name, str(argument.type)) for argument in operator._schema.arguments]
    for overload in operator.overloadpacket.overloads():
        form = getattr(operator.overloadpacket, overload)
        outs = [argument.name for argument in form._schema.arguments if argument.is_out]
        rest = [(a.name, str(a.type)) for a in form._schema.arguments if not a.is_out]
        if len(outs) == 1 and rest == wanted:
            key = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS"}.get(device.type, "CPU")
            found = torch._C._dispatch_has_kernel_for_dispatch_key(form._schema.name + "." + overload, key)
            return (form, outs[0]) if found else None
    return None
