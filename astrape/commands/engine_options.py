"""Options of commands that do a job: how many workers, and what runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.jobs import Engine

__all__ = ["check_device", "engine_of", "engine_options"]


def engine_options(each: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--jobs``, ``--engine`` and ``--ray``.

    Args:
        each: what a worker takes, for the help.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        number = click.option(
            "--jobs", default=1, show_default=True, type=click.IntRange(1, 256), help=f"Workers, of {each} each."
        )
        engine = click.option(
            "--engine",
            default="local",
            show_default=True,
            type=click.Choice(("local", "ray")),
            help="What runs them: processes of this machine, or Ray.",
        )
        ray = click.option(
            "--ray",
            "ray_address",
            metavar="ADDRESS",
            help="Of Ray's cluster.  [default: RAY_ADDRESS, and this machine alone without it]",
        )
        return number(engine(ray(function)))

    return decorate


def engine_of(jobs: int, engine: str, address: str | None) -> Engine:
    """The engine that the options name.

    Raises:
        JobError: for ``--ray`` without ``--engine ray``.
    """
    from astrape.jobs import Engine

    return Engine(engine, jobs, address)


def check_device(engine: Engine, kind: str, device: str) -> None:
    """Refuse workers beside this process that would share one GPU.

    Raises:
        AstrapeError: where they are.
    """
    if not engine.in_process and kind != "cpu":
        option = f"--jobs {engine.workers}" if engine.workers > 1 else f"--engine {engine.name}"
        raise AstrapeError(f"{option}: is for the CPU: leave it out with --device {device}")
