"""One of several processes, for ``torchrun``: the gradient of one step in float64, and a short training.

torchrun --nproc-per-node 2 -m tests.training.two_processes GROUND OUT BATCH ENCODER
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from astrape.training.build import build
from astrape.training.journal import Journal
from astrape.training.options import Options
from astrape.training.run import train
from astrape.training.trainer import Trainer
from tests.training import grounds


def options(ground: Path, out: Path, batch: int, stage: str, encoder: str | None) -> Options:
    return grounds.options(
        out, stage, (("batch",), batch), root=ground, encoder=None if encoder is None else Path(encoder)
    )


def gradients(given: Options, out: Path) -> None:
    """The gradients of the first step of each phase, before clipping, from one process's point of view."""
    torch.set_default_dtype(torch.float64)
    setup = build(given, lambda line: None)
    setup.graph.double()
    for module in (*setup.model.losses.values(), *setup.model.adversaries.values()):
        module.double()
    batches = setup.feed.batches

    def wide(epoch: int, first: int):  # type: ignore[no-untyped-def]
        for batch in batches(epoch, first):
            yield {name: one.double() if one.dtype == torch.float32 else one for name, one in batch.items()}

    journal = Journal(out, "gradients", 8, 4, lambda line: None, write=False)
    trainer = Trainer(setup.model, setup.accelerator, wide, journal)
    found: dict[str, torch.Tensor] = {}
    for optimiser, names in (
        (trainer.optimiser, list(setup.model.learning())),
        *((one, [f"{phase}.{i}" for i in range(999)]) for phase, (one, _) in trainer.rivals.items()),
    ):
        _keep(optimiser, names, found)
    values = {}
    for phase in setup.stage.phases:
        trainer._enter(phase)
        values[phase.name] = trainer.step(next(iter(wide(0, 0))))
    if setup.accelerator.is_main_process:
        torch.save({"gradients": found, "values": values}, out / "gradients.pt")
    torch.set_default_dtype(torch.float32)


def _keep(optimiser: torch.optim.Optimizer, names: list[str], found: dict[str, torch.Tensor]) -> None:
    """Note the gradients in place of a step, so that every phase begins with the same weights."""

    def step() -> None:
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        for name, parameter in zip(names, parameters, strict=False):
            if parameter.grad is not None:
                found[f"{len(found)}:{name}"] = parameter.grad.clone()

    optimiser.step = step  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    torch.set_num_threads(1)
    ground, folder, batch, encoder = sys.argv[1:]
    for stage in ("encoder", "decoder"):
        out = Path(folder) / stage
        out.mkdir(parents=True, exist_ok=True)
        given = options(Path(ground), out, int(batch), stage, encoder if stage == "decoder" else None)
        gradients(given, out)
        if stage == "encoder":
            train(replace(given, run_name="run"), lambda line: None)
