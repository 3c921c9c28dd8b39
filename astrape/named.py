"""Classes that recipes name, and how they are made of what a recipe says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from astrape.errors import AstrapeError
from astrape.wording import quote, suggest

__all__ = ["Named", "made"]

T = TypeVar("T")
Class = TypeVar("Class", bound=type)


class Named(Generic[T]):
    """Classes of one kind by the names that recipes give them.

    Args:
        what: the kind, as messages call it.
        error: kind of the errors.
    """

    def __init__(self, what: str, error: type[AstrapeError]) -> None:
        self.what, self.error = what, error
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[Class], Class]:
        """Put a class in reach of recipes as ``use: name``.

        Raises:
            AstrapeError: when another class already has the name. The same class may come again, as it does when a
                notebook cell runs twice.
        """

        def add(cls: Class) -> Class:
            known = self._classes.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                owner = f"{known.__module__}.{known.__qualname__}"
                raise self.error(f"{self.what} name '{name}' is taken by {owner}: choose another")
            self._classes[name] = cls
            return cls

        return add

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def names(self) -> list[str]:
        """All names that recipes can use, sorted."""
        return sorted(self._classes)

    def find(self, name: Any) -> type[T]:
        """The class of a name.

        Raises:
            AstrapeError: for an unknown name, with the nearest known one.
        """
        if not isinstance(name, str) or name not in self._classes:
            hint = suggest(name if isinstance(name, str) else "", self._classes, self.what)
            raise self.error(f"unknown {self.what} {name if name is None else quote(name)}: {hint}")
        return self._classes[name]


def made(
    what: str,
    make: Callable[..., T],
    params: Mapping[str, Any],
    *given: Any,
    error: type[AstrapeError],
    own: Collection[str] = (),
    **more: Any,
) -> T:
    """An object as a recipe describes it, made of the parameters that it writes.

    Args:
        what: it is, for messages: ``loss 'cosine'``.
        make: its class.
        params: what the recipe writes.
        given, more: what the class takes beside that, first and by name.
        error: kind of the errors.
        own: other keys that stand beside the parameters in a recipe, for the hint.

    Raises:
        AstrapeError: for an unknown parameter, and for a value that the class refuses.
    """
    takes = list(inspect.signature(make).parameters)[len(given) :]
    known = [name for name in takes if name not in more]
    for key in params:
        if key not in known:
            raise error(f"{what} has no parameter '{key}': {suggest(key, [*known, *own], 'parameter')}")
    try:
        return make(*given, **params, **more)
    except (ValueError, TypeError) as fault:
        raise error(f"{what}: {fault}") from fault
