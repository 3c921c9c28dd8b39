"""Discriminators at work: the window they see, their own step, and what they tell the generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from astrape.named import made
from astrape.settings import Spec
from astrape.training.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
)
from astrape.training.errors import TrainingError
from astrape.training.learner import loss_key
from astrape.training.objectives import Judgement, LSGANDiscriminator, Objective, Total
from astrape.training.stage import Discriminators, LossPlan
from astrape.wording import suggest

__all__ = ["Adversary", "random_windows"]

NETWORKS: dict[str, type[nn.Module]] = {
    "multi_period": MultiPeriodDiscriminator,
    "multi_scale": MultiScaleDiscriminator,
    "multi_resolution": MultiResolutionDiscriminator,
}


class Adversary(nn.Module):
    """The discriminators of a phase, judging pairs of a true and a made waveform.

    Args:
        plan: networks and window.
        plans: the phase's losses, of which those of judgements are computed here.
        losses: the modules of all losses.
    """

    def __init__(self, plan: Discriminators, plans: Sequence[LossPlan], losses: Mapping[str, Objective]) -> None:
        super().__init__()
        self.plan = plan
        self.networks = nn.ModuleDict({name: _network(name, spec) for name, spec in plan.networks.items()})
        self.plans = [one for one in plans if losses[loss_key(one)].compares == "judgements"]
        # Not a module of this one: what is the generator's has no parameter, and belongs to it.
        self._losses = {one.name: losses[loss_key(one)] for one in self.plans}
        source = next(iter(self._losses.values())).source if self._losses else None
        if source is None:
            raise TrainingError(
                "a phase has discriminators, and no loss listens to them: add lsgan or feature_matching"
            )
        self._verdict = LSGANDiscriminator(source)

    def forward(self, real: Tensor, made: Tensor, weights: Tensor) -> Total:
        """The discriminators' own loss. The made waveform is taken without its gradient."""
        judged_real, judged_made = self._judge(real, made.detach())
        verdict: Total = self._verdict(judged_made, judged_real, weights)
        return verdict

    def judge(self, real: Tensor, made: Tensor, weights: Tensor) -> dict[str, Total]:
        """The generator's losses by name. The discriminators get no gradient."""
        learning = [parameter for parameter in self.networks.parameters() if parameter.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            judged_real, judged_made = self._judge(real, made)
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
        return {name: loss(judged_made, judged_real, weights) for name, loss in self._losses.items()}

    def _judge(self, real: Tensor, made: Tensor) -> tuple[list[Judgement], list[Judgement]]:
        both = torch.cat([real, made])
        judged = [judgement for network in self.networks.values() for judgement in network(both)]
        halves = [(_rows(one, slice(0, len(real))), _rows(one, slice(len(real), None))) for one in judged]
        return [true for true, _ in halves], [false for _, false in halves]


def random_windows(length: int, first: int, ends: Tensor, samples: int, draws: Tensor) -> Tensor:
    """The samples of a window in each row, ``(batch, length)``: ``length`` of them, or as many as there are.

    Args:
        length: samples of the window.
        first: the first sample that counts.
        ends: where each row ends, ``(batch,)``. A window reaches beyond it where the row is shorter than the window.
        samples: in all.
        draws: numbers from 0 to 1, ``(batch,)``.
    """
    length = max(1, min(length, samples - first))
    room = (ends - length - first).clamp(min=0)
    start = first + torch.minimum(torch.floor(draws * (room + 1)).to(torch.int64), room)
    return start[:, None] + torch.arange(length)


def _rows(judgement: Judgement, rows: slice) -> Judgement:
    return Judgement(judgement.logits[rows], [features[rows] for features in judgement.features])


def _network(name: str, spec: Spec) -> nn.Module:
    use, params = spec.use, spec.params
    if use not in NETWORKS:
        raise TrainingError(f"discriminator '{name}': there is no '{use}': {suggest(use, NETWORKS, 'discriminator')}")
    return made(f"discriminator '{name}'", NETWORKS[use], params, error=TrainingError)
