"""``astrape train-encoder``: content from what has been heard, taught by a teacher that hears everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import command, json_option
from astrape.commands.train_options import (
    common_options,
    common_settings,
    run_options,
    settings_of,
    train_told,
)
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.training.architecture import Change

__all__ = ["train_encoder"]

GRIDS = {"rhombic": "rhombic", "hexagon": "hexagonal", "rectangle": "rectangular"}
GRIDS |= {name: name for name in GRIDS.values()}

SIZES = {
    "conv_dim": ("--conv-dim", "input_conv", "channels"),
    "trans_dim": ("--trans-dim", "proj_in", "channels"),
    "n_layers": ("--n-layers", "transformer", "layers"),
    "n_heads": ("--n-heads", "transformer", "heads"),
    "ffn_dim": ("--ffn-dim", "transformer", "ffn"),
    "window": ("--window", "transformer", "window"),
    "q2d2_grid": ("--q2d2-grid", "q2d2", "grid"),
    "q2d2_levels": ("--q2d2-levels", "q2d2", "levels"),
}
"""Flags, the nodes that they are sizes of, and the nodes' parameters."""


def _levels(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | None:
    """Numbers with commas between them."""
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 9,9,9,9,9,9") from None


@command(
    "train-encoder",
    "astrape train-encoder --device cuda --epochs 60 --out-dir checkpoints/first --run-name first\n"
    "astrape train-encoder --out-dir checkpoints/first --run-name first --resume\n"
    "torchrun --nproc-per-node 2 -m astrape.train_encoder --device cuda --run-name two",
    short="Train a recipe's encoder from caches.",
)
@common_options
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate.")
@click.option("--mel-frames", type=click.IntRange(1), help="Frames of the features in a window.")
@click.option("--eval-mel-frames", type=click.IntRange(1), help="The same in validation.")
@click.option("--wavlm-frontend", is_flag=True, help="The recipe has WavLM's front end: checked.")
@click.option("--conv-dim", type=click.IntRange(1), help="Channels of the stem.")
@click.option("--trans-dim", type=click.IntRange(1), help="Channels of the transformer.")
@click.option("--n-layers", type=click.IntRange(1), help="Its layers.")
@click.option("--n-heads", type=click.IntRange(1), help="Its heads.")
@click.option("--ffn-dim", type=click.IntRange(1), help="Its feed-forward width.")
@click.option("--window", type=click.IntRange(1), help="Frames that it attends to.")
@click.option("--rope/--no-rope", default=None, help="Rotary positions, which the transformer always has.")
@click.option("--swiglu/--no-swiglu", default=None, help="Gated feed-forward, which it always has.")
@click.option("--stem-block-type", type=click.Choice(["depthwise", "standard"]), help="Of the stem, always depthwise.")
@click.option("--q2d2-grid", type=click.Choice(list(GRIDS)), help="Grid of the quantizer.")
@click.option("--q2d2-levels", callback=_levels, metavar="N,N,...", help="Its levels, axis by axis.")
@click.option("--q2d2-dim", type=click.IntRange(1), help="Its latent's channels.")
@click.option("--content-cos-weight", type=click.FloatRange(0), help="Weight of 1 - cosine to the teacher.")
@click.option("--content-l1-weight", type=click.FloatRange(0), help="Weight of the absolute difference.")
@click.option("--delta-weight", type=click.FloatRange(0), help="Weight of the difference of frame differences.")
@click.option("--delta2-weight", type=click.FloatRange(0), help="The same for second differences.")
@click.option("--forecast-weight", type=click.FloatRange(0), help="Weight of the heads that foretell the teacher.")
@click.option("--voiced-boost", type=click.FloatRange(0), help="Weight of a voiced frame.")
@click.option("--grl-weight", type=click.FloatRange(0), help="Weight of the speaker classifier, gradient reversed.")
@click.option("--contrastive-weight", type=click.FloatRange(0), help="Weight of InfoNCE.")
@click.option("--contrastive-tau", type=click.FloatRange(0, min_open=True), help="Its temperature.")
@click.option("--ssl-weight", type=click.FloatRange(0), help="Weight of WavLM's layers 0, 4 and 8.")
@click.option("--q2d2-gumbel-start", type=click.FloatRange(0), help="Temperature of a relaxed quantizer at first.")
@click.option("--q2d2-gumbel-end", type=click.FloatRange(0), help="At the end.")
@json_option
def train_encoder(as_json: bool, **flags: Any) -> None:
    """Train the encoder of a recipe from cached features and a teacher's cached content.

    What the recipe's training section says holds, but for the flags that are given. Speakers are split off for
    validation. Results: NAME.best.safetensors with NAME.recipe.yaml for `astrape convert`, NAME.best.pt for
    train-decoder, NAME.last.pt to --resume, NAME.log.jsonl, and TensorBoard under tensorboard/.
    """
    _refuse(flags)
    options = run_options(
        "encoder",
        flags,
        changes=tuple(_changes(flags)),
        settings=tuple(_settings(flags)),
        features_block="wavlm_cnn" if flags["wavlm_frontend"] else None,
    )
    train_told(options, as_json)


def _refuse(flags: dict[str, Any]) -> None:
    """Refuse options that no block has."""
    if flags["rope"] is False:
        raise AstrapeError("--no-rope: the block 'transformer' has rotary positions: write a recipe with another block")
    if flags["swiglu"] is False:
        raise AstrapeError("--no-swiglu: the block 'transformer' is gated: write a recipe with another block")
    if flags["stem_block_type"] == "standard":
        raise AstrapeError(
            "--stem-block-type standard: the stem is made of depthwise blocks: write a recipe with conv blocks instead"
        )
    levels, dim = flags["q2d2_levels"], flags["q2d2_dim"]
    if levels is not None and len(levels) % 2:
        raise AstrapeError(
            f"--q2d2-levels {','.join(map(str, levels))}: axes are paired: give an even number of levels"
        )
    if flags["q2d2_gumbel_end"] is not None and flags["q2d2_gumbel_start"] is None:
        raise AstrapeError(f"--q2d2-gumbel-end {flags['q2d2_gumbel_end']:g}: give --q2d2-gumbel-start too")
    del dim


def _changes(flags: dict[str, Any]) -> list[Change]:
    from astrape.training.architecture import Change

    changes = [
        Change(flag, node, parameter, GRIDS[flags[name]] if name == "q2d2_grid" else flags[name])
        for name, (flag, node, parameter) in SIZES.items()
        if flags[name] is not None
    ]
    levels, dim = flags["q2d2_levels"], flags["q2d2_dim"]
    # As wide as it has axes is what the quantizer is by itself: that needs no word in the recipe.
    if dim is not None and dim != (6 if levels is None else len(levels)):
        changes.append(Change("--q2d2-dim", "q2d2", "dim", dim))
    return changes


def _settings(flags: dict[str, Any]) -> list[Any]:
    relaxed = None
    if flags["q2d2_gumbel_start"]:
        relaxed = {"use": "gumbel", "start": flags["q2d2_gumbel_start"], "end": flags["q2d2_gumbel_end"] or 0.0}
    return settings_of(
        [
            ("--epochs", ("epochs",), flags["epochs"]),
            *common_settings(flags),
            ("--content-cos-weight", ("losses", "content_cosine", "weight"), flags["content_cos_weight"]),
            ("--content-l1-weight", ("losses", "content_l1", "weight"), flags["content_l1_weight"]),
            ("--delta-weight", ("losses", "delta", "weight"), flags["delta_weight"]),
            ("--delta2-weight", ("losses", "delta2", "weight"), flags["delta2_weight"]),
            ("--forecast-weight", ("losses", "forecast_1", "weight"), flags["forecast_weight"]),
            ("--forecast-weight", ("losses", "forecast_2", "weight"), flags["forecast_weight"]),
            ("--voiced-boost", ("losses", "*", "voiced"), flags["voiced_boost"]),
            ("--grl-weight", ("losses", "speaker", "weight"), flags["grl_weight"]),
            ("--contrastive-weight", ("losses", "contrastive", "weight"), flags["contrastive_weight"]),
            ("--contrastive-tau", ("losses", "contrastive", "tau"), flags["contrastive_tau"]),
            *[("--ssl-weight", ("losses", f"ssl_{n}", "weight"), flags["ssl_weight"]) for n in range(3)],
            ("--q2d2-gumbel-start", ("relax",), relaxed),
        ]
    )
