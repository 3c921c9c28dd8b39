"""A training from its options to its results: everything checked first, then phase by phase, then saved."""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from astrape.audio.atomic import sweep
from astrape.audio.places import Place
from astrape.training.build import Setup, build
from astrape.training.checkpoint import (
    check_out_dir,
    link_file,
    save_checkpoint,
    save_weights,
    write_file,
)
from astrape.training.decoder import DecoderValidation, spectrograms
from astrape.training.journal import Journal
from astrape.training.learner import loss_key
from astrape.training.options import Options
from astrape.training.pairing import delay_of, said
from astrape.training.position import Position
from astrape.training.trainer import Trainer
from astrape.voice.names import SPEAKER_ENCODER
from astrape.voice.speaking import SPEAKER

__all__ = ["Outcome", "train"]

PROCESSES_AGREE = 10
"""Steps from one question of all processes whether to stop to the next."""


@dataclass
class Outcome:
    """The result of a training.

    Attributes:
        position: where it ended.
        metrics: of the last validation.
        best: of the best one of the last phase that was reached, with its epoch.
        checkpoint, weights, recipe: the best's files.
        finished: whether all epochs were made; false where it was interrupted.
    """

    position: Position
    metrics: dict[str, float]
    best: dict[str, Any]
    checkpoint: Place
    weights: Place
    recipe: Place
    finished: bool
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "finished": self.finished,
            **self.position.plain(),
            "metrics": self.metrics,
            "best": self.best,
            "checkpoint": str(self.checkpoint),
            "weights": str(self.weights),
            "recipe": str(self.recipe),
        }


def train(options: Options, say: Callable[[str], None]) -> Outcome:
    """Train an encoder or a decoder.

    Args:
        options: what a command line gives.
        say: takes lines for the user.

    Raises:
        AstrapeError: for whatever hinders it, before the first step as far as it can be known.
    """
    setup = build(options, say)
    return _Run(setup, say).go()


