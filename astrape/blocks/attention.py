"""Causal attention over a sliding window, exact for chunks of any length and streams of any age."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.ops.cache import KeyValueCache, RingPositions
from astrape.blocks.ops.product import frame_product
from astrape.blocks.ops.rotary import PAIRINGS, Rotary
from astrape.blocks.parameters import bounded, check_choice, check_elements, check_real
from astrape.blocks.registry import register

__all__ = ["Attention"]

LARGEST_WINDOW = 16384
FEWEST_QUERIES, MOST_QUERIES = 128, 1024
"""Queries that attend in one product: enough to be worth a call, few enough for a mask of 1024 x 17407 at most."""


@register("attention")
class Attention(StreamBlock):
    """Multi-head self-attention of every frame to itself and the ``window - 1`` frames before it.

    ``(batch, channels, frames)`` to the same shape. Before time zero there is nothing: the first frame attends to
    itself alone, and zeros are never attended to.

    The state per row is a :class:`~astrape.blocks.ops.cache.KeyValueCache`, the keys and values of the last ``window``
    frames, ``(batch, heads, window, head_dim)`` each, and an int64 count of all frames so far, the ``age``. The cache
    is a ring: frame ``p`` of the stream stands at position ``p mod window``, its key rotated by ``p``
    (:class:`~astrape.blocks.ops.rotary.Rotary`), so a new frame takes the position of the one that has just left its
    reach, and nothing else moves. A live session's state is written in place (:mod:`astrape.blocks.live`).

    A chunk of ``n`` frames needs ``window - 1 + n`` keys. It is worked off in blocks of about ``window`` queries, each
    against the keys in its reach, so a pass over hours needs memory linear in its length.

    Args:
        source: any stream.
        heads: number of heads.
        window: frames attended to, the frame itself included: keys ``t - window + 1`` to ``t``.
        head_dim: dimensions of a head; ``channels / heads`` when left out.
        rotary: which dimensions rotate together, ``half``, ``interleaved`` or ``none``; see
            :class:`~astrape.blocks.ops.rotary.Rotary`.
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
        self.rotary = Rotary(head_dim, rotary, theta)

    @property
    def receptive_field(self) -> Fraction:
        return self.window / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        age = torch.zeros(batch_size, 1, device=device, dtype=torch.int64)
        return {**self.empty_cache(batch_size, device, dtype), "age": age}

    def empty_cache(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Keys and values at time zero."""
        shape = (batch_size, self.heads, self.window, self.head_dim)
        check_elements("the attention state", *shape)
        return KeyValueCache.empty(shape, device, dtype)

    def positions(self, age: Tensor, count: int, dtype: torch.dtype) -> RingPositions:
        """The positions of ``count`` new frames, for this block and all others of its window and rotation."""
        return RingPositions(age, count, self.window, dtype, self.rotary)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        """:meth:`StreamBlock.step`; a stack passes an open :class:`KeyValueCache` as state and gets one back."""
        if isinstance(state, KeyValueCache):
            return self._attend(x, state)
        positions = self.positions(state["age"], x.shape[-1], state["keys"].dtype)
        y, cache = self._attend(x, KeyValueCache(state, positions))
        return y, {**cache.state, "age": positions.after}

    def _attend(self, x: Tensor, cache: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        batch, _, count = x.shape
        if count == 0:
            return x, cache
        fused = frame_product(x.transpose(1, 2), self.in_proj_weight, self.in_proj_bias)
        # Under autocast the projection is short of the state's precision; the state decides.
        fused = fused.to(cache.keys.dtype).view(batch, count, 3 * self.heads, self.head_dim)
        # Queries and keys turn alike, as heads of one tensor.
        turned = self.rotary(fused[:, :, : 2 * self.heads], cache.positions.angles).transpose(1, 2)
        queries, keys = turned.chunk(2, dim=1)
        values = fused[:, :, 2 * self.heads :].transpose(1, 2)
        after = cache.append(keys, values)
        if count == 1:
            heads = _attend_once(queries, after)
        else:
            heads = self._attend_many(queries, *cache.unroll(keys, values), cache.positions)
        rows = heads.transpose(1, 2).flatten(2).to(x.dtype)
        return frame_product(rows, self.out_proj.weight, self.out_proj.bias).transpose(1, 2), after

    def _attend_many(self, queries: Tensor, keys: Tensor, values: Tensor, positions: RingPositions) -> Tensor:
        attended = []
        for start in range(0, queries.shape[2], self.queries):
            asking = queries[:, :, start : start + self.queries]
            near = slice(start, start + asking.shape[2] + self.window - 1)
            mask = positions.mask(start, asking.shape[2])
            attended.append(
                F.scaled_dot_product_attention(asking, keys[:, :, near], values[:, :, near], attn_mask=mask)
            )
        return torch.cat(attended, dim=2) if len(attended) > 1 else attended[0]


def _attend_once(query: Tensor, cache: KeyValueCache) -> Tensor:
    """``F.scaled_dot_product_attention`` of one query. 8 heads and 256 keys take 80 us of a live step so, not 110."""
    batch, heads, count, width = cache.keys.shape
    penalty = cache.positions.ring_mask.expand(batch, heads, 1, count).flatten(0, 1)
    scores = torch.baddbmm(penalty, query.flatten(0, 1), cache.keys.flatten(0, 1).mT, alpha=width**-0.5)
    return torch.bmm(scores.softmax(dim=-1), cache.values.flatten(0, 1)).view(batch, heads, 1, width)
