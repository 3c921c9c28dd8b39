"""Pre-norm transformer layers over windowed causal attention, plain or modulated by a control."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.adaln import EPSILON, AdaLN, add_gated
from astrape.blocks.attention import Attention
from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.compose import Sequential
from astrape.blocks.norm import Norm
from astrape.blocks.ops.cache import KeyValueCache
from astrape.blocks.ops.product import frame_product, frame_products
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_elements
from astrape.blocks.registry import register

__all__ = ["Transformer", "TransformerLayer"]


@register("transformer_layer")
class TransformerLayer(StreamBlock):
    """One layer: attention, then a gated feed-forward net (SwiGLU, Shazeer, arXiv:2002.05202), each on a residual::

        x = x + attn(norm1(x))
        x = x + w2(silu(w1 h) * w3 h),   h = norm2(x)

    With ``condition`` both norms are :class:`~astrape.blocks.adaln.AdaLN` (``attn_adaln``, ``ffn_adaln``) and a gate
    from the same control multiplies each branch, so a fresh layer passes its input through.
    Attention alone has state. Two :class:`~astrape.blocks.compose.Residual` would do, but would rename the weights that
    checkpoints call ``attn.out_proj``, ``w1`` and so on.

    Args:
        source: any stream; the layer keeps its channels.
        ffn: hidden width of the feed-forward net.
        channels: width of the model. It is the input's, and may be left out; giving it checks it.
        condition: name of a control that modulates the layer, or ``None``.
        condition_channels: the control's channels.
        bias: whether all projections have biases.
        heads, window, head_dim, rotary, theta: as in :class:`~astrape.blocks.attention.Attention`.

    Raises:
        ValueError: for sizes out of range, or ``channels`` other than the input's.
    """

    def __init__(
        self,
        source: Stream,
        *,
        heads: int,
        window: int,
        ffn: int,
        channels: int | None = None,
        head_dim: int | None = None,
        rotary: str = "half",
        theta: float = 1e4,
        bias: bool = True,
        condition: str | None = None,
        condition_channels: int = 128,
    ) -> None:
        width = source.channels
        if channels not in (None, width):
            raise ValueError(f"channels must be the input's {width}, not {channels!r}: put a linear block before it")
        bounded("ffn", ffn, 1, LARGEST_COUNT)
        check_elements("the feed-forward weight", ffn, width)
        super().__init__(source)
        self.attn = Attention(
            source, heads=heads, window=window, head_dim=head_dim, rotary=rotary, theta=theta, bias=bias
        )
        self.conditioned = condition is not None
        if condition is None:
            self.norm1, self.norm2 = Norm(source, eps=EPSILON), Norm(source, eps=EPSILON)
        else:
            self.attn_adaln = AdaLN(source, condition=condition, condition_channels=condition_channels, gated=True)
            self.ffn_adaln = AdaLN(source, condition=condition, condition_channels=condition_channels, gated=True)
            self.controls.update(self.attn_adaln.controls)
        self.w1 = nn.Linear(width, ffn, bias=bias)
        self.w2 = nn.Linear(ffn, width, bias=bias)
        self.w3 = nn.Linear(width, ffn, bias=bias)

    @property
    def receptive_field(self) -> Fraction:
        return self.attn.receptive_field

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.attn.init_state(batch_size, device, dtype)

    def prepare(self, controls: Mapping[str, Tensor]) -> Any:
        """Shift, one plus scale, and gate of both branches; nothing without a condition."""
        if not self.conditioned:
            return ()
        return self.attn_adaln.prepare(controls), self.ffn_adaln.prepare(controls)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        """:meth:`StreamBlock.step`; a stack passes an open key-value cache as state and gets one back."""
        attending, feeding = controls if self.conditioned else ((), ())
        before_attention, before_feeding = self._norms()
        y, _ = before_attention.step(x, (), attending)
        y, state = self.attn.step(y, state, ())
        x = _added(x, y, attending)
        y, _ = before_feeding.step(x, (), feeding)
        return _added(x, self._feed_forward(y), feeding), state

    def _norms(self) -> tuple[StreamBlock, StreamBlock]:
        return (self.attn_adaln, self.ffn_adaln) if self.conditioned else (self.norm1, self.norm2)

    def _feed_forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2)
        gate, hidden = frame_products(frames, (self.w1.weight, self.w1.bias), (self.w3.weight, self.w3.bias))
        return frame_product(F.silu(gate) * hidden, self.w2.weight, self.w2.bias).transpose(1, 2)


def _added(x: Tensor, branch: Tensor, prepared: tuple[Tensor, ...]) -> Tensor:
    """The residual; where :class:`AdaLN` has prepared something, its gate multiplies the branch."""
    return add_gated(x, branch, prepared) if prepared else x + branch


@register("transformer")
class Transformer(Sequential):
    """A stack of :class:`TransformerLayer`, and a layer norm over it.

    ``(batch, channels, frames)`` to the same shape. Learned and causal, so the algorithmic latency is 0; the receptive
    field is ``layers * (window - 1) + 1`` frames: 8 layers of 256 at 25 Hz reach back 2041 frames, 81.64 s.

    Args:
        source: any stream; the stack keeps its channels.
        layers: number of layers.
        final_norm: whether a layer norm follows the last one, as pre-norm stacks need before a projection.
        heads, window, ffn, channels, head_dim, rotary, theta, bias, condition, condition_channels: as in
            :class:`TransformerLayer`.

    Raises:
        ValueError: for sizes out of range, or ``channels`` other than the input's.
    """

    layers: Sequential

    def __init__(
        self,
        source: Stream,
        *,
        layers: int,
        heads: int,
        window: int,
        ffn: int,
        channels: int | None = None,
        head_dim: int | None = None,
        rotary: str = "half",
        theta: float = 1e4,
        bias: bool = True,
        condition: str | None = None,
        condition_channels: int = 128,
        final_norm: bool = True,
    ) -> None:
        bounded("layers", layers, 1, 256)
        stack = Sequential(
            *(
                TransformerLayer(
                    source,
                    heads=heads,
                    window=window,
                    ffn=ffn,
                    channels=channels,
                    head_dim=head_dim,
                    rotary=rotary,
                    theta=theta,
                    bias=bias,
                    condition=condition,
                    condition_channels=condition_channels,
                )
                for _ in range(layers)
            )
        )
        super().__init__({"layers": stack, **({"norm": Norm(source, eps=EPSILON)} if final_norm else {})})

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Keys and values of the layers, first to last, and the ``age`` that all of them have."""
        layers = [layer.attn.empty_cache(batch_size, device, dtype) for layer in self._stack()]
        return {"layers": layers, "age": torch.zeros(batch_size, 1, device=device, dtype=torch.int64)}

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        # One age for all layers: positions, angles and masks are computed once in a step.
        held = state["layers"]
        positions = self._stack()[0].attn.positions(state["age"], x.shape[-1], held[0]["keys"].dtype)
        caches = {str(layer): KeyValueCache(own, positions) for layer, own in enumerate(held)}
        x, after = super().step(x, {"layers": caches}, controls)
        return x, {"layers": [cache.state for cache in after["layers"].values()], "age": positions.after}

    def _stack(self) -> list[TransformerLayer]:
        return [layer for layer in self.layers if isinstance(layer, TransformerLayer)]
