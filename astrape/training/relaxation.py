"""Softer stand-ins for a quantizer's snapping, for as long as a model learns.

Snapped values have no slope, and the gradient that passes straight through them is a guess. Relaxed ones have a true
one. They work frame by frame, so causality is not touched, and they are in force inside of :func:`relaxed` and in
training mode only: what is saved, validated, streamed or exported snaps as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.codebook import Relaxation
from astrape.blocks.parameters import check_choice, check_real
from astrape.training.errors import TrainingError

__all__ = ["GumbelRelaxation", "NoiseRelaxation", "build_relaxation", "relaxed"]


class NoiseRelaxation:
    """Uniform noise in place of the error that snapping makes (Balle, Laparra & Simoncelli, arXiv:1611.01704).

    Args:
        scale: greatest deviation on each axis, in steps of the grid; 0.5, that of rounding to whole steps, by default.

    Raises:
        ValueError: for a scale outside of 0 to 4.
    """

    def __init__(self, scale: float = 0.5) -> None:
        self.scale = check_real("scale", scale, 0.0, 4.0)

    def __call__(self, place: Tensor, points: Sequence[Tensor]) -> Tensor:
        """Places ``(batch, groups, axes, frames)``, each moved by noise."""
        return place + (2 * torch.rand_like(place) - 1) * self.scale


class GumbelRelaxation:
    """A point drawn at random, a nearer one more often, with the gradient of the soft choice (Jang, Gu & Poole,
    arXiv:1611.01144, "straight-through Gumbel-softmax").

    The odds of a point at distance ``d`` are ``exp(-d^2 / (2 scale^2))``: with the default of 0.35 steps, a point one
    step farther away than the nearest, right on which the place lies, comes up in 1 of 60 draws.

    Args:
        scale: how far draws scatter, in steps of the grid, 0.01 to 4.
        temperature: of the softmax whose gradient is taken, 0.01 to 10; 1 by default. The lower, the nearer to the
            draw and the noisier.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(self, scale: float = 0.35, temperature: float = 1.0) -> None:
        self.scale = check_real("scale", scale, 0.01, 4.0)
        self.temperature = check_real("temperature", temperature, 0.01, 10.0)

    def __call__(self, place: Tensor, points: Sequence[Tensor]) -> Tensor:
        """Points in the places' shape, ``(batch, groups, axes, frames)``."""
        drawn = []
        for group, table in enumerate(points):
            where = place[:, group].transpose(1, 2)
            distance = (where[:, :, None] - table.T).square().sum(dim=-1)
            odds = -distance / (2 * self.scale**2)
            choice = F.gumbel_softmax(odds, tau=self.temperature, hard=True)
            drawn.append((choice @ table.T).transpose(1, 2))
        return torch.stack(drawn, dim=1)


_kinds: dict[str, type[NoiseRelaxation] | type[GumbelRelaxation]] = {
    "noise": NoiseRelaxation,
    "gumbel": GumbelRelaxation,
}


def build_relaxation(spec: Mapping[str, Any]) -> Relaxation:
    """``{use: noise, scale: 0.5}`` or ``{use: gumbel, scale: 0.35, temperature: 1.0}`` as a relaxation.

    Raises:
        TrainingError: for an unknown kind or parameter, or a value out of range.
    """
    params = {key: value for key, value in spec.items() if key != "use"}
    try:
        return _kinds[check_choice("use", spec.get("use"), _kinds)](**params)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"relaxation: {error}") from error


@contextmanager
def relaxed(model: nn.Module, relaxation: Relaxation | None) -> Iterator[None]:
    """All quantizers of a model work with a relaxation inside of the ``with``, and snap again after it.

    ``None`` changes nothing. Random numbers are torch's own, so a saved random state repeats them.
    """
    quantizers = [module for module in model.modules() if hasattr(module, "relaxation")]
    before = [module.relaxation for module in quantizers]
    try:
        for module in quantizers:
            if relaxation is not None:
                module.relaxation = relaxation  # type: ignore[assignment]
        yield
    finally:
        for module, own in zip(quantizers, before, strict=True):
            module.relaxation = own
