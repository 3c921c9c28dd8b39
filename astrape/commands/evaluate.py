"""``astrape evaluate``: convert, measure, and lay side by side to be heard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import (
    RecipeName,
    command,
    json_option,
    print_json,
    print_table,
    progress,
    settings_option,
)
from astrape.commands.engine_options import engine_of, engine_options
from astrape.commands.evaluate_inputs import CONVERTED, check_targets, converting, pairs_of, places_for
from astrape.commands.evaluate_results import complain, table_beside, table_of, write_results
from astrape.errors import AstrapeError
from astrape.voice.names import (
    BASELINES,
    CONDITIONS,
    LISTEN,
    METRICS,
    RECIPE,
    REFERENCES,
    TRACKERS,
)

if TYPE_CHECKING:
    from astrape.voice.evaluation.systems import System

__all__ = ["evaluate"]

INCOMPLETE = 1
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
@click.option(
    "--target",
    type=FILE,
    metavar="VOICE",
    help="The voice: a voicebank, a recording of 5 s or more, or the name of one that ships.",
)
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
@engine_options("one core and 1 to 2 GB")
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
    jobs: int,
    engine: str,
    ray_address: str | None,
    as_json: bool,
) -> None:
    """Convert recordings to voices and measure what comes out.

    One recording (--source, --target), every source to every target (--sources, --targets), or listed pairs (--pairs).
    Writes the converted files, the scores as JSON, and a page to listen to; of one recording OUT.evaluation.json and
    OUT.evaluation.html, of a set report.json and index.html in the run's folder.

    With --jobs, several pairs of a set are converted and measured at a time. What cannot be measured is named with the
    reason, and so is a pair that ends its worker three times. The exit code is 1 when a pair could not be converted.
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
    chosen = engine_of(jobs, engine, ray_address)
    if single and not chosen.in_process:
        option = f"--jobs {jobs}" if jobs > 1 else f"--engine {engine}"
        raise AstrapeError(f"{option}: is for a set, and --source is one recording: leave it out")
    pairs = pairs_of(source, target, sources, targets, table, own_voice, target_audio, text, converted)
    if out is not None and not single:
        # A run inside the folder of sources: what an earlier one wrote there is no source.
        pairs = [pair for pair in pairs if not pair.source.path.absolute().is_relative_to(out.absolute() / CONVERTED)]
    drawn = some(pairs, limit, seed)
    folder, wanted = places_for(out, single, converted is not None)
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
        system = converting(recipe, weights, port, encoder, chunk_ms, settings, folder, wanted)
        check_targets(system, drawn, own_voice)
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
            engine=chosen,
            progress=tell,
        )
    if single and found.failed:
        raise AstrapeError(found.failed[0].error)
    written = write_results(found, out, folder, single, elsewhere, None if no_page else listen, tracker)
    complain(found, recipe, encoder, elsewhere)
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(table_of(found))
        for condition in conditions_of(found) if found.beside else ():
            click.echo(f"\n{condition} sources:")
            print_table(table_beside(found, condition))
        for line in written:
            click.echo(line)
    if found.failed:
        context.exit(INCOMPLETE)


def _names(given: Sequence[str]) -> list[str]:
    return [name.strip() for group in given for name in group.split(",") if name.strip()]
