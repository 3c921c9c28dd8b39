"""Every shipped recipe keeps the contract, its graph and all its blocks: what `astrape check` says of it."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from astrape.cli import cli
from astrape.graph.recipe import shipped_recipes

FULL_SIZE = [
    name
    for name in shipped_recipes()
    if name == "astrape-mini" or (name.startswith("astrape-vc") and name != "astrape-vc-small")
]
"""Millions of parameters; the small twin of astrape-vc, of the same blocks, runs every time, in many more chunkings,
and what astrape-mini is held to besides is in ``tests/recipes/test_mini_graph.py``.

In float64 and two chunkings each takes 4 minutes of one core (the encoder's attention half of it), in 25 half an hour.
"""


CHUNKINGS = "25" if os.environ.get("HYPOTHESIS_PROFILE") == "slow" else "8"
"""Number of chunkings: that of ``test_every_block.py``, which draws them for every block, beside those of 150 graphs
in ``tests/graph/test_random_graphs.py``. ``make slow`` draws as many as a user's ``astrape check`` does.
"""


def keeps_the_contract(name: str, examples: str) -> None:
    result = CliRunner().invoke(cli, ["check", name, "--examples", examples])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name not in FULL_SIZE])
def test_a_shipped_recipe_keeps_the_contract(name: str) -> None:
    keeps_the_contract(name, CHUNKINGS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_shipped_recipe_of_full_size_keeps_the_contract(name: str) -> None:
    keeps_the_contract(name, "2")
