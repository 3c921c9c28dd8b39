"""``astrape voicebank``: voices from recordings, and what a voice's file holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import (
    DEBUG,
    RecipeName,
    channel_option,
    command,
    json_option,
    print_json,
    print_table,
    progress,
    warn,
)
from astrape.commands.fitting import fit_option, fitted
from astrape.commands.place_option import PlaceType
from astrape.voice.names import ASTRAPE_SPEAKER, RECIPE

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.voice.voicebank import Voicebank

__all__ = ["build", "info", "listed", "verify", "voicebank"]


@click.group(
    "voicebank",
    short_help="Build a voice from recordings, look at one, compare encoders.",
    epilog="\b\nExample:\n  astrape voicebank build one.wav two.wav -o voice.astrape",
)
@click.option("--debug", **DEBUG)
def voicebank() -> None:
    """Build a voice from recordings of a speaker, or look at one."""


@command("build", "astrape voicebank build one.wav two.wav -o voice.astrape", short="Embed a voice from recordings.")
@click.argument("references", metavar="REF...", nargs=-1, required=True, type=PlaceType())
@click.option(
    "-o",
    "--output",
    "--out",
    required=True,
    type=PlaceType(),
    metavar="FILE",
    help="Where to: .astrape, or .npz, the older form.",
)
@click.option(
    "--encoder",
    metavar="NAME",
    help="Speaker encoder: an installed one's name, or package.module:factory.  [default: that of --weights]",
)
@click.option(
    "--weights",
    type=PlaceType(),
    metavar="FILE",
    help="A decoder's weights, which the voice is to fit.  [default: those that ship with --recipe]",
)
@click.option(
    "--recipe",
    default=RECIPE,
    show_default=True,
    type=RecipeName(),
    metavar="RECIPE",
    help="Whose weights, where they ship with it.",
)
@channel_option
@fit_option
@json_option
def build(
    references: tuple[Path | Place, ...],
    output: Path | Place,
    encoder: str | None,
    weights: Path | Place | None,
    recipe: str,
    channel: str,
    fit: bool,
    as_json: bool,
) -> None:
    """Embed a speaker's voice from recordings REF, 5 s or more of clean speech in all.

    REF, FILE and --weights may be URLs of stores.

    Any format, rate and channels that soundfile reads. Each recording is cut into windows of 8 s, one every 4 s; those
    below -45 dBFS are skipped, and the embeddings of the others are averaged.

    A decoder converts to voices of the speaker encoder that it was trained with: its weights say which, and it is taken
    without being named. Where they do not say, it is mel-statistics, which is untrained and says so in the file.
    Packages offer encoders in the entry-point group astrape.speaker_encoders.

    With --fit, the encoder's numbers are where a search begins: for those with which the recipe speaks most like the
    recordings. The voice is then for the weights that it was fitted to.
    """
    from astrape.voice.advice import voice_warnings
    from astrape.voice.building import build_voicebank
    from astrape.voice.conversion import Converter
    from astrape.voice.spaces import encoder_for
    from astrape.voice.speaker import speaker_encoder
    from astrape.voice.voicebank import read_voicebank, writable, write_voicebank

    writable(output)
    embeds = speaker_encoder(encoder_for(encoder, weights, recipe))
    with progress("embedding") as tell:
        bank = build_voicebank(references, embeds, channel=channel, progress=tell)
    if fit:
        converter = Converter.load(recipe, weights)
        converter.check_voice(bank.metadata, references[0])
        bank = fitted(bank, references, converter, channel)
    write_voicebank(bank, output)
    for line in voice_warnings(bank.metadata):
        warn(line)
    if as_json:
        print_json(_described(read_voicebank(output), output))
        return
    metadata = bank.metadata
    click.echo(
        f"{output}: {metadata.duration_seconds:.1f} s of {len(references)} "
        f"recording{'s' if len(references) > 1 else ''} by {metadata.embedding_model}, "
        f"{metadata.rms_dbfs:.1f} dBFS, {metadata.active_speech_ratio:.0%} active, norm {bank.norm:.3f}"
    )


@command("list", "astrape voicebank list", short="List the voices that ship.")
@json_option
def listed(as_json: bool) -> None:
    """List the voices that ship: names that `astrape convert --target` takes, their registers and what they are."""
    from rich.table import Table

    from astrape.voice.shipped import shipped_voices
    from astrape.voice.voicebank import read_voicebank

    known = {name: (path, read_voicebank(path).metadata) for name, path in shipped_voices().items()}
    if as_json:
        print_json({name: {"path": os.fspath(path), **about.to_dict()} for name, (path, about) in known.items()})
        return
    table = Table("voice", "register", "what it is", box=None, pad_edge=False)
    for name, (_, about) in known.items():
        hertz = "unknown" if about.median_f0_hz is None else f"{about.median_f0_hz:.0f} Hz"
        table.add_row(name, hertz, str(about.extra.get("description", "")))
    print_table(table)


@command("info", "astrape voicebank info voice.astrape", short="Check a voicebank and show what it holds.")
@click.argument("file", metavar="FILE", type=PlaceType())
@json_option
def info(file: Path | Place, as_json: bool) -> None:
    """Check the voicebank FILE, either form, and show what it holds."""
    from rich.table import Table
    from rich.text import Text

    from astrape.voice.advice import voice_warnings
    from astrape.voice.voicebank import read_voicebank

    bank = read_voicebank(file)
    described = _described(bank, file)
    if as_json:
        print_json(described)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    form = ".astrape" if bank.version == 3 else ".npz"
    rows = {
        "file": file,
        "form": f"{form}, version {bank.version}, {described['bytes']} bytes",
        "embedding": f"{bank.embedding.size} float32, norm {bank.norm:.6g}",
    }
    for name, value in (rows | bank.metadata.to_dict()).items():
        table.add_row(Text(_line(name)), Text(_line(value)))
    print_table(table)
    for line in voice_warnings(bank.metadata):
        warn(line)


@command(
    "verify", "astrape voicebank verify held-out/set/speech", short="Measure how well encoders tell speakers apart."
)
@click.argument("folder", metavar="FOLDER", type=PlaceType())
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    default=(ASTRAPE_SPEAKER, "resemblyzer"),
    show_default=True,
    metavar="NAME",
    help="As for build; also resemblyzer with all its 256 numbers, and dvector, which evaluations measure with.",
)
@click.option(
    "--seconds", type=click.FloatRange(1, 60), default=4.0, show_default=True, metavar="S", help="Of a piece of speech."
)
@json_option
def verify(folder: Path | Place, encoders: tuple[str, ...], seconds: float, as_json: bool) -> None:
    """Compare speaker encoders on FOLDER, which has a folder of recordings for each speaker.

    Every piece of speech is compared with every other one, by the cosine of their embeddings. The equal error rate is
    that of the threshold at which two pieces of one speaker are taken for two as often as two speakers for one. Its
    interval is of 95 %, by drawing speakers.
    """
    from dataclasses import asdict

    from rich.table import Table

    from astrape.voice.evaluation import verification

    found = []
    with progress("comparing") as tell:
        for index, name in enumerate(encoders):
            embeds = verification.encoder_to_verify(name)
            found.append(verification.verify(embeds, verification.speaker_pieces(folder, embeds.rate, seconds)))
            tell(index + 1, len(encoders))
    if as_json:
        print_json({"folder": os.fspath(folder), "seconds": seconds, "encoders": [asdict(one) for one in found]})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("encoder", "equal error rate", "95 % interval", "one speaker", "two speakers", "s of core per s"):
        table.add_column(heading, justify="left" if heading == "encoder" else "right", no_wrap=True)
    for one in found:
        spread = f"{100 * one.low:.1f} to {100 * one.high:.1f} %"
        means = f"{one.same:.2f}", f"{one.different:.2f}"
        table.add_row(
            one.encoder, f"{100 * one.equal_error_rate:.1f} %", spread, *means, f"{one.seconds_per_second:.4f}"
        )
    print_table(table)
    first = found[0]
    click.echo(
        f"{first.pieces} pieces of {seconds:g} s, {first.speakers} speakers: {first.same_trials} pairs of one, "
        f"{first.different_trials} of two"
    )


voicebank.add_command(build)
voicebank.add_command(verify)
voicebank.add_command(info)
voicebank.add_command(listed)


def _described(bank: Voicebank, path: Path | Place) -> dict[str, Any]:
    from astrape.audio.places import Place

    return {
        "file": os.fspath(path),
        "format": "astrape" if bank.version == 3 else "npz",
        "version": bank.version,
        "bytes": Place(path).size(),
        "norm": bank.norm,
        "metadata": bank.metadata.to_dict(),
        "embedding": bank.embedding.tolist(),
    }


def _line(value: Any) -> str:
    """A value as one line without control characters: a voicebank may come from anywhere."""
    from astrape.voice.advice import escaped

    if value is None or value == "":
        return "unknown"
    if isinstance(value, list) and not value:
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return escaped(text)
