"""The targets of losses: signals that the data must hold, those made of it batch by batch, and the clocks of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.pitch import PitchTracker
from astrape.graph.graph import Graph
from astrape.training.errors import TrainingError
from astrape.training.learner import Batch
from astrape.training.objectives import loss_class
from astrape.training.pairing import Clock
from astrape.training.pairs import LABELS, PAIR, TWIN, Pairs
from astrape.training.stage import Phase
from astrape.training.tables import PHONE_RATE, PITCH_RATE
from astrape.training.teachers import Teacher, open_teacher

__all__ = ["Targets", "audio_input"]

LAYER = "teacher.layer_"


class Targets:
    """The targets of a stage's losses.

    Args:
        graph: the whole.
        phases: whose losses there are.
        teacher: name and parameters, where the losses need more of the teacher than is stored.
        content: rate and channels of the stored content; ``None`` where none is.
        device: where to compute.
        pairs: how the stage draws from parallel sets, where it does.

    Attributes:
        clocks: by the name that a loss gives its target.
        needs: signals that the data must have, by their names in a batch.

    Raises:
        TrainingError: for targets that do not fit the signals they are for.
    """

    def __init__(
        self,
        graph: Graph,
        phases: Iterable[Phase],
        teacher: Mapping[str, Any],
        content: Stream | None,
        device: torch.device | str = "cpu",
        pairs: Pairs | None = None,
    ) -> None:
        self.audio = audio_input(graph)
        rate = graph.inputs[self.audio].rate
        plans = [plan for phase in phases for plan in phase.active]
        names = {plan.to for plan in plans if plan.to is not None}
        judges = [phase.discriminators for phase in phases if phase.discriminators is not None]
        names = (names | {judge.to for judge in judges}) - {TWIN}
        self.clocks: dict[str, Clock] = {self.audio: Clock(rate)}
        self.needs = {"features"}
        self._pitch: PitchTracker | None = None
        self._teacher: Teacher | None = None
        self._made = {name for name in names if name == "teacher.wav" or name.startswith(LAYER)}
        if any(loss_class(plan.use).compares == "speakers" for plan in plans):
            self.needs.add("speaker_index")
        if self.audio in names or "mic.pitch" in names:
            self.needs.add("audio")
        if "mic.pitch" in names:
            self._pitch = PitchTracker(Stream(rate, 1)).to(device).eval()
            self.clocks["mic.pitch"] = Clock(self._pitch.rate_out, self._pitch.latency)
        if "teacher.content" in names:
            self.needs.add("content")
            if content is not None:
                self.clocks["teacher.content"] = Clock(content.rate)
        self.needs |= {name for name in names if name in LABELS or name.startswith(PAIR)}
        self.clocks |= {"phones": Clock(PHONE_RATE), "pair.pitch": Clock(PITCH_RATE), "pair.wav": Clock(rate)}
        if pairs is not None:
            self.needs |= {"audio", *pairs.given.values()}
        if any(plan.voiced != 1 for plan in plans):
            self.needs |= {"content", "voiced"}
        if self._made:
            self._open(teacher, rate)
        self._check(graph, plans, content)

    def add(self, batch: Batch) -> Batch:
        """A batch with what is made of it: pitch, the teacher's own voice, its layers."""
        made: dict[str, Tensor] = {}
        with torch.no_grad():
            if self._pitch is not None:
                made["mic.pitch"] = self._pitch(batch["audio"][:, :1])
            if "teacher.wav" in self._made and self._teacher is not None:
                made["teacher.wav"] = self._teacher.decode(batch["content"], batch["speaker"])
            layers = sorted(name for name in self._made if name.startswith(LAYER))
            if layers and self._teacher is not None:
                heard = self._teacher.layers(batch["audio"])  # type: ignore[attr-defined]
                made |= {name: heard[int(name.removeprefix(LAYER))] for name in layers}
        return {**batch, **made}

    def _open(self, spec: Mapping[str, Any], rate: Fraction) -> None:
        if "use" not in spec:
            raise TrainingError(
                f"a loss compares with {min(self._made)}, and the recipe names no teacher: add --teacher"
            )
        params = {key: value for key, value in spec.items() if key != "use"}
        teacher = self._teacher = open_teacher(str(spec["use"]), **params)
        layers = [name for name in self._made if name.startswith(LAYER)]
        if "teacher.wav" in self._made:
            if not teacher.decodes:
                raise TrainingError(f"teacher '{spec['use']}' has no decoder, and a loss compares with teacher.wav")
            self.needs |= {"content", "speaker"}
            self.clocks["teacher.wav"] = Clock(Fraction(teacher.sample_rate))
        if layers:
            if not hasattr(teacher, "layers"):
                raise TrainingError(
                    f"teacher '{spec['use']}' shows none of its layers, and a loss compares with {min(layers)}: give "
                    f"that loss weight 0, or name another teacher"
                )
            self.needs.add("audio")
            layer_rate = Fraction(getattr(teacher, "layer_rate", 50))
            self.clocks |= {name: Clock(layer_rate) for name in layers}
        if teacher.sample_rate != rate and self._made:
            raise TrainingError(
                f"teacher '{spec['use']}' works at {teacher.sample_rate} Hz, and the recipe's audio has {rate} Hz"
            )

    def _check(self, graph: Graph, plans: Iterable[Any], content: Stream | None) -> None:
        for plan in plans:
            stream = graph.outputs[plan.of]
            compares = loss_class(plan.use).compares
            if plan.to is None and compares in ("frames", "samples", "labels"):
                raise TrainingError(
                    f"loss '{plan.name}' does not say what '{plan.of}' is compared with: add to: SIGNAL"
                )
            if plan.to == TWIN and compares != "frames":
                raise TrainingError(f"loss '{plan.name}': '{plan.use}' compares {compares}, and a twin has frames")
            if plan.to is not None and (compares == "labels") != (plan.to in LABELS):
                raise TrainingError(
                    f"loss '{plan.name}': '{plan.use}' compares {compares}, and '{plan.to}' has "
                    f"{'labels' if plan.to in LABELS else 'none'}: cross_entropy goes with {' or '.join(LABELS)}"
                )
            if plan.to == "teacher.content" and content is not None and stream.channels != content.channels:
                raise TrainingError(
                    f"loss '{plan.name}': '{plan.of}' has {stream.channels} channels and the teacher's content "
                    f"{content.channels}: give the recipe as many, or name another teacher"
                )
            if compares == "samples" and plan.to in self.clocks and self.clocks[plan.to].rate != stream.rate:
                raise TrainingError(
                    f"loss '{plan.name}': '{plan.of}' runs at {stream.rate} Hz and '{plan.to}' at "
                    f"{self.clocks[plan.to].rate} Hz: sample by sample they cannot be compared"
                )


def audio_input(graph: Graph) -> str:
    """The input that hears the microphone: the one of audio.

    Raises:
        TrainingError: for a graph without one.
    """
    for name, stream in graph.inputs.items():
        if stream.rate >= 4000:
            return name
    raise TrainingError(f"'{graph.name}' has no input of audio to train on (choose from: {', '.join(graph.inputs)})")
