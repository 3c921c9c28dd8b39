"""The module that learns in a phase: the part of the graph that its losses need, and the losses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import torch
from einops import rearrange
from torch import Tensor, nn

from astrape.graph.compile.plan import Wire
from astrape.graph.graph import Graph
from astrape.graph.subgraph import named_signals, subgraph
from astrape.training.errors import TrainingError
from astrape.training.objectives import LossContext, Objective, Total, build_loss
from astrape.training.pairing import Clock, delay_of, delayed, frame_weights, partners, pitch_at
from astrape.training.pairs import BAND, TWIN
from astrape.training.stage import LossPlan, Phase
from astrape.training.tables import PITCH_RATE

__all__ = ["Batch", "Learner", "build_losses", "entered", "key_of", "loss_key", "trained_parameters", "valid_frames"]

Batch = dict[str, Tensor]
"""Windows of the corpus, a tensor for each signal. ``valid``: seconds of each row without padding."""

SPEAKER = "speaker"


class Learner(nn.Module):
    """The graph from the stored features to what is compared, with the losses that compare it.

    Args:
        graph: the whole, training-only nodes among it.
        entry: the signal whose frames are stored.
        outputs: what is to be computed.
        plans: the losses; those of judgements belong to an adversary and are left out here.
        losses: their modules, by ``loss_key``.
        targets: clocks of what losses compare with, by the name that ``to`` has.
        audio: the graph's input that hears the microphone.
        given: what the data gives in place of the graph: the batch's keys, by the names of signals and controls.
        settle: seconds at the begin of each window that no loss counts.

    Attributes:
        part: the part of the graph that runs.
    """

    def __init__(
        self,
        graph: Graph,
        entry: str,
        outputs: Sequence[str],
        plans: Sequence[LossPlan],
        losses: Mapping[str, Objective],
        targets: Mapping[str, Clock],
        audio: str = "mic",
        given: Mapping[str, str] | None = None,
        settle: float = 0.0,
    ) -> None:
        super().__init__()
        self.given = dict(given or {})
        # A tenth of a second as it is written, and not as floating point has it.
        self.settle = Fraction(settle).limit_denominator(10**6)
        self.part = subgraph(graph, list(outputs), [entry, *entered(graph, entry, outputs, self.given)])
        self.entry = entry
        self.audio = audio
        self.targets = dict(targets)
        self.plans = [plan for plan in plans if losses[loss_key(plan)].compares != "judgements"]
        self.losses = nn.ModuleDict({loss_key(plan): losses[loss_key(plan)] for plan in self.plans})
        missing = [name for name in self.part.inputs if name not in (entry, audio, *self.given)]
        if missing:
            raise TrainingError(
                f"'{graph.name}': training enters at '{entry}', and {', '.join(outputs)} need the input '{missing[0]}' "
                f"besides, which no data gives: name another output in training.features"
            )

        for name in self.told:
            if self.part.inputs[name].channels > 2:
                raise TrainingError(
                    f"'{name}' has {self.part.inputs[name].channels} channels, and a pitch that the data gives has 1 "
                    f"(Hz) or 2 (Hz, and 1 where there is one): name another signal in `given`"
                )

    @property
    def told(self) -> list[str]:
        """The part's inputs that the data gives in place of the graph."""
        return [name for name in self.part.inputs if name in self.given and name not in (self.entry, self.audio)]

    def clock(self, output: str) -> Clock:
        """The clock of an output: its rate, and its age since the microphone."""
        return Clock(self.part.outputs[output].rate, self.part.latencies[output])

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Total]]:
        """A batch's signals by output, and its losses by the plans' names."""
        signals = self.signals(batch)
        totals = {}
        for plan in self.plans:
            loss = self.losses[loss_key(plan)]
            paired = self.paired(plan, loss, signals[plan.of], batch)
            band = {"band": batch[BAND]} if plan.to == "pair.wav" and BAND in batch else {}
            totals[plan.name] = loss(signals[plan.of], *paired, **band)
        return signals, totals

    def signals(self, batch: Batch) -> dict[str, Tensor]:
        """The graph's outputs, by name."""
        told = self.told
        heard = [name for name in self.part.inputs if name not in told]
        inputs = {name: batch["audio" if name == self.audio else "features"] for name in heard}
        seconds = Fraction(inputs[heard[0]].shape[-1]) / self.part.inputs[heard[0]].rate
        inputs |= {name: self._told(name, seconds, batch) for name in told}
        known = [name for name in self.part.controls if name == SPEAKER or name in self.given]
        controls = {name: batch[self.given.get(name, name)] for name in known}
        made = self.part({name: inputs[name] for name in self.part.inputs}, **controls)
        return made if isinstance(made, dict) else {self.part.main: made}

    def clocks_told(self, name: str) -> tuple[Clock, Clock]:
        """The clocks of a signal that the data gives: how its frames lie in time, and how those of the data do."""
        own = Clock(self.part.inputs[name].rate, self.part.signal_latency[Wire(name, "out")])
        return own, Clock(PITCH_RATE)

    def _told(self, name: str, seconds: Fraction, batch: Batch) -> Tensor:
        """A signal from the data, as late as the graph's own: its frames lie as those of the graph would."""
        stream = self.part.inputs[name]
        pitch = pitch_at(batch[self.given[name]], int(seconds * stream.rate), *self.clocks_told(name))
        return pitch if stream.channels == 1 else torch.cat([pitch, (pitch > 0).to(pitch)], dim=1)

    def paired(self, plan: LossPlan, loss: nn.Module, signal: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The target and the weights of a loss, frame by frame of its signal."""
        own = self.clock(plan.of)
        heard = valid_frames(batch, own.rate)
        places = torch.arange(signal.shape[-1], device=signal.device)
        settled = places >= math.ceil(self.settle * own.rate)
        if loss.compares == "speakers":
            there = settled & (places < heard[:, None])
            return batch["speaker_index"], there.unsqueeze(1).to(signal.dtype)
        if plan.to == TWIN:
            there = settled & (places < heard[:, None])
            back = rearrange(signal, "(pairs two) c n -> pairs two c n", two=2).flip(1)
            return rearrange(back, "pairs two c n -> (pairs two) c n"), there.unsqueeze(1).to(signal.dtype)
        if plan.to is None:
            raise TrainingError(f"loss '{plan.name}' does not say what '{plan.of}' is compared with: add `to: SIGNAL`")
        target = batch[key_of(plan.to, self.audio)]
        if loss.compares == "samples":
            return self.waveform(plan.of, target, batch, signal.shape[-1])
        if plan.to not in self.targets:
            raise TrainingError(f"loss '{plan.name}': '{plan.use}' compares frames, and '{plan.to}' has none")
        clock = self.targets[plan.to]
        at = partners(signal.shape[-1], own, clock, plan.ahead).to(signal.device)
        frames = batch["frames"] if plan.to == "teacher.content" else valid_frames(batch, clock.rate)
        voiced = 1 + (plan.voiced - 1) * batch["voiced"] if plan.voiced != 1 and "voiced" in batch else None
        weights = frame_weights(at, frames, heard, voiced) * settled
        return target[..., at.clamp(0, max(target.shape[-1] - 1, 0))], weights.to(signal.dtype)

    def first_sample(self, output: str) -> int:
        """The first sample of a waveform that counts."""
        clock = self.clock(output)
        return delay_of(clock.latency, clock.rate)[0] + math.ceil(self.settle * clock.rate)

    def waveform(self, output: str, wave: Tensor, batch: Batch, count: int) -> tuple[Tensor, Tensor]:
        """A waveform as late as an output is, ``count`` samples of it, and which of them count."""
        clock = self.clock(output)
        late, _ = delay_of(clock.latency, clock.rate)
        places = torch.arange(count, device=wave.device)
        there = (places >= self.first_sample(output)) & (places < late + wave.shape[-1])
        there = there & (places < valid_frames(batch, clock.rate)[:, None])
        return delayed(wave, late, count), there.unsqueeze(1).to(wave.dtype)


def entered(graph: Graph, entry: str, outputs: Sequence[str], given: Iterable[str]) -> list[str]:
    """The signals, of those that the data gives, which outputs need: controls, and what no output needs, are none."""
    names = [name for name in given if name not in graph.controls]
    if not names:
        return []
    known, whole = named_signals(graph), subgraph(graph, list(outputs), [entry])
    return [name for name in names if name in known and known[name].node in whole.nodes]


def valid_frames(batch: Batch, rate: Fraction) -> Tensor:
    """Frames of each row, at a rate, that are heard and no padding, ``(batch,)``."""
    # On the CPU, since not every device has float64; a whole number of frames may come out a rounding error short.
    seconds = batch["valid"].cpu().to(torch.float64)
    device = next(tensor.device for name, tensor in batch.items() if name != "valid")
    return torch.floor(seconds * float(rate) + 1e-6).to(torch.int64).to(device)


def key_of(to: str, audio: str) -> str:
    """The batch's key of what a loss compares with."""
    return {"teacher.content": "content", audio: "audio"}.get(to, to)


def loss_key(plan: LossPlan) -> str:
    """A name for the module of a loss: the same for two phases' losses that are the same but for their weight."""
    own = ",".join(f"{key}={plan.params[key]}" for key in sorted(plan.params))
    return f"{plan.name}:{plan.use}:{plan.of}:{own}".replace(".", "·")


def build_losses(phases: Iterable[Phase], graph: Graph, speakers: int) -> dict[str, Objective]:
    """The modules of all losses that weigh anything, by ``loss_key``.

    Raises:
        TrainingError: for a loss that cannot be built on its signal.
    """
    context = LossContext(
        {name: stream.channels for name, stream in graph.outputs.items()},
        {name: stream.rate for name, stream in graph.outputs.items()},
        speakers,
    )
    plans = {loss_key(plan): plan for phase in phases for plan in phase.active}
    return {key: build_loss(plan.spec, context) for key, plan in plans.items()}


def trained_parameters(graph: Graph, prefixes: Iterable[str]) -> dict[str, nn.Parameter]:
    """The parameters of the nodes that learn, by their names in the graph.

    Args:
        graph: the whole.
        prefixes: flat names of nodes, or of the nested graphs they are in: ``encoder`` has ``encoder/transformer``.
    """
    wanted = tuple(prefix.replace(".", "/") for prefix in prefixes)
    nodes = [name for name in graph.nodes if any(name == one or name.startswith(f"{one}/") for one in wanted)]
    paths = tuple(f"{name.replace('/', '.')}." for name in nodes)
    return {name: parameter for name, parameter in graph.named_parameters() if name.startswith(paths)}
