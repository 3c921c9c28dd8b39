"""Weights that ship: loaded by the recipe's name, of half precision in the file, with what they say of themselves."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import astrape
from astrape.errors import RecipeError
from astrape.graph import load
from astrape.graph.recipe import Recipe
from astrape.graph.recipe.files import shipped_recipes
from astrape.graph.weights import shipped_weights, weights_metadata


def test_a_shipped_recipe_comes_with_its_weights() -> None:
    path = shipped_weights("astrape-mini")
    assert path is not None
    assert path.stat().st_size < 12e6
    stored = load_file(path)
    graph = astrape.load("astrape-mini")
    own = graph.state_dict()
    assert stored.keys() == own.keys()
    for name, tensor in stored.items():
        assert tensor.dtype == torch.float16
        assert torch.isfinite(tensor).all()
        assert torch.equal(own[name], tensor.float())


def test_a_compiled_recipe_and_one_for_training_are_fresh() -> None:
    weights = load_file(shipped_weights("astrape-mini"))  # type: ignore[arg-type]
    for fresh in (
        astrape.compile(Recipe.load("astrape-mini")),
        load("astrape-mini", training=True),
    ):
        assert not torch.equal(fresh.state_dict()["encoder_in.weight"], weights["encoder_in.weight"].float())


def test_a_file_and_a_recipe_without_any_have_no_shipped_weights() -> None:
    assert shipped_weights(shipped_recipes()["astrape-mini"]) is None
    assert shipped_weights("./astrape-mini.yaml") is None
    assert shipped_weights("echo") is None


def test_weights_say_what_they_are_for(tmp_path: Path) -> None:
    path = shipped_weights("astrape-mini")
    assert path is not None
    said = weights_metadata(path)
    assert said["recipe"] == "astrape-mini"
    assert said["speaker_encoder"] == "astrape-speaker"
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert weights_metadata(tmp_path / "plain.safetensors") == {}
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecipeError, match="broken"):
        weights_metadata(tmp_path / "broken.safetensors")
