"""The device to compute on: the one that a command line names, or what is available instead."""

from __future__ import annotations

import os

import torch

from astrape.training.errors import TrainingError

__all__ = ["choose_device"]


def choose_device(asked: str) -> tuple[torch.device, str | None]:
    """The device of that name; the CPU, and a notice that says so, where the machine does not have it.

    Under ``torchrun`` each process of a machine takes the CUDA device of its local rank, unless one is named.

    Args:
        asked: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        TrainingError: for any other name.
    """
    kind, colon, number = asked.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not number.isdigit())):
        raise TrainingError(f"--device {asked}: there is cpu, cuda, cuda:N and mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        return torch.device("cpu"), "device 'mps' is absent here: running on the CPU"
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(number) if number else int(os.environ.get("LOCAL_RANK", "0") or 0) % max(count, 1)
        if index >= count:
            there = f"there are {count}" if count else "there is none here"
            return torch.device("cpu"), f"device '{asked}' is absent ({there}): running on the CPU"
        return torch.device("cuda", index), None
    return torch.device(kind), None
