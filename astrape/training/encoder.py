"""Validation of an encoder on speakers it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional

from astrape.blocks.code_usage import CodeUsage
from astrape.blocks.codebook import MARGIN, LevelGrid, MixedRadix, PairGrid
from astrape.blocks.quantize import FSQ, Q2D2
from astrape.graph.graph import Graph
from astrape.training.learner import Batch, Learner, loss_key
from astrape.training.measures import Sums, join_usage
from astrape.training.stage import LossPlan, Stage

__all__ = ["EncoderValidation", "codes_of_content", "content_plan"]


class EncoderValidation:
    """Cosines between student and teacher, codes, and the losses, over all validation windows of all processes.

    ::

        content_cosine           mean cosine of student and teacher, over valid frames
        content_cosine_centred   the same after the teacher's mean vector is taken from both: where all contents lie
                                 about one point, plain cosines flatter
        mean_vector_cosine       what that mean vector itself scores: the best constant answer, to be beaten
        code_accuracy            share of frames whose code is that of the teacher's content in the same quantizer
        part_accuracy            the same for single pairs (Q2D2) or axes (FSQ)
        code_usage, code_perplexity, part_usage      on the indices themselves; ``part_usage`` is the mean over pairs

    Args:
        plan: the loss that says which output is compared with the teacher's content.
        graph: the whole graph.
    """

    best = "content_cosine"
    higher_is_better = True

    def __init__(self, plan: LossPlan, graph: Graph) -> None:
        self.plan = plan
        self.codes = "codes" if "codes" in graph.outputs else None
        wire = graph.wiring[self.codes] if self.codes else None
        block = graph.nodes[wire.node].block if wire is not None and wire.node in graph.nodes else None
        self.quantizer = block if isinstance(block, (Q2D2, FSQ)) else None
        self.mean: Tensor | None = None

    @property
    def outputs(self) -> list[str]:
        """Outputs of the graph that validation needs."""
        return [self.plan.of] + ([self.codes] if self.codes else [])

    @torch.no_grad()
    def __call__(
        self, learner: Learner, batches: Callable[[], Iterable[Batch]], accelerator: Accelerator
    ) -> dict[str, float]:
        """Measure on batches, of which each process has its own; twice the same ones the first time, for the mean."""
        if self.mean is None:
            self.mean = self._mean(learner, batches(), accelerator)
        sums, usage, parts = Sums(), *self._counters()
        learner.part.eval()
        for batch in batches():
            signals, totals = learner(batch)
            for name, total in totals.items():
                sums.add(f"loss_{name}", total)
            content = signals[self.plan.of]
            target, weights = learner.paired(self.plan, learner.losses[loss_key(self.plan)], content, batch)
            there = (weights > 0).to(content.dtype)
            mean = self.mean.to(content)
            for name, own, other in (
                ("content_cosine", content, target),
                ("content_cosine_centred", content - mean, target - mean),
                ("mean_vector_cosine", mean.expand_as(target), target),
            ):
                cosine = functional.cosine_similarity(own, other, dim=1).unsqueeze(1)
                sums.add(name, (cosine * there).sum(), there.sum())
            if self.codes is not None and self.quantizer is not None:
                codes, wanted = signals[self.codes], codes_of_content(self.quantizer, target)
                usage.add(codes, there)
                ours, theirs = _digits(self.quantizer, codes), _digits(self.quantizer, wanted)
                sums.add("code_accuracy", ((codes == wanted) * there).sum(), there.sum())
                sums.add("part_accuracy", ((ours == theirs) * there).sum(), there.sum() * ours.shape[1])
                for part, counter in enumerate(parts):
                    counter.add(ours[:, part : part + 1], there)
        found = sums.means(accelerator)
        if self.quantizer is not None:
            usage, parts = join_usage(usage, accelerator), [join_usage(part, accelerator) for part in parts]
            found["code_usage"] = usage.usage
            found["code_perplexity"] = usage.perplexity
            found["part_usage"] = sum(part.usage for part in parts) / len(parts)
        return found

    def _mean(self, learner: Learner, batches: Iterable[Batch], accelerator: Accelerator) -> Tensor:
        """The mean of the teacher's valid frames, ``(1, channels, 1)``."""
        total = torch.zeros(learner.part.outputs[self.plan.of].channels + 1, device=accelerator.device)
        for batch in batches:
            content = batch["content"]
            places = torch.arange(content.shape[-1], device=content.device)
            there = (places < batch["frames"][:, None]).unsqueeze(1).to(content.dtype)
            total = total + torch.cat([(content * there).sum(dim=(0, 2)), there.sum().reshape(1)]).to(total.dtype)
        if accelerator.num_processes > 1:
            total = accelerator.reduce(total, reduction="sum")
        return (total[:-1] / total[-1].clamp(min=1)).reshape(1, -1, 1)

    def _counters(self) -> tuple[CodeUsage, list[CodeUsage]]:
        if self.quantizer is None:
            return CodeUsage(1), []
        sizes = _radix(self.quantizer).sizes.flatten().tolist()
        return CodeUsage(self.quantizer.codebook_size), [CodeUsage(int(size)) for size in sizes]


def content_plan(stage: Stage) -> LossPlan | None:
    """The loss that compares an output with the teacher's content, frame for frame."""
    plans = [plan for phase in stage.phases for plan in phase.active if plan.to == "teacher.content" and not plan.ahead]
    return plans[0] if plans else None


def codes_of_content(quantizer: Q2D2 | FSQ, content: Tensor) -> Tensor:
    """The codes of content that the quantizer did not make, a teacher's, ``(batch, channels, n)`` to ``(batch, 1, n)``.

    A quantizer's contents lie in an affine plane of as many dimensions as it has axes. The content is brought there by
    least squares and snapped by the quantizer itself. What a quantizer made comes back with its own code.
    """
    points = quantizer.points
    width = points.levels.numel()
    basis = torch.cat([torch.zeros(1, width, 1), torch.eye(width).unsqueeze(-1)]).to(content)
    # On the CPU: a few numbers, and not every device has float64 or solves least squares.
    made = quantizer.content_of(basis).cpu().to(torch.float64).squeeze(-1)
    offset, columns = made[0], (made[1:] - made[0]).T
    values = torch.einsum("wc,bcn->bwn", torch.linalg.pinv(columns), content.cpu().to(torch.float64) - offset[:, None])
    codes = points.encode(_before(points, values).to(content))[1]
    assert codes is not None
    return codes


def _before(points: PairGrid | LevelGrid, values: Tensor) -> Tensor:
    """Values that ``encode`` brings nearest to quantized ones."""
    levels = points.levels.to(values).reshape(1, -1, 1)
    half = torch.floor(levels / 2)
    reach = (levels - 1) * (MARGIN / 2)
    if isinstance(points, PairGrid):
        return values * half / reach
    lift = 0.5 - 0.5 * torch.remainder(levels, 2)
    edge = 1 - 1e-6
    return torch.atanh(((values * half + lift) / reach).clamp(-edge, edge)) - torch.atanh(lift / reach)


def _radix(quantizer: Q2D2 | FSQ) -> MixedRadix:
    radix = quantizer.points.radix
    assert radix is not None, "an output of codes has numbers for them"
    return radix


def _digits(quantizer: Q2D2 | FSQ, codes: Tensor) -> Tensor:
    return _radix(quantizer).split(codes)
