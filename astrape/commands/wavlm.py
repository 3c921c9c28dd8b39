"""``astrape wavlm``: statistics to freeze WavLM's norm with, and what causal statistics cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import DEBUG, command, json_option, print_json, print_table, progress
from astrape.commands.place_option import PlaceType
from astrape.errors import AstrapeError
from astrape.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from astrape.audio.places import Place
    from astrape.blocks.wavlm import WavLMCNN

__all__ = ["calibrate", "cost", "wavlm"]

LONGEST = 3600
"""Seconds of a recording that are read; it is held in memory."""

_weights = click.argument("weights", metavar="WEIGHTS", type=PlaceType())
_recordings = click.argument("recordings", metavar="AUDIO...", nargs=-1, required=True, type=PlaceType())


@click.group(
    "wavlm",
    short_help="Make WavLM's front end causal, and see what it costs.",
    epilog="\b\nExample:\n  astrape wavlm cost wavlm-base-plus.safetensors speech.wav",
)
@click.option("--debug", **DEBUG)
def wavlm() -> None:
    """Make WavLM's front end causal with statistics of a corpus, or see what that costs.

    WEIGHTS is a checkpoint of WavLM base or base+, of Hugging Face, torchaudio or the paper's code. All files may be
    URLs.
    """


@command(
    "calibrate",
    "astrape wavlm calibrate wavlm-base-plus.safetensors corpus/*.flac -o frozen.safetensors",
    short="Measure the statistics that freeze WavLM's norm.",
)
@_weights
@_recordings
@click.option("-o", "--output", required=True, type=PlaceType(), help="Where to: safetensors.")
@json_option
def calibrate(weights: Path | Place, recordings: tuple[Path | Place, ...], output: Path | Place, as_json: bool) -> None:
    """Measure statistics of layer 0 over recordings, for `wavlm_cnn` with `norm: frozen`.

    Minutes of speech of many voices do, at the level at which the graph will hear them. The file holds the weights and
    the statistics, under the names of the block.
    """
    from astrape.audio.atomic import atomic_path
    from astrape.graph.checksums import sealed_file
    from astrape.voice.wavlm import freeze, measure_statistics

    block = _front(weights)
    with progress("listening") as tell:
        found = measure_statistics(block, _heard(recordings, tell))
    frozen = freeze(block, found)
    with atomic_path(output) as temporary:
        temporary.write_bytes(sealed_file(frozen.state_dict(), {}))
    seconds = found.frames / 3200
    if as_json:
        print_json({"output": str(output), "frames": found.frames, "seconds": seconds})
        return
    click.echo(f"{output}: statistics of {len(found.mean)} channels over {seconds:.1f} s")


@command(
    "cost",
    "astrape wavlm cost wavlm-base-plus.safetensors speech.wav --frozen corpus.wav",
    short="Compare causal features with WavLM's own.",
)
@_weights
@click.argument("recording", metavar="AUDIO", type=PlaceType())
@click.option(
    "--frozen",
    "elsewhere",
    multiple=True,
    type=PlaceType(),
    metavar="AUDIO",
    help="Recording to take frozen statistics from. Repeatable; without one, only the cumulative norm is looked at.",
)
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(0.01), help="Seconds to average over.")
@json_option
def cost(
    weights: Path | Place, recording: Path | Place, elsewhere: tuple[Path | Place, ...], every: float, as_json: bool
) -> None:
    """Compare causal features with those of WavLM's own norm, over the time since a recording began.

    1 means no difference. The original's norm reads the whole recording before it gives its first frame.
    """
    from rich.table import Table

    from astrape.voice.wavlm import measure_statistics, norm_cost

    block = _front(weights)
    with progress("listening") as tell:
        statistics = measure_statistics(block, _heard(elsewhere, tell)) if elsewhere else None
        (heard,) = _heard([recording], tell)
        found = norm_cost(block, heard, statistics, every=every)
    frozen: Sequence[float | None] = found.frozen or [None] * len(found.seconds)
    rows = list(zip(found.seconds, found.cumulative, frozen, strict=True))
    if as_json:
        print_json([{"until": until, "cumulative": one, "frozen": other} for until, one, other in rows])
        return
    table = Table("until", "cumulative", "frozen", title="cosine with the utterance's norm", title_justify="left")
    for until, one, other in rows:
        table.add_row(f"{until:.2f} s", f"{one:.5f}", "-" if other is None else f"{other:.5f}")
    print_table(table)


def _front(weights: Path | Place) -> WavLMCNN:
    """A front end as wide as the checkpoint's, of its first five layers."""
    from astrape.blocks.base import Stream
    from astrape.blocks.wavlm import RATE, WavLMCNN
    from astrape.voice.wavlm import load_wavlm, read_wavlm

    held = read_wavlm(weights)
    kernel = held.get("conv_layers.0.conv.weight")
    if kernel is None or kernel.dim() != 3 or not len(kernel):
        raise AstrapeError(f"{weights}: has no weight of layer 0")
    layers = min(5, 1 + max(int(name.split(".")[1]) for name in held))
    block = WavLMCNN(Stream(RATE, 1), layers=layers, channels=len(kernel), bias="conv_layers.0.conv.bias" in held)
    load_wavlm(block, weights)
    return block


def _heard(recordings: Sequence[Path | Place], tell: Progress) -> Iterator[Tensor]:
    """Recordings as ``(1, 1, n)`` at 16 kHz."""
    import torch

    from astrape.audio.resampling import pieces_of
    from astrape.blocks.base import Stream
    from astrape.blocks.wavlm import RATE

    for index, path in enumerate(recordings):
        tell(index, len(recordings))
        yield torch.cat([torch.zeros(1, 1, 0), *pieces_of(path, Stream(RATE, 1), longest=LONGEST)], dim=-1)


wavlm.add_command(calibrate)
wavlm.add_command(cost)
