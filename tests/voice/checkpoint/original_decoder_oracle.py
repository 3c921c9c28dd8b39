"""The original's decoder as plain PyTorch modules over whole sequences; see ``original_oracle`` for the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.voice.checkpoint.original_oracle import Attention, Holder, LeftPadded, over_channels

__all__ = ["DecoderSizes", "OriginalDecoder"]


@dataclass
class DecoderSizes:
    """Sizes of a decoder; the defaults are the original's."""

    content: int = 768
    speaker: int = 128
    dim: int = 384
    layers: int = 4
    heads: int = 8
    ffn: int = 1536
    window: int = 64
    factor: int = 7
    width: int = 384
    kernel: int = 3
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    nsf: bool = False
    harmonics: int = 16
    bridge: int = 512
    n_fft: int = 1512
    hop: int = 252

    def config(self) -> dict[str, object]:
        """The configuration in the original's form."""
        return {
            "content_dim": self.content,
            "condition_dim": self.speaker,
            "content_rate": 25,
            "sample_rate": 44100,
            "prenet_dim": self.dim,
            "prenet_layers": self.layers,
            "prenet_heads": self.heads,
            "prenet_window": self.window,
            "prenet_rope_theta": 10000.0,
            "upsample_factor": self.factor,
            "convnet_dim": self.width,
            "convnet_dilations": self.dilations,
            "convnet_kernel": self.kernel,
            "use_nsf": self.nsf,
            "nsf_harmonics": self.harmonics,
            "istft_bridge_dim": self.bridge,
            "n_fft": self.n_fft,
            "hop_length": self.hop,
            "istft_padding": "same",
        }


class Snake(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + (a * x).sin() ** 2 / (b + 1e-9)


class Adaptive(nn.Module):
    def __init__(self, dim: int, speaker: int) -> None:
        super().__init__()
        self.condition_proj = nn.Sequential(nn.SiLU(), nn.Linear(speaker, 3 * dim))

    def forward(self, x: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale, gate = self.condition_proj(speaker)[:, None].chunk(3, -1)
        return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift, gate


class DecoderLayer(Attention):
    def __init__(self, s: DecoderSizes) -> None:
        super().__init__()
        self.s = s
        self.attn_adaln, self.ffn_adaln = Adaptive(s.dim, s.speaker), Adaptive(s.dim, s.speaker)
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(s.dim, s.dim, bias=False) for _ in range(4))
        self.w1, self.w3 = nn.Linear(s.dim, s.ffn, bias=False), nn.Linear(s.dim, s.ffn, bias=False)
        self.w2 = nn.Linear(s.ffn, s.dim, bias=False)

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        h, gate = self.attn_adaln(x, speaker)
        attended = self.attend(self.wq(h), self.wk(h), self.wv(h), self.s.heads, self.s.window, "interleaved")
        x = x + gate * self.wo(attended)
        h, gate = self.ffn_adaln(x, speaker)
        return x + gate * self.w2(F.silu(self.w1(h)) * self.w3(h))


class SnakeBlock(nn.Module):
    def __init__(self, s: DecoderSizes, dilation: int) -> None:
        super().__init__()
        self.adaln = Adaptive(s.width, s.speaker)
        self.depthwise = LeftPadded(s.width, s.width, s.kernel, dilation=dilation, groups=s.width)
        self.act = Snake(s.width)
        self.pointwise = nn.Conv1d(s.width, s.width, 1)

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        h, gate = self.adaln(x.transpose(1, 2), speaker)
        return x + gate.transpose(1, 2) * self.pointwise(self.act(self.depthwise(h.transpose(1, 2))))


class Source(nn.Module):
    """Log-magnitudes of a harmonic comb, all harmonics at once."""

    def __init__(self, s: DecoderSizes) -> None:
        super().__init__()
        self.s = s
        self.spk_proj = nn.Linear(s.speaker, s.width)
        self.head = nn.Sequential(LeftPadded(s.width, s.width, 3), Snake(s.width), nn.Conv1d(s.width, 2, 1))

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        pitch, voicing = self.head(x + self.spk_proj(speaker)[..., None]).sigmoid().unbind(1)
        frequency = torch.linspace(0, 22050, self.s.n_fft // 2 + 1, dtype=x.dtype)[:, None, None]
        centres = (50 + 550 * pitch)[:, None, :, None] * torch.arange(1, self.s.harmonics + 1)
        comb = torch.exp(-(((frequency - centres) / (44100 / self.s.n_fft)) ** 2)).sum(-1)
        return (comb * voicing[:, None] + 1e-4).log()


class Head(nn.Module):
    """Spectra to samples: ``torch.fft.irfft``, one frame after another added in place."""

    def __init__(self, s: DecoderSizes) -> None:
        super().__init__()
        self.s = s
        self.out = nn.Linear(s.bridge, s.n_fft // 2 * 2 + 2)
        self.istft = nn.Module()
        self.istft.register_buffer("window", torch.hann_window(s.n_fft))

    def forward(self, x: Tensor) -> Tensor:
        magnitude, phase = self.out(x.transpose(1, 2)).chunk(2, -1)
        frames = torch.fft.irfft(torch.polar(magnitude.exp().clamp(max=100), phase), n=self.s.n_fft)
        window, hop = self.istft.window, self.s.hop
        total = (x.shape[-1] - 1) * hop + self.s.n_fft
        sums, weights = frames.new_zeros(len(x), total), frames.new_zeros(total)
        for index in range(x.shape[-1]):
            span = slice(index * hop, index * hop + self.s.n_fft)
            sums[:, span] += frames[:, index] * window
            weights[span] += window**2
        pad = (self.s.n_fft - hop) // 2
        return (sums[:, pad : total - pad] / weights[pad : total - pad])[:, None]


class OriginalDecoder(nn.Module):
    def __init__(self, s: DecoderSizes) -> None:
        super().__init__()
        self.s = s
        self.register_buffer("input_scale", torch.tensor(0.46 / 0.38))
        self.pw_in = nn.Linear(s.content, s.dim, bias=False)
        self.prenet_layers = nn.ModuleList(DecoderLayer(s) for _ in range(s.layers))
        self.prenet_norm = nn.LayerNorm(s.dim)
        up = nn.ConvTranspose1d(s.dim, s.dim, 2 * s.factor, stride=s.factor)
        self.upsampler = Holder(up=up, act=Snake(s.dim))
        self.up_proj = nn.Conv1d(s.dim, s.width, 1)
        if s.nsf:
            self.nsf = Source(s)
        self.convnet = nn.ModuleList(SnakeBlock(s, d) for d in s.dilations)
        self.convnet_norm = nn.LayerNorm(s.width)
        self.istft_bridge = nn.Conv1d(s.width + (s.n_fft // 2 + 1 if s.nsf else 0), s.bridge, 1)
        self.istft_head = Head(s)

    def forward(self, content: Tensor, speaker: Tensor) -> Tensor:
        """``(batch, content, frames)`` and ``(batch, speaker)`` to ``(batch, 1, samples)``."""
        h = self.pw_in(content.transpose(1, 2) * self.input_scale)
        for layer in self.prenet_layers:
            h = layer(h, speaker)
        h = self.prenet_norm(h).transpose(1, 2)
        h = self.upsampler.act(self.upsampler.up(h))[..., : content.shape[-1] * self.s.factor]
        h = self.up_proj(h)
        comb = [self.nsf(h, speaker)] if self.s.nsf else []
        for block in self.convnet:
            h = block(h, speaker)
        h = over_channels(self.convnet_norm, h)
        return self.istft_head(self.istft_bridge(torch.cat([h, *comb], 1)))
