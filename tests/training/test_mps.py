"""Losses, discriminators and the deploy graph use operators that Apple's GPUs have, by PyTorch's own table of kernels.

No such GPU is here to try it on. PyTorch's wheel carries the table its dispatcher is generated from: which operators
have a kernel for MPS, and which are composed of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import astrape
from astrape.training.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
)
from astrape.training.objectives import LossContext, build_loss, loss_class, loss_names

torchgen = pytest.importorskip("torchgen")
TABLE = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
PAGE = Path(__file__).parents[2] / "docs/objectives.md"

ELSEWHERE = {"_scaled_dot_product_flash_attention_for_cpu"}
"""The CPU's operator for attention; other devices have their own."""

LOSSES = [name for name in loss_names() if name != "speaker_likeness"]
"""Without the one whose network is another package's."""

CONTEXT = LossContext(
    {"content": 5, "wav": 1, "pitch": 2}, {"content": Fraction(25), "wav": Fraction(16000), "pitch": Fraction(175)}, 3
)


class Operators(TorchDispatchMode):
    """Notes the operators that run, and those that see float64."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.wide: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::")
        self.names.add(name)
        tensors = [leaf for leaf in tree_leaves((args, out)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.dtype == torch.float64 for tensor in tensors):
            self.wide.add(name)
        return out


@cache
def functions() -> dict[str, dict[str, Any]]:
    entries = yaml.load(TABLE.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].split("(")[0]: entry for entry in entries}


def runs_on_mps(name: str) -> bool:
    entry = functions().get(name)
    if entry is None:
        return False
    if "structured_delegate" in entry:
        return runs_on_mps(entry["structured_delegate"])
    keys = ",".join(entry.get("dispatch", {"CompositeImplicitAutograd": ""}))
    return "MPS" in keys or "Composite" in keys


def traced(name: str) -> Operators:
    """A loss forward and backward, float32, with absent frames."""
    cls = loss_class(name)
    signal = "wav" if cls.compares in ("samples", "judgements") else "pitch" if name == "f0" else "content"
    loss = build_loss({"use": name, "of": signal}, CONTEXT)
    frames = 6000 if signal == "wav" else 9
    x = torch.rand(2, loss.source.channels, frames, requires_grad=True)
    y: Any = torch.rand(2, loss.source.channels, frames)
    if cls.compares in ("speakers", "labels"):
        y = torch.tensor([0, 1]) if cls.compares == "speakers" else torch.randint(-1, 5, (2, 1, frames))
    weights = torch.ones(2, 1, frames)
    weights[1, :, 5:] = 0
    networks = [MultiPeriodDiscriminator([2], [2, 2]), MultiScaleDiscriminator(2, 8)]
    networks.append(MultiResolutionDiscriminator([128], 2))
    with Operators() as seen:
        if cls.compares == "judgements":
            made, real = ([one for net in networks for one in net(wave)] for wave in (x, y))
            loss(made, real, weights).total.backward()
        else:
            loss(x, y, weights).total.backward()
    return seen


def test_the_table_tells_kernels_apart() -> None:
    assert runs_on_mps("bmm")
    assert runs_on_mps("convolution")
    assert not runs_on_mps("linalg_eig")
    assert not runs_on_mps("no_such_operator")


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_runs_on_mps(name: str) -> None:
    seen = traced(name)
    assert len(seen.names) > 3
    assert {one for one in seen.names if not runs_on_mps(one)} == set()
    assert seen.wide == set(), "MPS has no float64"


def test_the_deploy_graph_runs_on_mps() -> None:
    graph = astrape.load("astrape-vc-small")
    with torch.no_grad(), Operators() as seen:
        graph.step(torch.rand(1, 1, 2 * graph.quantum), graph.init_state(1), {"speaker": torch.rand(1, 128)})
    assert {one for one in seen.names if not runs_on_mps(one)} <= ELSEWHERE


def listed() -> Iterator[str]:
    text = PAGE.read_text(encoding="utf-8").split("## Operators")[1]
    yield from re.findall(r"`([a-z0-9_.A-Z]+)`", text.split("```")[0])


def test_the_page_lists_the_operators() -> None:
    """Operators of losses and discriminators; versions of PyTorch differ in a few, so names go without overloads."""
    own = {one.split(".")[0] for name in LOSSES for one in traced(name).names}
    known = set(listed())
    assert own - known == set(), "add them to docs/objectives.md"
