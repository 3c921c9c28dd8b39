"""The training loop: phases, epochs, steps; one process or many; checkpoints from which it goes on as if never stopped.

A step of several processes is that of one with all their windows: losses come as sums with their weights, the weights
are added over all processes before anything is divided, and gradients are summed by the process group. So one process
with a batch of 4 and two with 2 learn the same.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from astrape.training.adversary import Adversary, random_windows
from astrape.training.bands import below
from astrape.training.checkpoint import random_state, restore_random_state
from astrape.training.errors import TrainingError
from astrape.training.learner import Batch, Learner, key_of, valid_frames
from astrape.training.objectives import Objective, SpeakerAdversary, Total, reversal_strength
from astrape.training.optimisers import adamw, plain_state, schedule_of, warmed
from astrape.training.pairs import BAND
from astrape.training.position import Listener, Position
from astrape.training.relaxation import relaxed
from astrape.training.stage import Optimiser, Phase, Stage

__all__ = ["Model", "Trainer", "make_accelerator", "total_loss"]

MOST_SKIPPED = 20
"""Steps in a row without a finite loss or gradient, after which going on does not help."""


def make_accelerator(device: str) -> Accelerator:
    """Devices, processes and their group, through Accelerate. ``device`` is ``cpu``, ``cuda`` or ``mps``."""
    # Every parameter that is left to learn gets a gradient in every step: `Trainer` froze the others. Buffers are
    # tables, the same everywhere, and up to megabytes.
    kwargs = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=False)
    return Accelerator(cpu=device == "cpu", kwargs_handlers=[kwargs])


@dataclass
class Model:
    """The networks that are trained.

    Attributes:
        stage: how.
        parameters: what learns of the graph, by name.
        losses: all losses' modules, by ``loss_key``.
        adversaries: discriminators by the name of their phase.
        learner: makes what runs in a phase.
    """

    stage: Stage
    parameters: Mapping[str, nn.Parameter]
    losses: Mapping[str, Objective]
    adversaries: Mapping[str, Adversary]
    learner: Callable[[Phase], Learner]

    def learning(self) -> dict[str, nn.Parameter]:
        """The generator's side: parameters of the graph and of the losses."""
        own = {
            f"{key}.{name}": parameter
            for key, loss in self.losses.items()
            for name, parameter in loss.named_parameters()
        }
        return {**self.parameters, **own}


