"""``astrape train-voice``: encoder and decoder together, on parallel sets."""

from __future__ import annotations

from typing import Any

import click

from astrape.commands.console import command, json_option
from astrape.commands.train_options import (
    common_options,
    common_settings,
    run_options,
    settings_of,
    train_told,
)

__all__ = ["RECIPE", "train_voice"]

RECIPE = "astrape-mini"


@command(
    "train-voice",
    "astrape train-voice --data corpus/manifest.jsonl --cache corpus/cache --run-name mini\n"
    "astrape train-voice --data corpus/manifest.jsonl --cache corpus/cache --run-name mini --resume\n"
    "torchrun --nproc-per-node 2 -m astrape.train_voice --data corpus/manifest.jsonl --run-name two",
)
@common_options
@click.option("--warmup-epochs", type=click.IntRange(0), help="Epochs of the first phase, without discriminators.")
@click.option("--lr", "--lr-g", type=click.FloatRange(0, min_open=True), help="Learning rate of encoder and decoder.")
@click.option("--lr-d", type=click.FloatRange(0, min_open=True), help="Learning rate of the discriminators.")
@click.option("--mel-frames", type=click.IntRange(1), help="Frames of the features, or samples, in a window.")
@click.option("--eval-mel-frames", type=click.IntRange(1), help="The same in validation.")
@click.option("--same", type=click.FloatRange(0, 1), help="Share of the sources that are their own target.")
@click.option("--disc-window", type=click.IntRange(256), help="Samples that the discriminators see.")
@json_option
def train_voice(as_json: bool, warmup_epochs: int | None, **flags: Any) -> None:
    """Train encoder and decoder of a recipe together, as its section training.voice says.

    Sources and targets are two renderings of the same speech, from a corpus with sets, such as `astrape corpus make
    parallel` makes; what a manifest marks as held is validated on. What comes out is NAME.best.safetensors with
    NAME.recipe.yaml for `astrape convert`, NAME.last.pt to --resume, NAME.log.jsonl, and TensorBoard under
    tensorboard/ with sounds and spectrograms. Without --recipe it is astrape-mini.
    """
    if flags["recipe"] is None and not flags["resume"] and flags["resume"] != "":
        flags["recipe"] = RECIPE
    judges = "discriminators"
    options = run_options(
        "voice",
        flags,
        settings=tuple(
            settings_of(
                [
                    *common_settings(flags),
                    ("--lr-d", (judges, "optimiser", "lr"), flags["lr_d"]),
                    ("--disc-window", (judges, "window"), flags["disc_window"]),
                    ("--same", ("pairs", "same"), flags["same"]),
                ]
            )
        ),
        epochs=flags["epochs"],
        warmup_epochs=warmup_epochs,
    )
    train_told(options, as_json)
