"""Runs of ``astrape evaluate`` in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

import astrape
from astrape.cli import cli

__all__ = ["LIGHT", "SAMPLE", "run", "through"]

SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"

LIGHT = ("--metrics", "spectrum,speed")
"""Metrics that need no package."""


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *(str(word) for word in words)], prog_name="astrape")


def through(folder: Path, *words: object) -> Result:
    """A run by the recipe that does nothing but to delay, of what is measured fast."""
    return run("--recipe", folder / "through.yaml", *LIGHT, *words)
