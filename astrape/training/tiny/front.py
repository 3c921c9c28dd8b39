"""A front end for the small twin, which has no WavLM to take weights from: it learns spectra, and then stays frozen.

The five convolutions of the full model come out of a model that was trained on thousands of hours. Drawn at random, the
twin's sixteen channels keep so little of the speech that a linear map from them does no better on content than from
noise. So they learn, before anything is cached, to hold the log mel spectrum of what is heard, by way of a linear layer
that is thrown away: no teacher and no transcript is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn

from astrape.blocks import Mel
from astrape.corpus.utterances import Utterance
from astrape.graph import compile
from astrape.graph.recipe import Recipe
from astrape.graph.subgraph import subgraph
from astrape.training.tiny.level import write_weights
from astrape.training.windows import WindowLoader, Windows

__all__ = ["learn_front"]

BANDS = 32
SECONDS = Fraction(1)
BATCH = 8
RATE = 5e-3
LOUDER, QUIETER = 1.0, -12.0
"""dB that levels are changed by at random: the front end's running norm makes up for them only later on."""


def learn_front(
    recipe: str,
    utterances: Sequence[Utterance],
    path: Path,
    *,
    steps: int,
    seed: int,
    say: Callable[[str], None],
) -> float:
    """Train a recipe's ``wavlm`` on recordings, and write the graph's tensors, the others as they are drawn.

    Args:
        recipe: with a node ``down`` of audio, and ``wavlm`` behind it, which ``features`` is.
        utterances: to learn from, nobody among them that is unseen later.
        path: of the safetensors file.
        steps: of a batch of 8 windows of 1 s.
        seed: of weights and windows.
        say: takes a line on how it went.

    Returns:
        The share of the log mel spectrum's mean deviation that is left in the last tenth: 1 knows nothing.
    """
    torch.manual_seed(seed)
    graph = compile(Recipe.load(recipe), training=True)
    audio, part = graph.nodes["down"].block, subgraph(graph, ["features"], ["down"])
    part.requires_grad_(True)
    heard = part.inputs["down"]
    hop = int(heard.rate / part.rate_out)
    mel = Mel(heard, hop=hop, n_fft=max(256, 4 * hop), bins=BANDS, fmin=60.0, fmax=0.475 * float(heard.rate))
    readout = nn.Conv1d(part.channels_out, BANDS, 1)
    parameters = [*part.parameters(), *readout.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    windows = Windows(utterances, [], seconds=SECONDS, period=graph.period, audio=graph.inputs["mic"].rate, seed=seed)
    errors: list[float] = []
    for batch in WindowLoader(windows, steps=steps, batch=BATCH).epoch(0):
        with torch.no_grad():
            gain = torch.empty(len(batch["audio"]), 1, 1).uniform_(QUIETER, LOUDER)
            wave = audio(batch["audio"] * 10 ** (gain / 20))
            wanted = _centred(mel(wave))
        error = (_centred(readout(part(wave))) - wanted).abs().mean()
        optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        errors.append(float(error.detach() / wanted.abs().mean().clamp(min=1e-6)))
    last = errors[-max(1, steps // 10) :]
    left = sum(last) / len(last)
    say(f"  after {steps} steps {left:.2f} of the log mel spectrum's deviation is left (1 knows nothing)")
    write_weights(graph, path)
    return left


def _centred(bands: torch.Tensor) -> torch.Tensor:
    """Less the mean over the window: level and channel earn nothing."""
    return bands - bands.mean(dim=-1, keepdim=True)
