"""A part of an imported recipe: its nodes, and which tensor of the checkpoint goes where in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from astrape.graph.fitting import mismatches
from astrape.voice.checkpoint.archive import Checkpoint, listed

__all__ = ["NodeLine", "Part"]


@dataclass(frozen=True)
class NodeLine:
    """A node as the recipe has it: its name, its block's name and parameters, and a comment."""

    name: str
    use: str
    params: dict[str, Any]
    comment: str = ""


@dataclass
class Part:
    """The contribution of one checkpoint, or of a front end, to a graph.

    Attributes:
        checkpoint: where its tensors are.
        lines: nodes in order.
        sources: for each tensor of the graph, the names of those in the checkpoint, which are joined in their order
            along the first dimension.
        constants: tensors of the graph that no checkpoint has, by the value that all of their numbers take.
        unused: beginnings of the names of tensors that are known and not needed.
        known: tensors that the recipe's parameters were read from.
        notes: what its user should know.
    """

    checkpoint: Checkpoint
    lines: list[NodeLine] = field(default_factory=list)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    known: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, name: str, use: str, comment: str = "", /, **params: Any) -> None:
        self.lines.append(NodeLine(name, use, params, comment))

    def take(self, target: str, *names: str) -> None:
        """The graph's tensor ``target`` is this tensor, or these one after another."""
        self.sources[target] = names

    def take_all(self, target: str, source: str, *names: str) -> None:
        """``target.NAME`` is ``source.NAME`` for each of the names."""
        for name in names:
            self.take(f"{target}.{name}", f"{source}.{name}")

    def take_affine(self, target: str, source: str) -> None:
        self.take_all(target, source, "weight", "bias")

    def skipped(self) -> list[str]:
        """Tensors that are known and not needed."""
        return [name for name in self.checkpoint.tensors if name.startswith(self.unused)] if self.unused else []

    def fill(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the graph, ``own`` being those it has, in float32 and in memory of their own.

        Raises:
            CheckpointError: naming the tensors that are missing, unknown, of another shape, or not finite.
        """
        given = self.checkpoint.tensors
        taken = [name for names in self.sources.values() for name in names]
        # Tensors that only give the recipe's parameters, and those not needed, may have any shape.
        shapes = {name: tuple(given[name].shape) for name in (*self.known, *self.skipped()) if name in given}
        for target, names in self.sources.items():
            first, *rest = own[target].shape if own[target].ndim else (1,)
            shapes.update(dict.fromkeys(names, (first // len(names), *rest) if own[target].ndim else ()))
        wrong = mismatches(shapes, given) + self.wrong
        if wrong:
            raise self.checkpoint.error(f"does not fit: {listed(wrong, longest=200)}")
        if bad := [name for name in taken if not _is_finite(given[name])]:
            raise self.checkpoint.error(f"not finite or not of real numbers: {listed(bad)}")
        filled = {
            target: torch.cat([given[name].detach().to(torch.float32) for name in names]).clone()
            for target, names in self.sources.items()
        }
        filled.update({target: torch.full_like(own[target], value) for target, value in self.constants.items()})
        return filled


def _is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds real numbers that are finite in float32 too."""
    return tensor.is_floating_point() and bool(tensor.to(torch.float32).isfinite().all())
