"""MioCodec (``Aratako/MioCodec-25Hz-44.1kHz-v2``) as a teacher: content, codes, speakers, and audio back from them."""

from __future__ import annotations

import hashlib
import os
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from astrape.training.errors import TeacherError
from astrape.training.teachers.miocodec.codec import holds_wavlm, open_codec
from astrape.training.teachers.miocodec.places import CODEC, find_codec, find_wavlm
from astrape.training.teachers.miocodec.wavlm import RATE
from astrape.training.teachers.teacher import checked_audio

__all__ = ["MioCodecTeacher"]

PUBLISHED = "8e319ef2231bad184f17cb73fd5a21b685c25c6c1622ef33ed9271187e81cd4a"
"""SHA-256 of the published ``model.safetensors``."""


class MioCodecTeacher:
    """The codec that the original was taught by (its code and weights are under the MIT licence).

    Content is 768 channels at 25 Hz, as FSQ leaves it: 12,800 different vectors, with their codes. Speakers are 128
    numbers. Audio is 44.1 kHz. Everything is computed in float32; the published code takes bfloat16 on CUDA.

    Args:
        folder: where ``miocodec/config.yaml``, ``miocodec/model.safetensors`` and ``wavlm-base-plus/`` are, see
            :mod:`~astrape.training.teachers.miocodec.places`; ``$ASTRAPE_TEACHERS`` or ``teachers`` when left out.
        wavlm: weights of WavLM elsewhere, a file or a folder. A checkpoint that holds WavLM needs none.
        device: where to run.
        longest: seconds of audio that are taken at once. WavLM attends from every frame to every other: beside 1.3 GB
            for the weights, one minute takes 1.8 GB, and four times as much twice as long.

    Attributes:
        layer_rate: frames a second of :meth:`layers`.

    Raises:
        TeacherError: where files or packages are missing or do not fit, with what to get and where to put it.
    """

    decodes = True

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        wavlm: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        longest: float = 120.0,
    ) -> None:
        if isinstance(longest, bool) or not isinstance(longest, (int, float)) or not 0 < longest <= 3600:
            raise TeacherError(f"longest must be more than 0 and at most 3600 seconds, not {longest!r}")
        files = find_codec(folder)
        inside = holds_wavlm(files.weights) if wavlm is None else None
        codec = open_codec(files, inside or find_wavlm(folder, wavlm))
        try:
            self.codec = codec.to(device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise TeacherError(f"teacher 'miocodec' cannot run on device '{device}': {error}") from error
        self.device, self.longest = torch.device(device), longest
        config = codec.config
        self.sample_rate = config.main.sample_rate
        self.layer_rate = Fraction(RATE, codec.wavlm.hop)
        self.content_rate = self.layer_rate / config.main.halve
        self.content_channels = config.quantizer.output_dim
        self.speaker_channels = config.speaker.output_channels
        self.code_count = codec.content.quantizer.size
        self.name = _name(files.weights)

    def content(self, audio: Tensor) -> Tensor:
        """See :class:`~astrape.training.teachers.teacher.Teacher`."""
        return self.encode(audio)[0]

    def codes(self, audio: Tensor) -> Tensor:
        """Codes of the content, 0 to 12,799."""
        return self.encode(audio)[1]

    @torch.no_grad()
    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Content and codes together, for which WavLM runs once."""
        content, codes = self.codec.encode(self._hear(audio))
        return content.to(audio.device), codes.to(audio.device)

    @torch.no_grad()
    def speaker(self, audio: Tensor) -> Tensor:
        """Embeddings of voices: one to eight seconds of each are usual."""
        return self.codec.embed(self._hear(audio)).to(audio.device)

    @torch.no_grad()
    def layers(self, audio: Tensor) -> list[Tensor]:
        """Outputs of WavLM's layers for audio, ``(batch, channels, frames)`` at :attr:`layer_rate` each.

        Number 0 is what the first layer is given, number 9 the last that the codec hears; frame ``j`` describes the
        audio from ``j / layer_rate`` seconds on.
        """
        return [layer.transpose(1, 2).to(audio.device) for layer in self._hear(audio)]

    @torch.no_grad()
    def content_of(self, codes: Tensor) -> Tensor:
        """Content of stored codes, ``(batch, 1, frames)``: what :meth:`content` gave with them.

        Raises:
            TeacherError: for another shape, or numbers that are not codes.
        """
        if codes.dim() != 3 or codes.shape[1] != 1 or codes.is_floating_point():
            raise TeacherError(f"codes must be whole numbers of shape (batch, 1, frames), not {tuple(codes.shape)}")
        wrong = codes[(codes < 0) | (codes >= self.code_count)]
        if wrong.numel():
            raise TeacherError(f"codes must be 0 to {self.code_count - 1}, not {int(wrong[0])}")
        found: Tensor = self.codec.content.quantizer.decode(codes[:, 0].to(self.device))
        return found.transpose(1, 2).to(codes.device)

    @torch.no_grad()
    def decode(self, content: Tensor, speaker: Tensor, samples: int | None = None) -> Tensor:
        """Audio of content in a voice, ``(batch, 1, about as many samples)``.

        Args:
            content: ``(batch, content_channels, frames)``.
            speaker: ``(batch, speaker_channels)``.
            samples: of the audio that the content was heard in; when left out, as many as its frames stand for. What
                comes is that, less what does not fill a frame of the decoder: up to 881 of 882 samples.

        Raises:
            TeacherError: for other shapes, or too little audio.
        """
        if content.dim() != 3 or content.shape[1] != self.content_channels or not content.shape[2]:
            raise TeacherError(f"content must be (batch, {self.content_channels}, frames), not {tuple(content.shape)}")
        if tuple(speaker.shape) != (content.shape[0], self.speaker_channels):
            raise TeacherError(
                f"speakers must be ({content.shape[0]}, {self.speaker_channels}), not {tuple(speaker.shape)}"
            )
        length = self.codec.samples(content.shape[2]) if samples is None else samples
        if not self.codec.decoder.frames(length) or length / self.sample_rate > 2 * self.longest:
            raise TeacherError(f"samples must be those of the content, 20 ms at least, not {length}")
        given, voice = (one.detach().to(self.device, torch.float32) for one in (content, speaker))
        return self.codec.decode(given, voice, length)[:, None].to(content.device)

    def convert(self, audio: Tensor, target: Tensor) -> Tensor:
        """The content of ``audio``, ``(batch, 1, samples)``, spoken in the voices of ``target``."""
        return self.decode(self.content(audio), self.speaker(target), audio.shape[2])

    def _hear(self, audio: Tensor) -> list[Tensor]:
        seconds = audio.shape[-1] / self.sample_rate
        if seconds > self.longest:
            raise TeacherError(
                f"teacher 'miocodec' takes {self.longest:g} s of audio at once, not {seconds:.4g}: cut the recording, "
                f"or give it a higher parameter longest if there is memory for it"
            )
        checked = checked_audio(audio, self.sample_rate, float(1 / self.content_rate))
        return self.codec.hear(checked[:, 0].to(self.device))


def _name(weights: Path) -> str:
    """The published codec by its own name, and any other by its weights: their spaces differ."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return CODEC if digest == PUBLISHED else f"miocodec {digest[:12]}"
