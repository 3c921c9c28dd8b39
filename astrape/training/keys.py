"""Values of a section read by key, each with its type and bounds, and complaints that say where in the file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from astrape.graph.recipe import Recipe
from astrape.graph.where import quote, suggest
from astrape.training.errors import TrainingError

__all__ = ["Keys"]


class Keys:
    """A mapping that is read key by key, and then asked whether anything is left.

    Args:
        recipe: what it comes from; it knows the lines.
        way: the keys that lead to it, ``training`` first.
        values: the mapping.
    """

    def __init__(self, recipe: Recipe, way: tuple[str | int, ...], values: Any) -> None:
        self.recipe = recipe
        self.way = way
        if not isinstance(values, Mapping):
            raise TrainingError(self._message((), f"is {quote(values)}", "give a mapping"))
        self.values = values
        self.known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        self.known.add(key)
        return key in self.values

    def wrong(self, key: str, fault: str, mend: str = "") -> TrainingError:
        """The complaint about a key."""
        return TrainingError(self._message((key,), fault, mend))

    def check(self, key: str, name: str, known: Iterable[str], what: str) -> None:
        """Refuse a name that is not among the known ones, with the nearest."""
        listed = list(known)
        if name not in listed:
            raise self.wrong(key, f"there is no {what} {quote(name)}", suggest(name, listed, what))

    def text(self, key: str) -> str:
        value = self._take(key, None)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, f"is {quote(value)}", "give a name")
        return value

    def texts(self, key: str) -> list[str]:
        value = self._take(key, None)
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(name, str) for name in value):
            raise self.wrong(key, f"is {quote(value)}", "give a list of names")
        return list(value)

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        value = self._take(key, default)
        if value not in known:
            raise self.wrong(key, f"is {quote(value)}", f"give {' or '.join(known)}")
        return str(value)

    def truth(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {quote(value)}", "give true or false")
        return value

    def whole(self, key: str, least: int, most: int, default: int | None = None) -> int:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(key, f"is {quote(value)}", f"give a whole number from {least} to {most}")
        return value

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        return self._number(key, self._take(key, default), least, most)

    def numbers(
        self, key: str, count: int, least: float, most: float, default: Sequence[float] | None = None
    ) -> list[float]:
        values = self._take(key, default)
        if not isinstance(values, (list, tuple)) or len(values) != count:
            raise self.wrong(key, f"is {quote(values)}", f"give a list of {count} numbers")
        return [self._number(key, value, least, most) for value in values]

    def inside(self, key: str) -> Keys:
        """The mapping under a key."""
        return Keys(self.recipe, (*self.way, key), self._take(key, None))

    def mapping(self, key: str) -> Iterator[tuple[str, Keys]]:
        """The mappings in the mapping under a key, by name."""
        outer = self.inside(key)
        if not outer.values:
            raise self.wrong(key, "is empty", "give at least one")
        for name in outer.values:
            yield name, outer.inside(name)

    def items(self, key: str) -> Iterator[Keys]:
        """The mappings in the list under a key."""
        values = self._take(key, None)
        if not isinstance(values, (list, tuple)) or not values:
            raise self.wrong(key, f"is {quote(values)}", "give a list of mappings")
        for index, value in enumerate(values):
            yield Keys(self.recipe, (*self.way, key, index), value)

    def rest(self, *read: str, text: str | None = None) -> dict[str, Any]:
        """All values but those that were read; with ``text``, all of them, of which that one is a name."""
        self.known |= set(self.values)
        if text is not None:
            self.text(text)
            return dict(self.values)
        return {key: value for key, value in self.values.items() if key not in read}

    def done(self) -> None:
        """Refuse keys that nothing has asked for."""
        for key in self.values:
            if key not in self.known:
                raise self.wrong(key, "is no key that is known here", suggest(key, self.known, "key"))

    def _take(self, key: str, default: Any) -> Any:
        self.known.add(key)
        if key not in self.values:
            if default is None:
                raise TrainingError(self._message((), f"lacks the key '{key}'", "add it"))
            return default
        return self.values[key]

    def _number(self, key: str, value: Any, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(key, f"is {quote(value)}", "give a number")
        if not least <= value <= most:
            raise self.wrong(key, f"is {value:g}", f"give {least:g} to {most:g}")
        return float(value)

    def _message(self, key: tuple[str | int, ...], fault: str, mend: str) -> str:
        way = (*self.way, *key)
        where = self.recipe.where if self.recipe.spot is None else self.recipe.spot.where_of(*way)
        text = f"{where}: {'.'.join(map(str, way))} {fault}" + (f": {mend}" if mend else "")
        return " ".join(text.split())
