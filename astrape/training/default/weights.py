"""Trained weights in half the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from astrape.audio.places import Where
from astrape.errors import RecipeError
from astrape.graph.checksums import read_tensors
from astrape.training.checkpoint import save_weights
from astrape.training.errors import TrainingError

__all__ = ["write_weights"]

LARGEST = 65504.0
"""The largest number in float16."""


def write_weights(source: Where, target: Path, about: Mapping[str, str]) -> None:
    """Write weights as float16, whole or not at all: 11 bits of each, and half the bytes.

    Whole numbers and float64 stay as they are, since counters and exact tables are such.

    Args:
        source: safetensors of a training.
        target: safetensors.
        about: what the file says of itself.

    Raises:
        TrainingError: for a file that cannot be read or written, and a weight that is not finite or beyond float16.
    """
    try:
        tensors = read_tensors(source)
    except RecipeError as error:
        raise TrainingError(str(error)) from error
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float32:
            most = float(tensor.abs().max()) if tensor.numel() else 0.0
            if not most <= LARGEST:
                raise TrainingError(f"{source}: '{name}' has a weight of {most:g}, and float16 ends at {LARGEST:g}")
    small = {name: one.half() if one.dtype == torch.float32 else one for name, one in tensors.items()}
    save_weights(target, small, about)
