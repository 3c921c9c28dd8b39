from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import astrape
from astrape import Graph


@pytest.fixture(scope="module")
def shipped() -> Iterator[Callable[[str], Graph]]:
    """Loads a shipped recipe once for all tests of a file that only look at it: one of full size takes 0.5 s."""
    graphs: dict[str, Graph] = {}

    def load(name: str) -> Graph:
        if name not in graphs:
            torch.manual_seed(7)
            graphs[name] = astrape.load(name)
        return graphs[name]

    yield load
    # Each is of 170 MB.
    graphs.clear()
