"""Sets that say of themselves what ``set.json`` has to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["describe_set"]


def describe_set(folder: Path, split: str, voices: Mapping[str, Mapping[str, float]]) -> None:
    """Write ``set.json`` of a set.

    Args:
        folder: of the set; made where it is missing.
        split: ``train`` or ``held``.
        voices: what each is made of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = {
        "text": "words",
        "phones": None,
        "prosody": "none",
        "speed": 1.0,
        "split": split,
        "frames": 4,
        "voices": {name: {"parts": dict(parts), "register": 150.0, "gain": 1.0} for name, parts in voices.items()},
    }
    (folder / "set.json").write_text(json.dumps(info))
