"""Every broken block is rejected, and for the fault it has."""

from __future__ import annotations

import pytest
import torch
from zoo import ZOO

from astrape.errors import AstrapeError
from astrape.testing import ContractError, check_block


@pytest.mark.parametrize("name", ZOO)
def test_each_specimen_is_rejected_for_its_own_fault(name: str) -> None:
    torch.manual_seed(0)
    build, property_name = ZOO[name]
    with pytest.raises(ContractError) as caught:
        check_block(build(), examples=10)
    assert caught.value.property_name == property_name, str(caught.value)
    assert len(str(caught.value)) > 40, "a message says what, where and how to mend it"


def test_the_error_is_an_assertion_and_one_of_the_library() -> None:
    build, _ = ZOO["BatchMean"]
    with pytest.raises(AssertionError) as caught:
        check_block(build())
    assert isinstance(caught.value, AstrapeError)
