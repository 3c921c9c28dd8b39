"""The shipped voice from nothing: one command that can be stopped, counts its hours, and ends in float16 weights."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import astrape
from astrape.training import run as running
from astrape.training.default.hours import Hours, machine
from astrape.training.default.run import DefaultPlan, _first_epochs, run
from astrape.training.default.weights import write_weights
from astrape.training.errors import TrainingError
from astrape.training.section import read_section
from tests.training import parallel


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and a recipe."""
    root = tmp_path_factory.mktemp("default")
    parallel.write_corpus(root / "corpus")
    for path in (root / "corpus").rglob("*.spk.npy"):
        path.unlink()
    (root / "tones.yaml").write_text(parallel.RECIPE)
    return root


def copied(ground: Path, folder: Path) -> tuple[Path, DefaultPlan]:
    shutil.copytree(ground, folder)
    plan = DefaultPlan(hours=0, recipe=str(folder / "tones.yaml"), probes=4, teacher="spectral", epochs=2)
    return folder, plan


def test_stopped_and_taken_up_again_it_makes_the_same_weights(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, plan = copied(ground, tmp_path / "whole")
    done = run(whole, plan, lambda line: None)
    assert done.weights == whole / "tones.safetensors"
    parts, plan = copied(ground, tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(running._Run, "_stopping", lambda self, at: at.step >= 3)
        stopped = run(parts, plan, lambda line: None)
    assert stopped.weights is None
    again = run(parts, plan, lambda line: None)
    assert again.weights is not None
    one, other = load_file(done.weights), load_file(again.weights)
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {tensor.dtype for tensor in one.values()} == {torch.float16}
    assert set(again.hours["parts"]) == {"corpus", "caches", "training"}
    assert again.hours["runs"] == 6
    assert again.hours["machines"] == [machine()]
    with safe_open(again.weights, "pt") as file:
        about = file.metadata()
    assert (about["recipe"], about["speaker_encoder"], about["machine"]) == ("tones", "spectral", machine())
    assert any("hours" in line and machine() in "\n".join(again.lines()) for line in again.lines())
    assert json.loads(json.dumps(again.to_dict()))["finished"]
    # A third time there is nothing left to do, and the weights are those.
    third = run(parts, plan, lambda line: None)
    assert all(torch.equal(one[name], tensor) for name, tensor in load_file(str(third.weights)).items())


def test_phases_share_fewer_epochs_as_they_share_the_recipe_s(ground: Path, tmp_path: Path) -> None:
    plan = DefaultPlan(recipe="astrape-mini")
    shared = {epochs: _first_epochs(replace(plan, epochs=epochs)) for epochs in (None, 1, 2, 20, 70, 140)}
    # 66 to 4: the last phase comes into a taste of it too, but for one of a single epoch.
    assert shared == {None: None, 1: None, 2: 1, 20: 19, 70: 66, 140: 132}
    assert _first_epochs(DefaultPlan(recipe=str(ground / "tones.yaml"), epochs=5)) is None


def test_the_recipe_that_ships_is_trained_for_as_many_steps_as_its_card_says() -> None:
    recipe = astrape.Recipe.load("astrape-mini")
    stage = read_section(recipe).stage("voice", recipe)
    assert 17_000 <= stage.epochs * stage.steps_per_epoch <= 20_000
    assert stage.phases[-1].discriminators is not None
    assert stage.pairs is not None
    # A step has whole rounds of the sources, two rows of each draw.
    assert stage.batch == 2 * sum(stage.pairs.shares.values())


def test_other_plans_than_the_checkpoint_s_are_refused(ground: Path, tmp_path: Path) -> None:
    work, plan = copied(ground, tmp_path / "work")
    run(work, replace(plan, epochs=1), lambda line: None)
    with pytest.raises(TrainingError, match=r"seed is 7 here and 42 in the checkpoint"):
        run(work, replace(plan, epochs=1, seed=7), lambda line: None)


def test_no_corpus_and_none_to_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds no manifest.jsonl: give --hours above 0"):
        run(tmp_path, DefaultPlan(hours=0), lambda line: None)


def test_hours_count_what_a_killed_run_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that never came to its end is counted up to its last note; two of one part add up."""
    monkeypatch.setattr("astrape.training.default.hours.EVERY", 0.05)
    hours = Hours(tmp_path / "hours")
    part = hours.part("training")
    begun = time.time()
    part.__enter__()
    # Noted twice at least, however busy the machine is.
    while hours.total()["parts"].get("training", 0.0) * 3600 <= 0.06:
        time.sleep(0.01)
    killed = hours.total()
    assert 0.06 < killed["parts"]["training"] * 3600 <= time.time() - begun
    with pytest.raises(KeyError), hours.part("training"):
        raise KeyError
    total = hours.total()
    assert total["runs"] == 2
    assert total["hours"] >= killed["hours"]
    part.__exit__(None, None, None)


def test_weights_are_rounded_to_float16_or_refused(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(50, 3), "count": torch.arange(3), "table": torch.randn(4, dtype=torch.float64)}
    save_file(tensors, tmp_path / "a.safetensors")
    write_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors", {"recipe": "x"})
    found = load_file(tmp_path / "b.safetensors")
    assert torch.equal(found["w"], tensors["w"].half())
    assert torch.equal(found["count"], tensors["count"])
    assert torch.equal(found["table"], tensors["table"])
    for bad in (1e5, float("nan")):
        save_file({"w": torch.tensor([bad])}, tmp_path / "a.safetensors")
        with pytest.raises(TrainingError, match=r"'w' has a weight of (100000|nan), and float16 ends at 65504"):
            write_weights(tmp_path / "a.safetensors", tmp_path / "c.safetensors", {})
    assert not (tmp_path / "c.safetensors").exists()
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(TrainingError, match="cannot be read as safetensors"):
        write_weights(tmp_path / "a.safetensors", tmp_path / "c.safetensors", {})
