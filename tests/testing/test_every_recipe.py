"""Every shipped recipe keeps the contract, its graph and all its blocks: what `astrape check` says of it."""

from __future__ import annotations

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


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name not in FULL_SIZE])
def test_a_shipped_recipe_keeps_the_contract(name: str, *options: str) -> None:
    result = CliRunner().invoke(cli, ["check", name, *options])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_shipped_recipe_of_full_size_keeps_the_contract(name: str) -> None:
    test_a_shipped_recipe_keeps_the_contract(name, "--examples", "2")
