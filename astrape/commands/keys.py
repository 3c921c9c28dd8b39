"""Single keys from a terminal, without waiting for a line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["keys"]

ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}


@contextmanager
def keys() -> Iterator[Callable[[float], str | None]]:
    """Keys as they are pressed, for the length of the ``with`` block; none where standard input is not a terminal.

    Yields:
        A function that waits that many seconds at most for a key, and returns its character, or ``up``, ``down``,
        ``left``, ``right``; ``None`` for none.
    """
    if not sys.stdin.isatty():
        yield _none
    elif os.name == "nt":
        yield _windows_key
    else:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        try:
            tty.setcbreak(descriptor)
            yield lambda seconds: _posix_key(descriptor, seconds)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _none(seconds: float) -> str | None:
    time.sleep(seconds)
    return None


def _posix_key(descriptor: int, seconds: float) -> str | None:
    import select

    if not select.select([descriptor], [], [], seconds)[0]:
        return None
    text = os.read(descriptor, 8).decode(errors="ignore")
    if text.startswith("\x1b[") and len(text) > 2:
        return ARROWS.get(text[2])
    return text[:1] or None


def _windows_key(seconds: float) -> str | None:
    import importlib

    msvcrt = importlib.import_module("msvcrt")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if msvcrt.kbhit():
            char: str = msvcrt.getwch()
            if char in ("\x00", "\xe0"):
                return {"H": "up", "P": "down", "M": "right", "K": "left"}.get(msvcrt.getwch())
            return char
        time.sleep(0.01)
    return None
