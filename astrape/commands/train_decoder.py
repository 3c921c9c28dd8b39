"""``astrape train-decoder``: the microphone's waveform from a frozen encoder's content and the speaker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import command, json_option
from astrape.commands.place_option import PlaceType
from astrape.commands.train_options import (
    common_options,
    common_settings,
    run_options,
    settings_of,
    train_told,
)

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["train_decoder"]


@command(
    "train-decoder",
    "astrape train-decoder --encoder-ckpt first.best.pt --device cuda --epochs 60 --warmup-epochs 10\n"
    "astrape train-decoder --encoder-ckpt first.best.pt --run-name decoder --resume",
    short="Train a recipe's decoder behind its encoder.",
)
@common_options
@click.option(
    "--encoder-ckpt",
    type=PlaceType(),
    metavar="FILE",
    help="The trained encoder: NAME.best.pt of train-encoder, or safetensors.",
)
@click.option("--warmup-epochs", type=click.IntRange(0), help="Epochs of the first phase, without discriminators.")
@click.option("--lr", "--lr-g", type=click.FloatRange(0, min_open=True), help="Learning rate of the decoder.")
@click.option("--lr-d", type=click.FloatRange(0, min_open=True), help="Learning rate of the discriminators.")
@click.option("--mel-frames", type=click.IntRange(1), help="Frames of the features in a window.")
@click.option("--eval-mel-frames", type=click.IntRange(1), help="The same in validation.")
@click.option("--max-frames", type=click.IntRange(1), help="Frames of content in a window, instead of --mel-frames.")
@click.option("--mrstft-weight", type=click.FloatRange(0), help="Weight of the multi-resolution STFT loss.")
@click.option("--mel-l1-weight", type=click.FloatRange(0), help="Weight of the log-mel loss.")
@click.option("--adv-weight", type=click.FloatRange(0), help="Weight of what the discriminators say.")
@click.option("--fm-weight", type=click.FloatRange(0), help="Weight of feature matching.")
@click.option("--disc-window", type=click.IntRange(256), help="Samples that the discriminators see.")
@json_option
def train_decoder(as_json: bool, encoder_ckpt: Path | Place | None, warmup_epochs: int | None, **flags: Any) -> None:
    """Train the decoder of a recipe behind a trained encoder, phase by phase.

    The first phase reconstructs; from --warmup-epochs on discriminators judge as well. What comes out is
    NAME.best.safetensors, encoder and decoder in one file, with NAME.recipe.yaml for `astrape convert`, NAME.last.pt
    to --resume, NAME.log.jsonl, and TensorBoard under tensorboard/ with sounds and spectrograms.
    """
    options = run_options(
        "decoder",
        flags,
        encoder=encoder_ckpt,
        settings=tuple(_settings(flags)),
        epochs=flags["epochs"],
        warmup_epochs=warmup_epochs,
        content_frames=flags["max_frames"],
    )
    train_told(options, as_json)


def _settings(flags: dict[str, Any]) -> list[Any]:
    judges = "discriminators"
    return settings_of(
        [
            *common_settings(flags),
            ("--lr-d", (judges, "optimiser", "lr"), flags["lr_d"]),
            ("--disc-window", (judges, "window"), flags["disc_window"]),
            ("--mrstft-weight", ("losses", "stft", "weight"), flags["mrstft_weight"]),
            ("--mel-l1-weight", ("losses", "mel", "weight"), flags["mel_l1_weight"]),
            ("--adv-weight", ("losses", "adversarial", "weight"), flags["adv_weight"]),
            ("--fm-weight", ("losses", "matching", "weight"), flags["fm_weight"]),
        ]
    )