@dataclass
class Trainer:
    """Runs the steps of a stage.

    Args:
        model: what is trained, on the accelerator's device.
        accelerator: devices and processes.
        batches: the global batch at an epoch and a step, this process's rows of it, on the device.
        listener: who is told.
        seed: what all random numbers of a step derive from, with the step's number.
    """

    model: Model
    accelerator: Accelerator
    batches: Callable[[int, int], Iterator[Batch]]
    listener: Listener
    seed: int = 0
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        stage = self.model.stage
        self.optimiser = adamw(list(self.model.learning().values()), stage.optimiser)
        self.schedule = schedule_of(self.optimiser, stage.optimiser, stage.epochs)
        self.rivals: dict[str, tuple[torch.optim.Optimizer, Any]] = {}
        for name, adversary in self.model.adversaries.items():
            phase = next(phase for phase in stage.phases if phase.name == name)
            optimiser = adamw(list(adversary.networks.parameters()), adversary.plan.optimiser)
            self.rivals[name] = optimiser, schedule_of(optimiser, adversary.plan.optimiser, phase.epochs)
        self.average: dict[str, Tensor] = {}
        if stage.average:
            self.average = {name: one.detach().clone() for name, one in self.model.parameters.items()}
        self._phase: Phase | None = None
        self._judge: Any = None

    def epochs(self) -> Iterator[Position]:
        """Make the steps, one epoch at a time; yields after every step, so that the caller can save or stop.

        At the end of an epoch the position is that of the next epoch's first step.

        Raises:
            TrainingError: after ``MOST_SKIPPED`` steps in a row without a finite loss or gradient.
        """
        stage, at = self.model.stage, self.position
        while at.epoch < stage.epochs:
            self._enter(stage.phase_at(at.epoch))
            for batch in self.batches(at.epoch, at.batch):
                self.step(batch)
                at.step += 1
                at.batch += 1
                if at.batch >= stage.steps_per_epoch:
                    break
                yield at
            at.epoch, at.batch = at.epoch + 1, 0
            self.schedule.step()
            if self._phase is not None and self._phase.name in self.rivals:
                self.rivals[self._phase.name][1].step()
            yield at

    def _enter(self, phase: Phase) -> None:
        """Take up a phase: build what runs in it, and freeze what its losses do not reach."""
        if phase is self._phase:
            return
        learner = self.model.learner(phase).to(self.accelerator.device)
        for parameter in learner.parameters():
            parameter.requires_grad_(False)
        notes = []
        learning = {id(parameter) for parameter in self.model.learning().values()}
        for parameter in learner.parameters():
            parameter.requires_grad_(id(parameter) in learning)
        self._learner = learner
        self._adversary = self.model.adversaries.get(phase.name)
        idle = self._idle(learner)
        if idle:
            notes.append(
                f"no loss reaches {', '.join(idle[:3])}{f' and {len(idle) - 3} more' if len(idle) > 3 else ''}"
            )
        if not any(parameter.requires_grad for parameter in learner.part.parameters()):
            raise TrainingError(f"phase '{phase.name}': none of its losses reaches anything that `train` names")
        weights = {node.block: list(node.block.parameters()) for node in learner.part.nodes.values()}
        self._frozen = [
            block for block, own in weights.items() if own and not any(parameter.requires_grad for parameter in own)
        ]
        self._wrapped = self._prepared(learner)
        self._judge = self._adversary if self._adversary is None else self._prepared(self._adversary)
        self._phase = phase
        self.listener.phase_begins(phase, notes)

    def _prepared(self, module: nn.Module) -> Any:
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        with warnings.catch_warnings():
            # PyTorch 2.13 has another name for it, which versions before do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return self.accelerator.prepare_model(module, device_placement=False)

    def _idle(self, learner: Learner) -> list[str]:
        """Run the first batch once, unseen by anything, and freeze the parameters that no gradient comes to.

        It is also the check that a step fits: shapes, memory, operators of the device.
        """
        kept = random_state()
        batch = next(iter(self.batches(self.position.epoch, self.position.batch)), None)
        if batch is None:
            raise TrainingError("the training data is empty")
        loss = sum((total.total for total in self._totals(learner, batch, backward=True)[0].values()), torch.zeros(()))
        idle = []
        if isinstance(loss, Tensor) and loss.requires_grad:
            torch.autograd.backward(loss)
        for name, parameter in learner.named_parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.requires_grad_(False)
                idle.append(name)
            parameter.grad = None
        restore_random_state(kept)
        return idle

    def _totals(
        self, learner: Any, batch: Batch, backward: bool = False
    ) -> tuple[dict[str, Total], tuple[Tensor, Tensor, Tensor] | None]:
        """The generator's losses of a batch that need no discriminator, and what those are to judge."""
        signals, totals = learner(batch)
        if self._adversary is None:
            return totals, None
        real, made, weights = self._windows(batch, signals)
        if backward:
            totals = {**totals, **self._adversary.judge(real, made, weights)}
        return totals, (real, made, weights)

    def _windows(self, batch: Batch, signals: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        assert self._adversary is not None
        plan = self._adversary.plan
        made = signals[plan.of]
        clock = self._learner.clock(plan.of)
        true = batch[key_of(plan.to, self._learner.audio)]
        wave, weights = self._learner.waveform(plan.of, true, batch, made.shape[-1])
        if plan.to == "pair.wav" and BAND in batch:
            wave, made = (below(one, batch[BAND], clock.rate) for one in (wave, made))
        first = self._learner.first_sample(plan.of)
        # Places are found on the CPU: not every device has float64.
        ends = valid_frames(batch, clock.rate).cpu()
        places = random_windows(plan.window, first, ends, made.shape[-1], self._draws(len(made))).to(made.device)
        at = places.unsqueeze(1)
        return wave.gather(-1, at), made.gather(-1, at), weights.gather(-1, at)

    def _draws(self, rows: int) -> Tensor:
        """Numbers from 0 to 1 for this process's rows of the global batch, whatever the number of processes."""
        generator = torch.Generator().manual_seed(_mixed(self.seed, self.position.step))
        drawn = torch.rand(rows * self.accelerator.num_processes, generator=generator, dtype=torch.float64)
        first = self.accelerator.process_index * rows
        return drawn[first : first + rows]

    def step(self, batch: Batch) -> dict[str, float] | None:
        """One step on one batch; ``None`` where it was skipped, in every process."""
        assert self._phase is not None
        stage, at = self.model.stage, self.position
        torch.manual_seed(_mixed(self.seed, at.step * 65536 + self.accelerator.process_index))
        progress = (at.epoch + at.batch / stage.steps_per_epoch) / stage.epochs
        for module in self._learner.losses.values():
            if isinstance(module, SpeakerAdversary):
                module.strength = reversal_strength(progress)
        self._learner.part.train()
        for block in self._frozen:
            block.eval()
        with relaxed(self._learner, None if stage.relax is None else stage.relax.at(progress)):
            totals, judged = self._totals(self._wrapped, batch)
        values: dict[str, float] = {}
        if judged is not None and self._adversary is not None:
            own = {"discriminators": self._judge(*judged)}
            verdict, found = total_loss(own, {"discriminators": 1.0}, self.accelerator)
            norm = self._descend(verdict, self.rivals[self._phase.name][0], self._adversary.plan.optimiser)
            values |= found | {"discriminators_gradient": norm}
            totals = {**totals, **self._adversary.judge(*judged)}
        if all(map(math.isfinite, values.values())):
            aim, found = total_loss(totals, {plan.name: plan.weight for plan in self._phase.active}, self.accelerator)
            values |= found | {"gradient": self._descend(aim, self.optimiser, stage.optimiser)}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            at.skipped += 1
            at.skipped_in_a_row += 1
            self.listener.skipped(at, ", ".join(bad))
            if at.skipped_in_a_row >= MOST_SKIPPED:
                raise TrainingError(
                    f"{MOST_SKIPPED} steps in a row had no finite {bad[0]}, up to step {at.step}: the last good "
                    f"checkpoint is kept; try a lower learning rate, or check the data with check-cache"
                )
            return None
        at.skipped_in_a_row = 0
        self._follow()
        self.listener.stepped(at, values)
        return values

    def _follow(self) -> None:
        """Let the means of the weights follow a step that was made; in the first ones by more than the recipe says."""
        share = min(self.model.stage.average, (self.position.step + 1) / (self.position.step + 50))
        for name, mean in self.average.items():
            mean.lerp_(self.model.parameters[name].detach(), 1 - share)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The graph with the means of its weights, where the recipe asks for these."""
        own = {name: self.model.parameters[name].detach().clone() for name in self.average}
        self._fill(self.average)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.model.parameters[name].copy_(value)

    def _descend(self, loss: Tensor, optimiser: torch.optim.Optimizer, plan: Optimiser) -> float:
        """Take a step down the gradient, unless it is not finite; its norm before clipping."""
        optimiser.zero_grad(set_to_none=True)
        if not math.isfinite(float(loss.detach())):
            return math.nan
        self.accelerator.backward(loss)
        clip = plan.clip
        own = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(own, clip if clip > 0 else math.inf))
        if math.isfinite(norm):
            with warmed(optimiser, plan.warmup, self.position.step):
                optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        """Everything that going on needs, beside the graph's own tensors."""
        return {
            "position": self.position.plain(),
            "losses": {key: dict(loss.state_dict()) for key, loss in self.model.losses.items()},
            "adversaries": {name: dict(one.networks.state_dict()) for name, one in self.model.adversaries.items()},
            "average": {name: mean.detach().cpu() for name, mean in self.average.items()},
            "optimiser": self.optimiser.state_dict(),
            "schedule": plain_state(self.schedule.state_dict()),
            "rivals": {
                name: {"optimiser": optimiser.state_dict(), "schedule": plain_state(schedule.state_dict())}
                for name, (optimiser, schedule) in self.rivals.items()
            },
            "random": random_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self.position = Position(**state["position"])
        for key, loss in self.model.losses.items():
            loss.load_state_dict(state["losses"][key])
        for name, adversary in self.model.adversaries.items():
            adversary.networks.load_state_dict(state["adversaries"][name])
        for name, mean in self.average.items():
            mean.copy_(state["average"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(dict(state["schedule"]))
        for name, (optimiser, schedule) in self.rivals.items():
            optimiser.load_state_dict(state["rivals"][name]["optimiser"])
            schedule.load_state_dict(dict(state["rivals"][name]["schedule"]))
        for optimiser, schedule in ((self.optimiser, self.schedule), *self.rivals.values()):
            # The schedule's value now, which differs from the stored one where a run was made longer.
            for group, rate, share in zip(optimiser.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
                group["lr"] = rate * share(schedule.last_epoch)
        restore_random_state(state["random"])
        self._phase = None


def total_loss(
    totals: Mapping[str, Total], weights: Mapping[str, float], accelerator: Accelerator
) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of losses, each divided by its weight over all processes.

    Returns:
        A scalar whose gradient, averaged over processes as they do, is that of one process with all the data; and each
        loss's value over all of the data, with the sum as ``loss``.
    """
    names = list(totals)
    own = torch.stack([totals[name].weight.detach().to(totals[name].total) for name in names])
    sums = torch.stack([totals[name].total.detach() for name in names])
    both = accelerator.reduce(torch.cat([sums, own]), reduction="sum") if accelerator.num_processes > 1 else None
    all_sums, all_weights = (sums, own) if both is None else both.chunk(2)
    least = torch.finfo(all_weights.dtype).tiny
    scale = accelerator.num_processes / all_weights.clamp(min=least)
    loss = torch.stack([weights[name] * totals[name].total * scale[i] for i, name in enumerate(names)]).sum()
    values = (all_sums / all_weights.clamp(min=least)).tolist()
    found = dict(zip(names, values, strict=True))
    if len(names) > 1 or "discriminators" not in found:
        found["loss"] = sum(weights[name] * value for name, value in found.items())
    if not all(map(math.isfinite, values)):
        # One process's own part may be finite where another's is not, and all are to do the same.
        loss = loss * math.nan
    return loss, found


def _mixed(seed: int, number: int) -> int:
    """A seed of its own for every step."""
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 1) % (2**63)
