"""A voice fitted to its recordings: the decoder itself is asked which 128 numbers bring the speaker nearest.

A speaker encoder guesses a voice's numbers from what it knows of others. With a decoder at hand the guess can be
improved: the recordings are converted to the speaker's own voice, and the numbers, nothing else, go down the gradient
of the distance to the recordings (as textual inversion does for pictures, Gal et al., arXiv:2208.01618).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from astrape.audio.downmix import MEAN
from astrape.audio.resampling import resampled, resampling
from astrape.audio.whole import read_mono
from astrape.blocks.base import Stream
from astrape.errors import told_as
from astrape.graph.graph import Graph
from astrape.graph.subgraph import split_at_control
from astrape.progress import Progress
from astrape.training.objectives.reconstruction import LogMel, MultiResolutionSTFT
from astrape.voice.errors import VoicebankError
from astrape.voice.reference import SILENT_DBFS, level_of
from astrape.voice.speaking import SPEAKER, check_speaker, voice_controls
from astrape.voice.voicebank import Voicebank

__all__ = ["STEPS", "fit_voice"]

STEPS = 30
"""Twice as many come nearer to the recordings by a hundredth, at twice the time."""

RATE_OF_LEARNING, SLOWEST = 0.01, 0.1
"""Adam's learning rate, and the share of it at the end. Adam's steps are of one size whatever the loss is."""

SHARE = 0.5
"""Share taken of the way from the encoder's embedding to the fitted one: all of it brings the voice nearer still and
loses more words (docs/model-card.md has both)."""

PIECE_SECONDS, MOST_PIECES = 4, 3
"""Length and largest number of the pieces that are converted, spread evenly over the recordings, as one batch."""

SETTLE_SECONDS = 0.3
"""At the begin of each piece, where the graph has heard nothing yet."""

BAND = 11_500.0
"""Hz; higher up the recipes that are trained here extrapolate, and there is nothing to fit."""

FLOOR = 2e-4
"""Magnitudes below -74 dB are silence, as in the training of the weights."""

MEL_WEIGHT = 0.3


def fit_voice(
    bank: Voicebank,
    references: Sequence[str | os.PathLike[str]],
    graph: Graph,
    *,
    steps: int = STEPS,
    channel: str = MEAN,
    progress: Progress | None = None,
) -> Voicebank:
    """The voice with numbers half way to those that bring the graph's output nearest to the recordings.

    What of the graph does not depend on the speaker is computed once. The loss is that of training between waveforms:
    spectra at three resolutions, and 0.3 times mel bands, up to 11.5 kHz or half the rate of the recording. Register
    and all other metadata stay; ``fitted_to`` says for whose decoder it is. On one machine the same recordings give the
    same numbers.

    Args:
        bank: of the recordings, as :func:`~astrape.voice.building.build_voicebank` makes it: where the search begins.
        references: the recordings, also by URL.
        graph: with a control ``speaker`` of 128 channels, one input and audio as its first output.
        steps: of the search, 1 or more.
        channel: of recordings with several, as for :class:`~astrape.audio.downmix.Downmix`.
        progress: called with steps done and in all.

    Raises:
        AstrapeError: for a graph without a speaker, and a recording that cannot be read.
        VoicebankError: for recordings without a piece that is loud enough, and numbers that come out not finite.
    """
    check_speaker(graph)
    stream = next(iter(graph.inputs.values()))
    length = PIECE_SECONDS * int(stream.rate) // graph.quantum * graph.quantum
    pieces, band = _pieces(references, stream, length, channel)
    late = round(graph.latency * graph.rate_out)
    target = torch.nn.functional.pad(pieces, (late, 0))[..., :length]
    weights = torch.ones_like(target)
    weights[..., : late + round(SETTLE_SECONDS * stream.rate)] = 0
    controls = {name: value for name, value in voice_controls(graph, bank).items() if name != SPEAKER}
    fixed, following = split_at_control(graph, SPEAKER)
    with torch.no_grad():
        made = fixed(pieces, **_own(fixed, controls))
    given = {next(iter(fixed.outputs)): made} if isinstance(made, Tensor) else dict(made)
    given |= {name: pieces for name in following.inputs if name in graph.inputs}
    losses = [
        (1.0, MultiResolutionSTFT(stream, fmax=min(BAND, float(stream.rate) / 2), floor=FLOOR)),
        (MEL_WEIGHT, LogMel(stream, fmax=min(BAND, float(stream.rate) / 2), floor=FLOOR)),
    ]
    vector = bank.speaker.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([vector], lr=RATE_OF_LEARNING, betas=(0.9, 0.98))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, RATE_OF_LEARNING * SLOWEST)
    for step in range(steps):
        wave = following(given, **_own(following, controls), speaker=vector)
        assert isinstance(wave, Tensor)
        loss = torch.zeros(())
        for weight, objective in losses:
            total, count = objective(wave[..., :length], target, weights, band)
            loss = loss + weight * total / count
        (vector.grad,) = torch.autograd.grad(loss, [vector])
        optimiser.step()
        falling.step()
        if progress is not None:
            progress(step + 1, steps)
    found = torch.lerp(bank.speaker, vector.detach(), SHARE).reshape(-1)
    if not torch.isfinite(found).all():
        raise VoicebankError("the fit ended with numbers that are not finite: hint: leave --fit out")
    return Voicebank(found.numpy(), replace(bank.metadata, fitted_to=graph.name, text=None))


def _own(graph: Graph, controls: dict[str, Tensor | float]) -> dict[str, Tensor | float]:
    """The controls that a part of the graph has."""
    return {name: value for name, value in controls.items() if name in graph.controls}


def _pieces(
    references: Sequence[str | os.PathLike[str]], stream: Stream, length: int, channel: str
) -> tuple[Tensor, Tensor]:
    """Pieces ``(pieces, 1, length)`` that are loud enough, and how high each reaches, Hz."""
    found: list[tuple[Tensor, float]] = []
    for path in references:
        with told_as(VoicebankError):
            samples, rate = read_mono(path, channel)
        given = [torch.from_numpy(samples).reshape(1, 1, -1)]
        whole = torch.cat([piece.reshape(-1) for piece in resampled(resampling(rate, stream), given)])
        starts = [*range(0, max(0, len(whole) - length), length), max(0, len(whole) - length)]
        cut = [torch.nn.functional.pad(whole[one : one + length], (0, max(0, length - len(whole)))) for one in starts]
        found += [(one, rate / 2) for one in cut if level_of(one) >= SILENT_DBFS]
    if not found:
        raise VoicebankError(
            f"no {PIECE_SECONDS} s of the recordings reach {SILENT_DBFS:g} dBFS: record louder, or raise the level"
        )
    count = min(MOST_PIECES, len(found))
    chosen = [found[index * len(found) // count] for index in range(count)]
    return torch.stack([one for one, _ in chosen])[:, None], torch.tensor([half for _, half in chosen])
