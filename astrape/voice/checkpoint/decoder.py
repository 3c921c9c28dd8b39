"""The original's decoder as nodes of a recipe: from content and a speaker to a waveform."""

from __future__ import annotations

from typing import Any

import torch

from astrape.voice.checkpoint.archive import Checkpoint
from astrape.voice.checkpoint.config import Reading
from astrape.voice.checkpoint.part import Part

__all__ = ["DecoderPart", "plan_decoder"]

DILATIONS = (1, 2, 4)
INPUT_SCALE = 0.46 / 0.38
LARGEST_MAGNITUDE = 100.0

DERIVED = ("prenet_rope.", "nsf.freqs")
"""Tables that follow from sizes, and that some files store."""


class DecoderPart(Part):
    """A decoder, and the stream it takes.

    Attributes:
        rate, channels: of its input.
        speaker: channels of the control.
        sample_rate: of its output.
    """

    rate: int
    channels: int
    speaker: int
    sample_rate: int


def plan_decoder(checkpoint: Checkpoint) -> tuple[DecoderPart, Reading]:
    """The nodes of a decoder's checkpoint, with the sizes that its tensors have.

    Raises:
        CheckpointError: for settings that cannot be, or that no block here has.
    """
    reading = Reading(checkpoint)
    part = DecoderPart(checkpoint, unused=DERIVED)
    part.rate = reading.whole("content_rate", default=None) or 25
    part.sample_rate = reading.whole("sample_rate", default=None) or 44100
    dim = _prenet(part, reading)
    hop = _upsampler(part, reading, dim)
    n_fft = _n_fft(part, reading)
    sourced = _convolutions(part, reading, n_fft, hop)
    bridge = reading.size(
        "the bridge's width", ("istft_bridge.weight", 0), ("istft_bridge.bias", 0), ("istft_head.out.weight", 1)
    )
    if sourced:
        part.add("joined", "concat", **{"from": ["norm", "source"]})
    part.add("bridge", "conv", channels=bridge, kernel=1)
    bins = n_fft // 2 + 1
    part.add("head", "linear", f"{bins} log-magnitudes, {bins} phases", channels=2 * bins)
    part.add("spectrum", "exp_polar", limit=LARGEST_MAGNITUDE)
    part.add("istft", "istft", f"{(n_fft - hop) // 2} samples late", n_fft=n_fft, hop=hop)
    part.take_affine("bridge", "istft_bridge")
    part.take_affine("head", "istft_head.out")
    return part, reading


def _prenet(part: DecoderPart, reading: Reading) -> int:
    """Build the part from content to the transformer's frames, at the rate of content; returns their width."""
    layers = reading.count("prenet_layers", "prenet_layers", "n_prenet_layers", "prenet_n_layers")
    each = [f"prenet_layers.{index}" for index in range(layers)]
    outer = [(f"{name}.wo.weight", 0) for name in each]
    dim = reading.size("the prenet's width", ("prenet_norm.weight", 0), ("pw_in.weight", 0), *outer)
    hidden = [(f"{name}.{inner}.weight", axis) for name in each for inner, axis in (("w1", 0), ("w3", 0), ("w2", 1))]
    ffn = reading.size("the prenet's feed-forward width", *hidden)
    condition = "adaln.condition_proj.1.weight"
    places = [(f"{name}.{kind}_{condition}", 1) for name in each for kind in ("attn", "ffn")]
    part.speaker = reading.size("the speaker's width", *places)
    part.channels = reading.size(
        "the content's width", ("pw_in.weight", 1), said=reading.whole("content_dim", default=None)
    )
    heads = reading.whole("prenet_heads", "prenet_n_heads", "n_heads", "heads", default=8)
    window = reading.whole("prenet_window", "window", default=64)
    theta = reading.number("prenet_rope_theta", "rope_theta", "theta", default=None)
    part.add("input_scale", "gain", "from content's spread to that of its teacher", gain=_input_scale(part, reading))
    part.add("pw_in", "linear", channels=dim, bias=False)
    params: dict[str, Any] = {"layers": layers, "heads": heads, "window": window, "ffn": ffn, "rotary": "interleaved"}
    if theta is not None and theta != 1e4:
        params["theta"] = theta
    part.add("prenet", "transformer", **params, bias=False, **_condition(part))
    part.take("pw_in.weight", "pw_in.weight")
    for index, name in enumerate(each):
        own = f"prenet.layers.{index}"
        for adaptive in ("attn_adaln", "ffn_adaln"):
            part.take_affine(f"{own}.{adaptive}.condition_proj.1", f"{name}.{adaptive}.condition_proj.1")
        part.take(f"{own}.attn.in_proj_weight", f"{name}.wq.weight", f"{name}.wk.weight", f"{name}.wv.weight")
        part.take(f"{own}.attn.out_proj.weight", f"{name}.wo.weight")
        for inner in ("w1", "w2", "w3"):
            part.take(f"{own}.{inner}.weight", f"{name}.{inner}.weight")
    part.take_affine("prenet.norm", "prenet_norm")
    return dim


