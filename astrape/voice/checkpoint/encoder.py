"""The original's encoder as nodes of a recipe: from features to content and codes."""

from __future__ import annotations

import math
from typing import Any

from astrape.blocks.codebook import LARGEST_CODEBOOK
from astrape.blocks.ops.planar import GRIDS
from astrape.voice.checkpoint.archive import Checkpoint
from astrape.voice.checkpoint.config import GRID_NAMES, Reading
from astrape.voice.checkpoint.part import Part

__all__ = ["MEL", "EncoderPart", "plan_encoder"]

FEATURE_RATE = 50
MEL = "mel"
"""The block, or input, before an encoder without an adapter."""

STEM_DILATIONS = (1, 2, 3, 4, 6, 8, 12, 16)
SKIP_DILATIONS = (16, 32)

TRAINING_ONLY = ("forecast_head_1.", "forecast_head_2.", "ssl_heads.", "speaker_classifier.")
DERIVED = ("q2d2.quantizer._levels", "q2d2.quantizer.grid_len", "q2d2.quantizer.grid_basis")
"""Tables that follow from levels and grid, and that some files store."""


class EncoderPart(Part):
    """An encoder, and the stream it takes.

    Attributes:
        rate, channels: of its input.
        is_mel: whether that is a mel spectrogram, for there is no adapter behind a WavLM.
        content: the reference to its content, and ``codes`` to its codes, where they can be counted.
        content_channels: channels of its content.
    """

    rate: int
    channels: int
    is_mel: bool
    content: str
    codes: str | None
    content_channels: int


def plan_encoder(checkpoint: Checkpoint) -> tuple[EncoderPart, Reading]:
    """The nodes of an encoder's checkpoint, with the sizes that its tensors have.

    Raises:
        CheckpointError: for settings that cannot be, or that no block here has.
    """
    reading = Reading(checkpoint)
    part = EncoderPart(checkpoint, unused=(*TRAINING_ONLY, *DERIVED))
    if reading.whole("mamba_layers", default=None):
        raise checkpoint.error("its last layers are state-space ones (mamba_layers), which are not imported")
    if reading.flag("q2d2_l2_norm", "use_l2_norm", default=None):
        raise checkpoint.error("its quantizer normalises pairs (q2d2_l2_norm), which is not imported")
    _front(part, reading)
    features = part.lines[-1].name if part.lines else MEL
    dim = _stem(part, reading, features)
    _transformer(part, reading, dim)
    _quantizer(part, reading)
    return part, reading


def _front(part: EncoderPart, reading: Reading) -> None:
    """The adapter, if there is one, to features at 50 Hz."""
    skips = [(f"skips.{index}.weight", 1) for index in range(4)]
    inner = [(f"wavlm_adapter.net.3.{kind}", 0) for kind in ("weight", "bias")]
    width = reading.size("its input's width", ("input_conv.weight", 1), *skips, *inner)
    part.is_mel = not reading.has("wavlm_adapter.")
    part.rate, part.channels = FEATURE_RATE, width
    if part.is_mel:
        part.notes.append(
            "it has no wavlm_adapter, so it takes log-mel features: these come from a causal mel spectrogram (2048 "
            "points every 882 samples), whose alignment to its training's is not known"
        )
        return
    around = [("wavlm_adapter.net.0.bias", 0), ("wavlm_adapter.net.3.weight", 1), ("wavlm_adapter.down.weight", 0)]
    hidden = reading.size("the adapter's width", ("wavlm_adapter.net.0.weight", 0), *around)
    rate = reading.whole("wavlm_rate", default=None)
    if not reading.has("wavlm_adapter.down.") and (rate is None or rate == FEATURE_RATE):
        part.channels = reading.size("the adapter's input", ("wavlm_adapter.net.0.weight", 1))
        part.add("adapter_in", "linear", "WavLM's features, at 50 Hz already", channels=hidden)
        part.add("adapter_act", "activation", kind="gelu")
        part.add("adapter", "linear", channels=width)
        part.take_affine("adapter_in", "wavlm_adapter.net.0")
        part.take_affine("adapter", "wavlm_adapter.net.3")
        return
    factor = reading.size(
        "the adapter's kernel", ("wavlm_adapter.down.weight", 2), said=None if rate is None else rate // FEATURE_RATE
    )
    part.rate = FEATURE_RATE * factor
    # As many groups as outputs, so the kernel's second dimension is the inputs of each.
    wide = reading.whole("wavlm_in_dim", default=None)
    part.channels = hidden * reading.size(
        "the adapter's input", ("wavlm_adapter.down.weight", 1), said=None if wide is None else wide // hidden
    )
    stride = {} if factor == 4 else {"factor": factor}
    part.add(
        "adapter",
        "striding_adapter",
        f"padded by {factor - 1} frames on the left, as it was trained",
        channels=width,
        hidden=hidden,
        **stride,
        align="first",
    )
    part.take("adapter.down.weight", "wavlm_adapter.down.weight")
    part.take_affine("adapter.net.0", "wavlm_adapter.net.0")
    part.take_affine("adapter.net.3", "wavlm_adapter.net.3")
    if "wavlm_adapter.down.bias" in part.checkpoint.tensors:
        part.take("adapter.down.bias", "wavlm_adapter.down.bias")
    else:
        part.constants["adapter.down.bias"] = 0.0


