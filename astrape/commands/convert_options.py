"""Options of ``astrape convert``: the files, and what converts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from astrape.commands.console import RecipeName, encoder_option, port_option
from astrape.commands.fitting import fit_option
from astrape.commands.gathered import gathered
from astrape.commands.pipes import PIPE
from astrape.commands.place_option import PlaceType, weights_option
from astrape.errors import AstrapeError
from astrape.voice.names import CODE_ENDINGS, FROM_CODES, RECIPE

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.voice.conversion import Converter
    from astrape.voice.decoding import CodeDecoder

__all__ = ["Files", "How", "conversion_options", "file_options"]


class Files(NamedTuple):
    """Files of a conversion: the source (a recording, a folder or stored codes), the voice, and the result."""

    source: Path | Place
    voice: Path | Place
    out: Path | Place

    @property
    def many(self) -> bool:
        """The source is a folder, of this machine or of a store."""
        from astrape.voice.folder import is_folder

        return is_folder(self.source)

    @property
    def piped(self) -> bool:
        """The result goes to standard output."""
        return str(self.out) == PIPE

    @property
    def holds_codes(self) -> bool:
        """The source is stored codes."""
        return self.source.suffix.lower() in CODE_ENDINGS and not self.many


def _files(source: Path | Place, second: Path | Place | None, voice: Path | Place, out: Path | Place | None) -> Files:
    if out is None:
        out = second
    elif second is not None:
        raise click.UsageError(f"OUT is given twice, as '{second}' and with -o")
    if out is None:
        raise click.UsageError("Missing option '-o' / '--output' / '--out'.")
    return Files(source, voice, out)


@dataclass(frozen=True)
class How:
    """Settings of a conversion: the values of the options of these names."""

    recipe: str | None
    weights: Path | Place | None
    chunk_ms: float
    live_latency: bool
    encoder: str | None
    port: str | None
    codes: Path | Place | None
    fit: bool

    def check(self, files: Files) -> None:
        """Refuse options that do not go with the files, and outputs that would overwrite an input.

        Raises:
            AstrapeError: which, and what to do.
        """
        from astrape.voice.conversion import is_voice

        if files.many:
            if self.codes is not None:
                raise AstrapeError("--codes: stores the codes of one file, and SRC is a folder: leave it out")
            if files.piped:
                raise AstrapeError("-o -: standard output takes one recording, and SRC is a folder: name a folder")
        if self.fit and is_voice(files.voice):
            raise AstrapeError(
                f"--fit: {files.voice} is a voice already: hint: `astrape voicebank build RECORDING -o VOICE.astrape "
                f"--fit` fits one to recordings"
            )
        if self.fit and files.holds_codes:
            raise AstrapeError("--fit: SRC is stored codes: hint: take a voice that was built with --fit")
        if files.holds_codes:
            if self.codes is not None or self.live_latency:
                option = "--codes" if self.codes is not None else "--live-latency"
                raise AstrapeError(f"{option}: SRC is stored codes already: leave it out")
            if files.piped:
                raise AstrapeError("-o -: stored codes are decoded to a file: name one")
        self._check_outputs(files)

    def _check_outputs(self, files: Files) -> None:
        """Refuse an output that is an input. That OUT is not SRC itself is checked where OUT is written."""
        from astrape.voice.folder import same_file

        for what, path in {"the voice": files.voice, "the weights": self.weights, "SRC": files.source}.items():
            if path is None:
                continue
            if what != "SRC" and same_file(files.out, path):
                raise AstrapeError(f"{files.out}: is {what} itself: name another output")
            if self.codes is not None and same_file(self.codes, path):
                raise AstrapeError(f"{self.codes}: is {what} itself: name another file for the codes")
        if self.codes is not None and os.path.realpath(self.codes) == os.path.realpath(files.out):
            raise AstrapeError(f"{self.codes}: is OUT itself: name another file for the codes")

    def converter(self) -> Converter:
        """The converter of recordings."""
        from astrape.voice.conversion import Converter

        return Converter.load(self.recipe or RECIPE, self.weights, output=self.port, codes=self.codes is not None)

    def decoder(self) -> CodeDecoder:
        """The decoder of stored codes."""
        from astrape.voice.decoding import CodeDecoder

        return CodeDecoder.load(self.recipe or FROM_CODES, self.weights, output=self.port)


file_options = gathered(
    "files",
    _files,
    click.argument("source", metavar="SRC", type=PlaceType()),
    click.argument("second", metavar="[OUT]", required=False, type=PlaceType()),
    click.option(
        "--target",
        "voice",
        required=True,
        metavar="VOICE",
        type=PlaceType(),
        help="The voice: a voicebank (.astrape, or an older .npz), a recording of 5 s or more, or the name of a voice "
        "that ships (`astrape voicebank list`).",
    ),
    click.option(
        "-o",
        "--output",
        "--out",
        "out",
        metavar="OUT",
        type=PlaceType(),
        help="Where to: a file, or a folder where SRC is one; may follow SRC too.",
    ),
)
"""SRC, OUT and ``--target`` as one argument, ``files``."""

conversion_options = gathered(
    "how",
    How,
    click.option(
        "--recipe",
        type=RecipeName(),
        metavar="RECIPE",
        help=f"What converts. [default: {RECIPE}, and {FROM_CODES} where SRC is codes]",
    ),
    weights_option,
    click.option(
        "--chunk", "chunk_ms", default=10.0, show_default=True, metavar="MS", help="What the graph gets at a time."
    ),
    click.option("--live-latency", is_flag=True, help="Keep the latency that a live host hears, instead of aligning."),
    encoder_option,
    port_option,
    click.option("--codes", type=PlaceType(), metavar="FILE.npz", help="Store the codes too, to decode them later."),
    fit_option,
)
"""Options of the conversion itself, gathered into one argument, ``how``."""
