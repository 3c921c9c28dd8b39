"""Speaking with another voice, live: a recipe, the voices it takes, its controls, and the engine that runs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from astrape.audio.places import Where
from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.graph.recipe.node import Control
from astrape.runtime.engine import Engine
from astrape.voice.building import build_voicebank
from astrape.voice.conversion import Converter, voice_of
from astrape.voice.names import RECIPE
from astrape.voice.shipped import shipped_voices
from astrape.voice.speaking import REGISTER, SPEAKER, load_seeded, voice_controls
from astrape.voice.voicebank import Voicebank, read_voicebank

__all__ = ["VOICE", "LiveVoice"]

VOICE = "emma"
"""The voice where none is named."""

NOISE_SEED = "seed"
"""A control that is not offered as a slider."""


class LiveVoice:
    """A recipe to speak through, with the voices at hand.

    A recipe with a control ``speaker`` speaks in a voice; any other with one audio input and output, such as
    ``robot-voice``, runs as it is.

    Args:
        recipe: the name of a shipped recipe, or the path of a YAML file.
        weights: a safetensors file, also by URL, as recipe and voice; those that ship with the recipe when left out.
        voice: a voicebank, a recording, or the name of a voice that ships; ``VOICE`` when left out.
        controls: of the recipe, held from the start.
        encoder: speaker encoder for a recording; that of the weights when left out.

    Attributes:
        graph: what is run.
        voices: names or files that :meth:`speak_as` can turn to: those that ship, where the weights take them, and
            ``voice``.
        voice: who speaks; ``None`` for a recipe without voices.
        values: of its controls now, the voice's own aside.

    Raises:
        AstrapeError: for a recipe, weights or voice that cannot be read or do not fit each other.
    """

    def __init__(
        self,
        recipe: str | Path = RECIPE,
        *,
        weights: Where | None = None,
        voice: str | Path | None = None,
        controls: Mapping[str, Any] | None = None,
        encoder: str | None = None,
    ) -> None:
        self.recipe = os.fspath(recipe)
        self.values: dict[str, Any] = {name: _plain(value) for name, value in (controls or {}).items()}
        self.voice: str | None = None
        self.voices: list[str] = []
        self._encoder = encoder
        self._banks: dict[str, Voicebank] = {}
        self._engine: Engine | None = None
        self._converter: Converter | None = None
        self.graph: Graph = load_seeded(recipe, weights)
        if SPEAKER in self.values:
            raise AstrapeError("--set speaker: the speaker is what --voice gives")
        if SPEAKER not in self.graph.controls:
            if voice is not None:
                raise AstrapeError(f"'{self.graph.name}' speaks in no voice, and '{voice}' is asked for: leave it out")
            self._check_values()
            return
        self._converter = Converter(self.graph)
        self._converter.bind(weights, recipe)
        self.graph = self._converter.graph
        self.voice = os.fspath(VOICE if voice is None else voice)
        self.bank(self.voice)
        self.voices = list(dict.fromkeys([*self._fitting(), self.voice]))
        self._check_values()

    def _fitting(self) -> list[str]:
        """Names of the voices that ship and that the weights take."""
        space = self._speaking().space
        shipped = shipped_voices()
        if space is None:
            return list(shipped)
        return [name for name, path in shipped.items() if space.takes(read_voicebank(path).metadata.embedding_model)]

    def _check_values(self) -> None:
        for name, value in self.values.items():
            self.graph.check_control(name, value)
            count, channels = torch.as_tensor(value).numel(), self.graph.control_specs[name].channels
            if count not in (1, channels):
                raise AstrapeError(f"control '{name}' is {count} numbers: give {channels}")

    @property
    def random(self) -> bool:
        """Whether its weights were drawn, so that what comes out is noise."""
        return self._converter is not None and self._converter.random

    @property
    def sliders(self) -> dict[str, Control]:
        """Controls of one number that can be offered as sliders, by name: neither the speaker nor a seed."""
        hidden = (SPEAKER, REGISTER, NOISE_SEED) if self.voice is not None else (NOISE_SEED,)
        return {n: c for n, c in self.graph.control_specs.items() if c.channels == 1 and n not in hidden}

    def value(self, name: str) -> float:
        """The value of a slider."""
        given = self.values.get(name)
        if given is not None:
            return float(given)
        default = self.graph.control_specs[name].default
        return float(default[0]) if default else 0.0

    def bank(self, voice: str) -> Voicebank:
        """A voice, read or built once, and refused where the weights take no voices of its kind.

        Raises:
            AstrapeError: for a voice that cannot be read, or of another speaker encoder.
        """
        if voice not in self._banks:
            assert self._converter is not None
            bank = voice_of(voice, self._encoder or self._converter.encoder)
            self._converter.check_voice(bank.metadata, voice)
            self._banks[voice] = bank
        return self._banks[voice]

    def build(self, recording: str | Path) -> Voicebank:
        """A voice of a recording, by the speaker encoder whose voices the weights take.

        Raises:
            AstrapeError: for a recipe without voices, and a recording that is not good enough as a reference.
        """
        return build_voicebank(recording, self._encoder or self._speaking().encoder)

    def add(self, name: str, bank: Voicebank) -> None:
        """Have a further voice at hand.

        Raises:
            AstrapeError: for a recipe without voices, and a voice of another speaker encoder.
        """
        self._speaking().check_voice(bank.metadata, name)
        self._banks[name] = bank
        self.voices = list(dict.fromkeys([*self.voices, name]))

    def _speaking(self) -> Converter:
        if self._converter is None:
            raise AstrapeError(f"'{self.graph.name}' speaks in no voice")
        return self._converter

    @property
    def controls(self) -> dict[str, Any]:
        """Values of the graph's controls: the voice's, overridden by what was set besides."""
        if self.voice is None:
            return dict(self.values)
        own = voice_controls(self.graph, self.bank(self.voice))
        return own | self.values | {SPEAKER: own[SPEAKER]}

    def engine(self, rate: int, block: int, **options: Any) -> Engine:
        """The engine for a host; see :class:`~astrape.runtime.engine.Engine`. What changes from then on, it is told."""
        self._engine = Engine(self.graph, rate, block, controls=self.controls, **options)
        return self._engine

    def speak_as(self, voice: str) -> None:
        """Turn to another voice, within a quantum and without a click."""
        bank = self.bank(voice)
        self.voice = voice
        if self._engine is not None:
            own = {n: v for n, v in voice_controls(self.graph, bank).items() if n == SPEAKER or n not in self.values}
            self._engine.set(**own)

    def set(self, name: str, value: Any) -> None:
        """Set a control.

        Raises:
            StreamError: for an unknown one, or a value out of range.
        """
        self.graph.check_control(name, value)
        self.values[name] = value
        if self._engine is not None:
            self._engine.set(**{name: value})

    def quantum(self, rate: int) -> int:
        """Frames of a host's sound after which the graph's schedule comes round."""
        hosted: Graph = self.graph.hosted(rate)
        return hosted.quantum


def _plain(value: Any) -> Any:
    """A number where there is one: sliders show it, and it goes to another process as JSON."""
    return float(value) if isinstance(value, torch.Tensor) and value.numel() == 1 else value
