"""The original's encoder as plain PyTorch modules over whole sequences, after the tables of its description.

An oracle: nothing here knows of streams, blocks or states. Names in the state dicts are those of its files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "EncoderSizes", "Holder", "LeftPadded", "OriginalEncoder", "over_channels"]


@dataclass
class EncoderSizes:
    """Sizes of an encoder; the defaults are the original's."""

    features: int = 80
    conv: int = 320
    kernel: int = 5
    stem: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    skips: tuple[int, ...] = (16, 32)
    trans: int = 512
    layers: int = 8
    heads: int = 8
    ffn: int = 1024
    window: int = 256
    rope: bool = True
    swiglu: bool = True
    levels: tuple[int, ...] = (9, 9, 9, 9, 9, 9)
    grid: str = "rhombic"
    latent: int = 6
    content: int = 768
    adapter: bool = True
    wide: int = 512
    hidden: int = 256
    expand: int = 0
    speakers: int = 0

    def config(self) -> dict[str, object]:
        """The configuration in the original's form."""
        return {
            "in_dim": self.features,
            "conv_dim": self.conv,
            "conv_kernel": self.kernel,
            "stem_dilations": self.stem,
            "skip_dilations": self.skips,
            "trans_dim": self.trans,
            "n_layers": self.layers,
            "n_heads": self.heads,
            "ffn_dim": self.ffn,
            "window": self.window,
            "use_rope": self.rope,
            "use_swiglu": self.swiglu,
            "q2d2_levels": self.levels,
            "q2d2_grid": {"rectangular": "rectangle", "hexagonal": "hexagon"}.get(self.grid, self.grid),
            "q2d2_dim": self.latent,
            "content_dim": self.content,
            "use_wavlm_frontend": self.adapter,
            "wavlm_rate": 200,
            "wavlm_in_dim": self.wide,
            "mamba_layers": 0,
        }


def over_channels(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer that works on the last dimension, on ``(batch, channels, frames)``."""
    return layer(x.transpose(1, 2)).transpose(1, 2)


class LeftPadded(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))


class Attention(nn.Module):
    """Scores written out: softmax over the allowed keys of every query."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, window: int, pairs: str | None) -> Tensor:
        batch, frames, width = q.shape
        q, k, v = (x.view(batch, frames, heads, width // heads).transpose(1, 2) for x in (q, k, v))
        if pairs is not None:
            q, k = rotated(q, pairs), rotated(k, pairs)
        scores = q @ k.transpose(-1, -2) / (width // heads) ** 0.5
        age = torch.arange(frames)[:, None] - torch.arange(frames)[None, :]
        scores = scores.masked_fill((age < 0) | (age >= window), float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, frames, width)


def rotated(x: Tensor, pairs: str) -> Tensor:
    """Each pair of dimensions as a complex number, turned by its frame's angle."""
    dim = x.shape[-1]
    rate = 1e4 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    turn = torch.polar(torch.ones(()).double(), torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * rate)
    real, imaginary = (x[..., 0::2], x[..., 1::2]) if pairs == "interleaved" else x.chunk(2, -1)
    z = torch.complex(real.double(), imaginary.double()) * turn
    if pairs == "interleaved":
        return torch.stack([z.real, z.imag], -1).flatten(-2).to(x.dtype)
    return torch.cat([z.real, z.imag], -1).to(x.dtype)


class PlainAttention(Attention):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3 * dim, dim) / dim**0.5)
        self.in_proj_bias = nn.Parameter(torch.randn(3 * dim) * 0.1)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, heads: int, window: int, rope: bool) -> Tensor:
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        return self.out_proj(self.attend(q, k, v, heads, window, "half" if rope else None))


class EncoderLayer(nn.Module):
    def __init__(self, s: EncoderSizes) -> None:
        super().__init__()
        self.s = s
        self.norm1, self.norm2 = nn.LayerNorm(s.trans), nn.LayerNorm(s.trans)
        self.attn = PlainAttention(s.trans)
        if s.swiglu:
            self.w1, self.w3 = nn.Linear(s.trans, s.ffn), nn.Linear(s.trans, s.ffn)
            self.w2 = nn.Linear(s.ffn, s.trans)
        else:
            self.ff = nn.Sequential(nn.Linear(s.trans, s.ffn), nn.SiLU(), nn.Linear(s.ffn, s.trans))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), self.s.heads, self.s.window, self.s.rope)
        h = self.norm2(x)
        return x + (self.w2(F.silu(self.w1(h)) * self.w3(h)) if self.s.swiglu else self.ff(h))


class StemBlock(nn.Module):
    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.depthwise = LeftPadded(dim, dim, kernel, dilation=dilation, groups=dim)
        self.pointwise = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.silu(self.depthwise(over_channels(self.norm, x))))


class Adapter(nn.Module):
    """Padded by three on the left, so that the window of frame ``j`` ends with frame ``4 j`` of its input."""

    def __init__(self, wide: int, hidden: int, out: int) -> None:
        super().__init__()
        self.down = nn.Conv1d(wide, hidden, 4, stride=4, groups=hidden)
        self.net = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, out))

    def forward(self, x: Tensor) -> Tensor:
        return over_channels(self.net, self.down(F.pad(x, (3, 0))))


