"""Hindsight: nothing is changed, and everything that meets it waits."""

from fractions import Fraction

import pytest
import torch

import astrape
from astrape.blocks import Stream
from astrape.blocks.hindsight import Hindsight
from astrape.testing import check_block


def test_it_passes_frames_on_and_declares_their_age() -> None:
    block = Hindsight(Stream(100, 3), frames=2)
    check_block(block)
    assert block.latency == Fraction(1, 50)
    x = torch.randn(2, 3, 9)
    assert torch.equal(block(x), x)


def test_a_path_that_meets_it_is_delayed_by_as_many_frames() -> None:
    graph = astrape.compile(
        {
            "recipe": "late",
            "inputs": {"in": {"rate": 100, "channels": 1}},
            "blocks": {
                "thought": {"use": "hindsight", "from": "in", "frames": 2},
                "sum": {"use": "add", "from": ["thought", "in"]},
            },
            "outputs": {"out": "sum"},
        }
    )
    assert graph.latency == Fraction(1, 50)
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    assert torch.equal(graph(x), torch.tensor([[[1.0, 2.0, 4.0, 6.0]]]))


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="frames"):
        Hindsight(Stream(100, 1), frames=-1)
