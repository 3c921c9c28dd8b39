"""Speaker encoders: what turns a recording into the embedding of a voice.

A decoder converts to voices in the space of the encoder that it was trained with, so a voicebank takes that encoder:
``astrape-speaker``, which ships with its weights and goes with ``astrape-mini``
(:class:`~astrape.voice.own_encoder.AstrapeSpeaker`), one by the name of an entry point in the group
``astrape.speaker_encoders``, or ``package.module:factory``. ``mel-statistics`` does not replace it: it is there to
build voicebanks that try things out, and for decoders that are trained with it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.mel import Mel
from astrape.voice.embedding import CHANNELS
from astrape.voice.errors import VoicebankError
from astrape.voice.names import ASTRAPE_SPEAKER, MEL_STATISTICS
from astrape.voice.own_encoder import AstrapeSpeaker

__all__ = ["ENTRY_POINTS", "MelStatistics", "SpeakerEncoder", "speaker_encoder"]

ENTRY_POINTS = "astrape.speaker_encoders"


@runtime_checkable
class SpeakerEncoder(Protocol):
    """Anything that embeds a voice.

    Attributes:
        name: what the voicebank's ``embedding_model`` is to say: model and version, so that nobody mixes spaces.
        sample_rate: Hz, of the audio that it takes.
    """

    name: str
    sample_rate: int

    def embed(self, audio: Tensor) -> Tensor:
        """``(frames,)`` mono float32 at ``sample_rate``, 1 to 8 s, to ``(128,)``."""
        ...


class MelStatistics:
    """The long-term average spectrum and its variation: deterministic, and not trained on anything.

    64 means and 64 standard deviations over time of the logarithm of 64 mel bands from 60 Hz to 7.6 kHz, over the 10 ms
    frames within 30 dB of the loudest. The means are taken relative to their own mean, so that the level of a
    recording does not matter. The long-term average of spectral features is the classical description of a speaker
    (Markel, Oshika & Gray, "Long-term feature averaging for speaker recognition", IEEE Trans. ASSP, 1977); microphone
    and room are in it as much as the voice is.

    A decoder that was trained with another encoder makes nothing of it.
    """

    name = "astrape/mel-statistics-v1 (untrained)"
    sample_rate = 16000

    def __init__(self) -> None:
        source = Stream(self.sample_rate, 1)
        mel = Mel(source, hop=160, bins=CHANNELS // 2, n_fft=1024, fmin=60.0, fmax=7600.0, power=2, floor=1e-12)
        self._mel = mel.double().eval()

    @torch.no_grad()
    def embed(self, audio: Tensor) -> Tensor:
        bands = self._mel(audio.detach().cpu().double().reshape(1, 1, -1))[0]
        # The first windows reach back before the recording.
        bands = bands[:, min(bands.shape[1] - 1, 1024 // 160) :]
        level = bands.logsumexp(0)
        heard = bands[:, level >= level.max() - 3 * torch.tensor(10.0).log()]
        shape = heard.mean(1)
        return torch.cat((shape - shape.mean(), heard.std(1, correction=0))).float()


OWN: dict[str, Callable[[], Any]] = {ASTRAPE_SPEAKER: AstrapeSpeaker, MEL_STATISTICS: MelStatistics}
"""Encoders in the package itself, whatever an installation's entry points say."""


def speaker_encoder(name: str = MEL_STATISTICS) -> SpeakerEncoder:
    """The encoder of that name.

    Args:
        name: ``astrape-speaker``, ``mel-statistics``, an entry point in the group ``astrape.speaker_encoders``, or
            ``package.module:factory``. What it names is called without arguments and gives the encoder. Naming a module
            runs its code.

    Raises:
        VoicebankError: when there is none of that name, it cannot be imported, or it is not a speaker encoder.
    """
    encoder = _factory(name)()
    if not isinstance(encoder, SpeakerEncoder):
        raise VoicebankError(f"encoder '{name}' gives a {type(encoder).__name__}, without name, sample_rate or embed")
    return encoder


def _factory(name: str) -> Callable[[], Any]:
    if name in OWN:
        return OWN[name]
    known = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    module, colon, attribute = name.partition(":")
    if name not in known and not (colon and module and attribute):
        listed = ", ".join(dict.fromkeys([*OWN, *sorted(known)]))
        raise VoicebankError(
            f"there is no speaker encoder '{name}' (choose from: {listed}): install a package that has it, "
            f"or name it as package.module:factory"
        )
    try:
        found = (known.get(name) or EntryPoint(name, name, ENTRY_POINTS)).load()
    # Importing runs code of others, which fails in whatever way.
    except Exception as error:
        raise VoicebankError(f"encoder '{name}' cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise VoicebankError(f"encoder '{name}' is a {type(found).__name__}, which gives no encoder when called")
    return found  # type: ignore[no-any-return]