def _stem(part: Part, reading: Reading, features: str) -> int:
    """Convolutions at 50 Hz, and down to 25; how many channels they have."""
    stem = _dilations(reading, "blocks", STEM_DILATIONS, "stem_dilations", "dilations")
    skips = _dilations(reading, "skips", SKIP_DILATIONS, "skip_dilations")
    norms = [(f"blocks.{index}.norm.{kind}", 0) for index in range(len(stem)) for kind in ("weight", "bias")]
    dim = reading.size(
        "the stem's width", ("input_conv.weight", 0), ("input_conv.bias", 0), ("downsample.conv.weight", 0), *norms
    )
    said = reading.whole("conv_kernel", default=None)
    first = ("input_conv.weight", 2)
    deep = [(f"blocks.{index}.depthwise.weight", 2) for index in range(len(stem))]
    inner = reading.size("the stem's kernel", *deep, first, said=said) if deep else 1
    early = [(f"skips.{index}.weight", 2) for index in range(len(skips))]
    outer = reading.size("the skips' kernel", *early, first, said=said) if early else 1
    kernel = reading.size("the first kernel", first, said=said)
    part.add("input_conv", "conv", channels=dim, kernel=kernel)
    part.add("input_act", "activation", kind="silu")
    part.take_affine("input_conv", "input_conv")
    comment = "x + pointwise(SiLU(depthwise(LN x)))"
    for index, dilation in enumerate(stem):
        part.add(f"block_{index}", "residual_conv", comment, kernel=inner, dilation=dilation)
        comment = ""
        for name in ("norm", "depthwise", "pointwise"):
            part.take_affine(f"block_{index}.{name}", f"blocks.{index}.{name}")
    for index, dilation in enumerate(skips):
        late = part.lines[-1].name
        part.add(f"skip_{index}", "gated_skip", **{"from": [late, features]}, kernel=outer, dilation=dilation)
        part.take_affine(f"skip_{index}.conv", f"skips.{index}")
        part.take(f"skip_{index}.gate", f"skip_gates.{index}")
    part.add("downsample", "downsample", "25 Hz from here on", factor=2)
    part.take_affine("downsample", "downsample.conv")
    return dim


def _transformer(part: Part, reading: Reading, dim: int) -> None:
    layers = reading.count("trans_layers", "n_layers", "transformer_layers", "num_layers", "layers")
    each = [f"trans_layers.{index}" for index in range(layers)]
    norms = [(f"{name}.norm1.weight", 0) for name in each]
    trans = reading.size("the transformer's width", ("norm.weight", 0), ("norm.bias", 0), ("smooth.weight", 0), *norms)
    gated = not reading.has("trans_layers.0.ff.")
    first, second = ("w1", "w2") if gated else ("ff.0", "ff.2")
    hidden = [(f"{name}.{first}.{kind}", 0) for name in each for kind in ("weight", "bias")]
    hidden += [(f"{name}.{second}.weight", 1) for name in each]
    ffn = reading.size("the feed-forward net's width", *hidden)
    heads = reading.whole("n_heads", "num_heads", "transformer_heads", "heads", default=8)
    window = reading.whole("window", "transformer_window", "attn_window", "window_size", default=256)
    turns = reading.flag("use_rope", "rope", default=True)
    theta = reading.number("rope_theta", "theta", default=None)
    # The original has no layer here where both widths are the same.
    if "proj_in.weight" in part.checkpoint.tensors or dim != trans:
        part.add("proj_in", "linear", channels=trans, bias=False)
        part.take("proj_in.weight", "proj_in.weight")
    params: dict[str, Any] = {"layers": layers, "heads": heads, "window": window, "ffn": ffn}
    params["rotary"] = "half" if turns else "none"
    if theta is not None and theta != 1e4:
        params["theta"] = theta
    part.add("transformer", "transformer", **params)
    for index, name in enumerate(each):
        own = f"transformer.layers.{index}"
        part.take_all(f"{own}.attn", f"{name}.attn", "in_proj_weight", "in_proj_bias")
        for inner in ("attn.out_proj", "norm1", "norm2"):
            part.take_affine(f"{own}.{inner}", f"{name}.{inner}")
        part.take_affine(f"{own}.w1", f"{name}.{first}")
        part.take_affine(f"{own}.w2", f"{name}.{second}")
        if gated:
            part.take_affine(f"{own}.w3", f"{name}.w3")
        else:
            # Without a gate: the product's other factor is 1.
            part.constants |= {f"{own}.w3.weight": 0.0, f"{own}.w3.bias": 1.0}
    part.take_affine("transformer.norm", "norm")
    kernel = reading.size("the smoothing's kernel", ("smooth.weight", 2), said=3)
    part.add("smooth", "conv", kernel=kernel, depthwise=True)
    part.add("hidden", "add", **{"from": ["transformer", "smooth"]})
    part.take_affine("smooth", "smooth")


