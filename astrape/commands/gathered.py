"""Options that a command's function gets as one argument, so that they are named once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

__all__ = ["Decorator", "gathered"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def gathered(name: str, make: Callable[..., Any], *options: Decorator) -> Decorator:
    """Options whose values come as one argument.

    Args:
        name: of the argument.
        make: makes it from the options' values. Its parameters are called as they are.
        options: as click has them, in the order of the help.
    """
    taken = tuple(inspect.signature(make).parameters)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*given: Any, **values: Any) -> Any:
            whole = make(**{option: values.pop(option) for option in taken})
            return function(*given, **{name: whole}, **values)

        decorated: Callable[..., Any] = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
