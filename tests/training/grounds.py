"""A corpus of synthetic voices with all its caches, made once for all tests of the trainers, and a run on it."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from astrape.corpus.layouts import read_corpus
from astrape.training.caches import CacheJob, make_cache
from astrape.training.options import Options
from astrape.training.run import Outcome, train
from astrape.training.settings import Setting
from tests.training.voices import write_vctk

RECIPE = "astrape-vc-small"


@lru_cache(maxsize=1)
def ground() -> Path:
    """A folder with ``vctk`` and ``cache``: 7 voices of 3 utterances."""
    root = Path(tempfile.mkdtemp(prefix="astrape-voices-"))
    corpus = write_vctk(root / "vctk", speakers=7, utterances=3, seconds=2.2)
    utterances = read_corpus(corpus)
    for what in ("wavlm", "content", "speakers"):
        make_cache(CacheJob(what=what, root=root / "cache", recipe=RECIPE), utterances, corpus=corpus)
    return root


def copied(root: Path) -> Path:
    """A ground of one's own, to spoil."""
    return Path(shutil.copytree(ground(), root / "ground"))


def short(stage: str, *more: tuple[tuple[str | int, ...], Any]) -> tuple[Setting, ...]:
    """Settings of a run of seconds: 2 windows of 0.8 s, 4 steps an epoch, and what is given."""
    values: dict[tuple[str | int, ...], Any] = {
        ("batch",): 2,
        ("window",): 160,
        ("evaluation_window",): 160,
        ("steps_per_epoch",): 4,
    }
    if stage == "encoder":
        values[("epochs",)] = 2
    else:
        values |= {("phases", 0, "epochs"): 1, ("phases", 1, "epochs"): 1, ("discriminators", "window"): 4096}
    return tuple(Setting("--test", way, value) for way, value in {**values, **dict(more)}.items())


def options(folder: Path, stage: str = "encoder", *more: tuple[tuple[str | int, ...], Any], **given: Any) -> Options:
    """The options of a short run in a folder."""
    root = given.pop("root", None) or ground()
    base: dict[str, Any] = {
        "cache": root / "cache",
        "data": root / "vctk",
        "out_dir": folder,
        "run_name": stage,
        "recipe": RECIPE if stage == "encoder" else None,
        "settings": short(stage, *more),
        "log_every": 1,
        "unseen": 0.25,
        "split_seed": 0,
    }
    return Options(stage=stage, **{**base, **given})


def run(folder: Path, stage: str = "encoder", *more: tuple[tuple[str | int, ...], Any], **given: Any) -> Outcome:
    """Train, in silence."""
    return train(options(folder, stage, *more, **given), lambda line: None)


def curve(folder: Path, name: str = "encoder") -> list[dict[str, Any]]:
    """Entries of steps and validations in a run's log."""
    lines = (folder / f"{name}.log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@lru_cache(maxsize=1)
def trained_encoder() -> Path:
    """A folder with an encoder of a few steps, for decoders."""
    folder = Path(tempfile.mkdtemp(prefix="astrape-encoder-"))
    run(folder)
    return folder
