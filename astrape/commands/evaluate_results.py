"""Results of ``astrape evaluate``: files, tables for the terminal, and warnings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import warn
from astrape.commands.evaluate_inputs import CONVERTED
from astrape.voice.names import MEL_STATISTICS

if TYPE_CHECKING:
    from rich.table import Table

    from astrape.audio.places import Place
    from astrape.voice.evaluation.result import Evaluation

__all__ = ["complain", "table_beside", "table_of", "write_results"]

REPORT, PAGE = "report.json", "index.html"


def write_results(
    found: Evaluation,
    out: Path | Place | None,
    folder: Path | Place,
    single: bool,
    elsewhere: bool,
    listen: int | None,
    tracker: str | None,
) -> list[str]:
    """Write the files of a run; returns a line for each."""
    from astrape.voice.evaluation.page import write_page
    from astrape.voice.evaluation.result import write_json

    lines = []
    if single and not elsewhere and out is not None:
        done = found.results[0].rendering
        scores, page = out.with_suffix(".evaluation.json"), out.with_suffix(".evaluation.html")
        lines.append(f"converted: {'' if done is None else os.fspath(done.path)}")
    elif out is None:
        return []
    else:
        scores, page = folder / REPORT, folder / PAGE
        if not elsewhere:
            count = len(found.results) - len(found.failed)
            lines.append(f"converted: {count} of {len(found.results)} below {folder / CONVERTED}")
    write_json(found, scores)
    lines.append(f"scores:    {scores}")
    if listen is not None:
        write_page(found, page, listen, tracker)
        lines.append(f"page:      {page}")
    return lines


def complain(found: Evaluation, recipe: str, encoder: str | None, elsewhere: bool) -> None:
    """Warn of whatever makes the numbers less trustworthy, a line each on stderr."""
    from astrape.voice.speaking import SEED

    if found.system.get("random_weights"):
        warn(f"no --weights given: the weights of '{recipe}' are random (seed {SEED}) and what comes out is noise")
    embedded = any(
        pair.target is not None and pair.target.files[0].suffix.lower() not in (".astrape", ".npz")
        for pair in (result.pair for result in found.results)
    )
    used = found.system.get("speaker_encoder", encoder)
    if embedded and used == MEL_STATISTICS and not elsewhere:
        warn(
            f"recordings are embedded by {MEL_STATISTICS}, which is not trained: a decoder that was trained with "
            f"another speaker encoder makes nothing of it (--encoder names another)"
        )
    failed: dict[tuple[str, str], list[str]] = {}
    for result in found.results:
        if result.error is not None:
            click.echo(f"astrape: {result.pair.name}: {result.error}", err=True)
        for line in result.warnings:
            warn(f"{result.pair.name}: {line}")
        for family, reason in result.failures.items():
            failed.setdefault((family, reason), []).append(result.pair.name)
    for (family, reason), names in failed.items():
        more = f" (so in {len(names) - 1} more)" if len(names) > 1 else ""
        warn(f"{names[0]}: {family}: {reason}{more}")


def table_beside(found: Evaluation, condition: str) -> Table:
    from rich.table import Table

    from astrape.voice.evaluation.columns import cells, headings

    table = Table(box=None, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for heading in headings(found, condition):
        table.add_column(heading, justify="right", overflow="fold")
    for label, values in cells(found, condition):
        table.add_row(label, *values)
    return table


def table_of(found: Evaluation) -> Table:
    from rich.table import Table

    from astrape.voice.evaluation.numbers import interval, number

    table = Table(box=None, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for name in ("value", "95 % interval", "files"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("better", no_wrap=True)
    table.add_column("note", overflow="fold")
    told = set()
    for family, quantity in found.quantities:
        label = f"{quantity.label}{f', {quantity.unit}' if quantity.unit else ''}"
        if quantity.name not in found.aggregate:
            reason = found.why_missing(quantity.name)
            what = "skipped" if family in found.skipped else "not measured"
            note = f"{what}: {'as above' if reason in told else reason}"
            told.add(reason)
            table.add_row(label, "-", "", "", quantity.better or "", note)
            continue
        whole = found.aggregate[quantity.name]
        spread: Any = interval(whole, quantity) or ""
        note = "of all files together" if whole.pooled else ""
        values = (number(whole.value, quantity), spread, str(whole.files), quantity.better or "", note)
        table.add_row(label, *values)
    return table
