"""The speaker encoder that ships: the recipe ``astrape-speaker`` with its weights, and nothing else to install."""

from __future__ import annotations

import torch
from torch import Tensor

from astrape.audio.levels import SPOKEN, sounding_rms
from astrape.graph import load
from astrape.graph.weights import shipped_weights
from astrape.voice.errors import VoicebankError
from astrape.voice.names import ASTRAPE_SPEAKER

__all__ = ["AstrapeSpeaker"]

FRAME = 1102
"""Samples, 25 ms."""


class AstrapeSpeaker:
    """Embeds a voice as ``astrape-mini`` was trained with: who speaks (96 numbers) and in what tone (32).

    The graph listens to the whole recording as a stream would, and its last frame is the embedding: half a million
    weights, 12 ms of one core for a second of speech, no network and no further package. How far it can tell speakers
    apart, beside Resemblyzer itself, `astrape voicebank verify` measures.
    """

    name = ASTRAPE_SPEAKER
    sample_rate = 44100

    def __init__(self) -> None:
        # Here and not in the first recording: a broken installation is named before an hour of speech is read.
        if shipped_weights(ASTRAPE_SPEAKER) is None:
            raise VoicebankError(
                f"the weights of '{ASTRAPE_SPEAKER}' are not in this installation (recipes/weights): install astrape "
                f"anew, or make them with `astrape train-speaker`"
            )
        self._graph = load(ASTRAPE_SPEAKER).eval()

    @torch.no_grad()
    def embed(self, audio: Tensor) -> Tensor:
        """``(frames,)`` mono float32 at 44.1 kHz, of any level, to ``(128,)``."""
        samples = audio.detach().cpu().float()
        found: Tensor = self._graph((samples * _gain(samples)).reshape(1, 1, -1))
        return found[0, :, -1]


def _gain(samples: Tensor) -> float:
    """The gain to the level at which decoders were shown voices: quiet bands would sink below the mel floor."""
    level = sounding_rms(samples.numpy(), FRAME)
    return float(SPOKEN / level) if level else 1.0
