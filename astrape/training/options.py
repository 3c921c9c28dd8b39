"""Options of a training run, as a command line gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astrape.audio.places import Place, Where
from astrape.training.architecture import Change
from astrape.training.settings import Setting

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Everything about a run that the recipe does not say.

    Attributes:
        stage: ``encoder``, ``decoder`` or ``voice``, which is both together.
        cache: the folder of the caches; this and the corpus may be in a store, by URL.
        out_dir, run_name: where results go, a folder or a URL, and what their files are called.
        recipe: a shipped one's name, or a path; the checkpoint's own, or ``astrape-vc``, when left out.
        pack: packed caches, a folder or a URL, in place of ``cache`` and ``data``.
        data: the corpus; the one that the cache of features was made of, when left out.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        seed: of weights and windows.
        workers: processes that load windows.
        threads: of a CPU that a step runs on. Several slow each other down as soon as anything else runs.
        unseen: share of the speakers that validation has to itself.
        split_seed: of the choice of these; ``seed`` when left out. An encoder and the decoder behind it are to have the
            same unseen speakers, so command lines leave it at 0 whatever their seed.
        microphone: of recordings by two.
        channel: of recordings with several; that of the caches where it is ``mean``.
        folders: the caches' folders by kind, as ``wavlm`` or ``speakers``; the only one of its kind when left out.
        features_rate, features_block: what the command line holds to be the rate of the features, Hz, and the block
            that makes them.
        teacher: name and parameters; the recipe's when left out.
        changes: sizes of the recipe's nodes.
        settings: values of its training section.
        resume: a checkpoint to go on from; empty text: the run's own last one.
        overwrite: begin anew over an older run of this name.
        init_from: weights to begin with; this and the other checkpoints may be URLs.
        encoder: a decoder's frozen encoder: a checkpoint or a safetensors file.
        save_every_epoch: keep a checkpoint of each epoch.
        checkpoint_steps: steps from one checkpoint to the next within an epoch.
        log_every: steps from one entry of the log to the next.
        probes: utterances of unseen speakers that validation hears.
        epochs, warmup_epochs: of a stage of several phases: in all, and of the first phase.
        content_frames: length of a window in frames of content, in place of frames of the features.
    """

    stage: str
    cache: Path | Place
    out_dir: Where
    run_name: str
    recipe: str | None = None
    pack: str | None = None
    data: Path | Place | None = None
    device: str = "cpu"
    seed: int = 42
    workers: int = 0
    threads: int = 1
    unseen: float = 0.1
    split_seed: int | None = None
    microphone: str = "mic1"
    channel: str = "mean"
    folders: Mapping[str, str | None] = field(default_factory=dict)
    features_rate: int | None = None
    features_block: str | None = None
    teacher: dict[str, Any] | None = None
    changes: tuple[Change, ...] = ()
    settings: tuple[Setting, ...] = ()
    resume: str | None = None
    overwrite: bool = False
    init_from: Where | None = None
    encoder: Where | None = None
    save_every_epoch: bool = False
    checkpoint_steps: int = 500
    log_every: int = 50
    probes: int = 256
    epochs: int | None = None
    warmup_epochs: int | None = None
    content_frames: int | None = None