def _upsampler(part: DecoderPart, reading: Reading, dim: int) -> int:
    """Build the part from the rate of content to that of spectra; returns the samples from one spectrum to the next."""
    around = [("upsampler.up.bias", 0), ("upsampler.act.alpha", 0), ("upsampler.act.beta", 0)]
    channels = reading.size("the upsampler's width", ("upsampler.up.weight", 1), *around)
    factor = reading.whole("upsample_factor", "up_factor", default=None)
    twice = None if factor is None else 2 * factor
    kernel = reading.size("the upsampler's kernel", ("upsampler.up.weight", 2), said=twice)
    stride = factor or max(1, kernel // 2)
    hop, rest = divmod(part.sample_rate, part.rate * stride)
    said = reading.whole("hop_length", "hop", default=None)
    if rest or said not in (None, hop):
        raise part.checkpoint.error(
            f"its content at {part.rate} Hz, upsampled by {stride}, and a hop of {hop if said is None else said} "
            f"samples make no {part.sample_rate} Hz"
        )
    norms = [("convnet_norm.weight", 0), ("convnet_norm.bias", 0)]
    wide = reading.size("the convolutions' width", ("up_proj.weight", 0), ("up_proj.bias", 0), *norms)
    rate = part.rate * stride
    width = {} if channels == dim else {"channels": channels}
    part.add("up", "transposed_conv", f"{rate} Hz from here on", **width, kernel=kernel, stride=stride)
    part.add("act", "activation", kind="snake_beta")
    part.add("up_proj", "conv", channels=wide, kernel=1)
    part.take_affine("up", "upsampler.up")
    part.take_all("act", "upsampler.act", "alpha", "beta")
    part.take_affine("up_proj", "up_proj")
    return hop


def _convolutions(part: DecoderPart, reading: Reading, n_fft: int, hop: int) -> bool:
    """The stack of convolutions, and the source filter if there is one."""
    said = reading.numbers("convnet_dilations", "dilations", count=None, default=None)
    count = reading.count("convnet", said=None if said is None else len(said))
    usual = [DILATIONS[index % len(DILATIONS)] for index in range(count)]
    dilations = reading.numbers("convnet_dilations", "dilations", count=count, default=usual) or []
    deep = [(f"convnet.{index}.depthwise.weight", 2) for index in range(count)]
    kernel = (
        reading.size("the stack's kernel", *deep, said=reading.whole("convnet_kernel", default=None)) if deep else 1
    )
    sourced = reading.has("nsf.") or bool(reading.flag("use_nsf", "nsf", default=None))
    for index, dilation in enumerate(dilations):
        own, name = f"conv_{index}", f"convnet.{index}"
        part.add(own, "adaptive_conv", **_condition(part), kernel=kernel, dilation=dilation)
        part.take_affine(f"{own}.adaln.condition_proj.1", f"{name}.adaln.condition_proj.1")
        part.take_affine(f"{own}.depthwise", f"{name}.depthwise")
        part.take_all(f"{own}.act", f"{name}.act", "alpha", "beta")
        part.take_affine(f"{own}.pointwise", f"{name}.pointwise")
    part.add("norm", "norm", kind="layer")
    part.take_affine("norm", "convnet_norm")
    if sourced:
        _source(part, reading, n_fft, hop)
    return sourced


def _source(part: DecoderPart, reading: Reading, n_fft: int, hop: int) -> None:
    if n_fft % 2:
        # The original spreads the bins of an odd length up to half the sample rate, where the last of them is not.
        raise part.checkpoint.error(f"its source filter has an odd n_fft, {n_fft}, which is not imported")
    params: dict[str, Any] = {"n_fft": n_fft, "hop": hop}
    params["harmonics"] = reading.whole("nsf_harmonics", "n_harmonics", "harmonics", default=16)
    for name, own in (("f0_min", "lowest"), ("f0_max", "highest")):
        value = reading.number(f"nsf_{name}", name, default=None)
        if value is not None:
            params[own] = value
    comment = "harmonics of a fundamental that follows the speaker"
    part.add("source", "harmonic_source", comment, **{"from": "up_proj"}, **_condition(part), **params)
    part.take_affine("source.spk_proj", "nsf.spk_proj")
    part.take_affine("source.head.0", "nsf.head.0")
    part.take_all("source.head.1", "nsf.head.1", "alpha", "beta")
    part.take_affine("source.head.2", "nsf.head.2")


def _n_fft(part: DecoderPart, reading: Reading) -> int:
    """The transform's length, which the head's rows tell but for the last bit, and its window in full."""
    padding = reading.checkpoint.config.get("istft_padding", "same")
    if padding != "same":
        raise part.checkpoint.error("its istft_padding is not 'same', and no other is imported")
    name = "istft_head.istft.window"
    window = part.checkpoint.tensors.get(name)
    framed = None if window is None or window.ndim != 1 else 2 * (len(window) // 2) + 2
    rows = reading.size("the head's width", ("istft_head.out.weight", 0), ("istft_head.out.bias", 0), said=framed)
    part.known.add(name)
    n_fft = rows - 2
    if window is None:
        said = reading.whole("n_fft", default=None)
        return said if said is not None and 2 * (said // 2) + 2 == rows else n_fft
    if window.ndim == 1 and 2 * (len(window) // 2) + 2 == rows:
        n_fft = len(window)
        # Half-precision files round it.
        if not torch.allclose(window.to(torch.float32), torch.hann_window(n_fft), rtol=0, atol=5e-3):
            raise part.checkpoint.error(f"{name} is not a Hann window, which is the only one that is imported")
    else:
        part.wrong.append(f"'{name}' is {tuple(window.shape)} and not ({n_fft},)")
    return n_fft


def _input_scale(part: DecoderPart, reading: Reading) -> float:
    tensor = part.checkpoint.tensors.get("input_scale")
    part.known.add("input_scale")
    if tensor is None:
        scale = reading.number("input_std_scale", "input_scale", default=INPUT_SCALE)
        return INPUT_SCALE if scale is None else scale
    if tensor.numel() != 1:
        part.wrong.append(f"'input_scale' is {tuple(tensor.shape)} and not ()")
        return INPUT_SCALE
    if tensor.is_complex() or not bool(tensor.isfinite().all()):
        raise part.checkpoint.error("not finite or not of real numbers: input_scale")
    return float(tensor)


def _condition(part: DecoderPart) -> dict[str, Any]:
    """Parameters of a block that the speaker shapes."""
    return {"condition": "speaker"} | ({} if part.speaker == 128 else {"condition_channels": part.speaker})
