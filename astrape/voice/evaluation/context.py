"""The context of a metric: one conversion, and the tools that are shared over the run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from astrape.runtime.files import Conversion
from astrape.voice.evaluation.recording import Recording

__all__ = ["Codes", "Context", "Latency", "Tools"]

REMEMBERED = 512
"""Results about a recording that are kept: a source and a target's reference take part in many pairs."""

Result = TypeVar("Result")


class Tools:
    """Results and choices that all pairs of a run share, such as the pitch tracker.

    Args:
        language: of the sources, an ISO 639 code.
        tracker: of pitch, ``swift-f0`` or ``pyworld``; the first of them that is installed when left out.
    """

    def __init__(self, language: str = "en", tracker: str | None = None) -> None:
        self.language = language
        self.tracker = tracker
        self._memory: OrderedDict[tuple[str, Path, float], Any] = OrderedDict()

    def remember(self, what: str, recording: Recording, compute: Callable[[Recording], Result]) -> Result:
        """``compute(recording)``, once for each recording as long as it is among the last ``REMEMBERED``."""
        key = (what, recording.path.absolute(), recording.late)
        if key not in self._memory:
            self._memory[key] = compute(recording)
        self._memory.move_to_end(key)
        while len(self._memory) > REMEMBERED:
            self._memory.popitem(last=False)
        found: Result = self._memory[key]
        return found


@dataclass(frozen=True)
class Latency:
    """Latency of the graph that converts, milliseconds: of its filters and windows, and in all for a live host."""

    algorithmic_ms: float
    host_ms: float


@dataclass(frozen=True)
class Codes:
    """The quantizer's output for one source.

    Attributes:
        codes: int64 ``(frames,)``.
        size: how many codes there are.
        digits: what a code is made of, by number of values: the grids of pairs, or the levels of axes.
        split: codes ``(1, 1, frames)`` to digits ``(1, count, frames)``.
    """

    codes: Tensor
    size: int
    digits: tuple[int, ...]
    split: Callable[[Tensor], Tensor] = field(repr=False, default=torch.as_tensor)


@dataclass
class Context:
    """One conversion.

    Attributes:
        source: who is heard.
        converted: what came out, in time with the source.
        source_key: the source's name in the corpus.
        transcript: what the source says.
        target_audio: a recording of the target speaker.
        reference: what a perfect system would have given, in time with the result: the source itself where it is
            converted to its own voice.
        codes, conversion, latency: of a conversion that was made here.
        elsewhere: the result was made by another system.
        no_target_audio: why there is no ``target_audio``.
        notes: what metrics have to say beside numbers, by name: what was recognised, for instance.
        parts: by family, what a metric keeps of this conversion for its values of all files together: plain values or
            arrays, since they may come from another process.
    """

    source: Recording
    converted: Recording
    source_key: str
    transcript: str | None = None
    target_audio: Recording | None = None
    reference: Recording | None = None
    codes: Codes | None = None
    conversion: Conversion | None = None
    latency: Latency | None = None
    elsewhere: bool = False
    no_target_audio: str = "there is no recording of the target"
    notes: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)

    def lacks(self, need: str) -> str | None:
        """The reason why something of ``NEEDS`` is not there; ``None`` where it is."""
        if getattr(self, need) is not None:
            return None
        if need in ("codes", "conversion") and self.elsewhere:
            return "the result was converted elsewhere"
        return {
            "transcript": "there is no transcript of the source",
            "target_audio": self.no_target_audio,
            "reference": "there is no reference: only a conversion to the source's own voice has one (--own-voice)",
            "codes": "the recipe has no quantizer behind an output 'codes'",
            "conversion": "nothing was converted",
        }[need]
