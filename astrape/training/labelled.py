"""Accuracy of labels on recordings that no training heard, alone or beside a waveform."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.training.decoder import DecoderValidation
from astrape.training.learner import Batch, Learner, loss_key
from astrape.training.measures import Sums
from astrape.training.stage import LossPlan

__all__ = ["LabelValidation", "VoiceValidation"]


class LabelValidation:
    """Losses, and the share of frames whose label is told, over all validation windows::

        NAME_accuracy      share of the labelled frames whose highest logit is that of the label
        NAME_commonest     what the commonest label of these windows scores, which takes no learning
        loss_NAME          of each loss

    Args:
        plans: the losses against labels; the first one's accuracy picks the best.
    """

    higher_is_better = True

    def __init__(self, plans: Sequence[LossPlan]) -> None:
        self.plans = list(plans)
        self.best = f"{self.plans[0].name}_accuracy"
        self._counts: dict[str, Tensor] = {}

    @property
    def outputs(self) -> list[str]:
        """Outputs of the graph that validation needs."""
        return list(dict.fromkeys(plan.of for plan in self.plans))

    @torch.no_grad()
    def __call__(
        self, learner: Learner, batches: Callable[[], Iterable[Batch]], accelerator: Accelerator
    ) -> dict[str, float]:
        """Measure on batches, of which each process has its own."""
        sums = Sums()
        self._counts = {}
        learner.part.eval()
        for batch in batches():
            signals, totals = learner(batch)
            for name, total in totals.items():
                sums.add(f"loss_{name}", total)
            self.measure(learner, batch, signals, sums)
        return sums.means(accelerator) | self.commonest(accelerator)

    def measure(self, learner: Learner, batch: Batch, signals: dict[str, Tensor], sums: Sums) -> None:
        """Add a batch's accuracies."""
        for plan in self.plans:
            if plan not in learner.plans:
                continue
            logits = signals[plan.of]
            labels, weights = learner.paired(plan, learner.losses[loss_key(plan)], logits, batch)
            there = (weights > 0) & (labels >= 0)
            right = (logits.argmax(dim=1, keepdim=True) == labels) & there
            sums.add(f"{plan.name}_accuracy", right.sum(), there.sum())
            counted = torch.bincount(labels[there].cpu(), minlength=logits.shape[1])
            self._counts[plan.name] = self._counts.get(plan.name, torch.zeros_like(counted)) + counted

    def commonest(self, accelerator: Accelerator) -> dict[str, float]:
        """Scores of always saying the commonest label, by name."""
        own = {name: counts.tolist() for name, counts in self._counts.items()}
        # One process may have had no window at all.
        every = gather_object([own]) if accelerator.num_processes > 1 else [own]
        found = {}
        for name in dict.fromkeys(name for counts in every for name in counts):
            summed = [sum(column) for column in zip(*(one[name] for one in every if name in one), strict=True)]
            found[f"{name}_commonest"] = max(summed) / max(1, sum(summed))
        return found


class VoiceValidation(DecoderValidation):
    """Validation as :class:`~astrape.training.decoder.DecoderValidation`, and of the labels.

    Args:
        of, source, device, to: as there.
        labels: of the same learner; ``None`` where nothing is labelled.
    """

    def __init__(
        self, of: str, source: Stream, device: torch.device | str, to: str, labels: LabelValidation | None
    ) -> None:
        super().__init__(of, source, device, to)
        self.labels = labels

    @property
    def outputs(self) -> list[str]:
        return [self.of, *(self.labels.outputs if self.labels is not None else [])]

    def __call__(
        self, learner: Learner, batches: Callable[[], Iterable[Batch]], accelerator: Accelerator
    ) -> dict[str, float]:
        if self.labels is None:
            return super().__call__(learner, batches, accelerator)
        self.labels._counts = {}
        found: dict[str, float] = super().__call__(learner, batches, accelerator)
        return found | self.labels.commonest(accelerator)

    def measure_more(self, learner: Learner, batch: Batch, signals: dict[str, Tensor], sums: Sums) -> None:
        if self.labels is not None:
            self.labels.measure(learner, batch, signals, sums)
