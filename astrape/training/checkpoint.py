"""Checkpoints: one file that holds all of a training, there whole or not at all, and weights as safetensors."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from astrape.audio.atomic import check_space, sync, write_whole
from astrape.audio.places import Place, Where, local_file, read_cache
from astrape.errors import told_as
from astrape.graph.checksums import archive_fault, sealed_file
from astrape.training.errors import TrainingError
from astrape.wording import reason_of

__all__ = [
    "FORMAT",
    "check_out_dir",
    "link_file",
    "load_checkpoint",
    "random_state",
    "restore_random_state",
    "save_checkpoint",
    "save_weights",
    "write_file",
]

FORMAT = "astrape training, version 1"


def write_file(path: Where, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file of a run, here or in a store, whole or not at all; its name is on the disk too when this returns.

    Raises:
        TrainingError: when it cannot be written, on a full disk for instance; what was there before stays.
    """
    with told_as(TrainingError):
        write_whole(path, content)
    folder = Place(path).parent.path
    if os.name == "posix" and folder is not None:
        sync(folder)


def link_file(path: Where, target: Where) -> None:
    """Give a finished file a second name: a hard link, or a copy where there are none."""
    with told_as(TrainingError):
        Place(path).copy_to(Place(target))


def save_checkpoint(path: Where, state: Mapping[str, Any]) -> None:
    """Store a state of tensors, numbers, text, lists and dicts, such that ``load_checkpoint`` reads it."""
    write_file(path, lambda file: torch.save({"format": FORMAT, **state}, file))


def save_weights(path: Where, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Store tensors as safetensors, each with a checksum, for ``astrape.load(recipe, weights=path)``."""
    write_file(path, sealed_file({name: tensor.clone() for name, tensor in tensors.items()}, about))


def load_checkpoint(path: Where) -> dict[str, Any]:
    """Read a checkpoint, of this machine or of a store. Nothing in it is run.

    Raises:
        TrainingError: for a file that is missing, damaged, or none of a training.
    """
    with told_as(TrainingError):
        local = local_file(path)
    try:
        fault = archive_fault(local)
        if fault is not None:
            raise TrainingError(f"{path}: is damaged, or not a checkpoint of a training: {fault}")
        state = torch.load(local, map_location="cpu", weights_only=True)
    except TrainingError:
        raise
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {reason_of(error)}") from error
    except Exception as error:  # what a damaged file does to the reader has many names
        first = str(error).strip().partition("\n")[0]
        raise TrainingError(f"{path}: is damaged, or not a checkpoint of a training: {first}") from error
    if not isinstance(state, dict) or "format" not in state:
        hint = (
            ": that is the original's form: bring it over with `astrape import-checkpoint`"
            if isinstance(state, dict) and "state_dict" in state
            else ""
        )
        raise TrainingError(f"{path}: is not a checkpoint of a training{hint}")
    if state["format"] != FORMAT:
        raise TrainingError(f"{path}: is of the form '{state['format']}', and this version reads '{FORMAT}'")
    return state


def check_out_dir(place: Where, needed: int) -> None:
    """Refuse to begin where the disk would be full at the first checkpoint.

    Args:
        place: where checkpoints go; a folder is made if it is missing. What goes to a store is made on this machine
            first, in the read cache's folder.
        needed: bytes.

    Raises:
        TrainingError: for a folder that cannot be made or written, or too little space, with both numbers.
    """
    folder = Place(place).path or read_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"astrape")
    except OSError as error:
        reason = reason_of(error)
        raise TrainingError(f"{folder}: cannot be written: {reason}: name another --out-dir") from error
    with told_as(TrainingError):
        check_space(folder, needed, hint="free space, or name another --out-dir")


def random_state() -> dict[str, Any]:
    """The state of every generator that a block or a loss may draw from: Python's, NumPy's and torch's."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - libraries draw from it
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(place), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators to what ``random_state`` gave. A state of devices that are not here is left out."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), place, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
