"""``--fit`` of the commands that take recordings for voices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import progress
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.voice.conversion import Converter
    from astrape.voice.voicebank import Voicebank

__all__ = ["fit_option", "fitted", "refuse_untrained"]

fit_option = click.option(
    "--fit", is_flag=True, help="Fit voices of recordings to the decoder: nearer to the speaker, 20 s of a core each."
)


def fitted(voice: Voicebank, references: Sequence[Path | Place], converter: Converter, channel: str) -> Voicebank:
    """The voice, fitted to its recordings.

    Raises:
        AstrapeError: for a converter with random weights, or a recording that cannot be read.
    """
    from astrape.training.fitting import fit_voice

    refuse_untrained(converter)
    with progress("fitting") as tell:
        return fit_voice(voice, references, converter.graph, channel=channel, progress=tell)


def refuse_untrained(converter: Converter) -> None:
    """Refuse to fit a voice to weights that were drawn.

    Raises:
        AstrapeError: naming the recipe.
    """
    if converter.random:
        raise AstrapeError(
            f"--fit: '{converter.graph.name}' has random weights: hint: name trained ones with --weights"
        )
