"""Type hints as checks: plain YAML values brought to what a block's constructor says it takes."""

from __future__ import annotations

import collections.abc
import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from astrape.graph.recipe.location import quote
from astrape.graph.recipe.written import recipe_number

__all__ = ["Kind", "Mismatch", "kind_of"]


class Mismatch(Exception):
    """A value that a hint does not take.

    Attributes:
        expected: what would have fitted, in words.
        found: the value that did not, in words.
        path: where it is inside of the parameter's value, such as ``[2]``.
    """

    def __init__(self, expected: str, found: str, path: str = "") -> None:
        super().__init__(f"{path or 'it'} is {found}, not {expected}")
        self.expected, self.found, self.path = expected, found, path


@dataclass(frozen=True)
class Kind:
    """The values that a type annotation accepts.

    Attributes:
        expected: in words, singular: ``a whole number``.
        take: returns the value as the constructor gets it, or raises ``Mismatch``.
        rank: the order in which the members of a union are tried, the narrowest first.
    """

    expected: str
    take: Callable[[Any], Any]
    rank: int


def kind_of(hint: Any) -> Kind:
    """The check for a type hint.

    Understood are ``int`` (not ``bool``), ``float`` (finite; an int will do), ``bool``, ``str``, ``None``,
    ``Fraction`` (an int, a decimal by its text, or a string such as ``"200/3"``), ``Literal``, unions, lists,
    sequences, tuples, and mappings from text. ``Any``, ``object`` and type variables take every value, and any other
    type takes none: a recipe cannot make it.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if isinstance(hint, TypeVar):
        return _PLAIN[Any]
    if origin is Annotated:
        return kind_of(arguments[0])
    if origin is Literal:
        return _literal(arguments)
    if origin in (Union, types.UnionType):
        return _union([kind_of(argument) for argument in arguments])
    if origin is tuple or hint is tuple:
        return _tuple(arguments)
    if origin in _LISTS or hint in _LISTS:
        return _list(kind_of(arguments[0]) if arguments else _PLAIN[Any], list)
    if origin in _MAPPINGS or hint in _MAPPINGS:
        return _mapping(kind_of(arguments[1]) if len(arguments) == 2 else _PLAIN[Any])
    expected = f"a {getattr(hint, '__name__', hint)}, which only code can make"
    return _when(expected, lambda value: False, UNTAKEN)


UNTAKEN = 9
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping)


def _when(expected: str, test: Callable[[Any], bool], rank: int, convert: Callable[[Any], Any] | None = None) -> Kind:
    def take(value: Any) -> Any:
        if not test(value):
            raise Mismatch(expected, quote(value))
        return value if convert is None else convert(value)

    return Kind(expected, take, rank)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Fraction)) and not isinstance(value, bool) and math.isfinite(value)


def _exact(value: Any) -> Fraction:
    try:
        return recipe_number(value)
    except ValueError:
        raise Mismatch("an exact number such as 44100, 44100.5 or '200/3'", quote(value)) from None


_PLAIN: dict[Any, Kind] = {
    type(None): _when("nothing", lambda value: value is None, 0),
    bool: _when("true or false", lambda value: isinstance(value, bool), 1),
    int: _when("a whole number", _is_int, 2),
    Fraction: Kind("an exact number", _exact, 4),
    float: _when("a finite number", _is_number, 5, float),
    str: _when("text", lambda value: isinstance(value, str), 7),
    Any: Kind("anything", lambda value: value, 8),
    object: Kind("anything", lambda value: value, 8),
}
_PLAIN[None] = _PLAIN[type(None)]


def _literal(choices: tuple[Any, ...]) -> Kind:
    expected = ("one of " if len(choices) > 1 else "") + ", ".join(quote(choice) for choice in choices)

    def test(value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in choices)

    return _when(expected, test, 3)


def _union(members: list[Kind]) -> Kind:
    kinds = [kind for kind in members if kind.rank != UNTAKEN] or members
    expected = " or ".join(dict.fromkeys(kind.expected for kind in kinds))
    ordered = sorted(kinds, key=lambda kind: kind.rank)

    def take(value: Any) -> Any:
        mismatches = []
        for kind in ordered:
            try:
                return kind.take(value)
            except Mismatch as mismatch:
                mismatches.append(mismatch)
        inside = [mismatch for mismatch in mismatches if mismatch.path]
        raise inside[0] if len(inside) == 1 else Mismatch(expected, quote(value))

    return Kind(expected, take, min(kind.rank for kind in kinds))


def _items(kinds: list[Kind], value: list[Any]) -> list[Any]:
    items = []
    for index, (kind, item) in enumerate(zip(kinds, value, strict=True)):
        try:
            items.append(kind.take(item))
        except Mismatch as mismatch:
            raise Mismatch(mismatch.expected, mismatch.found, f"[{index}]{mismatch.path}") from None
    return items


def _list(kind: Kind, make: Callable[[list[Any]], Any]) -> Kind:
    expected = f"a list, each item {kind.expected}"

    def take(value: Any) -> Any:
        if not isinstance(value, list):
            raise Mismatch(expected, quote(value))
        return make(_items([kind] * len(value), value))

    return Kind(expected, take, 6)


def _tuple(arguments: tuple[Any, ...]) -> Kind:
    if not arguments:
        return _list(_PLAIN[Any], tuple)
    if arguments[-1] is Ellipsis:
        return _list(kind_of(arguments[0]), tuple)
    kinds = [kind_of(argument) for argument in arguments]
    expected = f"a list of {len(kinds)} ({', '.join(kind.expected for kind in kinds)})"

    def take(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(kinds):
            raise Mismatch(expected, quote(value))
        return tuple(_items(kinds, value))

    return Kind(expected, take, 6)


def _mapping(kind: Kind) -> Kind:
    expected = f"a mapping, each value {kind.expected}"

    def take(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Mismatch(expected, quote(value))
        entries = {}
        for key, item in value.items():
            try:
                entries[key] = kind.take(item)
            except Mismatch as mismatch:
                raise Mismatch(mismatch.expected, mismatch.found, f".{key}{mismatch.path}") from None
        return entries

    return Kind(expected, take, 6)
