"""``python -m benchmarks``: every contest, as a table; ``--json`` for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping

import click
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.contest import Contest, hold
from benchmarks.convolutions import convolutions
from benchmarks.resampling import pieces, whole
from benchmarks.transformers import transformers

CONTESTS: Mapping[str, Callable[[], Contest]] = {
    "pieces": pieces,
    "whole": whole,
    "convolutions": convolutions,
    "transformers": transformers,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(CONTESTS)))
@click.option("--turns", default=20, show_default=True, type=click.IntRange(2), help="Of each contestant.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(names: tuple[str, ...], turns: int, as_json: bool) -> None:
    """Time astrape and its peers in turns, on one core: run it pinned, as ``taskset -c 0 python -m benchmarks``."""
    torch.set_num_threads(1)
    found = {}
    for name in names or CONTESTS:
        contest = CONTESTS[name]()
        results = hold(contest, turns)
        found[name] = {"work": contest.work, "results": [dataclasses.asdict(result) for result in results]}
        if as_json:
            continue
        table = Table(title=contest.work, title_justify="left")
        table.add_column("who")
        for column in ("of real time", "times ours", "quartiles", "apart"):
            table.add_column(column, justify="right")
        for result in results:
            apart = "" if result.apart is None else (result.differs or f"{result.apart:.0f} dB")
            quartiles = f"{result.low:.2f} to {result.high:.2f}"
            table.add_row(result.name, f"{result.share:.4f}", f"{result.ratio:.2f}", quartiles, apart)
        Console(width=100).print(table)
    if as_json:
        click.echo(json.dumps(found, indent=1))


main()
