"""The speaker encoder that ships: the recipe ``astrape-speaker`` with its weights, and nothing else to install."""

from __future__ import annotations

import torch
from torch import Tensor

from astrape.graph import load
from astrape.graph.weights import shipped_weights
from astrape.voice.errors import VoicebankError
from astrape.voice.names import ASTRAPE_SPEAKER

__all__ = ["AstrapeSpeaker"]


class AstrapeSpeaker:
    """Embeds a voice in the space of Resemblyzer on 128 directions, which ``astrape-mini`` was trained with.

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
        """``(frames,)`` mono float32 at 44.1 kHz to ``(128,)``."""
        found: Tensor = self._graph(audio.detach().cpu().float().reshape(1, 1, -1))
        return found[0, :, -1]
