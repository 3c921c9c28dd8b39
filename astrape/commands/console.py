"""Helpers for commands at a terminal: options, progress, tables, JSON.

A command's module imports what it needs when it runs, within its functions: help and shell completion load all of these
modules, and neither PyTorch nor NumPy.
"""

from __future__ import annotations

import json
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from astrape.commands.extras import require
from astrape.errors import AstrapeError
from astrape.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "DEBUG",
    "INTERRUPTED",
    "Closed",
    "Interrupted",
    "RecipeName",
    "channel_option",
    "command",
    "encoder_option",
    "json_option",
    "narrator",
    "note",
    "parse_settings",
    "port_option",
    "print_json",
    "print_table",
    "progress",
    "settings_option",
    "warn",
    "with_subcommands",
]

INTERRUPTED = 130
"""Exit status of what was stopped by its user, as shells count it: 128 and the number of SIGINT."""

REMEMBERED = 600.0
"""Seconds of the past whose speed tells how long the rest takes: items of some commands take half a minute each."""

PATIENCE = 2.0
"""Seconds before a progress bar appears."""

DEBUG: dict[str, Any] = {
    "is_flag": True,
    "expose_value": False,
    "is_eager": True,
    "help": "Show the traceback of an error.",
}


class RecipeName(click.types.StringParamType):
    """The name of a shipped recipe, or a path; the shell completes both."""

    name = "recipe"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = (entry.name for entry in files("astrape").joinpath("recipes").iterdir() if entry.name.endswith(".yaml"))
        shipped = sorted(name.removesuffix(".yaml") for name in names)
        fitting = [CompletionItem(name) for name in shipped if name.startswith(incomplete)]
        return fitting or [CompletionItem(incomplete, type="file")]


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

channel_option = click.option(
    "--channel",
    default="mean",
    show_default=True,
    metavar="NAME",
    help="Of several channels: their mean, left, right, or the number of one.",
)

encoder_option = click.option(
    "--encoder",
    metavar="NAME",
    help="Speaker encoder for recordings: an installed one's name, or package.module:factory.  [default: that of "
    "--weights]",
)

port_option = click.option(
    "--port", metavar="NAME", help="The output to write, where the recipe has several; the first audio."
)

settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a control; several channels are separated by commas. Repeatable.",
)


class Closed(Exception):
    """Nobody reads standard output any more."""


class Interrupted(Exception):
    """Ctrl-C, with what it leaves behind."""


