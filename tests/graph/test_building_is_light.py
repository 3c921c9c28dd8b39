"""Cost of building blocks: no more memory than the budget, and no part of PyTorch that takes seconds to load."""

from __future__ import annotations

import pytest
import torch

from astrape.graph.compile.budget import MemoryBudget
from tests.forks import run_program

CODE = """
import sys
import astrape
blocks = {"pitch": {"use": "pitch_tracker", "from": "mic"}, "hall": {"use": "room", "from": "mic", "seconds": 0.05},
          "bands": {"use": "crossover", "from": "mic", "frequencies": [900.0]}}
astrape.compile({"recipe": "r", "inputs": {"mic": {"rate": 16000, "channels": 1}}, "blocks": blocks,
                 "outputs": {"f0": "pitch", "wet": "hall", "low": "bands.0", "high": "bands.1"}})
print("torch._dynamo" in sys.modules)
"""


def test_compiling_does_not_load_a_compiler():
    done = run_program(CODE)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(1 << 40),
        lambda: torch.arange(0, 1 << 40, 2),
        lambda: torch.arange(0.0, 1e12, step=1.0),
        lambda: torch.eye(1 << 20),
        lambda: torch.eye(4, m=1 << 40),
    ],
)
def test_counted_tensors_are_refused_before_they_are_made(make):
    with MemoryBudget(), pytest.raises(MemoryError, match="MiB"):
        make()


def test_counted_tensors_that_fit_are_made():
    with MemoryBudget():
        assert torch.arange(5).tolist() == [0, 1, 2, 3, 4]
        assert torch.arange(5, 0, -2).tolist() == [5, 3, 1]
        assert torch.eye(2, 3).shape == (2, 3)
