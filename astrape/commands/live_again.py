"""Restarting ``astrape live`` in a new process, where PortAudio cannot let go of a device."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astrape.voice.live import LiveVoice

__all__ = ["Before"]

AGAIN_IN = "ASTRAPE_LIVE_AGAIN"
"""Environment variable in which a run hands itself on to another process."""


@dataclass(frozen=True)
class Before:
    """The state that a run hands to the process that takes its place.

    PortAudio cannot let go of a JACK server that died, or of a card that was pulled out as it began: it ends the
    process, or hangs. So the command begins anew in another process, which waits for the device, with the voice, the
    controls and the time that is left.
    """

    voice: str | None
    values: dict[str, float]
    seconds: float | None
    runs: int

    @classmethod
    def read(cls) -> Before | None:
        given = os.environ.pop(AGAIN_IN, None)
        return None if given is None else cls(**json.loads(given))

    @staticmethod
    def write(speaking: LiveVoice, seconds: float | None, before: Before | None) -> None:
        values = {name: float(value) for name, value in speaking.values.items() if name in speaking.sliders}
        left = None if seconds is None else max(0.1, seconds)
        now = Before(speaking.voice, values, left, 2 if before is None else before.runs + 1)
        os.environ[AGAIN_IN] = json.dumps(asdict(now))

    def next_files(self, record: str | None) -> str | None:
        """Names of further recordings, IN.2.wav and OUT.2.wav: the ones before are whole and stay as they are."""
        if record is None:
            return None
        names = [Path(name) for name in record.split(",")]
        return ",".join(str(path.with_suffix(f".{self.runs}{path.suffix}")) if path.name else "" for path in names)
