"""A training whose checkpoints, log and weights are in a store: the numbers of one in a folder, faults in a line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from click.testing import CliRunner

import astrape
from astrape.audio.places import Place, PlaceError
from astrape.cli import cli
from astrape.training import run as running
from astrape.training.checkpoint import load_checkpoint
from astrape.training.errors import TrainingError
from astrape.training.run import train
from tests.training import grounds

pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")

pytestmark = [
    pytest.mark.usefixtures("read_cache"),
    pytest.mark.timeout(1800),  # how busy the machine is does not matter
]

RUN = ["log.jsonl", "recipe.yaml", "last.pt", "best.pt", "best.safetensors"]


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Place:
    name = uuid4().hex
    return Place(f"{request.getfixturevalue('s3')}/{name}" if request.param == "s3" else f"memory://{name}")


def entries(place: Place) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "encoder.log.jsonl").read().decode().splitlines()]


def test_a_run_in_a_store_resumes_to_the_numbers_of_one_in_a_folder(
    store: Place, tmp_path: Path, read_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit; stopped within an epoch, and killed between log and checkpoint."""
    whole = grounds.run(tmp_path / "whole", save_every_epoch=True)
    parts = grounds.options(store, save_every_epoch=True, checkpoint_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(running._Run, "_stopping", lambda self, at: at.step >= 2)
        assert not train(parts, lambda line: None).finished
    real = running.save_checkpoint

    def killed(path: Place, state: dict[str, Any]) -> None:
        if state["position"]["step"] == 5:
            raise KeyboardInterrupt
        real(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(running, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train(replace(parts, resume=""), lambda line: None)
    assert [entry["step"] for entry in entries(store) if "train" in entry] == [1, 2, 3, 4, 5]
    again = train(replace(parts, resume=str(store / "encoder.last.pt")), lambda line: None)
    assert again.finished
    assert entries(store) == entries(Place(tmp_path / "whole"))
    epochs = ["encoder.epoch-000.pt", "encoder.epoch-001.pt"]
    assert store.files() == sorted([*epochs, *(f"encoder.{ending}" for ending in RUN)])
    for name in ("last.pt", "best.pt", "epoch-000.pt"):
        first, second = (load_checkpoint(Place(place) / f"encoder.{name}") for place in (tmp_path / "whole", store))
        assert first["best"] == second["best"]
        assert first["position"] == second["position"]
        for key, tensor in first["graph"].items():
            assert torch.equal(tensor, second["graph"][key]), (name, key)
    near = astrape.load(str(whole.recipe), weights=str(whole.weights)).state_dict()
    far = astrape.load(str(again.recipe), weights=str(again.weights)).state_dict()
    assert all(torch.equal(tensor, far[key]) for key, tensor in near.items())
    # TensorBoard has a file for each session, and nothing is left half written here.
    assert len((store / "tensorboard" / "encoder").files()) == 3
    assert not list((read_cache / "outgoing").iterdir())


def test_a_run_of_the_same_name_is_found_in_the_store_and_overwritten(store: Place) -> None:
    options = grounds.options(store, save_every_epoch=True)
    train(options, lambda line: None)
    with pytest.raises(TrainingError, match=r"encoder\.last\.pt: a run of this name is there: --resume goes on with"):
        train(options, lambda line: None)
    (store / "encoder.epoch-007.pt").write(b"of the older run")
    (store / "encoder-epoch-007.pt").write(b"of another")
    shorter = replace(options, overwrite=True, settings=grounds.short("encoder", (("epochs",), 1)))
    train(shorter, lambda line: None)
    assert "encoder.epoch-000.pt" in store.files()
    assert not {"encoder.epoch-001.pt", "encoder.epoch-007.pt"} & set(store.files())
    assert "encoder-epoch-007.pt" in store.files()
    assert [entry["step"] for entry in entries(store) if "valid" in entry] == [4]
    with pytest.raises(TrainingError, match=r"none\.pt: there is no checkpoint to resume"):
        train(replace(options, resume=str(store / "none.pt")), lambda line: None)
    (store / "bad.pt").write(b"PK\x03\x04 and no more")
    with pytest.raises(TrainingError, match=r"bad\.pt: is damaged, or not a checkpoint of a training"):
        train(replace(options, resume=str(store / "bad.pt")), lambda line: None)


def test_the_command_takes_urls(s3: str, tmp_path: Path) -> None:
    root, place = grounds.ground(), f"{s3}/{uuid4().hex}"
    words = [
        "train-encoder", "--recipe", grounds.RECIPE, "--data", root / "vctk", "--cache", root / "cache",
        "--batch-size", 2, "--mel-frames", 160, "--eval-mel-frames", 160, "--steps-per-epoch", 2, "--epochs", 1,
        "--unseen", 0.25, "--run-name", "encoder", "--out-dir", place, "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(cli, [str(word) for word in words], prog_name="astrape")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["weights"] == f"{place}/encoder.best.safetensors"
    begun = CliRunner().invoke(
        cli,
        [str(word) for word in [*words, "--overwrite", "--init-from", f"{place}/encoder.best.safetensors"]],
        prog_name="astrape",
    )
    assert begun.exit_code == 0, begun.output
    assert "tensors to begin with" in begun.stderr


@pytest.mark.parametrize("fault", ["bucket", "unreachable", "credentials", "protocol"])
def test_a_place_that_cannot_be_had_is_told_in_a_line_before_the_first_step(
    fault: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    if fault in ("unreachable", "credentials"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    if fault == "credentials":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
    # Stores are opened with the environment of their first use.
    s3fs.S3FileSystem.clear_instance_cache()
    where = {"bucket": "s3://no-such-bucket/run", "protocol": "tape://run"}.get(fault, f"{s3}/run")
    said = {
        "bucket": "there is no such bucket: hint: make it first",
        "unreachable": "no server answers .*hint: look at the network and the endpoint, such as AWS_ENDPOINT_URL",
        "credentials": "no credentials; hint: .*AWS_ACCESS_KEY_ID",
        "protocol": "fsspec knows no 'tape://'; hint: s3://",
    }[fault]
    lines: list[str] = []
    for options in (grounds.options(Place(where)), grounds.options(Place(where), resume="")):
        with pytest.raises(PlaceError, match=f"^{where}/[^\n]*{said}[^\n]*$"):
            train(options, lines.append)
    s3fs.S3FileSystem.clear_instance_cache()
    assert not any("step" in line for line in lines)