class Holder(nn.Module):
    """Gives a layer the name of a wrapper's member."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def rhombic_points(x: int, y: int) -> Tensor:
    """The grid's points, then the centres of its cells, x slowest."""
    regular = [(i - (x - 1) / 2, j - (y - 1) / 2) for i in range(x) for j in range(y)]
    centres = [(i - (x - 2) / 2, j - (y - 2) / 2) for i in range(x - 1) for j in range(y - 1)]
    return torch.tensor(regular + centres, dtype=torch.float64)


def grid_points(grid: str, x: int, y: int) -> Tensor:
    if grid == "rhombic":
        return rhombic_points(x, y)
    if grid == "rectangular":
        return rhombic_points(x, y)[: x * y]
    rows = [(i - (x - 1) / 2 + (0.25 if j % 2 == 0 else -0.25), j - (y - 1) / 2) for j in range(y) for i in range(x)]
    return torch.tensor(rows, dtype=torch.float64)


class Quantizer(nn.Module):
    def __init__(self, s: EncoderSizes) -> None:
        super().__init__()
        self.levels, self.grid = s.levels, s.grid
        axes = len(s.levels)
        self.project_in = nn.Sequential(nn.Linear(s.latent, axes), nn.Tanh())
        self.project_out = nn.Linear(axes, s.latent) if axes != s.latent else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.project_in(x).double()
        points, codes, size = [], 0, 1
        for pair in range(len(self.levels) // 2):
            one, other = self.levels[2 * pair : 2 * pair + 2]
            grid = grid_points(self.grid, one, other)
            reach = torch.tensor([one - 1, other - 1]) * 1.001 / 2
            place = z[..., 2 * pair : 2 * pair + 2] * reach
            index = (place[..., None, :] - grid).square().sum(-1).argmin(-1)
            points.append(grid[index] / torch.tensor([one // 2, other // 2]))
            codes, size = codes + size * index, size * len(grid)
        return self.project_out(torch.cat(points, -1).to(x.dtype)), codes


class OriginalEncoder(nn.Module):
    def __init__(self, s: EncoderSizes) -> None:
        super().__init__()
        self.s = s
        self.input_conv = LeftPadded(s.features, s.conv, s.kernel)
        self.blocks = nn.ModuleList(StemBlock(s.conv, s.kernel, d) for d in s.stem)
        self.skips = nn.ModuleList(LeftPadded(s.features, s.conv, s.kernel, dilation=d) for d in s.skips)
        self.skip_gates = nn.ParameterList(nn.Parameter(torch.full((1, s.conv, 1), -2.0)) for _ in s.skips)
        self.downsample = Holder(conv=nn.Conv1d(s.conv, s.conv, 2, stride=2))
        self.proj_in = nn.Linear(s.conv, s.trans, bias=False) if s.conv != s.trans else nn.Identity()
        self.trans_layers = nn.ModuleList(EncoderLayer(s) for _ in range(s.layers))
        self.norm = nn.LayerNorm(s.trans)
        self.smooth = LeftPadded(s.trans, s.trans, 3, groups=s.trans)
        self.q2d2 = Holder(
            latent_head=nn.Linear(s.trans, s.latent), quantizer=Quantizer(s), proj_out=nn.Linear(s.latent, s.content)
        )
        if s.adapter:
            self.wavlm_adapter = Adapter(s.wide, s.hidden, s.features)
        if s.expand:
            self.content_expand = nn.Sequential(
                nn.Linear(s.content, s.expand), nn.GELU(), nn.Linear(s.expand, s.content)
            )
        # Heads of training, which the deploy graph has no use for.
        self.forecast_head_1, self.forecast_head_2 = nn.Linear(s.trans, s.content), nn.Linear(s.trans, s.content)
        self.ssl_heads = nn.ModuleList(nn.Linear(s.trans, s.content) for _ in range(3))
        if s.speakers:
            net = nn.Sequential(nn.Linear(s.content, 256), nn.ReLU(), nn.Linear(256, s.speakers))
            self.speaker_classifier = Holder(net=net)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, features, frames)`` to content and codes, ``(batch, content, frames')``."""
        x = self.wavlm_adapter(features) if self.s.adapter else features
        h = F.silu(self.input_conv(x))
        for block in self.blocks:
            h = block(h)
        for skip, gate in zip(self.skips, self.skip_gates, strict=True):
            h = h + torch.sigmoid(gate) * F.silu(skip(x))
        h = self.proj_in(self.downsample.conv(h).transpose(1, 2))
        for layer in self.trans_layers:
            h = layer(h)
        h = self.norm(h)
        h = h + self.smooth(h.transpose(1, 2)).transpose(1, 2)
        quantized, codes = self.q2d2.quantizer(self.q2d2.latent_head(h))
        content = self.q2d2.proj_out(quantized)
        if self.s.expand:
            content = content + self.content_expand(content)
        return content.transpose(1, 2), codes[:, None]
