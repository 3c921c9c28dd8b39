"""Options of commands that take standard input and output where a file is named: ``-``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.gathered import gathered
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["PIPE", "Pipes", "pipe_options"]

PIPE = "-"
"""The name that stands for standard input or output."""


@dataclass(frozen=True)
class Pipes:
    """The forms of standard input and output: ``wav``, or raw samples."""

    form_in: str
    form_out: str | None

    def source(self, path: Path | Place) -> Any:
        """A file's path as it is; standard input for ``-``.

        Raises:
            AstrapeError: for an unknown form, and one of a file.
        """
        if str(path) != PIPE:
            if self.form_in != "wav":
                raise AstrapeError(f"--from {self.form_in}: is for standard input, and {path} is a file: leave it out")
            return path
        from astrape.audio.pipes import PipeReader

        return PipeReader(sys.stdin.buffer, self.form_in)

    def target(self, path: Path | Place) -> Any:
        """A file's path as it is; standard output for ``-``.

        Raises:
            AstrapeError: for an unknown form, and one of a file.
        """
        form = self.form_out
        if str(path) != PIPE:
            if form is not None:
                raise AstrapeError(f"--to {form}: is for standard output, and {path} is a file: leave it out")
            return path
        from astrape.audio.pcm import ENCODINGS
        from astrape.audio.pipes import PipeTarget

        if form is not None and form != "wav" and form not in ENCODINGS:
            raise AstrapeError(f"--to {form}: there is wav, and of raw samples {', '.join(ENCODINGS)}")
        return PipeTarget(sys.stdout.buffer, form)


pipe_options = gathered(
    "pipes",
    Pipes,
    click.option(
        "--from",
        "form_in",
        default="wav",
        show_default=True,
        metavar="FORM",
        help="Of standard input: wav, or raw samples as ENCODING:RATE:CHANNELS, s16le:48000:1 for instance.",
    ),
    click.option(
        "--to",
        "form_out",
        metavar="FORM",
        help="Of standard output: wav, or the encoding of raw samples, s16le for instance.  [default: as it came]",
    ),
)
"""``--from`` and ``--to`` as one argument, ``pipes``."""
