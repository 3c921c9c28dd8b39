"""Voices as controls of a graph, and whether its weights make anything of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrape.audio.places import Where
from astrape.errors import AstrapeError
from astrape.graph import load
from astrape.graph.graph import Graph
from astrape.voice.embedding import CHANNELS
from astrape.voice.voicebank import Voicebank

__all__ = ["REGISTER", "SEED", "SPEAKER", "check_speaker", "is_deaf", "load_seeded", "voice_controls"]

SPEAKER = "speaker"

REGISTER = "register"
"""The control of a graph that moves the source's pitch: the target's median F0 in Hz."""

SEED = 0
"""Seed of weights where none are given, so that the same noise comes out each time."""


def load_seeded(recipe: str | Path, weights: Where | None, *, subset: bool = False) -> Graph:
    """A graph as :func:`astrape.graph.load` makes it; weights that are neither given nor shipped come from ``SEED``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return load(recipe, weights=weights, subset=subset)


def check_speaker(graph: Graph) -> None:
    """Refuse a graph whose outputs follow no speaker.

    Raises:
        AstrapeError: naming what is missing.
    """
    channels = graph.controls.get(SPEAKER)
    if channels != CHANNELS:
        found = "no such control" if channels is None else f"one of {channels}"
        raise AstrapeError(
            f"'{graph.name}' converts to no voice: that takes a control '{SPEAKER}' of {CHANNELS} channels, and it "
            f"has {found}"
        )


def voice_controls(graph: Graph, voice: Voicebank | Tensor) -> dict[str, Tensor | float]:
    """Controls of a graph that a voice sets: the speaker, and the register where the voicebank says it."""
    if not isinstance(voice, Voicebank):
        return {SPEAKER: voice}
    register = voice.metadata.median_f0_hz
    moved = {} if register is None or REGISTER not in graph.controls else {REGISTER: register}
    return {SPEAKER: voice.speaker, **moved}


def is_deaf(graph: Graph) -> bool:
    """Whether every voice sounds the same: what the graph derives from two speakers does not differ.

    So it is with fresh weights, whose adaptive norms begin at zero (AdaLN-Zero).
    """
    listening = [actor for actor in graph.actors if SPEAKER in actor.controls.values()]
    like = torch.zeros(1, 1, 1, device=graph.device, dtype=graph.dtype)
    seeds = torch.Generator().manual_seed(SEED)
    one, other = (torch.randn(1, CHANNELS, generator=seeds).to(like) for _ in range(2))
    values = {name: torch.zeros(1, channels).to(like) for name, channels in graph.controls.items()}
    with torch.no_grad():
        for actor in listening:
            derived = []
            for speaker in (one, other):
                outer = values | {SPEAKER: speaker}
                derived.append(actor.block.prepare({name: outer[control] for name, control in actor.controls.items()}))
            if not _same(*derived):
                return False
    return True


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return all(map(_same, one, other))
    return bool(one == other)
