"""Weights for the causal WavLM front end, statistics to freeze its norm with, and what its causality costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from astrape.audio.places import Place, Where, anywhere, local_file
from astrape.blocks.base import Stream
from astrape.blocks.wavlm import RATE, FrozenNorm, WavLMCNN, WavLMLayer
from astrape.errors import AstrapeError, RecipeError
from astrape.graph.checksums import read_tensors
from astrape.graph.fitting import listed, mismatches
from astrape.voice.checkpoint.archive import CheckpointError, check_tensor, printable, unpickled

__all__ = [
    "NormCost",
    "Statistics",
    "WavLMError",
    "freeze",
    "load_wavlm",
    "measure_statistics",
    "norm_cost",
    "read_wavlm",
]

SLICE = RATE
"""Samples worked on at a time: memory does not grow with the recording."""

NAME = re.compile(r"(?:.*\.)?feature_extractor\.conv_layers\.(\d+)\.(.+)|conv_layers\.(\d+)\.(.+)")
PARTS = {
    "conv.weight": "conv.weight",
    "conv.bias": "conv.bias",
    "layer_norm.weight": "layer_norm.weight",
    "layer_norm.bias": "layer_norm.bias",
    "layer_norm.mean": "layer_norm.mean",
    "layer_norm.variance": "layer_norm.variance",
    # The names of the paper's own code: a sequence of convolution, dropout and norm.
    "0.weight": "conv.weight",
    "0.bias": "conv.bias",
    "2.weight": "layer_norm.weight",
    "2.bias": "layer_norm.bias",
    "2.1.weight": "layer_norm.weight",
    "2.1.bias": "layer_norm.bias",
}


class WavLMError(AstrapeError):
    """Weights that are not WavLM's, or not those of the model that they are to fill. It names file and tensors."""


def read_wavlm(path: Where) -> dict[str, Tensor]:
    """The convolutional layers of a WavLM checkpoint, by the names that :class:`WavLMCNN` has for them.

    Args:
        path: of this machine or a URL: safetensors, or a file of PyTorch of either form, read as the original's
            checkpoints are, so that nothing in it runs and nothing inflates
            (:func:`~astrape.voice.checkpoint.archive.unpickled`): a state dict of Hugging Face, torchaudio or the
            paper's code, of the whole model or of one that holds it, alone or under ``model`` or ``state_dict``. All
            but the convolutions is passed over.

    Raises:
        WavLMError: for a file that cannot be read, or without such layers.
    """
    file = anywhere(path)
    state = _safetensors(file) if file.suffix == ".safetensors" else _unpickled(file)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = NAME.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            continue
        index, part = match[1] or match[3], match[2] or match[4]
        if part not in PARTS:
            raise WavLMError(f"{file}: '{printable(name)[:80]}' is not part of WavLM's convolutions")
        try:
            check_tensor(name, tensor, printable(str(file)))
        except CheckpointError as error:
            raise WavLMError(str(error)) from error
        own = f"conv_layers.{int(index)}.{PARTS[part]}"
        if own in found:
            raise WavLMError(
                f"{file}: holds '{own}' more than once, the last as '{printable(name)[:80]}': give a file of one model"
            )
        found[own] = tensor
    if not found:
        raise WavLMError(f"{file}: has no 'feature_extractor.conv_layers.*', so it is not a WavLM checkpoint")
    return found


STATISTICS = ("layer_norm.mean", "layer_norm.variance")


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())


