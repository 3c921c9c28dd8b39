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
    contract,
    controls,
    declarations,
    endurance,
    framing,
    precision,
    purity,
    rows,
    session,
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


CHECKS: dict[Callable[[Subject], object], str] = {
    declarations.check_declarations: "declarations",
    states.check_state: "state",
    states.check_reset: "reset",
    states.check_row_reset: "reset",
    purity.check_purity: "purity",
    streaming.check_snapshot: "snapshot",
    causality.check_lookahead: "look-ahead",
    causality.check_lookahead_gradient: "look-ahead gradient",
    rows.check_row_isolation: "row isolation",
    rows.check_nan_isolation: "NaN isolation",
    streaming.check_empty_step: "empty step",
    streaming.check_step_equals_forward: "step equals forward",
    timing.check_receptive_field: "receptive field",
    timing.check_oldest_input: "oldest input",
    timing.check_latency: "latency",
    streaming.check_right_padding: "right padding",
    controls.check_controls: "controls",
    precision.check_finite: "finite",
    streaming.check_gradients: "gradients",
    precision.check_precision: "precision",
    endurance.check_counters: "counters",
    endurance.check_long_run: "long run",
}
"""The checks of a block, with the property that each of them is about."""


def run_checks(subject: Subject, property_name: str) -> None:
    """The checks of one property, in order."""
    checks = [check for check, own in CHECKS.items() if own == property_name]
    for check in checks if subject.streams else [causality.check_declared_lookahead]:
        check(subject)


def test_every_property_has_a_specimen() -> None:
    assert set(CHECKS.values()) == {property_name for _, property_name in ZOO.values()}


def test_no_check_of_a_block_is_left_out() -> None:
    """Those of sessions have broken sessions, in ``test_graph_contract.py``; a device needs an accelerator."""
    elsewhere = {contract.__name__, session.__name__, framing.__name__}
    named = {check for name, check in vars(contract).items() if name.startswith("check_")}
    of_blocks = {check for check in named if check.__module__ not in elsewhere}
    besides = {precision.check_device, timing.check_newest_input, causality.check_declared_lookahead}
    assert of_blocks - besides == set(CHECKS)


@pytest.mark.parametrize("name", ZOO)
def test_the_check_of_that_property_alone_rejects_it_too(name: str) -> None:
    torch.manual_seed(0)
    build, property_name = ZOO[name]
    with pytest.raises(ContractError) as caught:
        run_checks(Subject(build()), property_name)
    assert caught.value.property_name == property_name, str(caught.value)


def test_a_row_that_is_reset_alone_has_a_check_of_its_own() -> None:
    subject = Subject(ZOO["AgeOfTheFirstRow"][0]())
    states.check_reset(subject)
    with pytest.raises(ContractError, match="the row that was reset went on differently"):
        states.check_row_reset(subject)


def test_the_error_is_an_assertion_and_one_of_the_library() -> None:
    build, _ = ZOO["BatchMean"]
    with pytest.raises(AssertionError) as caught:
        check_block(build())
    assert isinstance(caught.value, AstrapeError)
