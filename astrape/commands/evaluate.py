"""``astrape evaluate``: convert, measure, and lay side by side to be heard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from astrape.commands.console import (
    command,
    json_option,
    print_json,
    print_table,
    progress,
)
from astrape.commands.engine_options import engine_options, refuse_workers
from astrape.commands.evaluate_inputs import (
    CONVERTED,
    ConversionOptions,
    Inputs,
    check_targets,
    conversion_options,
    input_options,
)
from astrape.commands.evaluate_results import complain, table_beside, table_of, write_results
from astrape.errors import AstrapeError
from astrape.voice.names import (
    BASELINES,
    CONDITIONS,
    LISTEN,
    METRICS,
    REFERENCES,
    TRACKERS,
)

if TYPE_CHECKING:
    from astrape.jobs import Engine
    from astrape.voice.evaluation.systems import System

__all__ = ["evaluate"]

INCOMPLETE = 1


@command(
    "evaluate",
    "astrape evaluate --source src.wav --target p225.astrape --output out.wav --weights weights.safetensors\n"
    "astrape evaluate --sources VCTK/ --targets voices/ --limit 200 --weights weights.safetensors -o run/\n"
    "astrape evaluate --sources speech/ --targets voices/ --converted other-system/ --late 60 -o run-other/",
    interrupted="files that were converted are there, and no scores are",
    short="Convert recordings and measure what comes out.",
)
@input_options
@conversion_options
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
    inputs: Inputs,
    conversion: ConversionOptions,
    metrics: tuple[str, ...],
    tracker: str | None,
    language: str,
    limit: int | None,
    seed: int,
    baselines: tuple[str, ...],
    conditions: tuple[str, ...],
    listen: int,
    no_page: bool,
    engine: Engine,
    as_json: bool,
) -> None:
    """Convert recordings to voices and measure what comes out.

    One recording (--source, --target), every source to every target (--sources, --targets), or listed pairs (--pairs).
    Writes the converted files, the scores as JSON, and a page to listen to; of one recording OUT.evaluation.json and
    OUT.evaluation.html, of a set report.json and index.html in the run's folder.

    With --jobs, several pairs of a set are converted and measured at a time. What cannot be measured is named with the
    reason, and so is a pair that ends its worker three times. The exit code is 1 when a pair could not be converted.
    """
    from astrape.audio.places import below
    from astrape.runtime.files import check_chunk
    from astrape.voice.evaluation.columns import conditions_of
    from astrape.voice.evaluation.comparison import check_beside, compare
    from astrape.voice.evaluation.pairs import some
    from astrape.voice.evaluation.systems import Converted

    check_chunk(conversion.chunk_ms)
    if seed < 0:
        raise AstrapeError(f"--seed must be 0 or more, not {seed}")
    if not 0 <= inputs.late <= 60_000:
        raise AstrapeError(f"--late must be 0 to 60000 ms, not {inputs.late:g}")
    single, out = inputs.source is not None, inputs.out
    if single:
        refuse_workers(engine, "is for a set, and --source is one recording: leave it out")
    pairs = inputs.pairs()
    if out is not None and not single:
        # A run inside the folder of sources: what an earlier one wrote there is no source.
        own = out / CONVERTED
        pairs = [pair for pair in pairs if below(pair.source.path, own) == os.fspath(pair.source.path)]
    drawn = some(pairs, limit, seed)
    folder, wanted = inputs.places()
    system: System
    done = [pair for pair in pairs if pair.converted]
    if done and len(done) < len(pairs):
        raise AstrapeError(
            f"{inputs.table}: {len(done)} of {len(pairs)} rows have a 'converted' file: all of them, or none"
        )
    elsewhere = inputs.converted is not None or bool(done)
    if elsewhere:
        system = Converted(inputs.converted, inputs.late / 1000)
    else:
        if inputs.late:
            raise AstrapeError("--late: is of --converted; what is converted here is in time")
        system = conversion.system(folder, wanted)
        check_targets(system, drawn, inputs.own_voice)
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
            engine=engine,
            progress=tell,
        )
    if single and found.failed:
        raise AstrapeError(found.failed[0].error)
    written = write_results(found, out, folder, single, elsewhere, None if no_page else listen, tracker)
    complain(found, conversion.recipe, conversion.encoder, elsewhere)
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
