"""``astrape train-default``: the weights that ship, from nothing."""

from __future__ import annotations

from pathlib import Path

import click

from astrape.commands.console import INTERRUPTED, command, json_option, narrator, print_json
from astrape.commands.place_option import LocalPath

__all__ = ["train_default"]


@command(
    "train-default",
    "astrape train-default --work default --hours 8\n"
    "astrape train-default --work default --hours 8 --output astrape/recipes/weights/astrape-mini.safetensors\n"
    "astrape train-default --work taste --hours 0.05 --flite 0.05 --no-recordings --epochs 2 --steps 10",
    extra="default",
)
@click.option(
    "--work",
    type=LocalPath(file_okay=False),
    default=Path("train-default"),
    show_default=True,
    help="Folder for packages, corpus, caches, checkpoints and TensorBoard.",
)
@click.option(
    "--hours",
    type=click.FloatRange(0),
    default=8.0,
    show_default=True,
    help="Of speech that Kokoro renders, an hour of a core each; 0: WORK/corpus as it is.",
)
@click.option(
    "--flite",
    type=click.FloatRange(0),
    default=20.0,
    show_default=True,
    help="Hours of flite's speech, two or three minutes of a core each.",
)
@click.option(
    "--recordings/--no-recordings", default=True, show_default=True, help="Recordings of real people, 200 MB of them."
)
@click.option("--epochs", type=click.IntRange(1), help="In all phases.  [default: the recipe's]")
@click.option("--steps", type=click.IntRange(1), help="Of an epoch.  [default: the recipe's]")
@click.option("--recipe", default="astrape-mini", show_default=True, metavar="RECIPE", help="What is trained.")
@click.option(
    "--speakers",
    "teacher",
    default="resemblyzer",
    show_default=True,
    metavar="TEACHER",
    help="Who says what each speaker sounds like.",
)
@click.option("--seed", default=42, show_default=True, type=click.IntRange(0), help="Of weights and windows.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 256), help="Processes that render.")
@click.option(
    "--output",
    type=LocalPath(dir_okay=False),
    metavar="FILE",
    help="Where the weights go.  [default: WORK/RECIPE.safetensors]",
)
@json_option
@click.pass_context
def train_default(
    context: click.Context,
    work: Path,
    hours: float,
    flite: float,
    recordings: bool,
    epochs: int | None,
    steps: int | None,
    recipe: str,
    teacher: str,
    seed: int,
    jobs: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Make the weights of the voice that ships: corpus, caches, training, float16.

    Whatever stops it, a kill or Ctrl-C, the same command goes on from there, and ends with the same weights. At the end
    it says how many hours it took, over all runs, and on which machines.
    """
    from astrape.training.default.run import DefaultPlan, run

    plan = DefaultPlan(
        hours,
        recipe,
        epochs,
        steps,
        seed,
        jobs,
        teacher=teacher,
        output=output,
        flite=flite,
        recordings=recordings,
    )
    result = run(work.absolute(), plan, narrator(as_json))
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo("\n" + "\n".join(result.lines()))
        if result.weights is not None:
            click.echo(f"{result.weights}: {result.weights.stat().st_size / 1e6:.2f} MB")
    if result.weights is None:
        context.exit(INTERRUPTED)
