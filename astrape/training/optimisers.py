"""Optimisers and how their rates go, from a recipe's plans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from astrape.training.stage import Optimiser

__all__ = ["adamw", "plain_state", "schedule_of", "warmed"]


def adamw(parameters: list[nn.Parameter], plan: Optimiser) -> torch.optim.Optimizer:
    """PyTorch's AdamW by a recipe's plan."""
    return torch.optim.AdamW(parameters, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay)


def schedule_of(optimiser: torch.optim.Optimizer, plan: Optimiser, epochs: int) -> Any:
    """PyTorch's scheduler of the rate, epoch by epoch.

    By a function of the epoch, and not ``CosineAnnealingLR``: that keeps its length in its state, so a run that is
    resumed with more epochs would go down over the old ones, and it computes each rate from the last one's rounding.
    """

    def share(epoch: int) -> float:
        if plan.schedule == "constant":
            return 1.0
        fallen = 0.5 * (1 + math.cos(math.pi * min(epoch, epochs) / max(1, epochs)))
        return plan.least + (1 - plan.least) * fallen

    return torch.optim.lr_scheduler.LambdaLR(optimiser, share)


@contextmanager
def warmed(optimiser: torch.optim.Optimizer, steps: int, step: int) -> Iterator[None]:
    """The optimiser at its rate, or in the first steps below it: the schedule goes by epochs, and this by steps."""
    rates = [group["lr"] for group in optimiser.param_groups]
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate * min(1.0, (step + 1) / (steps + 1))
    yield
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate


def plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's state without its function, which it would leave out itself but for a place."""
    return {key: value for key, value in state.items() if key != "lr_lambdas"} | {"lr_lambdas": [None]}
