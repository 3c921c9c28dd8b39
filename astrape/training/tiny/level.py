"""The level a decoder begins at: that of speech, so that minutes go into what changes from frame to frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from astrape.blocks import STFT, Linear
from astrape.graph.graph import Graph
from astrape.training.checkpoint import save_weights
from astrape.training.learner import Batch, Learner, valid_frames

__all__ = ["level_head", "write_weights"]

LEAST = 1e-4
"""Magnitudes below this count as this: what is that quiet, such as all above 8 kHz in recordings with 16 kHz, is not
worth an exact level."""


@torch.no_grad()
def level_head(graph: Graph, learner: Learner, batches: Iterable[Batch], audio: str = "mic") -> None:
    """Shift the bias of a recipe's ``head`` so that its mean log magnitudes are those of recordings, bin by bin.

    The head is drawn at random, and the exponential behind it makes of that any level at all. A data-dependent first
    bias is Salimans & Kingma's (arXiv:1602.07868, section 3).

    Args:
        graph: with a linear node ``head`` whose first half is log magnitudes of a node ``istft``.
        learner: of the part that reaches the waveform.
        batches: of windows with audio.
        audio: the graph's input that hears it.
    """
    head, inverse = graph.nodes["head"].block, graph.nodes["istft"].block
    assert isinstance(head, Linear)
    assert head.bias is not None
    bins = head.channels_out // 2
    stft = STFT(graph.inputs[audio], n_fft=2 * (bins - 1), hop=int(inverse.ratio))
    said: list[Tensor] = []
    handle = head.register_forward_hook(lambda module, taken, given: said.append(given))
    made, heard = torch.zeros(bins), torch.zeros(bins)
    frames = spectra = 0.0
    try:
        for batch in batches:
            learner.signals(batch)
            y = said.pop()
            there = _present(y.shape[-1], valid_frames(batch, head.rate_out))
            made += (y[:, :bins] * there).sum(dim=(0, 2))
            frames += float(there.sum())
            real, imaginary = stft(batch["audio"]).chunk(2, dim=1)
            levels = (real.square() + imaginary.square()).sqrt().clamp(min=LEAST).log()
            there = _present(levels.shape[-1], valid_frames(batch, stft.rate_out))
            heard += (levels * there).sum(dim=(0, 2))
            spectra += float(there.sum())
    finally:
        handle.remove()
    head.bias[:bins] += heard / max(spectra, 1.0) - made / max(frames, 1.0)


def write_weights(graph: Graph, path: Path) -> Path:
    """All tensors of a graph as safetensors, whole or not at all."""
    save_weights(path, graph.state_dict(), {"recipe": graph.name})
    return path


def _present(count: int, valid: Tensor) -> Tensor:
    """1 for frames within each row's valid ones, ``(batch, 1, count)``."""
    return (torch.arange(count) < valid[:, None]).unsqueeze(1).to(torch.get_default_dtype())
