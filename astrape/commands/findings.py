"""Items that could not be made, and faults that checks found, at the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from astrape.jobs import Failed, Finding

__all__ = ["print_findings", "print_repair", "tell_failed"]

LISTED = 50
"""Faults of files that are printed one by one; ``--json`` has all."""

TOLD = 20
"""The same of items that could not be made."""


def print_findings(findings: Sequence[Finding]) -> str:
    """The first fifty faults of files to stdout, a line each, by any bytes that their names have.

    Returns:
        How many there are of each kind, in words.
    """
    from astrape.audio.atomic import shown

    for one in findings[:LISTED]:
        click.echo(f"{shown(one.path)}: {one.message}")
    if len(findings) > LISTED:
        click.echo(f"and {len(findings) - LISTED} more (--json lists all)")
    kinds: dict[str, int] = {}
    for one in findings:
        kinds[one.kind] = kinds.get(one.kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "all sound"


def print_repair(place: str | os.PathLike[str], made: int, failed: Sequence[Failed], as_json: bool) -> dict[str, Any]:
    """The outcome of a repair, printed, and as plain values."""
    from astrape.audio.atomic import shown

    tell_failed(failed)
    if not as_json:
        click.echo(f"{shown(place)}: {made} made again, {len(failed)} left")
    return {"repaired": made, "failed": [{"key": shown(one.key), "error": shown(one.error)} for one in failed]}


def tell_failed(failed: Sequence[Failed]) -> None:
    """One line on stderr for each of the first twenty, and how many more there are."""
    from astrape.audio.atomic import shown

    for one in failed[:TOLD]:
        click.echo(" ".join(f"astrape: {shown(one.key)}: {shown(one.error)}".split()), err=True)
    if len(failed) > TOLD:
        click.echo(f"astrape: and {len(failed) - TOLD} more (--json lists all)", err=True)
