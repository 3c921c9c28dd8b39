"""Options of commands that do a job: how many workers, and what runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astrape.commands.gathered import Decorator, gathered
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.jobs import Engine

__all__ = ["engine_options", "refuse_workers"]


def engine_options(each: str) -> Decorator:
    """``--jobs``, ``--engine`` and ``--ray``, as one argument: the ``engine`` that they name.

    Args:
        each: what a worker takes, for the help.
    """

    return gathered(
        "engine",
        _engine,
        click.option(
            "--jobs", default=1, show_default=True, type=click.IntRange(1, 256), help=f"Workers, of {each} each."
        ),
        click.option(
            "--engine",
            default="local",
            show_default=True,
            type=click.Choice(("local", "ray")),
            help="What runs them: processes of this machine, or Ray.",
        ),
        click.option(
            "--ray",
            "ray_address",
            metavar="ADDRESS",
            help="Of Ray's cluster.  [default: RAY_ADDRESS, and this machine alone without it]",
        ),
    )


def _engine(jobs: int, engine: str, ray_address: str | None) -> Engine:
    from astrape.jobs import Engine

    return Engine(engine, jobs, ray_address)


def refuse_workers(engine: Engine, why: str) -> None:
    """Refuse workers beside this process.

    Args:
        engine: as it was asked for.
        why: what they are for, and what to do.

    Raises:
        AstrapeError: where there are any.
    """
    if not engine.in_process:
        option = f"--jobs {engine.workers}" if engine.workers > 1 else f"--engine {engine.name}"
        raise AstrapeError(f"{option}: {why}")
