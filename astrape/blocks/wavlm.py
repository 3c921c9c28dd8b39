"""The convolutional front end of WavLM (Chen et al., arXiv:2110.13900), made causal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

from astrape.blocks.activation import Activation, exact_gelu
from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.compose import Sequential
from astrape.blocks.conv import Conv
from astrape.blocks.norm import Norm
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_choice
from astrape.blocks.registry import register
from astrape.errors import RateError

__all__ = ["FrozenNorm", "WavLMCNN", "WavLMLayer"]

RATE = 16000
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
NORMS = ("cumulative", "frozen", "utterance", "layer")


class FrozenNorm(StreamBlock):
    """Per channel ``weight * (x - mean) / sqrt(variance + eps) + bias`` with stored statistics: an affine map.

    Attributes:
        weight, bias: learned, ``(channels,)``, as in the group norm that it stands for.
        mean, variance: buffers, ``(channels,)``; 0 and 1 until they are measured.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, source: Stream, eps: float = 1e-5) -> None:
        super().__init__(source)
        channels = source.channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def folded(self) -> tuple[Tensor, Tensor]:
        """The factor and the offset that the norm comes down to, ``(channels,)`` each."""
        factor = self.weight * torch.rsqrt(self.variance + self.eps)
        return factor, self.bias - self.mean * factor

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        factor, offset = self.folded()
        return x * factor[:, None] + offset[:, None], state


class WavLMLayer(Sequential):
    """One layer: a strided convolution whose window ends with its quantum, a norm, and the exact GELU.

    Args:
        source: the layer's input.
        channels, kernel, stride, bias: of the convolution.
        norm: as in :class:`WavLMCNN`, or ``None`` for a layer that has none. One over the utterance is not among the
            blocks that step, since it looks ahead.
        warmup, floor: of a cumulative norm, see :class:`~astrape.blocks.norm.Norm`.
    """

    conv: Conv

    def __init__(
        self,
        source: Stream,
        *,
        channels: int,
        kernel: int,
        stride: int,
        bias: bool,
        norm: str | None,
        warmup: int = 0,
        floor: float = 0.0,
    ) -> None:
        conv = Conv(source, channels=channels, kernel=kernel, stride=stride, bias=bias)
        # As WavLM begins: the level stays the same from layer to layer. Torch's own first values lose two thirds of it
        # in each, and what is behind fresh layers would have next to nothing to learn from.
        nn.init.kaiming_normal_(conv.weight)
        norms: dict[str, StreamBlock] = {}
        if norm == "frozen":
            norms = {"layer_norm": FrozenNorm(conv.output)}
        elif norm == "cumulative":
            norms = {"layer_norm": Norm(conv.output, kind=norm, warmup=warmup, floor=floor)}
        elif norm == "layer":
            norms = {"layer_norm": Norm(conv.output, kind=norm)}
        super().__init__({"conv": conv, **norms, "act": Activation(conv.output, kind="gelu")})
        if norm == "utterance":
            self.layer_norm = Norm(conv.output, kind=norm)


