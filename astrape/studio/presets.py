"""Presets of the page: a voice and the sliders' values under a name, kept for the next time."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astrape.audio.atomic import write_whole
from astrape.errors import AstrapeError

__all__ = ["Presets"]

MOST = 100
"""Presets of one recipe."""

LONGEST = 40
"""Characters of a name."""


@dataclass(frozen=True)
class Presets:
    """The presets of one recipe, in a JSON file: ``{"name": {"voice": NAME or null, "set": {control: number}}}``.

    Args:
        path: of the file; it need not be there.
    """

    path: Path

    @classmethod
    def of(cls, recipe: str) -> Presets:
        """A recipe's presets, in ``$XDG_CONFIG_HOME/astrape/presets`` or ``~/.config/astrape/presets``."""
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return cls(home / "astrape" / "presets" / (re.sub(r"[^\w.-]+", "-", recipe) + ".json"))

    def read(self) -> dict[str, dict[str, Any]]:
        """All of them by name; entries that are not presets are left out, and so is a file that cannot be read."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {name: kept for name, given in found.items() if (kept := _preset(given)) is not None}

    def save(self, name: str, given: Any) -> None:
        """Keep one under a name, in place of what had it.

        Raises:
            AstrapeError: for another form, one too many, and a file that cannot be written.
        """
        name = " ".join(name.split())[:LONGEST]
        kept = _preset(given)
        if not name or kept is None:
            raise AstrapeError('a preset is a name, and {"voice": NAME, "set": {NAME: NUMBER}}')
        found = self.read()
        if name not in found and len(found) >= MOST:
            raise AstrapeError(f"there are {MOST} presets: hint: remove one")
        self._write({**found, name: kept})

    def remove(self, name: str) -> None:
        """Forget the preset of a name, if there is one."""
        self._write({other: kept for other, kept in self.read().items() if other != name})

    def _write(self, presets: dict[str, dict[str, Any]]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(presets, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise AstrapeError(f"{self.path}: {error.strerror}: the preset is not kept") from error


def _preset(given: Any) -> dict[str, Any] | None:
    if not isinstance(given, dict) or not isinstance(given.get("set"), dict):
        return None
    voice, values = given.get("voice"), given["set"]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e300 for v in values.values())
    if not numbers or not (voice is None or isinstance(voice, str)):
        return None
    return {"voice": voice, "set": {str(name): float(value) for name, value in values.items()}}