class _Run:
    def __init__(self, setup: Setup, say: Callable[[str], None]) -> None:
        self.setup = setup
        self.options = setup.options
        self.main = setup.accelerator.is_main_process
        self.say: Callable[[str], None] = say if self.main else lambda line: None
        self.folder = Place(self.options.out_dir)
        self.history: list[dict[str, Any]] = list(setup.history)
        self.best: dict[str, Any] = dict(setup.best)
        self.metrics: dict[str, float] = dict(self.history[-1]["metrics"]) if self.history else {}
        self.asked_to_stop = False
        stage = setup.stage
        self.total = stage.epochs * stage.steps_per_epoch

    def path(self, ending: str) -> Place:
        return self.folder / f"{self.options.run_name}.{ending}"

    def go(self) -> Outcome:
        setup, stage = self.setup, self.setup.stage
        if self.main:
            sweep(self.folder)
            check_out_dir(self.folder, setup.bytes_needed)
            if setup.state is None:
                self._clear()
            write_file(self.path("recipe.yaml"), setup.recipe_text)
        self._tell()
        journal = Journal(
            self.folder,
            self.options.run_name,
            self.total,
            stage.steps_per_epoch,
            self.say,
            every=self.options.log_every,
            first=setup.position.step,
            write=self.main,
        )
        trainer = Trainer(setup.model, setup.accelerator, setup.feed.batches, journal, self.options.seed)
        if setup.state is not None:
            trainer.restore(setup.state)
        finished = trainer.position.epoch >= stage.epochs
        if finished:
            self.say(f"all {stage.epochs} epochs are made already: nothing is left to do")
        handlers = self._listen()
        try:
            last = trainer.position.step
            for at in trainer.epochs():
                # The position of an epoch's end is that of the next one's begin.
                if at.batch == 0:
                    with trainer.averaged():
                        self._validate(trainer, journal)
                    self._save(trainer, journal, kept=self.options.save_every_epoch)
                    last = at.step
                    finished = at.epoch >= stage.epochs
                elif at.step - last >= self.options.checkpoint_steps:
                    self._save(trainer, journal)
                    last = at.step
                if self._stopping(at):
                    if last != at.step:
                        self._save(trainer, journal)
                    break
        finally:
            journal.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if not finished:
            self.say(f"stopped after step {trainer.position.step} of {self.total}: --resume goes on from there")
        return Outcome(
            trainer.position,
            self.metrics,
            self.best,
            self.path("best.pt"),
            self.path("best.safetensors"),
            self.path("recipe.yaml"),
            finished,
        )

    def _clear(self) -> None:
        """Remove an older run of this name, which --overwrite gave up: its best is not this one's."""
        old = [self.path(ending) for ending in ("last.pt", "best.pt", "best.safetensors")]
        kept = re.compile(re.escape(f"{self.options.run_name}.epoch-") + r"\d+\.pt")
        old += [self.folder / name for name in self.folder.files() if kept.fullmatch(name)]
        events = self.folder / "tensorboard" / self.options.run_name
        old += [events / name for name in events.files() if name.startswith("events.out.tfevents.")]
        for path in old:
            path.remove()

    def _tell(self) -> None:
        """The facts of the run, before its first step."""
        setup = self.setup
        learning = sum(parameter.numel() for parameter in setup.model.learning().values())
        self.say(
            f"{setup.stage.name} of '{setup.graph.name}': {learning:,} parameters learn, on {setup.accelerator.device} "
            f"in {setup.accelerator.num_processes} process(es), {setup.at_once} windows at once"
        )
        self.say(setup.feed.description)
        for line in _pairings(setup):
            self.say(line)

    def _validate(self, trainer: Trainer, journal: Journal) -> None:
        setup, at = self.setup, trainer.position
        begun = time.monotonic()
        phase = setup.stage.phase_at(at.epoch - 1)
        learner = setup.learner(phase, setup.validation.outputs).to(setup.accelerator.device)
        metrics = setup.validation(learner, setup.feed.validation, setup.accelerator)
        self.metrics = metrics
        self.history.append({"epoch": at.epoch - 1, "step": at.step, "phase": phase.name, "metrics": metrics})
        self._show(journal, at)
        journal.validated(at, phase.name, metrics, time.monotonic() - begun)

    def _show(self, journal: Journal, at: Position) -> None:
        validation = self.setup.validation
        if not isinstance(validation, DecoderValidation) or not self.main:
            return
        for number, (target, made) in enumerate(validation.kept):
            if at.epoch == 1:
                journal.audio(f"target/{number}", target, validation.rate, at.step)
            journal.audio(f"made/{number}", made, validation.rate, at.step)
            journal.picture(f"spectrogram/{number}", spectrograms(target, made, validation.rate), at.step)

    def _save(self, trainer: Trainer, journal: Journal, kept: bool = False) -> None:
        """The last checkpoint, and where an epoch ends, its place among the best."""
        setup, at = self.setup, trainer.position
        better = at.batch == 0 and self._is_better(at)
        if not self.main:
            return
        state = {
            "stage": setup.stage.name,
            "recipe": setup.recipe_text,
            "section": setup.section,
            "facts": setup.facts,
            "graph": {name: tensor.detach().cpu() for name, tensor in setup.graph.state_dict().items()},
            "history": self.history,
            "best": self.best,
            **trainer.state(),
        }
        # Before the checkpoint: entries after the one that a run goes on from are dropped, and none is made again.
        journal.publish()
        save_checkpoint(self.path("last.pt"), state)
        if better:
            link_file(self.path("last.pt"), self.path("best.pt"))
            with trainer.averaged():
                self._export(at)
        if kept:
            link_file(self.path("last.pt"), self.path(f"epoch-{at.epoch - 1:03d}.pt"))

    def _is_better(self, at: Position) -> bool:
        name, upwards = self.setup.validation.best, self.setup.validation.higher_is_better
        value = self.metrics.get(name, float("nan"))
        # What a phase begins with is better by the measure than what it makes of it, where it has another aim: an
        # adversary's does not come nearer to the target, frame by frame.
        phase = self.setup.stage.phase_at(at.epoch - 1).name
        known = self.best.get("value") if self.best.get("phase", phase) == phase else None
        better = math.isfinite(value) and (known is None or (value > known if upwards else value < known))
        if better:
            self.best = {"metric": name, "value": value, "epoch": at.epoch - 1, "step": at.step, "phase": phase}
        return better

    def _export(self, at: Position) -> None:
        """The deploy graph's tensors: what ``astrape.load`` and ``astrape convert`` take."""
        graph = self.setup.graph.deploy()
        about = {"recipe": graph.name, "trained": self.setup.trained, "epoch": str(at.epoch - 1)}
        if self.setup.feed.speaker_encoder is not None and SPEAKER in graph.controls:
            about[SPEAKER_ENCODER] = self.setup.feed.speaker_encoder
        save_weights(self.path("best.safetensors"), graph.state_dict(), about)

    def _listen(self) -> dict[int, Any]:
        """Finish the step when an interrupt arrives."""

        def stop(number: int, frame: Any) -> None:
            if self.asked_to_stop:
                raise KeyboardInterrupt
            self.asked_to_stop = True

        handlers: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                handlers[number] = signal.signal(number, stop)
            except ValueError:
                return {}  # not the main thread: whoever runs this there has to stop it
        return handlers

    def _stopping(self, at: Position) -> bool:
        accelerator = self.setup.accelerator
        if accelerator.num_processes == 1:
            return self.asked_to_stop
        if at.step % PROCESSES_AGREE and at.batch:
            return False
        asked = torch.tensor([float(self.asked_to_stop)], device=accelerator.device)
        return bool(accelerator.reduce(asked, reduction="sum") > 0)


def _pairings(setup: Setup) -> list[str]:
    """The pairing of frames in words, once for every pair of signal and target."""
    lines: dict[str, None] = {}
    for phase in setup.stage.phases:
        learner = setup.learner(phase, [])
        for plan in learner.plans:
            own = learner.clock(plan.of)
            if learner.losses[loss_key(plan)].compares == "samples":
                samples, over = delay_of(own.latency, own.rate)
                rest = f", {float(abs(over)) * 1e6:.3g} us off" if over else ""
                late = f"'{plan.of}' is {float(own.latency) * 1000:.4g} ms late"
                lines[f"{late}: '{plan.to}' is delayed by {samples} samples{rest}"] = None
            elif plan.to in learner.targets:
                lines[said(plan.of, own, learner.targets[plan.to], plan.ahead)] = None
        for name in learner.told:
            paired = said(name, *learner.clocks_told(name))
            lines[f"{learner.given[name]} is given in place of '{name}': {paired}"] = None
    return list(lines)
