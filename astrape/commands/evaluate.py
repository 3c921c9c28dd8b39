"""``astrape evaluate``: convert, measure, and lay side by side to be heard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import (
    RecipeName,
    command,
    json_option,
    parse_settings,
    print_json,
    print_table,
    progress,
    settings_option,
)
from astrape.errors import AstrapeError
from astrape.voice.names import (
    BASELINES,
    CONDITIONS,
    LISTEN,
    MEL_STATISTICS,
    METRICS,
    RECIPE,
    REFERENCES,
    TRACKERS,
)

if TYPE_CHECKING:
    from rich.table import Table

    from astrape.voice.evaluation.pairs import Pair
    from astrape.voice.evaluation.result import Evaluation
    from astrape.voice.evaluation.systems import Conversions, System

__all__ = ["evaluate"]

INCOMPLETE = 1
REPORT, PAGE, CONVERTED = "report.json", "index.html", "converted"
FILE = click.Path(path_type=Path)


@command(
    "evaluate",
    "astrape evaluate --source src.wav --target p225.astrape --output out.wav --weights weights.safetensors\n"
    "astrape evaluate --sources VCTK/ --targets voices/ --limit 200 --weights weights.safetensors -o run/\n"
    "astrape evaluate --sources speech/ --targets voices/ --converted other-system/ --late 60 -o run-other/",
    interrupted="files that were converted are there, and no scores are",
    short="Convert recordings and measure what comes out.",
)
@click.option("--source", type=FILE, metavar="FILE", help="One recording to convert.")
@click.option("--target", type=FILE, metavar="VOICE", help="The voice: a voicebank, or a recording of 5 s or more.")
@click.option(
    "-o",
    "--output",
    "--out",
    "out",
    type=FILE,
    metavar="OUT",
    help="Of --source: the file to write. Of a set: the run's folder.",
)
@click.option(
    "--sources", multiple=True, type=FILE, metavar="PATH", help="Folder (also VCTK), manifest or file. Repeatable."
)
@click.option("--targets", multiple=True, type=FILE, metavar="PATH", help="Folder of voices, or a voice. Repeatable.")
@click.option("--pairs", "table", type=FILE, metavar="FILE", help="Listed pairs: .csv, .tsv or .jsonl, see the docs.")
@click.option("--own-voice", is_flag=True, help="The targets are the sources' own voices: PESQ and STOI too.")
@click.option("--target-audio", type=FILE, metavar="PATH", help="Recording of a voicebank's speaker, or folder.")
@click.option("--text", metavar="TEXT", help="What --source says. Else a .txt beside it, if there is one.")
@click.option("--converted", type=FILE, metavar="PATH", help="Evaluate what another system converted: file or folder.")
@click.option("--late", default=0.0, metavar="MS", help="By how much --converted is late.")
@click.option("--recipe", default=RECIPE, show_default=True, type=RecipeName(), metavar="RECIPE", help="What converts.")
@click.option("--weights", type=FILE, metavar="FILE", help="Weights, a safetensors file.")
@click.option(
    "--encoder",
    metavar="NAME",
    help="Speaker encoder for recordings: an installed one's name, or package.module:factory.  [default: that of "
    "--weights]",
)
@click.option("--port", metavar="NAME", help="The output to write, where the recipe has several; the first audio.")
@click.option("--chunk", "chunk_ms", default=10.0, show_default=True, metavar="MS", help="What the graph gets at once.")
@settings_option
@click.option("--metrics", multiple=True, metavar="NAME,...", help=f"Of {', '.join(METRICS)}, or quantities; all.")
@click.option("--pitch", "tracker", type=click.Choice(TRACKERS), help="Pitch tracker; the first installed one.")
@click.option("--language", default="en", show_default=True, metavar="CODE", help="Of the sources.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N pairs of a set, drawn at random.")
@click.option("--seed", default=0, show_default=True, metavar="N", help="Of --limit and of the intervals.")
@click.option(
    "--baselines",
    multiple=True,
    metavar="NAME,...",
    help=f"Beside a set, in the same run: {', '.join(BASELINES)}; written down: {', '.join(REFERENCES)}.",
)
@click.option(
    "--conditions",
    multiple=True,
    metavar="NAME,...",
    help=f"All of it once more with worse sources: {', '.join(CONDITIONS)}.",
)
@click.option(
    "--listen",
    default=LISTEN,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="Pairs to hear on the page.",
)
@click.option("--no-page", is_flag=True, help="Write no page.")
@json_option
@click.pass_context
def evaluate(
    context: click.Context,
    source: Path | None,
    target: Path | None,
    out: Path | None,
    sources: tuple[Path, ...],
    targets: tuple[Path, ...],
    table: Path | None,
    own_voice: bool,
    target_audio: Path | None,
    text: str | None,
    converted: Path | None,
    late: float,
    recipe: str,
    weights: Path | None,
    encoder: str | None,
    port: str | None,
    chunk_ms: float,
    settings: tuple[str, ...],
    metrics: tuple[str, ...],
    tracker: str | None,
    language: str,
    limit: int | None,
    seed: int,
    baselines: tuple[str, ...],
    conditions: tuple[str, ...],
    listen: int,
    no_page: bool,
    as_json: bool,
) -> None:
    """Convert recordings to voices and measure what comes out.

    One recording (--source, --target), every source to every target (--sources, --targets), or listed pairs (--pairs).
    Writes the converted files, the scores as JSON, and a page to listen to; of one recording OUT.evaluation.json and
    OUT.evaluation.html, of a set report.json and index.html in the run's folder.

    What cannot be measured is named with the reason. The exit code is 1 when a pair could not be converted.
    """
    from astrape.runtime.files import check_chunk
    from astrape.voice.evaluation.columns import conditions_of
    from astrape.voice.evaluation.comparison import check_beside, compare
    from astrape.voice.evaluation.pairs import some
    from astrape.voice.evaluation.systems import Converted

    check_chunk(chunk_ms)
    if seed < 0:
        raise AstrapeError(f"--seed must be 0 or more, not {seed}")
    if not 0 <= late <= 60_000:
        raise AstrapeError(f"--late must be 0 to 60000 ms, not {late:g}")
    single = source is not None
    pairs = _pairs(source, target, sources, targets, table, own_voice, target_audio, text, converted)
    if out is not None and not single:
        # A run inside the folder of sources: what an earlier one wrote there is no source.
        pairs = [pair for pair in pairs if not pair.source.path.absolute().is_relative_to(out.absolute() / CONVERTED)]
    drawn = some(pairs, limit, seed)
    folder, wanted = _places(out, single, converted is not None)
    system: System
    done = [pair for pair in pairs if pair.converted]
    if done and len(done) < len(pairs):
        raise AstrapeError(f"{table}: {len(done)} of {len(pairs)} rows have a 'converted' file: all of them, or none")
    if converted is not None or done:
        system = Converted(converted, late / 1000)
        elsewhere = True
    else:
        if late:
            raise AstrapeError("--late: is of --converted; what is converted here is in time")
        system = _converting(recipe, weights, port, encoder, chunk_ms, settings, folder, wanted)
        _check_targets(system, drawn, own_voice)
        elsewhere = False
    beside, worse = _names(baselines), _names(conditions)
    if (beside or worse) and (single or out is None):
        raise AstrapeError("--baselines and --conditions stand beside a set: give --sources or --pairs, and --output")
    references = [name for name in beside if name in REFERENCES]
    measured = [name for name in beside if name not in references]
    check_beside(measured, worse, system)
    with progress("evaluating") as tell:
        found = compare(
            drawn,
            system,
            folder,
            baselines=measured,
            conditions=worse,
            metrics=_names(metrics) if metrics else None,
            language=language,
            tracker=tracker,
            seed=seed,
            settings={"limit": limit, "pairs_in_all": len(pairs), "references": references},
            progress=tell,
        )
    if single and found.failed:
        raise AstrapeError(found.failed[0].error)
    written = _written(found, out, folder, single, elsewhere, None if no_page else listen, tracker)
    _complain(found, recipe, encoder, elsewhere)
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(_table(found))
        for condition in conditions_of(found) if found.beside else ():
            click.echo(f"\n{condition} sources:")
            print_table(_beside(found, condition))
        for line in written:
            click.echo(line)
    if found.failed:
        context.exit(INCOMPLETE)


def _pairs(
    source: Path | None,
    target: Path | None,
    sources: Sequence[Path],
    targets: Sequence[Path],
    table: Path | None,
    own_voice: bool,
    target_audio: Path | None,
    text: str | None,
    converted: Path | None,
) -> list[Pair]:
    from astrape.voice.evaluation import pairs
    from astrape.voice.evaluation.recording import Recording

    given = [name for name, is_there in (("--source", source), ("--sources", sources), ("--pairs", table)) if is_there]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise AstrapeError(f"what to evaluate is --source, --sources or --pairs, exactly one of them, not {found}")
    if table is not None:
        if target or targets or target_audio or own_voice or text:
            raise AstrapeError("--pairs: its columns say what goes with what: leave targets, audio and text out")
        return pairs.read_pairs(table)
    if source is not None:
        if sources or targets:
            raise AstrapeError("--source goes with --target; --sources and --targets are for sets")
        # Refused here rather than by the first metric: nothing is loaded yet.
        Recording(source)
        said = [pairs.utterance(source, text)]
        voices = [] if target is None else [target]
    else:
        if target or text:
            raise AstrapeError("--sources goes with --targets; --target and --text are for one --source")
        said, voices = pairs.read_sources(sources), list(targets)
    if own_voice and not voices and target_audio is None:
        return pairs.own_voices(said)
    if not voices and converted is not None:
        voice = None if target_audio is None else pairs.Target(target_audio.stem, (target_audio,), target_audio)
        return [pairs.Pair(one, voice, own_voice=own_voice) for one in said]
    if not voices:
        raise AstrapeError("there is no voice to convert to: name one with --target or --targets, or say --own-voice")
    targeted = pairs.read_targets(voices, target_audio)
    return [replace(pair, own_voice=own_voice) for pair in pairs.all_pairs(said, targeted)]


def _places(out: Path | None, single: bool, converted: bool) -> tuple[Path, Path | None]:
    """The folder for results, and the one file to write instead."""
    if out is None:
        if single and converted:
            return Path(), None
        raise AstrapeError("there is no place for the results: name one with --output")
    if single and not converted:
        if out.is_dir():
            raise AstrapeError(f"{out}: is a folder, and --source is one file: name a file")
        return out.parent, out
    if out.exists() and not out.is_dir():
        raise AstrapeError(f"{out}: is no folder, and a run is written to one: name another")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AstrapeError(f"{out}: cannot be made: {error.strerror or error}") from error
    return out, None


def _converting(
    recipe: str,
    weights: Path | None,
    port: str | None,
    encoder: str | None,
    chunk_ms: float,
    settings: tuple[str, ...],
    folder: Path,
    wanted: Path | None,
) -> Conversions:
    from astrape.graph.recipe import Recipe
    from astrape.voice.conversion import CODES, Converter
    from astrape.voice.evaluation.systems import Conversions

    controls = parse_settings(settings)
    if "speaker" in controls:
        raise AstrapeError("--set speaker: the speaker is what the targets give")
    converter = Converter.load(recipe, weights, output=port, codes=CODES in Recipe.load(recipe).outputs)
    return Conversions(
        converter,
        folder / CONVERTED,
        out=wanted,
        encoder=encoder,
        weights=None if converter.weights is None else Path(converter.weights),
        chunk_ms=chunk_ms,
        controls=controls,
    )


def _check_targets(system: System, pairs: Sequence[Pair], own_voice: bool) -> None:
    """A voice that is none is an error before anything is converted, not one a pair."""
    from astrape.voice.evaluation.systems import Conversions

    if own_voice or not isinstance(system, Conversions):
        return
    for pair in pairs:
        if pair.target is not None:
            system.voice(pair.target)


def _written(
    found: Evaluation,
    out: Path | None,
    folder: Path,
    single: bool,
    elsewhere: bool,
    listen: int | None,
    tracker: str | None,
) -> list[str]:
    """Write what there is a place for; lines that say what was written."""
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


def _complain(found: Evaluation, recipe: str, encoder: str | None, elsewhere: bool) -> None:
    """What stands in the way of trusting the numbers, a line each on stderr."""
    from astrape.voice.speaking import SEED

    if found.system.get("random_weights"):
        _warn(f"no --weights given: the weights of '{recipe}' are random (seed {SEED}) and what comes out is noise")
    embedded = any(
        pair.target is not None and pair.target.files[0].suffix.lower() not in (".astrape", ".npz")
        for pair in (result.pair for result in found.results)
    )
    used = found.system.get("speaker_encoder", encoder)
    if embedded and used == MEL_STATISTICS and not elsewhere:
        _warn(
            f"recordings are embedded by {MEL_STATISTICS}, which is not trained: a decoder that was trained with "
            f"another speaker encoder makes nothing of it (--encoder names another)"
        )
    failed: dict[tuple[str, str], list[str]] = {}
    for result in found.results:
        if result.error is not None:
            click.echo(f"astrape: {result.pair.name}: {result.error}", err=True)
        for line in result.warnings:
            _warn(f"{result.pair.name}: {line}")
        for family, reason in result.failures.items():
            failed.setdefault((family, reason), []).append(result.pair.name)
    for (family, reason), names in failed.items():
        more = f" (so in {len(names) - 1} more)" if len(names) > 1 else ""
        _warn(f"{names[0]}: {family}: {reason}{more}")


def _warn(line: str) -> None:
    click.echo(f"astrape: warning: {line}", err=True)


def _names(given: Sequence[str]) -> list[str]:
    return [name.strip() for group in given for name in group.split(",") if name.strip()]


def _beside(found: Evaluation, condition: str) -> Table:
    from rich.table import Table

    from astrape.voice.evaluation.columns import cells, headings

    table = Table(box=None, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for heading in headings(found, condition):
        table.add_column(heading, justify="right", overflow="fold")
    for label, values in cells(found, condition):
        table.add_row(label, *values)
    return table


def _table(found: Evaluation) -> Table:
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
