"""The training itself: the student hears crops as a microphone would give them, and is to say what the teacher says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from astrape.audio.atomic import write_whole
from astrape.audio.places import Where
from astrape.blocks.statistics import RunningStatistics
from astrape.errors import AstrapeError
from astrape.graph import load
from astrape.graph.graph import Graph
from astrape.training.checkpoint import save_weights
from astrape.training.speaker.augment import SILENCE, augmented
from astrape.training.speaker.features import RECIPE, Example

__all__ = ["DistilSettings", "agreement", "distilled", "save_student"]

STUDENT = ("even", "wide", "near", "far", "voice", "heard", "who")
"""Nodes that learn, one after the other: from the mel spectrum, which examples are, to the teacher's numbers."""

CENTRE = 0.8
"""Share of the teacher's mean that is taken off before the contrast: all its vectors lie in one cone, and without that
the cosines of different speakers differ by little."""

METADATA = {"format": "pt", "recipe": RECIPE, "licence": "MIT", "card": "docs/speaker-encoder.md"}


@dataclass(frozen=True)
class DistilSettings:
    """Settings of the distillation: how long it goes on, and with which crops.

    Attributes:
        steps: in all.
        batch: crops a step.
        frames: of a crop, at 50 Hz, from fewest to most. Voicebanks are built of windows of 8 s; a decoder that shows
            who speaks hears less.
        rate: peak of the learning rate, after 5 % of the steps; from there it falls with half a cosine.
        temperature: of the contrast.
        contrast: its weight.
        seed: of everything drawn.
        every: steps between checkpoints.
    """

    steps: int = 5000
    batch: int = 24
    frames: tuple[int, int] = (50, 140)
    rate: float = 2e-3
    temperature: float = 0.07
    contrast: float = 0.2
    seed: int = 0
    every: int = 200


def distilled(
    examples: Sequence[Example],
    held: Sequence[Example],
    checkpoint: Path,
    settings: DistilSettings,
    say: Callable[[str], None],
) -> Graph:
    """Train ``astrape-speaker``, from the checkpoint on where there is one.

    The loss of a crop is the squared distance to the teacher's vector of the whole recording, and a contrast: of all
    the teacher's vectors in the batch, the student's is to be most like its own (InfoNCE, van den Oord et al.,
    arXiv:1807.03748, over cosines; vectors of the same speaker do not count against it). The contrast keeps apart
    voices that lie close, which a distance alone blurs together.

    Raises:
        AstrapeError: for fewer examples than a batch.
    """
    if len(examples) < settings.batch:
        raise AstrapeError(f"{len(examples)} examples to train on, and a batch takes {settings.batch}: render more")
    torch.manual_seed(settings.seed)
    graph = load(RECIPE, training=True)
    student = _student(graph)
    parameters = [parameter for block in student for parameter in block.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=0.01)
    begin = _resumed(checkpoint, graph, optimiser)
    centre = torch.from_numpy(np.mean([one.vector for one in examples], axis=0))
    losses: list[float] = []
    for step in range(begin, settings.steps):
        # From the step alone, so that a resumed run draws what an unbroken one draws.
        random = torch.Generator().manual_seed(settings.seed + 1_000_003 * step)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * _share(step / settings.steps)
        mel, vectors, speakers = _batch(examples, settings, random)
        found = _through(student, augmented(mel, random))
        loss = _loss(found, vectors, speakers, centre, settings)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % settings.every == 0 or step + 1 == settings.steps:
            kept = {"step": step + 1, "graph": graph.state_dict(), "optimiser": optimiser.state_dict()}
            write_whole(checkpoint, partial(torch.save, kept))
            near = f", held recordings {agreement(graph, held[:100]):.3f}" if held else ""
            say(f"  step {step + 1}: loss {np.mean(losses):.4f}{near}")
            losses = []
    return graph.eval()


@torch.no_grad()
def agreement(graph: Graph, examples: Sequence[Example]) -> float:
    """Mean cosine between student and teacher, both less the teacher's mean, of whole clean recordings."""
    student = _student(graph)
    centre = np.mean([one.vector for one in examples], axis=0)
    found = [_through(student, torch.from_numpy(one.mel.astype(np.float32))[None])[0].numpy() for one in examples]
    pairs = [(a - centre, one.vector - centre) for a, one in zip(found, examples, strict=True)]
    return float(np.mean([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]))


def save_student(graph: Graph, path: Where) -> None:
    """Write the learned parameters as float16 safetensors."""
    save_weights(path, {name: tensor.detach().half() for name, tensor in graph.named_parameters()}, METADATA)


def _student(graph: Graph) -> list[Any]:
    return [node.block for name, node in graph.nodes.items() if name.partition("/")[0] in STUDENT]


def _through(student: Sequence[Any], mel: Tensor) -> Tensor:
    """The student's numbers after the last frame, ``(batch, 96)``."""
    x = mel
    for block in student:
        x = block.whole(x) if isinstance(block, RunningStatistics) else block(x)
    return x[..., -1]


def _loss(found: Tensor, vectors: Tensor, speakers: Sequence[str], centre: Tensor, settings: DistilSettings) -> Tensor:
    distance = (found - vectors).square().sum(dim=1).mean()
    a = functional.normalize(found - CENTRE * centre, dim=1)
    b = functional.normalize(vectors - CENTRE * centre, dim=1)
    scores = a @ b.T / settings.temperature
    same = torch.tensor([[i != j and x == y for j, y in enumerate(speakers)] for i, x in enumerate(speakers)])
    scores = scores.masked_fill(same, -math.inf)
    return distance + settings.contrast * functional.cross_entropy(scores, torch.arange(len(scores)))


def _batch(
    examples: Sequence[Example], settings: DistilSettings, random: torch.Generator
) -> tuple[Tensor, Tensor, list[str]]:
    few, most = settings.frames
    length = int(torch.randint(few, most + 1, (), generator=random))
    # As many crops whatever their length, within the memory of the longest.
    drawn = torch.randperm(len(examples), generator=random)[: settings.batch].tolist()
    crops = []
    for index in drawn:
        mel = torch.from_numpy(examples[index].mel.astype(np.float32))
        start = int(torch.randint(0, max(1, mel.shape[1] - length + 1), (), generator=random))
        crop = mel[:, start : start + length]
        crops.append(functional.pad(crop, (length - crop.shape[1], 0), value=math.log(SILENCE)))
    vectors = torch.from_numpy(np.stack([examples[index].vector for index in drawn]))
    return torch.stack(crops), vectors, [examples[index].speaker for index in drawn]


def _share(progress: float) -> float:
    return min(1.0, progress / 0.05) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _resumed(checkpoint: Path, graph: Graph, optimiser: torch.optim.Optimizer) -> int:
    """The step to go on from."""
    if not checkpoint.is_file():
        return 0
    kept = torch.load(checkpoint, weights_only=True)
    graph.load_state_dict(kept["graph"])
    optimiser.load_state_dict(kept["optimiser"])
    return int(kept["step"])
