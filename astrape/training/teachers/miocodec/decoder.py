"""The decoder from content and a speaker's embedding to the waveform."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from astrape.training.teachers.miocodec.config import CodecConfig
from astrape.training.teachers.miocodec.transformer import MioTransformer

__all__ = ["WaveDecoder"]

LOUDEST = 1e2
"""Magnitudes are kept below this."""


class WaveDecoder(nn.Module):
    """Content ``(batch, frames, width)`` and speakers ``(batch, channels)`` to ``(batch, samples)``.

    A transformer at the content's rate, a transposed convolution, linear interpolation to the rate of the decoder, a
    transformer between residual convolutions that the speaker steers, transposed convolutions to the rate of the
    spectrum, and its inverse transform from magnitudes and phases.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.main.decoder_dim
        self.prenet = MioTransformer(config.prenet)
        self.upsample: nn.Module = nn.Identity()
        if config.main.upsample > 1:
            self.upsample = nn.ConvTranspose1d(dim, dim, config.main.upsample, config.main.upsample)
        self.prior = _ResNets(dim, config)
        self.decoder = MioTransformer(config.decoder)
        self.post = _ResNets(dim, config)
        self.upsampler = _Upsampler(dim, config) if config.main.upsampler else None
        self.head = nn.Linear(dim, config.main.n_fft + 2)

    def frames(self, samples: int) -> int:
        """Frames of the decoder for that many samples of audio."""
        spectra = samples // self.config.main.hop + (self.config.main.istft_padding == "center")
        return spectra // math.prod(factor for factor, _ in self.config.main.upsampler)

    def forward(self, content: Tensor, speaker: Tensor, samples: int) -> Tensor:
        """Audio of about ``samples``: as many whole frames of the decoder as there are in them."""
        x = self.upsample(self.prenet(content).transpose(1, 2))
        x = functional.interpolate(x, size=self.frames(samples), mode=self.config.main.interpolation)
        x = self.decoder(self.prior(x).transpose(1, 2), speaker)
        x = self.post(x.transpose(1, 2))
        if self.upsampler is not None:
            x = self.upsampler(x)
        magnitude, phase = self.head(x.transpose(1, 2)).chunk(2, dim=-1)
        return self._audio(torch.polar(magnitude.exp().clamp(max=LOUDEST), phase))

    def _audio(self, spectra: Tensor) -> Tensor:
        """The inverse transform of ``(batch, spectra, bins)``."""
        size, hop = self.config.main.n_fft, self.config.main.hop
        window = torch.hann_window(size, device=spectra.device)
        if self.config.main.istft_padding == "center":
            return torch.istft(spectra.transpose(1, 2), size, hop, size, window, center=True)
        frames = torch.fft.irfft(spectra, size, dim=-1) * window
        weight = window.square().expand(1, frames.shape[1], size)
        audio, heard = (_overlapped(one, hop)[:, : (one.shape[1] - 1) * hop + size] for one in (frames, weight))
        cut = (size - hop) // 2
        whole: Tensor = audio / heard
        return whole[:, cut : audio.shape[1] - cut]


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Frames ``(batch, count, size)`` added up, each ``hop`` samples after the last: ``(batch, samples)``."""
    batch, count, size = frames.shape
    pieces = -(-size // hop)
    frames = functional.pad(frames, (0, pieces * hop - size)).reshape(batch, count, pieces, hop)
    total = frames.new_zeros(batch, count + pieces - 1, hop)
    for piece in range(pieces):
        total[:, piece : piece + count] += frames[:, :, piece]
    return total.flatten(1)


class _ResNet(nn.Module):
    """Two convolutions, each after a group norm and SiLU, beside the input."""

    def __init__(self, channels: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv1 = nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2)
        self.norm2 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv2 = nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(functional.silu(self.norm2(y)))
        total: Tensor = x + y
        return total


class _ResNets(nn.Module):
    def __init__(self, channels: int, config: CodecConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _ResNet(channels, config.main.resnet_kernel, config.main.resnet_groups)
            for _ in range(config.main.resnet_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class _SnakeBeta(nn.Module):
    """``x + sin(a x)^2 / b`` with ``a`` and ``b`` of each channel, kept as logarithms (BigVGAN, arXiv:2206.04658)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        turned = torch.sin(self.alpha.exp()[:, None] * x)
        y: Tensor = x + turned.square() / (self.beta.exp()[:, None] + 1e-9)
        return y


class _Upsampler(nn.Module):
    """Transposed convolutions that halve the channels, and a projection back to all of them."""

    def __init__(self, dim: int, config: CodecConfig) -> None:
        super().__init__()
        widths = [dim >> stage for stage in range(len(config.main.upsampler) + 1)]
        self.upsample_layers = nn.ModuleList(
            nn.ConvTranspose1d(wide, narrow, kernel, factor, padding=(kernel - factor) // 2)
            for wide, narrow, (factor, kernel) in zip(widths, widths[1:], config.main.upsampler, strict=False)
        )
        self.snake_activations = nn.ModuleList(_SnakeBeta(narrow) for narrow in widths[1:])
        # The blocks here have kernels of 3 whatever those around the transformer have.
        self.resnet_blocks = nn.ModuleList(
            _ResNet(narrow, 3, min(config.main.resnet_groups, narrow)) for narrow in widths[1:]
        )
        self.out_proj = nn.Linear(widths[-1], dim)
        self.out_snake = _SnakeBeta(dim)

    def forward(self, x: Tensor) -> Tensor:
        for layer, snake, block in zip(self.upsample_layers, self.snake_activations, self.resnet_blocks, strict=True):
            x = block(snake(layer(x)))
        x = self.out_snake(self.out_proj(x.transpose(1, 2)).transpose(1, 2))
        return x