def load_wavlm(block: WavLMCNN, path: Where) -> None:
    """Fill a front end with the weights of a checkpoint; layers beyond the block's own are left aside.

    Frozen statistics are not in a checkpoint of WavLM and stay as they are, see :func:`freeze`.

    Raises:
        WavLMError: for tensors that are missing, unknown, of another shape, or not finite, all of them named.
    """
    layers = len(block.conv_layers)
    given = {name: tensor for name, tensor in read_wavlm(path).items() if int(name.split(".")[1]) < layers}
    own = block.state_dict()
    learned = {name: one for name, one in own.items() if name in given or not name.endswith(STATISTICS)}
    wrong = mismatches(learned, given)
    wrong += [f"'{name}' is not finite or not of real numbers" for name, one in given.items() if not _is_real(one)]
    if wrong:
        large = "conv_layers.1.layer_norm.weight" in given
        hint = ""
        if large != (block.norm == "layer") and layers > 1:
            hint = f": {'it has a norm in every layer, build with' if large else 'build without'} norm: layer"
        elif any(name.endswith("conv.bias") and name not in own for name in given):
            hint = ": build with bias: true"
        raise WavLMError(f"{path}: does not fit: {listed(wrong)}{hint}")
    block.load_state_dict({**own, **given})


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of layer 0, channel by channel: ``(channels,)`` in float64, over that many frames."""

    mean: Tensor
    variance: Tensor
    frames: int


def measure_statistics(block: WavLMCNN, recordings: Iterable[Tensor]) -> Statistics:
    """Statistics of what the norm of layer 0 is given, over recordings.

    Over one recording they are those that the original takes over it as an utterance. Over a corpus, take speech of
    many voices at the level it will be heard at: minutes do, for each channel takes its mean over 3200 frames a second.

    Args:
        block: a front end with its weights, of any norm but ``layer``.
        recordings: ``(1, 1, n)`` each, at 16 kHz.

    Raises:
        WavLMError: for a front end of layer norms, or less than two frames in all.
    """
    if block.norm == "layer":
        raise WavLMError("a front end with norm: layer normalises every frame by itself and has nothing to freeze")
    first = block.conv_layers[0]
    assert isinstance(first, WavLMLayer)
    count = 0
    mean = deviation = torch.zeros(block.channels_out, dtype=torch.float64)
    with torch.no_grad():
        for recording in recordings:
            whole = recording[..., : recording.shape[-1] // first.quantum * first.quantum]
            state, begun = first.conv.init_state(1, whole.device, whole.dtype), False
            for piece in torch.split(whole, SLICE, dim=-1):
                y, state = first.conv.step(piece, state, ())
                # Half of the first window lies before the recording, where the original has no frame.
                frames = (y if begun else y[..., 1:])[0].double()
                begun = True
                if not frames.shape[-1]:
                    continue
                variance, centre = torch.var_mean(frames, dim=-1, correction=0)
                size = frames.shape[-1]
                shift = centre - mean
                deviation = deviation + size * variance + shift.square() * (count * size / (count + size))
                mean = mean + shift * (size / (count + size))
                count += size
    if count < 2:
        raise WavLMError("there is nothing to measure: give a recording of more than 15 samples at 16 kHz")
    return Statistics(mean, deviation / count, count)


def freeze(block: WavLMCNN, statistics: Statistics) -> WavLMCNN:
    """The same front end with ``norm: frozen`` and these statistics."""
    frozen = _like(block, "frozen")
    norm = frozen.conv_layers[0].layer_norm
    assert isinstance(norm, FrozenNorm)
    norm.mean.copy_(statistics.mean)
    norm.variance.copy_(statistics.variance)
    return frozen


@dataclass(frozen=True)
class NormCost:
    """Cosine between causal features and those of the utterance-wide norm, averaged over intervals.

    Attributes:
        seconds: where each interval ends.
        cumulative: with statistics over all that has been heard.
        frozen: with frozen ones; ``None`` where none were given.
    """

    seconds: list[float]
    cumulative: list[float]
    frozen: list[float] | None


def norm_cost(
    block: WavLMCNN, recording: Tensor, statistics: Statistics | None = None, *, every: float = 1.0
) -> NormCost:
    """The effect of causal statistics on the features of a recording, over the time since its start.

    The utterance's norm is a frozen one with the statistics of the recording itself, so memory does not grow with it.

    Args:
        block: a front end with its weights, of any norm but ``layer``.
        recording: ``(1, 1, n)`` at 16 kHz.
        statistics: what ``frozen`` is to have, from other recordings.
        every: length of an interval, seconds.
    """
    utterance = freeze(block, measure_statistics(block, [recording]))
    others = {"cumulative": _like(block, "cumulative")}
    if statistics is not None:
        others["frozen"] = freeze(block, statistics)
    interval = max(1, round(every * float(block.rate_out)))
    alike: dict[str, list[Tensor]] = {name: [] for name in others}
    with torch.no_grad():
        for want, *got in zip(*(_features(each, recording) for each in (utterance, *others.values())), strict=True):
            for name, features in zip(others, got, strict=True):
                alike[name].append(functional.cosine_similarity(features, want, dim=1)[0])
    means = {
        name: [float(part.mean()) for part in torch.split(torch.cat(parts), interval)] for name, parts in alike.items()
    }
    frames = sum(part.shape[-1] for part in alike["cumulative"])
    ends = [min(at + interval, frames) / float(block.rate_out) for at in range(0, frames, interval)]
    return NormCost(ends, means["cumulative"], means.get("frozen"))


def _like(block: WavLMCNN, norm: Any) -> WavLMCNN:
    """A front end of the same weights with another norm."""
    first = block.conv_layers[0]
    assert isinstance(first, WavLMLayer)
    other = WavLMCNN(
        Stream(block.rate_in, 1),
        layers=len(block.conv_layers),
        channels=block.channels_out,
        norm=norm,
        bias=first.conv.bias is not None,
    ).to(first.conv.weight)
    own = block.state_dict()
    other.load_state_dict({name: own.get(name, tensor) for name, tensor in other.state_dict().items()})
    return other


def _features(block: WavLMCNN, recording: Tensor) -> Iterator[Tensor]:
    whole = recording[..., : recording.shape[-1] // block.quantum * block.quantum].to(next(block.parameters()))
    state = block.init_state(1, whole.device, whole.dtype)
    size = max(1, SLICE // block.quantum) * block.quantum
    for piece in torch.split(whole, size, dim=-1):
        y, state = block.step(piece, state, {})
        yield y


def _safetensors(file: Path | Place) -> Mapping[str, Tensor]:
    try:
        return read_tensors(file)
    except RecipeError as error:
        raise WavLMError(str(error)) from error


def _unpickled(file: Path | Place) -> Mapping[Any, Any]:
    try:
        content = unpickled(local_file(file), legacy=True)
    except CheckpointError as error:
        raise WavLMError(str(error)) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise WavLMError(f"{file}: holds a {type(content).__name__} and no state dict")
    return content
