"""The encoder from the front end's layers to content with its codes, and to a speaker's embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from astrape.training.teachers.miocodec.config import CodecConfig, SpeakerConfig
from astrape.training.teachers.miocodec.transformer import MioTransformer

__all__ = ["ContentEncoder", "LevelQuantizer", "MioSpeakerEncoder"]

STATISTICS = (1e-4, 1e4)
"""The bounds of the pooled variance."""


class ContentEncoder(nn.Module):
    """Features ``(batch, frames, width)``, normalised over the utterance, to content and codes at a lower rate."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.normalise, self.factor = config.main.normalise, config.main.halve
        self.transformer = MioTransformer(config.local_encoder)
        width = config.local_encoder.width_out
        self.halve: nn.Module = nn.Identity()
        if self.factor > 1 and config.main.halve_by_conv:
            self.halve = nn.Conv1d(width, width, self.factor, self.factor)
        elif self.factor > 1:
            self.halve = nn.AvgPool1d(self.factor, self.factor)
        self.quantizer = LevelQuantizer(width, config.quantizer.output_dim, config.quantizer.levels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Content ``(batch, channels, n)`` and int64 codes ``(batch, 1, n)``."""
        if self.normalise:
            spread, mean = torch.std_mean(features, dim=1, keepdim=True)
            features = (features - mean) / (spread + 1e-8)
        encoded = self.halve(self.transformer(features).transpose(1, 2))
        content, codes = self.quantizer(encoded.transpose(1, 2))
        return content.transpose(1, 2), codes[:, None]


class LevelQuantizer(nn.Module):
    """Finite scalar quantization (Mentzer et al., arXiv:2309.15505) with the bound that MioCodec was trained with.

    ::

        bound = tanh(z + tan(offset / reach)) reach - offset,   reach = (L - 1)(1 - 1e-3) / 2

    The block ``fsq`` reaches a thousandth above ``L - 1``, not below it: the two round differently within 0.7 % of a
    step beside the outer borders of 8 levels. Levels, codes and the way back from codes are the same.
    """

    def __init__(self, width_in: int, width_out: int, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        axes = len(levels)
        self.proj_in: nn.Module = nn.Identity() if width_in == axes else nn.Linear(width_in, axes)
        self.proj_out: nn.Module = nn.Identity() if width_out == axes else nn.Linear(axes, width_out)

    @property
    def size(self) -> int:
        return math.prod(self.levels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, n, width_in)`` to content ``(batch, n, width_out)`` and codes ``(batch, n)``."""
        steps = torch.round(self.bounded(self.proj_in(x)))
        half = self._half(x.device)
        return self.proj_out(steps / half), ((steps.to(torch.int64) + half) * self._places(x.device)).sum(-1)

    def bounded(self, z: Tensor) -> Tensor:
        """Each axis within its levels, before the rounding."""
        levels = torch.tensor(self.levels, device=z.device)
        reach = (levels - 1) * (1 - 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z + torch.tan(offset / reach)) * reach - offset

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, n)`` to content ``(batch, n, width_out)``."""
        levels = torch.tensor(self.levels, device=codes.device)
        half = self._half(codes.device)
        points = (codes[..., None] // self._places(codes.device) % levels - half) / half
        if isinstance(self.proj_out, nn.Linear):
            points = points.to(self.proj_out.weight)
        content: Tensor = self.proj_out(points)
        return content

    def _half(self, device: torch.device) -> Tensor:
        return torch.tensor([level // 2 for level in self.levels], device=device)

    def _places(self, device: torch.device) -> Tensor:
        return torch.tensor([math.prod(self.levels[:axis]) for axis in range(len(self.levels))], device=device)


class MioSpeakerEncoder(nn.Module):
    """Features ``(batch, frames, width)`` to an embedding ``(batch, channels)``.

    ConvNeXt blocks as in Vocos (arXiv:2306.00814), then attentive statistics pooling (Okabe et al., 2018).
    """

    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__()
        self.backbone = _Backbone(config)
        self.pooling = _Pooling(config)

    def forward(self, features: Tensor) -> Tensor:
        embedding: Tensor = self.pooling(self.backbone(features.transpose(1, 2)))
        return embedding


class _ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of ``(batch, channels, frames)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class _Backbone(nn.Module):
    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__()
        self.embed = nn.Conv1d(config.input_channels, config.dim, 7, padding=3)
        self.norm = _ChannelNorm(config.dim, eps=1e-6)
        self.convnext = nn.ModuleList(_ConvNeXt(config.dim, config.hidden) for _ in range(config.layers))
        self.final_layer_norm = _ChannelNorm(config.dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x))
        for block in self.convnext:
            x = x + block(x)
        x = self.final_layer_norm(x)
        return x


class _ConvNeXt(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.gelu(self.pwconv1(self.norm(self.dwconv(x).transpose(1, 2))))
        change: Tensor = self.gamma * self.pwconv2(wide)
        return change.transpose(1, 2)


class _Pooling(nn.Module):
    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__()
        self.attn = nn.Sequential(
            nn.Conv1d(config.dim, config.attention, 1),
            nn.Tanh(),
            nn.Conv1d(config.attention, config.dim, 1),
        )
        self.proj = nn.Linear(2 * config.dim, config.output_channels)
        self.norm = nn.LayerNorm(config.output_channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.attn(x).softmax(dim=2)
        mean = (weights * x).sum(2)
        variance = (weights * x.square()).sum(2) - mean.square()
        pooled: Tensor = self.norm(self.proj(torch.cat((mean, variance.clamp(*STATISTICS).sqrt()), dim=1)))
        return pooled
