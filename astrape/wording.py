"""Wording of messages: values, suggested names and what to install, short and on one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["lacking", "number", "one_line", "quote", "reason_of", "suggest"]

LONGEST_NAME = 64


def suggest(name: str, known: Iterable[str], what: str) -> str:
    """The hint for an unknown name: the nearest known one, or all of them where they are few.

    >>> suggest("gian", ["gain", "delay"], "block")
    "did you mean 'gain'? (choose from: delay, gain)"
    """
    names = sorted(set(known))
    if not names:
        return f"there is no {what} to choose from"
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    near = get_close_matches(name, names, n=1) if len(name) <= LONGEST_NAME else []
    return f"did you mean '{near[0]}'? (choose from: {listed})" if near else f"choose from: {listed}"


def lacking(what: str, packages: str, extra: str) -> str:
    """The message where packages of an extra are missing.

    >>> lacking("the engine ray", "ray", "ray")
    'the engine ray takes the package ray; hint: pip install "astrape[ray]"'
    """
    kind = "packages" if "," in packages else "package"
    return f'{what} takes the {kind} {packages}; hint: pip install "astrape[{extra}]"'


def quote(value: Any) -> str:
    """A value as a message shows it: on one line, escaped, and cut to a length that a person reads."""
    if isinstance(value, str):
        return repr(value if len(value) <= LONGEST_NAME else value[: LONGEST_NAME - 3] + "...")
    if isinstance(value, dict):
        return f"a mapping of {len(value)}" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 64:
        return "an integer of over 19 digits"
    return str(value)[:LONGEST_NAME]


def number(value: float) -> str:
    """A number as a message shows it: whole ones to the last digit, others to six.

    >>> number(16777215.0), number(24.1000003815), number(1e30)
    ('16777215', '24.1', '1e+30')
    """
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e12 else f"{value:g}"


def one_line(error: BaseException, most: int = 200) -> str:
    """The first ``most`` characters of what an error says, on one line; its kind where it says nothing.

    >>> one_line(ValueError("Traceback:\\n  of another process"))
    'Traceback: of another process'
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def reason_of(error: BaseException) -> str:
    """The reason that an error of the system or of another library gives, as part of a sentence."""
    said = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
    return str(said).strip().rstrip(".")
