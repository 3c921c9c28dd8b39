"""The command ``astrape``: what is common to all its commands. Each of them is a module of ``astrape.commands``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from astrape import __version__
from astrape.commands.bench import bench
from astrape.commands.cache import cache
from astrape.commands.check import check
from astrape.commands.check_cache import check_caches
from astrape.commands.console import DEBUG, INTERRUPTED, Closed, Interrupted
from astrape.commands.convert import convert
from astrape.commands.corpus import corpus
from astrape.commands.demo import demo
from astrape.commands.evaluate import evaluate
from astrape.commands.export import export
from astrape.commands.graph import graph
from astrape.commands.held_out import held_out
from astrape.commands.import_checkpoint import import_checkpoint
from astrape.commands.live import live
from astrape.commands.precision import precision
from astrape.commands.recipes import recipes
from astrape.commands.report import report
from astrape.commands.run import run
from astrape.commands.studio import studio
from astrape.commands.train_decoder import train_decoder
from astrape.commands.train_default import train_default
from astrape.commands.train_encoder import train_encoder
from astrape.commands.train_speaker import train_speaker
from astrape.commands.train_tiny import train_tiny
from astrape.commands.train_voice import train_voice
from astrape.commands.voicebank import voicebank
from astrape.commands.wavlm import wavlm
from astrape.errors import AstrapeError

__all__ = ["cli", "main"]


CLOSED = 141
"""Exit status where nobody reads standard output any more, as shells count it: 128 and the number of SIGPIPE."""


class OneLineErrors(click.Group):
    """A group whose commands tell what went wrong in one line on stderr; ``--debug`` anywhere shows the traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, False, **extra)
        try:
            code = super().main(given, prog_name, complete_var, False, **extra)
        except (KeyboardInterrupt, click.Abort, Interrupted) as error:
            # A terminal shows ^C where the cursor is: the line goes below it.
            below = "\n" if sys.stderr.isatty() and not isinstance(error, click.Abort) else ""
            left = f": {error}" if str(error) else ""
            click.echo(f"{below}astrape: interrupted{left}", err=True)
            # Python notes an interrupt that went through text that is executed, and ends by it whatever the code.
            exec("")
            sys.exit(INTERRUPTED)
        except Closed:
            # Whoever read standard output has heard enough. Nothing more can be flushed into it when this process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(CLOSED)
        except click.UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError" and error.ctx is not None:
                # A group without a command: its help, as long as it is. Older versions of click print it themselves.
                click.echo(error.ctx.get_help(), err=True)
                sys.exit(error.exit_code)
            self._refuse(error, given)
        except Exception as error:
            self._refuse(error, given)
        sys.exit(code if isinstance(code, int) else 0)

    @staticmethod
    def _refuse(error: Exception, given: Sequence[str]) -> NoReturn:
        """One line, or with ``--debug`` the traceback."""
        if "--debug" in given:
            raise error
        click.echo(f"astrape: {_one_line(error)}", err=True)
        sys.exit(error.exit_code if isinstance(error, click.ClickException) else 1)


@click.group(
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Each command has a --help of its own, with an example.",
)
@click.option("--debug", **DEBUG)
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Strictly causal audio blocks, composed by YAML recipes, with exact latency.

    RECIPE is the name of a shipped recipe (`astrape recipes`) or the path of a YAML file.
    """


COMMANDS = (
    recipes,
    report,
    check,
    graph,
    run,
    convert,
    live,
    studio,
    demo,
    bench,
    voicebank,
    wavlm,
    import_checkpoint,
    export,
    precision,
    corpus,
    cache,
    check_caches,
    evaluate,
    held_out,
    train_encoder,
    train_decoder,
    train_speaker,
    train_voice,
    train_default,
    train_tiny,
)

for command in COMMANDS:
    cli.add_command(command)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave with its exit code: 0 only when all went well."""
    cli.main(args, prog_name="astrape")
    raise SystemExit(0)


def _one_line(error: Exception) -> str:
    """An error in one line: its message where the user can help, and its type as well for a fault of astrape itself."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = f"{error.format_message()} (see {error.ctx.command_path} --help)"
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, AstrapeError):
        message = str(error)
    elif isinstance(error, OSError):
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        message = "out of memory"
    else:
        message = f"fault in astrape, {type(error).__name__}: {error} (--debug shows the traceback)"
    return " ".join(message.split())
