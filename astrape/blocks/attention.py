"""Causal attention over a sliding window, exact for chunks of any length and streams of any age."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.history import own_copy
from astrape.blocks.parameters import bounded, check_choice, check_elements, check_real
from astrape.blocks.registry import register
from astrape.blocks.rotary import PAIRINGS, Rotary

__all__ = ["Attention"]

LARGEST_WINDOW = 16384
FEWEST_QUERIES, MOST_QUERIES = 128, 1024
"""Queries that attend in one product: enough to be worth a call, few enough for a mask of 1024 x 17407 at most."""


@register("attention")
class Attention(StreamBlock):
    """Multi-head self-attention of every frame to itself and the ``window - 1`` frames before it.

    ``(batch, channels, frames)`` to the same shape. Before time zero there is nothing: the first frame attends to
    itself alone, and zeros are never attended to.

    The state per row is the keys and values of the last ``window - 1`` frames, ``(batch, heads, window - 1,
    head_dim)`` each, and an int64 count of how many of them are real, which stops at ``window - 1``. Keys are kept
    as they were projected and rotated by their place in the attended span each time they are used, so nothing in the
    state depends on how old the stream is.

    A chunk of ``n`` frames needs ``window - 1 + n`` keys. It is worked off in blocks of about ``window`` queries, each
    against the keys in its reach, so a pass over hours needs memory linear in its length.

    Args:
        source: any stream.
        heads: number of heads.
        window: frames attended to, the frame itself included: keys ``t - window + 1`` to ``t``.
        head_dim: dimensions of a head; ``channels / heads`` when left out.
        rotary: which dimensions rotate together, ``half``, ``interleaved`` or ``none``; see
            :class:`~astrape.blocks.rotary.Rotary`.
        theta: base of the rotary wavelengths.
        bias: whether the projections have biases.

    Raises:
        ValueError: for sizes out of range, channels that ``heads`` does not divide with no ``head_dim`` given, or an
            odd ``head_dim`` with rotary positions.
    """

    def __init__(
        self,
        source: Stream,
        *,
        heads: int,
        window: int,
        head_dim: int | None = None,
        rotary: str = "half",
        theta: float = 1e4,
        bias: bool = True,
    ) -> None:
        width = source.channels
        bounded("heads", heads, 1, 1024)
        bounded("window", window, 1, LARGEST_WINDOW)
        check_choice("rotary", rotary, PAIRINGS)
        check_real("theta", theta, 1.0, 1e12)
        if head_dim is None:
            if width % heads:
                raise ValueError(f"heads must divide the {width} channels, and {heads} does not: or give head_dim")
            head_dim = width // heads
        bounded("head_dim", head_dim, 1, 4096)
        if rotary != "none" and head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, not {head_dim}: or choose rotary: none")
        check_elements("the attention projection", 3 * heads * head_dim, width)
        super().__init__(source)
        self.heads, self.head_dim, self.window = heads, head_dim, window
        inner = heads * head_dim
        self.in_proj_weight = nn.Parameter(torch.empty(3 * inner, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * inner)) if bias else None
        self.out_proj = nn.Linear(inner, width, bias=bias)
        nn.init.xavier_uniform_(self.in_proj_weight)
        if bias:
            nn.init.zeros_(self.out_proj.bias)
        self.queries = min(max(window, FEWEST_QUERIES), MOST_QUERIES)
        self.rotary = Rotary(head_dim, self.queries + window - 1, rotary, theta)

    @property
    def receptive_field(self) -> Fraction:
        return self.window / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        shape = (batch_size, self.heads, self.window - 1, self.head_dim)
        check_elements("the attention state", *shape)
        return {
            "keys": torch.zeros(shape, device=device, dtype=dtype),
            "values": torch.zeros(shape, device=device, dtype=dtype),
            "seen": torch.zeros(batch_size, 1, device=device, dtype=torch.int64),
        }

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        batch, _, count = x.shape
        reach = self.window - 1
        fused = F.linear(x.transpose(1, 2), self.in_proj_weight, self.in_proj_bias)
        # Under autocast the projection is short of the state's precision; the state decides.
        fused = fused.to(state["keys"].dtype).view(batch, count, 3, self.heads, self.head_dim)
        queries, keys, values = fused.permute(2, 0, 3, 1, 4).unbind(0)
        queries = self.rotary.arrange(queries)
        keys = torch.cat([state["keys"], self.rotary.arrange(keys)], dim=2)
        values = torch.cat([state["values"], values], dim=2)
        attended = [queries[:, :, :0]] if count == 0 else []
        for start in range(0, count, self.queries):
            asking = queries[:, :, start : start + self.queries]
            span = slice(start, start + asking.shape[2] + reach)
            mask = self._mask(asking, start, state["seen"])
            attended.append(
                F.scaled_dot_product_attention(
                    self.rotary(asking, reach), self.rotary(keys[:, :, span], 0), values[:, :, span], attn_mask=mask
                )
            )
        heads = torch.cat(attended, dim=2) if len(attended) > 1 else attended[0]
        y = self.out_proj(heads.transpose(1, 2).flatten(2).to(x.dtype)).transpose(1, 2)
        after = {
            "keys": own_copy(keys[:, :, count:]),
            "values": own_copy(values[:, :, count:]),
            "seen": (state["seen"] + count).clamp(max=reach),
        }
        return y, after

    def _mask(self, queries: Tensor, start: int, seen: Tensor) -> Tensor:
        """0 where a query may look and minus infinity elsewhere, in the queries' dtype: another gives wrong scores.

        Key ``j`` of the span lies ``i + window - 1 - j`` frames before query ``i``, and its place among all keys of the
        call is ``start + j``, of which the first ``window - 1 - seen`` stand for frames before time zero.
        """
        count, reach = queries.shape[2], self.window - 1
        place = torch.arange(count + reach, device=queries.device)
        past = place - torch.arange(count, device=queries.device).unsqueeze(-1)
        allowed = (past >= 0) & (past <= reach)
        if start < reach:
            allowed = allowed & (place + start >= reach - seen[:, :, None, None])
        return torch.zeros_like(allowed, dtype=queries.dtype).masked_fill(~allowed, float("-inf"))
