"""Learning rates over the epochs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrape.training.optimisers import adamw, schedule_of
from astrape.training.stage import Optimiser


def rates(plan: Optimiser, epochs: int) -> list[float]:
    optimiser = adamw([torch.nn.Parameter(torch.zeros(1))], plan)
    schedule = schedule_of(optimiser, plan, epochs)
    found = []
    for _ in range(epochs + 1):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


@given(epochs=st.integers(1, 60), least=st.floats(0, 0.9), lr=st.floats(1e-6, 1))
def test_a_cosine_ends_at_its_least_share(epochs: int, least: float, lr: float) -> None:
    """Beside PyTorch's own cosine with that floor."""
    oracle = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(oracle, epochs, eta_min=lr * least)
    for found in rates(Optimiser(lr=lr, least=least), epochs):
        assert math.isclose(found, oracle.param_groups[0]["lr"], rel_tol=1e-9, abs_tol=1e-12 * lr)
        oracle.step()
        theirs.step()


def test_a_constant_rate_has_no_least() -> None:
    assert rates(Optimiser(lr=0.5, schedule="constant", least=0.25), 3) == [0.5] * 4


@pytest.mark.parametrize("least", [-0.1, 1.0, float("nan")])
def test_a_share_that_cannot_be_is_refused(least: float) -> None:
    with pytest.raises(ValueError, match="least"):
        Optimiser(least=least)
