"""The log of a training: lines, a progress bar with the time left, TensorBoard, and a log to read by machine."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from astrape.audio.atomic import write_whole
from astrape.audio.growing import GrowingFolder
from astrape.audio.places import Place, Where
from astrape.training.errors import TrainingError
from astrape.training.position import Position
from astrape.training.stage import Phase
from astrape.wording import lacking

__all__ = ["Journal"]

LOUDEST_WARNINGS = 5
"""Skipped steps that get a line each; the others are counted in the line of their epoch."""


class Journal:
    """Hears of every step, and keeps it.

    Args:
        folder: of the run, here or in a store.
        name: of the run; files begin with it.
        steps: in all epochs.
        steps_per_epoch: of them.
        say: takes a line for the user.
        every: steps from one entry of the log to the next.
        first: the step that this session begins with; later entries of the log are of a lost future, and are dropped.
        write: whether this process is the one that writes.

    Raises:
        TrainingError: where TensorBoard is not installed.
    """

    def __init__(
        self,
        folder: Where,
        name: str,
        steps: int,
        steps_per_epoch: int,
        say: Callable[[str], None],
        *,
        every: int = 50,
        first: int = 0,
        write: bool = True,
    ) -> None:
        self.steps, self.steps_per_epoch, self.every, self.write = steps, steps_per_epoch, every, write
        self.say: Callable[[str], None] = say if write else lambda line: None
        self.first = first
        self.sums: dict[str, float] = {}
        self.count = 0
        self.warned = 0
        self.begun = time.monotonic()
        self.pauses: list[float] = []
        self._writer: Any = None
        self._bar: Any = None
        if write:
            self.folder = GrowingFolder(Place(folder))
            self.log = self.folder.fetch(f"{name}.log.jsonl")
            self._forget(first)
            self._writer = _writer(self.folder.path / "tensorboard" / name, first)
            self._bar = _bar(steps, first) if sys.stderr.isatty() else None
            if self._bar is not None and sys.stdout.isatty():
                # Above the bar, which a line from elsewhere would be written into.
                self.say = self._above

    def phase_begins(self, phase: Phase, notes: Sequence[str]) -> None:
        losses = ", ".join(f"{plan.name} {plan.weight:g}" for plan in phase.active)
        self.say(f"phase {phase.name}: {losses}")
        for note in notes:
            self.say(f"phase {phase.name}: {note}")

    def stepped(self, position: Position, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        number = position.step + 1
        if number % self.every == 0 and self.write:
            means = {name: total / self.count for name, total in self.sums.items()}
            self._write({"step": number, "epoch": position.epoch, "skipped": position.skipped, "train": means})
            for name, value in means.items():
                self._writer.add_scalar(f"train/{name}", value, number)
        if number % self.every == 0:
            self.sums, self.count = {}, 0
        if self._bar is not None:
            loss = values.get("loss", math.nan)
            self._bar.update(self._task, completed=number, loss=f"{loss:.4g}", left=_clock(self.left(number)))

    def skipped(self, position: Position, what: str) -> None:
        self.warned += 1
        if self.warned <= LOUDEST_WARNINGS:
            self.say(f"warning: step {position.step + 1} is left out: {what} is not finite ({position.skipped} so far)")

    def validated(self, position: Position, phase: str, metrics: Mapping[str, float], seconds: float) -> None:
        """Note an epoch's validation, and the seconds that it took."""
        self.pauses.append(seconds)
        if not self.write:
            return
        self._write({"step": position.step, "epoch": position.epoch - 1, "phase": phase, "valid": dict(metrics)})
        for name, value in metrics.items():
            self._writer.add_scalar(f"valid/{name}", value, position.step)
        self._writer.add_scalar("skipped", position.skipped, position.step)
        self._writer.flush()
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if not name.startswith("loss_"))
        left = self.left(position.step)
        beside = f", {position.skipped} steps skipped" if position.skipped else ""
        done = "" if position.step >= self.steps else f", {_clock(left)} left"
        self.say(f"epoch {position.epoch} [{phase}] step {position.step}/{self.steps}: {shown}{beside}{done}")

    def left(self, step: int) -> float:
        """Seconds to the end, at this session's mean times of a step and of an epoch's validation."""
        paused = sum(self.pauses)
        made = step - self.first
        if made < 1:
            return math.nan
        pace = (time.monotonic() - self.begun - paused) / made
        validations = (self.steps - step) / self.steps_per_epoch
        mean = paused / len(self.pauses) if self.pauses else 0.0
        return pace * (self.steps - step) + mean * validations

    def audio(self, name: str, wave: Tensor, rate: int, step: int) -> None:
        """A waveform, ``(1, samples)``, to listen to in TensorBoard."""
        if self._writer is not None:
            self._writer.add_audio(name, wave.detach().cpu().clamp(-1, 1), step, sample_rate=rate)

    def picture(self, name: str, figure: Any, step: int) -> None:
        """A matplotlib figure, to look at in TensorBoard."""
        if self._writer is not None:
            self._writer.add_figure(name, figure, step)

    def publish(self) -> None:
        """Bring the log to its store, where it goes to one.

        Raises:
            PlaceError: for a store that does not take it.
        """
        if self.write:
            self._writer.flush()
            self.folder.publish()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._writer is not None:
            self._writer.close()
        if self.write:
            self.folder.close()

    def _above(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)

    @property
    def _task(self) -> Any:
        return self._bar.task_ids[0]

    def _write(self, entry: Mapping[str, Any]) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(entry)) + "\n")

    def _forget(self, step: int) -> None:
        """Drop entries after a step: of a run that was killed after its last checkpoint, and goes on from there."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                if int(json.loads(line)["step"]) <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # the line that a killed run was writing
        write_whole(self.log, "".join(f"{line}\n" for line in kept) if step else "")


def _writer(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(lacking("the log of a training", "tensorboard", "train")) from error
    return SummaryWriter(str(folder), purge_step=first + 1 if first else None)


def _bar(steps: int, first: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]} left"),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task("training", total=steps, completed=first, loss="-", left="-")
    bar.start()
    return bar


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content
