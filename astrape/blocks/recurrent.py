"""Recurrent layers: gated units, and a selective state space with a parallel scan."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.conv import Conv
from astrape.blocks.linear import Linear
from astrape.blocks.ops.history import own_copy
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_elements
from astrape.blocks.registry import register

__all__ = ["GRU", "SSM"]

SCAN_FRAMES = 64
"""Frames that the scan takes at a time: enough to work in parallel, few enough to bound memory and wasted work."""


@register("gru")
class GRU(StreamBlock):
    """Gated recurrent units (Cho et al., arXiv:1406.1078): ``(batch, channels_in, n)`` to ``(batch, channels, n)``.

    Args:
        source: the input stream.
        channels: units of each layer, 1 to 65536; as many as the input has channels, when left out.
        layers: layers one upon another, 1 to 64.

    Attributes:
        core: the ``torch.nn.GRU`` that does the work.

    Raises:
        ValueError: for a size out of range.
    """

    def __init__(self, source: Stream, *, channels: int | None = None, layers: int = 1) -> None:
        units = bounded("channels", source.channels if channels is None else channels, 1, LARGEST_COUNT)
        super().__init__(source, channels=units)
        self.layers = bounded("layers", layers, 1, 64)
        check_elements("the weights", layers, 3 * units, max(units, source.channels))
        self.core = nn.GRU(source.channels, units, layers, batch_first=True)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return torch.zeros(batch_size, self.layers, self.channels_out, device=device, dtype=dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.channels_out, 0), state
        y, last = self.core(x.transpose(1, 2), state.transpose(0, 1).contiguous())
        return y.transpose(1, 2), own_copy(last.transpose(0, 1))


@register("ssm")
class SSM(StreamBlock):
    """A selective state space, diagonal (S6: Gu & Dao, arXiv:2312.00752): ``(batch, channels_in, n)`` to ``channels``.

    Of the input come two streams ``u`` and ``z`` of ``E = expand * channels_in`` channels each; ``u`` passes a short
    depthwise convolution and SiLU. What the state keeps then depends on the input itself::

        D_t, B_t, C_t  = linear in u_t;   D_t = softplus(D_t)                 step sizes (E), input and output maps (N)
        h_t = exp(D_t A) h_{t-1} + D_t B_t u_t,   A = -exp(A_log)             E x N numbers that decay, never grow
        y_t = out((C_t h_t + D u_t) * SiLU(z_t))

    The recursion runs in blocks of frames, each in ``log2`` doublings of an associative scan (Blelloch 1990) that only
    ever multiplies decays below 1, so it is exact to rounding and cannot overflow; one frame takes no doubling. It has
    neither residual nor norm: put them around it.

    Args:
        source: the input stream.
        channels: output channels; as many as the input has, when left out.
        states: state numbers per inner channel, ``N``, 1 to 1024.
        expand: inner channels per input channel, 1 to 16.
        kernel: taps of the short convolution, 1 to 64.
        rank: width of the bottleneck that the step sizes come through; a sixteenth of the input's channels, rounded
            up, when left out.

    Attributes:
        in_proj, conv, x_proj, dt_proj, out_proj: the blocks it is made of.
        A_log: ``(E, N)``, first ``log(1), ..., log(N)`` (S4D-Real). D: ``(E,)``, first one. The bias of ``dt_proj``
            first gives step sizes spread from 0.001 to 0.1.

    Raises:
        ValueError: for a size out of range.
    """

    def __init__(
        self,
        source: Stream,
        *,
        channels: int | None = None,
        states: int = 16,
        expand: int = 2,
        kernel: int = 4,
        rank: int | None = None,
    ) -> None:
        count = bounded("channels", source.channels if channels is None else channels, 1, LARGEST_COUNT)
        super().__init__(source, channels=count)
        inner = bounded("expand", expand, 1, 16) * source.channels
        self.states = bounded("states", states, 1, 1024)
        self.rank = bounded("rank", -(-source.channels // 16) if rank is None else rank, 1, LARGEST_COUNT)
        self.inner = bounded("expand times the input's channels", inner, 1, LARGEST_COUNT // 2)
        check_elements("the state", inner, states, SCAN_FRAMES)
        wide = Stream(source.rate, inner)
        self.in_proj = Linear(source, channels=2 * inner, bias=False)
        self.conv = Conv(wide, kernel=bounded("kernel", kernel, 1, 64), depthwise=True)
        self.x_proj = Linear(wide, channels=self.rank + 2 * states, bias=False)
        self.dt_proj = Linear(Stream(source.rate, self.rank), channels=inner)
        self.out_proj = Linear(wide, channels=count, bias=False)
        self.A_log = nn.Parameter(torch.arange(1, states + 1, dtype=self.dt_proj.weight.dtype).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        with torch.no_grad():
            nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
            first = torch.exp(torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1)))
            # softplus(b) = first, solved for b.
            self.dt_proj.get_parameter("bias").copy_(first + torch.log(-torch.expm1(-first)))

    @property
    def receptive_field(self) -> Fraction | None:
        return None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return {
            "conv": self.conv.init_state(batch_size, device, dtype),
            "hidden": torch.zeros(batch_size, self.inner, self.states, device=device, dtype=dtype),
        }

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.channels_out, 0), state
        u, gate = self.in_proj.step(x, (), controls)[0].chunk(2, dim=1)
        u, conv = self.conv.step(u, state["conv"], controls)
        u = functional.silu(u)
        selected = self.x_proj.step(u, (), controls)[0]
        sizes, into, out_of = torch.split(selected, [self.rank, self.states, self.states], dim=1)
        sizes = functional.softplus(self.dt_proj.step(sizes, (), controls)[0])
        rates = -torch.exp(self.A_log)
        hidden, parts = state["hidden"], []
        for start in range(0, x.shape[-1], SCAN_FRAMES):
            part = slice(start, start + SCAN_FRAMES)
            step_sizes = sizes[..., part].unsqueeze(2)
            decay = torch.exp(step_sizes * rates[..., None])
            drive = step_sizes * u[..., part].unsqueeze(2) * into[..., part].unsqueeze(1)
            path = scan(decay, drive, hidden)
            hidden = own_copy(path[..., -1])
            parts.append((path * out_of[..., part].unsqueeze(1)).sum(dim=2))
        y = (torch.cat(parts, dim=-1) + self.D[:, None] * u) * functional.silu(gate)
        return self.out_proj.step(y, (), controls)[0], {"conv": conv, "hidden": hidden}


def scan(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """``h[t] = decay[t] * h[t-1] + drive[t]`` with ``h[-1] = start``, for all frames of the last dimension at once.

    After the doubling by ``s``, ``drive`` holds what the last ``2 s`` frames bring, and ``decay`` what is left of a
    state before them; the pairs combine as ``(a, b)(a', b') = (a a', a' b + b')``.
    """
    reach = 1
    while reach < drive.shape[-1]:
        late = decay[..., reach:]
        drive = torch.cat([drive[..., :reach], drive[..., reach:] + late * drive[..., :-reach]], dim=-1)
        decay = torch.cat([decay[..., :reach], late * decay[..., :-reach]], dim=-1)
        reach *= 2
    return drive + decay * start.unsqueeze(-1)
