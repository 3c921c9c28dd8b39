"""Sizes of the network that a checkpoint is for, from its settings and its tensors' shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from astrape.voice.checkpoint.archive import Checkpoint, printable

__all__ = ["GRID_NAMES", "Reading"]

GRID_NAMES = {
    "rhombic": "rhombic",
    "rhombus": "rhombic",
    "rectangular": "rectangular",
    "rectangle": "rectangular",
    "rect": "rectangular",
    "hexagonal": "hexagonal",
    "hexagon": "hexagonal",
    "hex": "hexagonal",
}

MOST_REPEATS = 256
MOST_SETTING = 1 << 20

Dimension = tuple[str, int]
"""A tensor's name and one of its dimensions."""


class Reading:
    """A checkpoint's settings and sizes, and what had to be assumed to complete them.

    Sizes are read off the tensors. Each is asked of several, and what most of them say counts: so one tensor of a wrong
    shape is found out by the others, and named, and does not pass for the size of the network. Settings that shapes
    cannot tell (windows, heads, dilations) are looked up under any of their names.

    Attributes:
        assumed: settings that the file does not give, with the values taken.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.assumed: dict[str, Any] = {}
        self._config = {_plain(key): value for key, value in checkpoint.config.items()}

    def has(self, prefix: str) -> bool:
        """Whether there is a tensor whose name begins so."""
        return any(name.startswith(prefix) for name in self.checkpoint.tensors)

    def size(self, what: str, *places: Dimension, said: int | None = None) -> int:
        """The size of most of these dimensions, and on a draw of the first; ``said``, if given, is one more.

        Where none of these tensors is there, ``said`` counts: they are then named with all others that are missing.

        Raises:
            CheckpointError: when none of these tensors is there and nothing is said, or the size is 0.
        """
        votes: Counter[int] = Counter()
        for name, axis in places:
            tensor = self.checkpoint.tensors.get(name)
            if tensor is not None and tensor.ndim > axis:
                votes[tensor.shape[axis]] += 1
        if not votes and said is None:
            raise self.checkpoint.error(f"{what} cannot be told: {places[0][0]} is missing")
        if said is not None:
            votes = Counter({said: 1}) + votes
        size = votes.most_common(1)[0][0]
        if size < 1:
            raise self.checkpoint.error(f"{what} is 0, by {places[0][0]}")
        return size

    def count(self, stem: str, *names: str, said: int | None = None) -> int:
        """The number of parts ``stem.0``, ``stem.1``, ...: as many as the settings say, or the tensors have.

        Raises:
            CheckpointError: for none, unless the settings say so; for more than 256, or more than the settings say.
        """
        form = re.compile(rf"{re.escape(stem)}\.(0|[1-9][0-9]*)(\.|$)")
        found = [match[1] for name in self.checkpoint.tensors if (match := form.match(name))]
        if any(len(index) > 3 or int(index) >= MOST_REPEATS for index in found):
            raise self.checkpoint.error(f"there are more than {MOST_REPEATS} of {stem}")
        there = 1 + max(map(int, found), default=-1)
        if said is None:
            said = self.whole(*names, default=None) if names else None
        if said is not None and said < there:
            raise self.checkpoint.error(f"its settings say {said} of {stem}, and there are tensors of {there}")
        count = there if said is None else said
        if count > MOST_REPEATS or (count == 0 and said is None):
            raise self.checkpoint.error(f"there must be 1 to {MOST_REPEATS} of {stem}, not {count}")
        return count

    def whole(self, *names: str, default: int | None) -> int | None:
        """A whole number; ``default`` where it is not given, which is noted unless it is ``None``."""
        value = self._given(names, default)
        if value is None:
            return None
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,7}\s*", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_SETTING:
            raise self._wrong(names[0], "a whole number", value)
        return value

    def number(self, *names: str, default: float | None) -> float | None:
        """A number, as ``whole``."""
        value = self._given(names, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e12:
            raise self._wrong(names[0], "a number", value)
        return float(value)

    def flag(self, *names: str, default: bool | None) -> bool | None:
        """Yes or no, as ``whole``."""
        value = self._given(names, default)
        if value is not None and not isinstance(value, (bool, int)):
            raise self._wrong(names[0], "true or false", value)
        return None if value is None else bool(value)

    def numbers(
        self, *names: str, count: int | None, default: Sequence[int] | None, single: bool = False
    ) -> list[int] | None:
        """Whole numbers: a list, text with commas, or one number for all of ``count``, or by itself with ``single``.

        Raises:
            CheckpointError: for another form, or another number of them than ``count``.
        """
        value = self._given(names, None if default is None else list(default))
        if value is None:
            return None
        if isinstance(value, str):
            value = [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
            value = [int(part) if re.fullmatch(r"[0-9]{1,7}", part) else part for part in value]
        if isinstance(value, int) and not isinstance(value, bool) and (single or count is not None):
            value = [value] * (count or 1)
        whole = isinstance(value, (list, tuple)) and all(
            isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= MOST_SETTING for item in value
        )
        if not whole:
            raise self._wrong(names[0], "whole numbers", value)
        if count is not None and len(value) != count:
            raise self.checkpoint.error(
                f"its {names[0]} are {len(value)} numbers, and by its tensors there are {count}"
            )
        return list(value)

    def choice(self, *names: str, choices: Mapping[str, str], default: str) -> str:
        """One of ``choices``, by any of its names."""
        value = self._given(names, default)
        if not isinstance(value, str) or _plain(value) not in choices:
            raise self._wrong(names[0], f"one of {', '.join(sorted(set(choices.values())))}", value)
        return choices[_plain(value)]

    def _given(self, names: Sequence[str], default: Any) -> Any:
        for name in names:
            if self._config.get(name) is not None:
                return self._config[name]
        if default is not None:
            self.assumed[names[0]] = default
        return default

    def _wrong(self, name: str, wanted: str, value: Any) -> Exception:
        if isinstance(value, int) and value.bit_length() >= 64:
            shown = "a huge one"
        elif isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= 80):
            shown = printable(repr(value))
        else:
            shown = f"a {type(value).__name__}"
        return self.checkpoint.error(f"its {name} must be {wanted}, not {shown}")


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")
