"""The training section: what it says of the shipped recipes, and what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

import astrape
from astrape.training.architecture import Change, changed, recipe_text, standalone
from astrape.training.errors import TrainingError
from astrape.training.learner import build_losses, trained_parameters
from astrape.training.section import read_section
from astrape.training.settings import Setting, apply, hold_against

FULL = ["astrape-vc", "astrape-vc-original", "astrape-vc-lowlatency"]


@pytest.mark.parametrize("name", [*FULL, "astrape-vc-small"])
def test_the_voice_recipes_say_how_they_are_trained(name: str) -> None:
    recipe = astrape.Recipe.load(name)
    section = read_section(recipe)
    assert section.features == "features"
    encoder, decoder = section.stages["encoder"], section.stages["decoder"]
    weights = {plan.name: plan.weight for plan in encoder.phases[0].losses}
    assert (weights["content_cosine"], weights["content_l1"], weights["delta"]) == (1.0, 0.5, 0.04)
    assert (weights["forecast_1"], weights["forecast_2"], weights["speaker"]) == (0.05, 0.05, 0.05)
    assert {plan.voiced for plan in encoder.phases[0].losses if plan.name.startswith("content")} == {1.5}
    assert [phase.discriminators is not None for phase in decoder.phases] == [False, True]
    matching = next(plan for plan in decoder.phases[1].losses if plan.use == "feature_matching")
    assert matching.weight == 2.0
    assert decoder.optimiser.betas == (0.8, 0.99)
    if name != "astrape-vc-small":
        assert (encoder.epochs, encoder.steps_per_epoch, encoder.batch, encoder.window) == (60, 2000, 2, 800)
        assert (decoder.phases[0].epochs, decoder.epochs) == (10, 60)
        judges = decoder.phases[1].discriminators
        assert judges is not None
        assert (judges.window, judges.optimiser.lr) == (16384, 2e-4)


def test_the_encoder_has_24_92_million_parameters_as_trained() -> None:
    recipe = astrape.Recipe.load("astrape-vc")
    stage = read_section(recipe).stages["encoder"]
    graph = astrape.compile(recipe, training=True)
    own = sum(parameter.numel() for parameter in trained_parameters(graph, stage.train).values())
    # VCTK has 109 speakers of whom there are recordings in English.
    losses = build_losses(stage.phases, graph, speakers=109)
    classifier = sum(parameter.numel() for loss in losses.values() for parameter in loss.parameters())
    deployed = {id(parameter) for parameter in graph.deploy().parameters()}
    live = sum(p.numel() for p in trained_parameters(graph, stage.train).values() if id(p) in deployed)
    assert live == 22_721_792
    assert round((own + classifier) / 1e6, 2) == 24.92


def text(**changes: Any) -> str:
    """The small recipe with its encoder's section changed: ``losses__delta__weight='x'``; ``None`` removes."""
    values = standalone(astrape.Recipe.load("astrape-vc-small"))
    for way, value in changes.items():
        *outer, last = way.split("__")
        place = values["training"]
        for key in outer:
            place = place[int(key)] if isinstance(place, list) else place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return recipe_text(values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder__optimizer": {}}, "training.encoder.optimizer is an unknown key.*did you mean 'optimiser'"),
        ({"featurs": "x"}, "training.featurs is an unknown key.*did you mean 'features'"),
        ({"features": "wavl"}, "training.features is 'wavl', an unknown output"),
        ({"encoder__train": ["transformr"]}, "train.0 is 'transformr', an unknown node: did you mean 'transformer'"),
        ({"encoder__train": "transformer"}, "train is 'transformer': give a list"),
        ({"encoder__window": 0}, "training.encoder.window is 0: give a whole number from 1"),
        ({"encoder__window": True}, "window is true"),
        ({"encoder__batch": 2.5}, "batch is 2.5"),
        ({"encoder__window": None}, "training.encoder lacks the key 'window'"),
        ({"encoder__losses__delta__weight": "much"}, r"losses.delta.weight is 'much': give a number"),
        ({"encoder__losses__delta__weight": -1}, "weight is -1: give a number from 0 to 1000000"),
        ({"encoder__losses__delta__use": "cosin"}, "is 'cosin', an unknown loss: did you mean 'cosine'"),
        ({"encoder__losses__delta__of": "contnt"}, "is 'contnt', an unknown output: did you mean 'content'"),
        ({"encoder__losses__delta__to": "teacher.contents"}, "did you mean 'teacher.content'"),
        ({"encoder__losses": {}}, "losses is empty"),
        ({"encoder__phases": []}, "phases stands beside losses: move losses into a phase"),
        ({"encoder__epochs": 0}, "encoder.epochs is 0 in all: give at least 1"),
        ({"encoder__optimiser__schedule": "steps"}, "schedule is 'steps': give cosine or constant"),
        ({"encoder__relax": {"use": "gumbel", "start": 20}}, "start is 20: give a number from 0 to 10"),
        ({"decoder__phases__0__losses": 3}, r"decoder.phases.0.losses is 3: give a mapping"),
        ({"decoder__phases__1__name": "reconstruction"}, "two phases of one name"),
        ({"decoder__phases__1__discriminators__of": "x"}, "phases.1.discriminators.of is 'x', an unknown output"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_place(changes: dict[str, Any], said: str) -> None:
    recipe = astrape.Recipe.parse(text(**changes), file="mine.yaml")
    with pytest.raises(TrainingError, match=said) as caught:
        read_section(recipe)
    assert str(caught.value).startswith("mine.yaml:")
    assert int(str(caught.value).split(":")[1]) > 1


def test_a_recipe_without_a_section_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"'tiny-encoder' has no training section"):
        read_section(astrape.Recipe.load("tiny-encoder"))
    recipe = astrape.Recipe.parse(text(decoder=None), file="mine.yaml")
    with pytest.raises(TrainingError, match=r"does not say how to train its decoder"):
        read_section(recipe).stage("decoder", recipe)


@pytest.mark.parametrize("name", [*FULL, "astrape-vc-small"])
def test_a_recipe_in_one_piece_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = astrape.Recipe.load(name)
    again = astrape.Recipe.parse(recipe_text(standalone(recipe)))
    assert again.training == recipe.training
    assert [(node.name, node.use, node.sources, node.params) for node in again.nodes] == [
        (node.name, node.use, node.sources, node.params) for node in recipe.nodes
    ]


def test_sizes_change_inside_nested_recipes() -> None:
    recipe = astrape.Recipe.load("astrape-vc")
    other, said = changed(recipe, "encoder", [Change("--n-layers", "transformer", "layers", 2)])
    assert said == ["--n-layers: transformer.layers is 2 and not 8"]
    layers = next(node.params["layers"] for node in other.nodes if node.name == "encoder/transformer")
    prenet = next(node.params["layers"] for node in other.nodes if node.name == "decoder/prenet")
    assert (layers, prenet) == (2, 4)
    same, said = changed(recipe, "encoder", [Change("--n-layers", "transformer", "layers", 8)])
    assert same is recipe
    assert said == []
    with pytest.raises(TrainingError, match=r"--n-layers: .* 0 nodes 'transformr' .* did you mean 'transformer'"):
        changed(recipe, "encoder", [Change("--n-layers", "transformr", "layers", 2)])


def test_settings_find_their_losses_in_every_phase() -> None:
    section = astrape.Recipe.load("astrape-vc").training
    before = copy.deepcopy(section)
    other, said = apply(section, "decoder", [Setting("--mrstft-weight", ("losses", "stft", "weight"), 3.0)])
    assert section == before
    assert [phase["losses"]["stft"]["weight"] for phase in other["decoder"]["phases"]] == [3.0, 3.0]
    assert said == ["--mrstft-weight: losses.stft.weight is 3.0 and not 1.0"]
    boosted, _ = apply(section, "encoder", [Setting("--voiced-boost", ("losses", "*", "voiced"), 2.0)])
    losses = boosted["encoder"]["losses"]
    assert losses["content_cosine"]["voiced"] == 2.0
    assert "voiced" not in losses["speaker"]
    with pytest.raises(TrainingError, match=r"--grl-weight: training.decoder .* has no losses.speaker.weight"):
        apply(section, "decoder", [Setting("--grl-weight", ("losses", "speaker", "weight"), 1.0)])


def test_a_checkpoint_insists_on_its_settings() -> None:
    was = {"encoder": {"optimiser": {"lr": 1e-4}, "epochs": 60}, "seed": 1}
    assert hold_against(was, was, "x.pt") == []
    more = {"encoder": {"optimiser": {"lr": 1e-4}, "epochs": 80}, "seed": 1}
    assert hold_against(was, more, "x.pt") == ["encoder.epochs is 80 here and 60 in the checkpoint"]
    other = {"encoder": {"optimiser": {"lr": 3e-4}, "epochs": 60}, "seed": 2}
    with pytest.raises(TrainingError, match=r"lr is 0.0003 here and 0.0001 in the checkpoint; seed is 2 here and 1"):
        hold_against(was, other, "x.pt")
