"""Inputs of ``astrape evaluate``: pairs, a folder for the results, and the system that converts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import (
    RecipeName,
    encoder_option,
    parse_settings,
    port_option,
    settings_option,
)
from astrape.commands.fitting import fit_option, refuse_untrained
from astrape.commands.gathered import gathered
from astrape.commands.place_option import PlaceType, weights_option
from astrape.errors import AstrapeError
from astrape.voice.names import RECIPE

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.voice.evaluation.pairs import Pair
    from astrape.voice.evaluation.systems import Conversions, System

__all__ = ["CONVERTED", "ConversionOptions", "Inputs", "check_targets", "conversion_options", "input_options"]

CONVERTED = "converted"
"""Folder of the converted files in that of the run."""


@dataclass(frozen=True)
class Inputs:
    """The recordings of a run, the voices, and where results go: the values of the options of these names."""

    source: Path | Place | None
    target: Path | Place | None
    out: Path | Place | None
    sources: tuple[Path | Place, ...]
    targets: tuple[Path | Place, ...]
    table: Path | Place | None
    own_voice: bool
    target_audio: Path | Place | None
    text: str | None
    converted: Path | Place | None
    late: float

    def pairs(self) -> list[Pair]:
        """The pairs to evaluate.

        Raises:
            AstrapeError: for options that do not go together, and files that cannot be read.
        """
        from astrape.voice.evaluation import pairs
        from astrape.voice.evaluation.recording import Recording

        named = {"--source": self.source, "--sources": self.sources, "--pairs": self.table}
        given = [name for name, is_there in named.items() if is_there]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise AstrapeError(f"what to evaluate is --source, --sources or --pairs, exactly one of them, not {found}")
        if self.table is not None:
            if self.target or self.targets or self.target_audio or self.own_voice or self.text:
                raise AstrapeError("--pairs: its columns say what goes with what: leave targets, audio and text out")
            return pairs.read_pairs(self.table)
        if self.source is not None:
            if self.sources or self.targets:
                raise AstrapeError("--source goes with --target; --sources and --targets are for sets")
            # Refused here rather than by the first metric: nothing is loaded yet.
            Recording(self.source)
            said = [pairs.utterance(self.source, self.text)]
            voices = [] if self.target is None else [self.target]
        else:
            if self.target or self.text:
                raise AstrapeError("--sources goes with --targets; --target and --text are for one --source")
            said, voices = pairs.read_sources(self.sources), list(self.targets)
        if self.own_voice and not voices and self.target_audio is None:
            return pairs.own_voices(said)
        if not voices and self.converted is not None:
            audio = self.target_audio
            voice = None if audio is None else pairs.Target(audio.stem, (audio,), audio)
            return [pairs.Pair(one, voice, own_voice=self.own_voice) for one in said]
        if not voices:
            raise AstrapeError(
                "there is no voice to convert to: name one with --target or --targets, or say --own-voice"
            )
        targeted = pairs.read_targets(voices, self.target_audio)
        return [replace(pair, own_voice=self.own_voice) for pair in pairs.all_pairs(said, targeted)]

    def places(self) -> tuple[Path | Place, Path | Place | None]:
        """The folder for results, and the one file to write instead.

        Raises:
            AstrapeError: where there is none, and for a file in the place of a folder.
        """
        out = self.out
        if out is None:
            if self.source is not None and self.converted is not None:
                return Path(), None
            raise AstrapeError("there is no place for the results: name one with --output")
        if not isinstance(out, Path):
            # A store that cannot be asked whether there is a report would not take one in the end either.
            (out / "report.json").exists()
            return (out.parent, out) if self.source is not None and self.converted is None else (out, None)
        if self.source is not None and self.converted is None:
            if out.is_dir():
                raise AstrapeError(f"{out}: is a folder, and --source is one file: name a file")
            return out.parent, out
        if out.exists() and not out.is_dir():
            raise AstrapeError(f"{out}: is not a folder, and a run is written to one: name another")
        from astrape.audio.atomic import make_folder

        make_folder(out)
        return out, None


@dataclass(frozen=True)
class ConversionOptions:
    """The converter: the values of the options of these names."""

    recipe: str
    weights: Path | Place | None
    encoder: str | None
    port: str | None
    chunk_ms: float
    settings: tuple[str, ...]
    fit: bool

    def system(self, folder: Path | Place, wanted: Path | Place | None) -> Conversions:
        """The system that converts.

        Args:
            folder: of the run.
            wanted: the one file to write instead.

        Raises:
            AstrapeError: for a recipe or weights that cannot be read, and controls that do not fit.
        """
        from astrape.graph.recipe import Recipe
        from astrape.training.fitting import fit_voice
        from astrape.voice.conversion import CODES, Converter
        from astrape.voice.evaluation.systems import Conversions

        controls = parse_settings(self.settings)
        if "speaker" in controls:
            raise AstrapeError("--set speaker: the speaker is what the targets give")
        codes = CODES in Recipe.load(self.recipe).outputs
        converter = Converter.load(self.recipe, self.weights, output=self.port, codes=codes)
        if self.fit:
            refuse_untrained(converter)
        return Conversions(
            converter,
            folder / CONVERTED,
            out=wanted,
            encoder=self.encoder,
            weights=converter.weights,
            chunk_ms=self.chunk_ms,
            controls=controls,
            fit=fit_voice if self.fit else None,
        )


input_options = gathered(
    "inputs",
    Inputs,
    click.option("--source", type=PlaceType(), metavar="FILE", help="One recording to convert."),
    click.option(
        "--target",
        type=PlaceType(),
        metavar="VOICE",
        help="The voice: a voicebank, a recording of 5 s or more, or the name of one that ships.",
    ),
    click.option(
        "-o",
        "--output",
        "--out",
        "out",
        type=PlaceType(),
        metavar="OUT",
        help="Of --source: the file to write. Of a set: the run's folder. Also a URL.",
    ),
    click.option(
        "--sources",
        multiple=True,
        type=PlaceType(),
        metavar="PATH",
        help="Folder (also VCTK), manifest or file. Repeatable. Also URLs.",
    ),
    click.option(
        "--targets",
        multiple=True,
        type=PlaceType(),
        metavar="PATH",
        help="Folder of voices, or a voice. Repeatable. Also URLs.",
    ),
    click.option(
        "--pairs", "table", type=PlaceType(), metavar="FILE", help="Listed pairs: .csv, .tsv or .jsonl, see the docs."
    ),
    click.option("--own-voice", is_flag=True, help="The targets are the sources' own voices: PESQ and STOI too."),
    click.option(
        "--target-audio", type=PlaceType(), metavar="PATH", help="Recording of a voicebank's speaker, or folder."
    ),
    click.option("--text", metavar="TEXT", help="What --source says. Else a .txt beside it, if there is one."),
    click.option(
        "--converted", type=PlaceType(), metavar="PATH", help="Evaluate what another system converted: file or folder."
    ),
    click.option("--late", default=0.0, metavar="MS", help="By how much --converted is late."),
)

conversion_options = gathered(
    "conversion",
    ConversionOptions,
    click.option(
        "--recipe", default=RECIPE, show_default=True, type=RecipeName(), metavar="RECIPE", help="What converts."
    ),
    weights_option,
    encoder_option,
    port_option,
    click.option(
        "--chunk", "chunk_ms", default=10.0, show_default=True, metavar="MS", help="What the graph gets at once."
    ),
    settings_option,
    fit_option,
)


def check_targets(system: System, pairs: Sequence[Pair], own_voice: bool) -> None:
    """Refuse a target that is not a voice before anything is converted, once and not for each pair.

    Raises:
        AstrapeError: for the first of them.
    """
    from astrape.voice.evaluation.systems import Conversions

    if own_voice or not isinstance(system, Conversions):
        return
    for pair in pairs:
        if pair.target is not None:
            system.voice(pair.target)
