"""Every example in a docstring gives what stands below it."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import astrape

ROOT = Path(astrape.__file__).parent
SHOWN = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if "\n    >>> " in path.read_text(encoding="utf-8") or "\n        >>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples() -> None:
    assert {"astrape.blocks.compose", "astrape.blocks.resample"} <= set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_a_docstring_keeps_its_word(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted > 0
    assert done.failed == 0
