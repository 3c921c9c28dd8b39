"""All of MioCodec: WavLM, the two encoders and the decoder, from a checkpoint as published."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from astrape.training.errors import TeacherError
from astrape.training.teachers.miocodec.config import CodecConfig, read_config
from astrape.training.teachers.miocodec.decoder import WaveDecoder
from astrape.training.teachers.miocodec.encoder import ContentEncoder, MioSpeakerEncoder
from astrape.training.teachers.miocodec.places import CodecFiles
from astrape.training.teachers.miocodec.resample import resample
from astrape.training.teachers.miocodec.wavlm import INSIDE, RATE, WavLM, open_wavlm
from astrape.training.teachers.miocodec.weights import TensorFile, fill, open_tensors

__all__ = ["MioCodec", "holds_wavlm", "open_codec"]

PREFIXES = {
    "content.transformer.": "local_encoder.",
    "content.halve.": "conv_downsample.",
    "content.quantizer.": "local_quantizer.",
    "speaker.": "global_encoder.",
    "decoder.prenet.": "wave_prenet.",
    "decoder.upsample.": "wave_conv_upsample.",
    "decoder.prior.": "wave_prior_net.",
    "decoder.decoder.": "wave_decoder.",
    "decoder.post.": "wave_post_net.",
    "decoder.upsampler.": "wave_upsampler.",
    "decoder.head.": "istft_head.out.",
}
"""Names of the parts in a checkpoint."""

LEFT_ASIDE = ("feature_decoder.", "conv_upsample.", "ssl_feature_extractor.", "istft_head.istft.window")
"""Parts that a checkpoint of training has beside them, and WavLM itself."""


class MioCodec(nn.Module):
    """The codec, in float32; on the device that its parameters are on."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.content = ContentEncoder(config)
        self.speaker = MioSpeakerEncoder(config.speaker)
        self.decoder = WaveDecoder(config)
        self.wavlm: WavLM

    def hear(self, audio: Tensor) -> list[Tensor]:
        """``(batch, samples)`` to the layers of WavLM, ``(batch, frames, width)``, from its input, 0.

        Silence is added to both ends alike, so that a frame comes of each begun hop of 20 ms.
        """
        margin = self.margin(audio.shape[1])
        padded = nn.functional.pad(audio, (margin, margin))
        layers: list[Tensor] = self.wavlm(resample(padded, self.config.main.sample_rate, RATE))
        return layers

    def margin(self, samples: int) -> int:
        """Samples of silence at each end.

        Reckoned in floating point, in the order in which the published code does: at some lengths, 355,446
        samples at 44.1 kHz among them, whole hops come out as a little more, and a frame more is made.
        """
        heard = samples / self.config.main.sample_rate * RATE
        frames = math.ceil(heard / self.wavlm.hop)
        needed = self.wavlm.samples(frames) / RATE * self.config.main.sample_rate
        return math.ceil((needed - samples) / 2)

    def samples(self, frames: int) -> int:
        """Samples of audio that a count of content frames stands for, by themselves."""
        return math.ceil(self.wavlm.samples(frames * self.config.main.halve) / RATE * self.config.main.sample_rate)

    def encode(self, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Content ``(batch, channels, frames)`` and codes ``(batch, 1, frames)``."""
        content, codes = self.content(_mean(layers, self.config.main.content_layers))
        return content, codes

    def embed(self, layers: list[Tensor]) -> Tensor:
        """The speaker's embedding, ``(batch, channels)``."""
        embedding: Tensor = self.speaker(_mean(layers, self.config.main.speaker_layers))
        return embedding

    def decode(self, content: Tensor, speaker: Tensor, samples: int) -> Tensor:
        """Content as it was encoded, in a voice: ``(batch, about as many samples)``."""
        audio: Tensor = self.decoder(content.transpose(1, 2), speaker, samples)
        return audio


def open_codec(files: CodecFiles, wavlm: Path | TensorFile) -> MioCodec:
    """A codec with its weights.

    Args:
        files: configuration and weights.
        wavlm: weights of WavLM, or the codec's own if they hold it, see :func:`holds_wavlm`.

    Raises:
        TeacherError: for files that cannot be read, and tensors that are missing, unknown or of another shape.
    """
    config = read_config(files.config)
    file = open_tensors(files.weights)
    with torch.device("meta"):
        codec = MioCodec(config)
    sources = {}
    for name, _ in codec.named_parameters():
        prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
        sources[name] = PREFIXES[prefix] + name.removeprefix(prefix)
    fill(codec, file, sources, [name for name in file.shapes if name.startswith(LEFT_ASIDE)])
    codec.wavlm = open_wavlm(wavlm, max(config.main.content_layers + config.main.speaker_layers))
    if codec.wavlm.width != config.local_encoder.width_in:
        raise TeacherError(
            f"{wavlm.path if isinstance(wavlm, TensorFile) else wavlm}: gives {codec.wavlm.width} channels, and the "
            f"codec hears {config.local_encoder.width_in}"
        )
    return codec.requires_grad_(False).eval()


def holds_wavlm(weights: Path) -> TensorFile | None:
    """The opened checkpoint, if WavLM is in it."""
    file = open_tensors(weights)
    return file if any(name.startswith(INSIDE) for name in file.shapes) else None


def _mean(layers: list[Tensor], chosen: tuple[int, ...]) -> Tensor:
    """The mean of some layers, counted from 1."""
    return torch.stack([layers[at] for at in chosen]).mean(0)
