"""Two processes learn what one with all their windows learns: with gloo, in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from astrape.audio.places import Place
from astrape.corpus.layouts import read_corpus
from astrape.corpus.splits import split_corpus
from astrape.training.caches import Cache, find_caches, make_pack
from astrape.training.checkpoint import load_checkpoint
from tests.training import grounds
from tests.training.launching import launch, torchrun


def launched(processes: int, folder: Path, batch: int) -> None:
    encoder = grounds.trained_encoder() / "encoder.best.pt"
    launch("tests.training.two_processes", processes, folder, grounds.ground(), folder, batch, encoder)


def test_two_processes_are_one_with_all_their_windows(tmp_path: Path) -> None:
    """The gradients of a step in float64, encoder's, decoder's and discriminators'; a whole training in float32."""
    launched(1, tmp_path / "one", 4)
    launched(2, tmp_path / "two", 2)
    for stage in ("encoder", "decoder"):
        paths = [tmp_path / name / stage / "gradients.pt" for name in ("one", "two")]
        _same_gradients(*(torch.load(path, weights_only=True) for path in paths))
    _whole_runs(tmp_path)


@pytest.mark.timeout(1800)  # how busy the machine is does not matter
@pytest.mark.usefixtures("read_cache")
def test_two_processes_on_a_pack_take_shards_of_their_own_and_a_machine_fetches_each_once(
    tmp_path: Path, s3: str
) -> None:
    """From a store, two epochs and the validations between; in the second the shards are dealt anew."""
    caches = [Cache(folder) for folder in find_caches(grounds.ground() / "cache")]
    split = split_corpus(read_corpus(grounds.ground() / "vctk"), 0.25, 0)
    place = Place(s3) / "pack"
    made = make_pack(caches, split, place, shard_bytes=40_000)
    assert made.shards == 21, "an utterance each"
    torchrun("tests.training.two_processes_of_packs", 2, grounds.ground(), place, tmp_path)
    notes = [(tmp_path / f"process.{rank}").read_text().split("\n")[:-1] for rank in range(2)]
    words = [[line.split() for line in own] for own in notes]
    read = [{(epoch, shard) for what, *rest in own if what == "read" for epoch, shard in [rest]} for own in words]
    trained = [{(epoch, shard) for epoch, shard in own if shard.startswith("train-")} for own in read]
    for epoch in "01":
        one, two = ({shard for of, shard in own if of == epoch} for own in trained)
        # Six windows an epoch of each, of six shards or so.
        assert one
        assert two
        assert not one & two
    shards = [one[1] for own in words for one in own if one[0] == "fetched" and one[1].endswith(".tar")]
    assert len(shards) == len(set(shards))
    assert set(shards) >= {shard for own in read for _, shard in own}
    assert all(any(what == "fetched" for what, *_ in own) for own in words), "both fetch"


def _same_gradients(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert list(one["gradients"]) == list(two["gradients"])
    assert len(one["gradients"]) > 20
    for name, gradient in one["gradients"].items():
        scale = max(float(gradient.abs().max()), 1e-9)
        assert float((gradient - two["gradients"][name]).abs().max()) <= 1e-6 * scale, name
    for phase, values in one["values"].items():
        for name, value in values.items():
            assert value == pytest.approx(two["values"][phase][name], rel=1e-6), (phase, name)


def _whole_runs(folder: Path) -> None:
    curves = [
        [entry["train"]["loss"] for entry in grounds.curve(folder / name / "encoder", "run") if "train" in entry]
        for name in ("one", "two")
    ]
    assert len(curves[0]) == 8
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    first, second = (load_checkpoint(folder / name / "encoder" / "run.best.pt") for name in ("one", "two"))
    assert first["facts"] == second["facts"]
    metrics = [state["history"][-1]["metrics"] for state in (first, second)]
    for name in ("content_cosine", "mean_vector_cosine", "loss_content_l1"):
        assert metrics[1][name] == pytest.approx(metrics[0][name], abs=2e-3)
    assert metrics[1]["mean_vector_cosine"] == pytest.approx(metrics[0]["mean_vector_cosine"], abs=1e-6)
