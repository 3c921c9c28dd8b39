"""Every broken block is rejected, and for the fault it has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from astrape.errors import AstrapeError
from astrape.measure import causality, timing
from astrape.testing import (
    ContractError,
    Subject,
    check_block,
    controls,
    declarations,
    endurance,
    precision,
    purity,
    rows,
    states,
    streaming,
)
from tests.testing.zoo import ZOO


@pytest.mark.parametrize("name", ZOO)
def test_each_specimen_is_rejected_for_its_own_fault(name: str) -> None:
    torch.manual_seed(0)
    build, property_name = ZOO[name]
    with pytest.raises(ContractError) as caught:
        check_block(build(), examples=10)
    assert caught.value.property_name == property_name, str(caught.value)
    assert len(str(caught.value)) > 40, "a message says what, where and how to fix it"


CHECKS: dict[str, Callable[[Subject], object]] = {
    "declarations": declarations.check_declarations,
    "state": states.check_state,
    "reset": states.check_reset,
    "purity": purity.check_purity,
    "snapshot": streaming.check_snapshot,
    "look-ahead": causality.check_lookahead,
    "look-ahead gradient": causality.check_lookahead_gradient,
    "row isolation": rows.check_row_isolation,
    "NaN isolation": rows.check_nan_isolation,
    "empty step": streaming.check_empty_step,
    "step equals forward": streaming.check_step_equals_forward,
    "receptive field": timing.check_receptive_field,
    "oldest input": timing.check_oldest_input,
    "latency": timing.check_latency,
    "right padding": streaming.check_right_padding,
    "controls": controls.check_controls,
    "finite": precision.check_finite,
    "gradients": streaming.check_gradients,
    "precision": precision.check_precision,
    "counters": endurance.check_counters,
    "long run": endurance.check_long_run,
}


def test_every_property_has_a_specimen() -> None:
    assert set(CHECKS) == {property_name for _, property_name in ZOO.values()}


@pytest.mark.parametrize("name", ZOO)
def test_the_check_of_that_property_alone_rejects_it_too(name: str) -> None:
    torch.manual_seed(0)
    build, property_name = ZOO[name]
    subject = Subject(build())
    check = CHECKS[property_name] if subject.streams else causality.check_declared_lookahead
    with pytest.raises(ContractError) as caught:
        check(subject)
    assert caught.value.property_name == property_name, str(caught.value)


def test_the_error_is_an_assertion_and_one_of_the_library() -> None:
    build, _ = ZOO["BatchMean"]
    with pytest.raises(AssertionError) as caught:
        check_block(build())
    assert isinstance(caught.value, AstrapeError)