def _quantizer(part: EncoderPart, reading: Reading) -> None:
    place = "q2d2.quantizer.project_in.0"
    said = reading.numbers("q2d2_levels", "levels", count=None, default=None, single=True)
    count = None if said is None or len(said) == 1 else len(said)
    axes = reading.size("the number of axes", (f"{place}.weight", 0), (f"{place}.bias", 0), said=count)
    levels = reading.numbers("q2d2_levels", "levels", count=axes, default=[9] * axes) or []
    latent = [("q2d2.latent_head.bias", 0), ("q2d2.proj_out.weight", 1), (f"{place}.weight", 1)]
    dim = reading.size("the latent's width", ("q2d2.latent_head.weight", 0), *latent)
    outer = [("q2d2.proj_out.bias", 0), ("content_expand.0.weight", 1), ("content_expand.2.bias", 0)]
    said_channels = reading.whole("content_dim", default=None)
    channels = reading.size("the content's width", ("q2d2.proj_out.weight", 0), *outer, said=said_channels)
    grid = reading.choice("q2d2_grid", "grid", "vq_type", choices=GRID_NAMES, default="rhombic")
    if grid == "hexagonal" and any(one != other for one, other in zip(levels[::2], levels[1::2], strict=False)):
        raise part.checkpoint.error(f"its hexagonal grid has two numbers of levels in a pair: {levels}")
    params: dict[str, Any] = {"levels": levels, "grid": grid, "channels": channels}
    if dim != axes:
        params["dim"] = dim
        part.take_affine("q2d2.quantizer.project_out", "q2d2.quantizer.project_out")
    pairs = zip(levels[::2], levels[1::2], strict=False)
    codes = math.prod(GRIDS[grid].size(one, other) for one, other in pairs)
    part.content, part.codes, part.content_channels = "q2d2.content", "q2d2.codes", channels
    if codes > LARGEST_CODEBOOK:
        params["codes"], part.codes = False, None
        part.notes.append(
            f"its {codes} codes are more than the {LARGEST_CODEBOOK} that are counted: there is no 'codes'"
        )
    part.add("q2d2", "q2d2", f"{codes} codes" if part.codes else "", **params)
    for name in ("latent_head", "quantizer.project_in.0", "proj_out"):
        part.take_affine(f"q2d2.{name}", f"q2d2.{name}")
    if not reading.has("content_expand."):
        return
    around = [("content_expand.0.bias", 0), ("content_expand.2.weight", 1)]
    inner = reading.size("content_expand's width", ("content_expand.0.weight", 0), *around)
    comment = "content + linear(GELU(linear(content)))"
    part.add("expand_in", "linear", comment, **{"from": "q2d2.content"}, channels=inner)
    part.add("expand_act", "activation", kind="gelu")
    part.add("expand_out", "linear", channels=channels)
    part.add("content", "add", **{"from": ["q2d2.content", "expand_out"]})
    part.take_affine("expand_in", "content_expand.0")
    part.take_affine("expand_out", "content_expand.2")
    part.content = "content"


def _dilations(reading: Reading, stem: str, usual: tuple[int, ...], *names: str) -> list[int]:
    """One dilation for each part ``stem.0``, ``stem.1``, ...: as the settings say, or as the original has them."""
    said = reading.numbers(*names, count=None, default=None)
    count = reading.count(stem, said=None if said is None else len(said))
    if said is None and count > len(usual):
        raise reading.checkpoint.error(f"there are {count} of {stem}, and its settings have no {names[0]} for them")
    return reading.numbers(*names, count=count, default=usual[:count]) or []