@register("wavlm_cnn")
class WavLMCNN(StreamBlock):
    """WavLM's first convolutions: ``(batch, 1, n * hop)`` at 16 kHz to ``(batch, channels, n)``.

    Layer by layer, kernels 10, 3, 3, 3, 3, 2, 2 and strides 5, 2, 2, 2, 2, 2, 2, the exact GELU after each. What one
    output frame sees of the audio, and what that makes as latency:

    ======  ==========  ===============  ==========  =======
    layers  hop         window           rate        latency
    ======  ==========  ===============  ==========  =======
    4       40          80               400 Hz      1.25 ms
    5       80          160              200 Hz      2.5 ms
    6       160         240              100 Hz      2.5 ms
    7       320         400              50 Hz       2.5 ms
    ======  ==========  ===============  ==========  =======

    Every window ends with its hop, so its centre is ``(window - hop) / 2`` old: the layers are a fixed transform that
    others learn upon, and count their group delay. Before time zero each layer's input is zeros: nothing has been
    heard, which is not the same as normalised silence. Only the first frame reaches back so far. The original pads
    nothing: with up to 5 layers frame ``k + 1`` here is its frame ``k``. The kernels of layers 6 and 7 are even, and to
    end with their hop, windows begin 80 and 240 samples later than on the original's grid: frame ``k + 1`` here is
    frame ``k`` of the original on audio without its first 80 or 240 samples.

    **The norm.** In the base models a group norm with one group a channel follows layer 0. It takes each channel's mean
    and variance over the whole utterance, and so reads the future. In its place:

    ``cumulative``
        Statistics over all that has been heard, the same in a session and in training; they come to those of the
        utterance as it goes on. The start is rough: about 10 % off in spread after 50 independent frames of layer 0.
        ``warmup`` and ``floor`` tame it, see :class:`~astrape.blocks.norm.Norm`.
    ``frozen``
        Statistics measured once (``astrape.voice.wavlm.measure_statistics``) and stored with the weights: an affine
        map, folded into the convolution, with no memory. It does not adapt to loudness.
    ``utterance``
        As WavLM was trained. It looks ahead without bound, so it has ``forward`` alone and no graph streams it. The
        first frame of layer 0, half of whose window lies before time zero, is left out of the statistics, as it is
        not there in the original.
    ``layer``
        A layer norm over channels in every layer: what WavLM-large has. It is causal as it is. (Its preprocessing,
        though, scales the whole waveform to mean 0 and variance 1; a ``norm`` of kind ``cumulative`` before does so
        causally.)

    The weights are not trained (``requires_grad`` is off); ``requires_grad_(True)`` turns training on.

    Args:
        source: one channel at 16 kHz.
        layers: layers from the first on, 1 to 7. 5 by default, the raw features at 200 Hz.
        channels: width of all layers; 512 in every published model.
        norm: see above.
        bias: whether the convolutions have biases; in WavLM they have none.
        warmup: of ``cumulative``: virtual frames of layer 0 (at 3200 Hz) that the statistics begin with.
        floor: of ``cumulative``: least variance. 1e-5 by default, the norm's own epsilon: quieter than what WavLM
            was trained to tell from silence.

    Attributes:
        conv_layers: by index, each with ``conv`` and, where there is one, ``layer_norm``. Tensor names are those of
            Hugging Face and torchaudio below ``feature_extractor.``.

    Raises:
        RateError: for an input that is not one channel at 16 kHz.
        ValueError: for a parameter out of range.
    """

    latency_by = "centre"

    def __init__(
        self,
        source: Stream,
        *,
        layers: int = 5,
        channels: int = 512,
        norm: Literal["cumulative", "frozen", "utterance", "layer"] = "cumulative",
        bias: bool = False,
        warmup: int = 0,
        floor: float = 1e-5,
    ) -> None:
        count = bounded("layers", layers, 1, len(KERNELS))
        bounded("channels", channels, 1, LARGEST_COUNT)
        check_choice("norm", norm, NORMS)
        if source.rate != RATE or source.channels != 1:
            raise RateError(
                f"wavlm_cnn takes one channel at {RATE} Hz, not {source.channels} at {source.rate} Hz: "
                f"put a resampler with rate: {RATE} before it"
            )
        self.hop = math.prod(STRIDES[:count])
        super().__init__(source, quantum=self.hop, ratio=Fraction(1, self.hop), channels=channels)
        self.norm = norm
        self.window = 1
        stream, hop = source, 1
        chain: list[WavLMLayer] = []
        for index, (kernel, stride) in enumerate(zip(KERNELS[:count], STRIDES[:count], strict=True)):
            own = norm if norm == "layer" or index == 0 else None
            layer = WavLMLayer(
                stream,
                channels=channels,
                kernel=kernel,
                stride=stride,
                bias=bias,
                norm=own,
                warmup=warmup,
                floor=floor,
            )
            self.window += (kernel - 1) * hop
            hop *= stride
            stream = layer.output
            chain.append(layer)
        self.conv_layers = Sequential(*chain)
        self.requires_grad_(False)

    @property
    def lookahead(self) -> Fraction | None:
        return None if self.norm == "utterance" else Fraction(0)

    @property
    def latency(self) -> Fraction:
        return Fraction(self.window - self.hop, 2) / self.rate_in

    @property
    def receptive_field(self) -> Fraction | None:
        return self.window / self.rate_in if self.norm in ("frozen", "layer") else None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.conv_layers.init_state(batch_size, device, dtype)

    def prepare(self, controls: Mapping[str, Tensor]) -> Any:
        return self.conv_layers.prepare(controls)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if self.norm == "utterance":
            y: tuple[Tensor, State] = super().step(x, state, controls)
            return y
        return self.conv_layers.step(x, state, controls)

    def forward(self, x: Tensor, **controls: Tensor | float) -> Tensor:
        if self.norm != "utterance":
            y: Tensor = super().forward(x, **controls)
            return y
        self.read_controls(controls, x)
        x = self.whole_quanta(x)
        first, *rest = self.conv_layers
        assert isinstance(first, WavLMLayer)
        norm = first.layer_norm
        assert isinstance(norm, Norm)
        assert norm.weight is not None
        assert norm.bias is not None
        y = first.conv(x)
        heard = y[..., 1:] if y.shape[-1] > 1 else y
        variance, mean = torch.var_mean(heard, dim=-1, correction=0, keepdim=True)
        factor = torch.rsqrt(variance + norm.eps) * norm.weight[:, None]
        y = (y - mean) * factor + norm.bias[:, None]
        y = exact_gelu(y)
        for layer in rest:
            y = layer(y)
        return y