def command(
    name: str, example: str, interrupted: str = "", short: str | None = None, extra: str | None = None
) -> Callable[[Callable[..., None]], click.Command]:
    """A command with an example at the end of its help, and ``--debug``. It runs on one thread.

    Args:
        name: of the command.
        example: lines of a shell.
        interrupted: what is left after Ctrl-C, for the line that says so; what writes nothing, or only
            whole files, needs no word.
        short: what the list of commands says of it; its help up to the first comma or full stop when left out.
        extra: of the packages that it needs beside a plain install; held against what is there before it begins.
    """

    def make(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(*given: Any, **named: Any) -> None:
            try:
                if extra is not None:
                    require(name, extra)
                with _interrupts_held():
                    import torch

                # Two threads gain little on small steps, and lose several times over as soon as another process runs.
                torch.set_num_threads(1)
                function(*given, **named)
            except KeyboardInterrupt as error:
                raise Interrupted(interrupted) from error
            except BrokenPipeError as error:
                # An exception of this package: click would take the other for a failure.
                raise Closed from error

        lines = "\n".join(f"  {line}" for line in example.splitlines())
        decorated = click.option("--debug", **DEBUG)(run)
        return click.command(name, short_help=short or _beginning(function), epilog=f"\b\nExample:\n{lines}")(decorated)

    return make


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of a block: one that comes while PyTorch's C++ is loaded ends in an abort."""
    before = signal.getsignal(signal.SIGINT)
    if before in (None, signal.SIG_IGN) or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt


def with_subcommands(own: click.Command, *below: click.Command) -> click.Group:
    """A command that has others below it. Its own function begins by looking whether one of them was called."""
    group = click.Group(
        own.name,
        callback=own.callback,
        params=own.params,
        help=own.help,
        short_help=own.short_help,
        epilog=own.epilog,
        invoke_without_command=True,
        subcommand_metavar="[COMMAND]",
    )
    for one in below:
        group.add_command(one)
    return group


def _beginning(function: Callable[..., None]) -> str:
    return re.split(r"[,:;(.]", " ".join((function.__doc__ or "").split()), maxsplit=1)[0].strip() + "."


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Controls from ``NAME=VALUE`` and ``NAME=V1,V2,...``: tensors of one or more channels.

    Raises:
        AstrapeError: for text of another form, and for a control given twice.
    """
    import torch

    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if not (name and equals and numbers and all(map(math.isfinite, numbers))):
            raise AstrapeError(f"--set {setting}: write it as NAME=NUMBER, or NAME=N1,N2,... for several channels")
        if name in values:
            raise AstrapeError(f"--set {setting}: '{name}' is set twice")
        values[name] = torch.tensor(numbers)
    return values


def warn(line: str) -> None:
    """Print a warning in one line beside the output."""
    click.echo(f"astrape: warning: {line}", err=True)


def note(line: str) -> None:
    """Print a notice in one line beside the output. Names of files in it may be any bytes."""
    click.echo(f"astrape: {line.encode('utf-8', 'replace').decode()}", err=True)


def narrator(as_json: bool, *, timed: bool = False) -> Callable[[str], None]:
    """A function that tells how a long command goes on, a line at a time.

    Args:
        as_json: to stderr, since stdout is for the result alone.
        timed: with the minutes since now.
    """
    begun = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"{(time.monotonic() - begun) / 60:5.1f} min  {line}" if timed else line, err=as_json)

    return tell


def print_json(content: Any, *, err: bool = False) -> None:
    """Print JSON to stdout, or to stderr. Numbers without a form in JSON become null."""
    click.echo(json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False), err=err)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def print_table(table: RenderableType, width: int = 200) -> None:
    """Print to stdout: as wide as the terminal, or ``width`` where stdout is not a terminal.

    Where a terminal is too narrow for a table, its last columns are left out whole, and a line says which.
    """
    from rich.console import Console

    if sys.stdout.isatty():
        terminal = Console(markup=False)
        left_out = _narrowed(table, terminal)
        terminal.print(table)
        if left_out:
            line = f"too narrow here for {', '.join(left_out)}: --json and a wider terminal have them"
            terminal.print(line, style="dim", highlight=False)
        return
    console = Console(width=width, color_system=None, markup=False)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _narrowed(table: RenderableType, terminal: Console) -> list[str]:
    """Take the last columns off a table until what may not be broken fits; return their heads."""
    from rich.measure import Measurement
    from rich.table import Table

    left_out: list[str] = []
    endless = terminal.options.update(width=1 << 20)
    while isinstance(table, Table) and len(table.columns) > 2:
        if Measurement.get(terminal, endless, table).minimum <= terminal.width:
            break
        left_out.insert(0, str(table.columns.pop().header))
    return left_out


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A progress bar on stderr for what takes over two seconds; none where stderr is not a terminal.

    Yields:
        A function to call with how much is done and how much there is in all (``None``: unknown).
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    bar = Bar(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=REMEMBERED)
    task = bar.add_task(what, total=None)
    begin = time.monotonic()
    started = False

    def tell(done: float, total: float | None) -> None:
        nonlocal started
        if not started and time.monotonic() - begin > PATIENCE:
            bar.start()
            started = True
        if started:
            bar.update(task, completed=done, total=total)

    try:
        yield tell
    finally:
        if started:
            bar.stop()
