"""Weights of a graph: safetensors files, those that ship with a recipe among them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrape.audio.places import Place, Where
from astrape.errors import RecipeError
from astrape.graph.checksums import checked_sums, checked_tensors, open_tensors
from astrape.graph.fitting import listed, mismatches
from astrape.graph.network import Network
from astrape.graph.recipe.files import shipped_recipes

__all__ = ["given_or_shipped", "load_weights", "shipped_weights", "weights_metadata"]


def shipped_weights(recipe: str | os.PathLike[str]) -> Path | None:
    """The weights that ship with a shipped recipe, by its name; none for a file, and for a recipe without any."""
    name = recipe if isinstance(recipe, str) else ""
    if name not in shipped_recipes():
        return None
    path = shipped_recipes()[name].parent / "weights" / f"{name}.safetensors"
    return path if path.is_file() else None


def given_or_shipped(weights: Where | None, recipe: str | os.PathLike[str]) -> Place | None:
    """The weights that were asked for, else those that ship with the recipe; ``None`` where there are neither."""
    found = shipped_weights(recipe) if weights is None else weights
    return None if found is None else Place(found)


def weights_metadata(path: Where) -> dict[str, str]:
    """The metadata of a file of weights, text by text; empty where it has none.

    Of ours: ``recipe``, ``speaker_encoder`` (the embeddings that its ``speaker`` control takes), ``licence``, ``card``.

    Raises:
        RecipeError: for a file that cannot be read, and metadata that is not as it was written.
    """
    with open_tensors(path) as file:
        checked_sums(file, path)
        return dict(file.metadata() or {})


def load_weights(graph: Network[Any], path: Where, *, subset: bool = False) -> None:
    """Fill a graph with weights from a safetensors file.

    Raises:
        RecipeError: for a file that cannot be read, for tensors that are missing, of another shape, or, without
            ``subset``, unknown, and for weights that are not finite or not what was written, by the checksums of files
            that astrape wrote (:mod:`astrape.graph.checksums`).
    """
    own = graph.state_dict()
    with open_tensors(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _check_names(graph, path, own, shapes, subset)
        tensors = checked_tensors(file, own, path)
    _check_finite(graph, tensors, path)
    graph.load_state_dict(tensors)


def _check_finite(graph: Network[Any], tensors: Mapping[str, Tensor], path: Where) -> None:
    for name, _ in graph.named_parameters():
        tensor = tensors.get(name)
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise RecipeError(f"{path}: '{name}' has weights that are not finite: it is damaged, copy it again")


def _check_names(
    graph: Network[Any], path: Where, own: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], subset: bool
) -> None:
    wrong = mismatches(own, shapes, subset=subset)
    if wrong:
        more_than_enough = own and not mismatches(own, shapes, subset=True)
        hint = ": it holds more than this recipe has, and subset=True takes the part" if more_than_enough else ""
        raise RecipeError(f"{path}: does not fit '{graph.name}': {listed(wrong)}{hint}")
