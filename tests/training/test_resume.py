"""A training that was stopped or killed goes on as if nothing had been, and says when it cannot."""

from __future__ import annotations

import functools
import math
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

import astrape.training.architecture
from astrape.training import run as running
from astrape.training.checkpoint import (
    check_out_dir,
    link_file,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    write_file,
)
from astrape.training.errors import TrainingError
from astrape.training.journal import Journal
from astrape.training.run import train
from tests.forks import start_module
from tests.training import grounds


def losses(folder: Path, name: str) -> list[tuple[int, dict[str, float]]]:
    return [(entry["step"], entry["train"]) for entry in grounds.curve(folder, name) if "train" in entry]


def validations(folder: Path, name: str) -> list[dict[str, float]]:
    return [entry["valid"] for entry in grounds.curve(folder, name) if "valid" in entry]


def stopped_after(steps: int, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until so many steps are made, as if somebody had asked to stop then."""
    with monkeypatch.context() as patch:
        patch.setattr(running._Run, "_stopping", lambda self, at: at.step >= steps)
        assert not train(options, lambda line: None).finished


def stopped_and_resumed(steps: int, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run in two parts: until so many steps are made, and from its own last checkpoint on."""
    stopped_after(steps, options, monkeypatch)
    assert train(replace(options, resume=""), lambda line: None).finished


@pytest.mark.timeout(1200)  # how busy the machine is does not matter
@pytest.mark.parametrize(("stage", "stops"), [("encoder", (3, 4)), ("decoder", (2, 6))])
def test_the_curve_of_a_resumed_run_is_that_of_one_that_never_stopped(
    stage: str, stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: losses, validations and weights. Stopped within an epoch, at its end, in both phases."""
    given: dict[str, Any] = {"encoder": grounds.trained_encoder() / "encoder.best.pt"} if stage == "decoder" else {}
    relax = [(("relax",), {"use": "noise", "start": 0.5, "end": 0.1})] if stage == "encoder" else []
    whole = grounds.run(tmp_path / "whole", stage, *relax, **given)
    parts = grounds.options(tmp_path / "parts", stage, *relax, **given)
    for number, steps in enumerate(stops):
        stopped_after(steps, replace(parts, resume="" if number else None), monkeypatch)
    torch.manual_seed(12345)
    again = train(replace(parts, resume=""), lambda line: None)
    assert again.finished
    assert losses(tmp_path / "parts", stage) == losses(tmp_path / "whole", stage)
    assert validations(tmp_path / "parts", stage) == validations(tmp_path / "whole", stage)
    first, second = load_checkpoint(whole.checkpoint), load_checkpoint(again.checkpoint)
    assert first["best"] == second["best"]
    for name, tensor in first["graph"].items():
        assert torch.equal(tensor, second["graph"][name]), name


def test_other_settings_than_the_checkpoint_s_are_refused_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = grounds.options(tmp_path)
    stopped_after(2, options, monkeypatch)
    with pytest.raises(TrainingError, match=r"a run of this name is there: --resume goes on with it, --overwrite"):
        train(options, print)
    resumed = replace(options, resume="", settings=())
    other = grounds.short("encoder", (("optimiser", "lr"), 0.5))
    with pytest.raises(TrainingError, match=r"optimiser.lr is 0.5 here and 0.003 in the checkpoint"):
        train(replace(resumed, settings=other), print)
    with pytest.raises(TrainingError, match=r"seed is 7 here and 42 in the checkpoint"):
        train(replace(resumed, seed=7), print)
    with pytest.raises(TrainingError, match=r"windows at once is 3 here and 2"):
        train(replace(resumed, settings=grounds.short("encoder", (("batch",), 3))), print)
    change = astrape.training.architecture.Change("--n-layers", "transformer", "layers", 1)
    with pytest.raises(TrainingError, match=r"other sizes: --n-layers: transformer.layers is 1 and not 2"):
        train(replace(resumed, changes=(change,)), print)
    with pytest.raises(TrainingError, match=r"is of a training of the encoder, and this one is of the decoder"):
        train(replace(resumed, stage="decoder"), print)
    with pytest.raises(TrainingError, match=r"there is no checkpoint to resume"):
        train(replace(resumed, resume=str(tmp_path / "none.pt")), print)
    lines: list[str] = []
    longer = train(replace(resumed, settings=grounds.short("encoder", (("epochs",), 3))), lines.append)
    assert longer.position.epoch == 3
    # The rate falls to 0 over three epochs now, and what was stored at the end of the second is not that.
    rates = [group["lr"] for group in load_checkpoint(tmp_path / "encoder.last.pt")["optimiser"]["param_groups"]]
    assert rates == [pytest.approx(0.0, abs=1e-12)]
    assert [entry["step"] for entry in grounds.curve(tmp_path) if "train" in entry] == list(range(1, 13))
    more = grounds.short("encoder", (("epochs",), 4))
    before = load_checkpoint(tmp_path / "encoder.last.pt")["graph"]["transformer.layers.0.w2.weight"]
    train(replace(resumed, settings=more), print)
    after = load_checkpoint(tmp_path / "encoder.last.pt")["graph"]["transformer.layers.0.w2.weight"]
    assert not torch.equal(before, after), "a run that is made longer goes on learning"
    assert any("epochs is 3 here and 2 in the checkpoint" in line for line in lines)
    done: list[str] = []
    train(replace(resumed, settings=()), done.append)
    assert any("nothing is left to do" in line for line in done)


@pytest.mark.timeout(1200)  # how busy the machine is does not matter
def test_a_killed_run_leaves_valid_checkpoints_and_goes_on(tmp_path: Path) -> None:
    """kill -9 at random moments of a real process, again and again: the curve is that of a run left alone.

    Moments are steps and parts of one, and not seconds, in which a fast machine may be through.
    """
    root = grounds.ground()
    words = [
        "--recipe", grounds.RECIPE, "--data", str(root / "vctk"),
        "--cache", str(root / "cache"), "--batch-size", "2", "--mel-frames", "160", "--eval-mel-frames", "160",
        "--steps-per-epoch", "10", "--epochs", "3", "--log-every", "1", "--checkpoint-steps", "2", "--unseen", "0.25",
        "--run-name", "encoder", "--out-dir",
    ]  # fmt: skip
    draw = random.Random(4)
    killed = tmp_path / "killed"
    for _ in range(2):
        resume = ["--resume"] if (killed / "encoder.last.pt").exists() else []
        before = _step(killed)
        until = before + draw.randint(1, 6)
        with start_module("astrape.train_encoder", *words, str(killed), *resume) as process:
            while _step(killed) <= until and process.running:
                time.sleep(0.01)
            time.sleep(draw.random() * 0.1)
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert load_checkpoint(killed / "encoder.last.pt")["position"]["step"] > before
    outcome = grounds.run(
        tmp_path / "whole", "encoder", (("steps_per_epoch",), 10), (("epochs",), 3), unseen=0.25, checkpoint_steps=2
    )
    resumed = replace(
        grounds.options(killed, "encoder", (("steps_per_epoch",), 10), (("epochs",), 3)), resume="", checkpoint_steps=2
    )
    again = train(resumed, lambda line: None)
    assert again.position.step == outcome.position.step == 30
    assert losses(killed, "encoder") == losses(tmp_path / "whole", "encoder")
    assert not list(killed.glob(".*.writing*"))


def _step(folder: Path) -> int:
    """The step of the last checkpoint, read only when the file has changed, so that waiting for it costs nothing."""
    path = folder / "encoder.last.pt"
    if not path.exists():
        return 0
    found = path.stat()
    return _step_of(path, found.st_ino, found.st_mtime_ns)


@functools.cache
def _step_of(path: Path, inode: int, changed: int) -> int:
    return int(load_checkpoint(path)["position"]["step"])


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pt"
    save_checkpoint(path, {"number": 1, "tensor": torch.arange(3)})

    def fail(file: BinaryIO) -> None:
        file.write(b"half of it")
        file.flush()
        raise OSError(28, "No space left on device")

    free = r"\([\d.]+ MB are free there, it takes more than the 10 bytes"
    with pytest.raises(TrainingError, match=rf"x.pt: cannot be written: no space left on the device {free}"):
        write_file(path, fail)
    assert load_checkpoint(path)["number"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["x.pt"]
    link_file(path, tmp_path / "best.pt")
    save_checkpoint(path, {"number": 2})
    assert (load_checkpoint(path)["number"], load_checkpoint(tmp_path / "best.pt")["number"]) == (2, 1)
    for content in (b"", path.read_bytes()[:-40], b"x" * 1000):
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(TrainingError, match=r"bad.pt: is damaged, or not a checkpoint"):
            load_checkpoint(tmp_path / "bad.pt")
    torch.save({"state_dict": {}, "config": {}}, tmp_path / "original.pt")
    with pytest.raises(TrainingError, match=r"import-checkpoint"):
        load_checkpoint(tmp_path / "original.pt")


def test_a_full_disk_is_told_before_the_first_step(tmp_path: Path) -> None:
    check_out_dir(tmp_path / "new", 1000)
    with pytest.raises(
        TrainingError, match=r"takes 1000000000000 MB more, and \d+ MB are free there; hint: .*--out-dir"
    ):
        check_out_dir(tmp_path, 10**18)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot be written.*--out-dir"):
        check_out_dir(tmp_path / "file" / "inside", 1)


def test_random_states_come_back(tmp_path: Path) -> None:
    torch.rand(3)
    np.random.randn(3)  # noqa: NPY002
    save_checkpoint(tmp_path / "x.pt", {"random": random_state()})
    drawn = random.random(), float(np.random.randn()), torch.rand(2)  # noqa: NPY002
    restore_random_state(load_checkpoint(tmp_path / "x.pt")["random"])
    again = random.random(), float(np.random.randn()), torch.rand(2)  # noqa: NPY002
    assert drawn[:2] == again[:2]
    assert torch.equal(drawn[2], again[2])


def test_the_time_that_is_left_counts_steps_and_validations(tmp_path: Path) -> None:
    """100 s of which a validation took 10, for 30 of 100 steps: 3 s a step, and 10 s for every 50 steps."""
    journal = Journal(tmp_path, "x", steps=110, steps_per_epoch=50, say=print, first=10, write=False)
    assert math.isnan(journal.left(10))
    journal.begun = time.monotonic() - 100
    journal.pauses = [10.0]
    assert journal.left(40) == pytest.approx(70 * 3 + 10 * 70 / 50, abs=1)


@pytest.mark.timeout(1200)  # how busy the machine is does not matter
def test_asked_to_stop_it_ends_after_the_step_with_a_code_of_its_own(tmp_path: Path) -> None:
    root = grounds.ground()
    words = [
        "--recipe", grounds.RECIPE, "--data", str(root / "vctk"), "--cache", str(root / "cache"), "--mel-frames", "160",
        "--steps-per-epoch", "100000", "--out-dir", str(tmp_path), "--run-name", "encoder", "--checkpoint-steps", "3",
        "--num-workers", "1",
    ]  # fmt: skip
    with start_module("astrape.train_encoder", *words) as process:
        while not _step(tmp_path) and process.running:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        done = process.wait()
    assert done.returncode == 130
    assert f"stopped after step {_step(tmp_path)} of" in done.stdout
