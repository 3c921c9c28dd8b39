"""WavLM-base+ as MioCodec hears through it: the outputs of its first layers, run by Hugging Face's transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from astrape.settings import Between, Settings, read_settings
from astrape.training.errors import TeacherError
from astrape.training.teachers.miocodec.weights import TensorFile, fill, open_tensors
from astrape.wording import lacking

__all__ = ["WavLM", "open_wavlm"]

RATE = 16000
INSIDE = "ssl_feature_extractor.model."
"""The prefix of WavLM's tensors in a checkpoint of the whole codec."""

LARGEST_CONFIG = 1 << 20


class Configured(Settings, extra="ignore"):
    """The settings taken from ``config.json``; others are told by the shapes, or are as in WavLM-base+."""

    hidden_size: Annotated[int, Between(8, 4096)] | None = None
    num_hidden_layers: Annotated[int, Between(1, 48)] | None = None
    num_attention_heads: Annotated[int, Between(1, 64)] | None = None
    intermediate_size: Annotated[int, Between(1, 16384)] | None = None
    num_conv_pos_embeddings: Annotated[int, Between(2, 1024)] | None = None
    num_conv_pos_embedding_groups: Annotated[int, Between(1, 1024)] | None = None
    num_buckets: Annotated[int, Between(2, 4096)] | None = None
    max_bucket_distance: Annotated[int, Between(2, 65536)] | None = None
    conv_stride: list[Annotated[int, Between(1, 64)]] | None = None


RENAMED = [
    (re.compile(r"encoder\.transformer\.layers\.(\d+)\.attention\.attention\.(in_proj|out_proj)[._](weight|bias)"), ""),
    (re.compile(r"encoder\.transformer\."), "encoder."),
    (re.compile(r"encoder\.feature_projection\."), "feature_projection."),
]
UNUSED = ("masked_spec_embed", "quantizer.", "project_q.", "project_hid.", "lm_head.", "aux.")
"""Prefixes of tensors that only pre-training and fine-tuning use."""


class WavLM(nn.Module):
    """The first layers of a WavLM.

    Attributes:
        kernels: kernel and stride of each convolution of its front end, from which lengths follow.
        width: channels of a layer's output.
    """

    def __init__(self, model: nn.Module, kernels: list[tuple[int, int]], width: int) -> None:
        super().__init__()
        self.model, self.kernels, self.width = model, kernels, width

    @property
    def hop(self) -> int:
        """Samples from frame to frame, at 16 kHz."""
        hop = 1
        for _, stride in self.kernels:
            hop *= stride
        return hop

    def samples(self, frames: int) -> int:
        """The fewest samples that as many frames come of."""
        for kernel, stride in reversed(self.kernels):
            frames = (frames - 1) * stride + kernel
        return frames

    def forward(self, audio: Tensor) -> list[Tensor]:
        """``(batch, samples)`` at 16 kHz to what the first layer is given and what each gives, from 1.

        All are ``(batch, frames, width)``. The samples go in as they are: WavLM-base+ was trained without normalising
        its input.
        """
        return list(self.model(audio, output_hidden_states=True).hidden_states)


def open_wavlm(source: Path | TensorFile, layers: int) -> WavLM:
    """The first ``layers`` layers of a WavLM.

    Args:
        source: a state dict of Hugging Face or torchaudio, with ``config.json`` beside it if its sizes are not those
            of WavLM-base+; or an opened checkpoint of a codec that holds torchaudio's.
        layers: layers to build; what a file holds beyond them is left aside.

    Raises:
        TeacherError: without ``transformers``, and for files that cannot be read or do not fit.
    """
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        raise TeacherError(lacking("WavLM in teacher 'miocodec'", "transformers", "teachers")) from error
    file = source if isinstance(source, TensorFile) else open_tensors(source)
    names = _own_names(file)
    given = _configured(file.path.parent / "config.json") if isinstance(source, Path) else {}
    sizes = _sizes(file, names) | given
    if sizes["num_hidden_layers"] < layers:
        raise TeacherError(f"{file.path}: has {sizes['num_hidden_layers']} layers, and layer {layers} is to be heard")
    try:
        config = transformers.WavLMConfig(**sizes | {"num_hidden_layers": layers})
        with torch.device("meta"):
            model: Any = transformers.WavLMModel(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TeacherError(f"{file.path}: no WavLM can have the sizes {sizes}: {error}") from error
    nn.utils.parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight", leave_parametrized=True)
    if "masked_spec_embed" in dict(model.named_parameters()):
        del model.masked_spec_embed
    _fill(model, file, names, layers)
    kernels = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    return WavLM(model, kernels, config.hidden_size).requires_grad_(False).eval()


def _own_names(file: TensorFile) -> dict[str, str]:
    """The file's names by the model's. Each of Torchaudio's joint projections gets names of its own."""
    names: dict[str, str] = {}
    prefix = INSIDE if any(name.startswith(INSIDE) for name in file.shapes) else ""
    for name in file.shapes:
        if not name.startswith(prefix):
            continue
        own = name.removeprefix(prefix).removeprefix("wavlm.")
        joint = RENAMED[0][0].fullmatch(own)
        if joint is not None:
            start = f"encoder.layers.{joint[1]}.attention."
            parts = ("q_proj", "k_proj", "v_proj") if joint[2] == "in_proj" else ("out_proj",)
            names |= {f"{start}{part}.{joint[3]}": name for part in parts}
            continue
        for pattern, replacement in RENAMED[1:]:
            own = pattern.sub(replacement, own)
        names[own] = name
    if "encoder.layers.0.attention.rel_attn_embed.weight" not in names:
        raise TeacherError(
            f"{file.path}: has no relative positions of a first layer, so it is not a WavLM in Hugging Face's layout "
            f"or torchaudio"
        )
    return names


def _fill(model: nn.Module, file: TensorFile, names: Mapping[str, str], layers: int) -> None:
    """``fill`` with torchaudio's joint projections in three."""

    def thirds(name: str) -> Tensor:
        own, _, part = name.partition("#")
        tensor = file(own)
        return tensor.chunk(3)[int(part)].contiguous() if part else tensor

    shapes, sources = dict(file.shapes), {}
    for own, _ in model.named_parameters():
        source = names.get(own)
        if source is None:
            # Weight norms are looked for under the name of the weight; what is missing is named as it would be there.
            beside = names.get(own.replace(".weight", ".bias"))
            source = beside.removesuffix("bias") + "weight" if beside else own
        elif ".attention.in_proj_" in source:
            part = "qkv".index(own.split(".")[-2][0])
            count, *rest = file.shapes[source]
            source = f"{source}#{part}"
            shapes[source] = (count // 3, *rest)
        sources[own] = source
    ignored = {name for name in shapes if name not in names.values()}
    for own, name in names.items():
        later = re.match(r"encoder\.layers\.(\d+)\.", own)
        if own.startswith(UNUSED) or (later and int(later[1]) >= layers) or ".attention.in_proj_" in name:
            ignored.add(name)
    fill(model, TensorFile(file.path, shapes, thirds), sources, ignored - set(sources.values()))


def _sizes(file: TensorFile, names: Mapping[str, str]) -> dict[str, Any]:
    """The sizes that shapes tell. Strides and the span of positions are in no shape, and WavLM-base+'s by default."""

    def shape(own: str, axes: int) -> tuple[int, ...]:
        found = file.shapes.get(names.get(own, ""), ())
        if len(found) != axes or not all(0 < count <= 1 << 20 for count in found):
            raise TeacherError(f"{file.path}: '{own}' is {found or 'missing'}, which no WavLM has")
        return found

    convolutions: list[tuple[int, ...]] = []
    while f"feature_extractor.conv_layers.{len(convolutions)}.conv.weight" in names:
        convolutions.append(shape(f"feature_extractor.conv_layers.{len(convolutions)}.conv.weight", 3))
    strides = [5, 2, 2, 2, 2, 2, 2]
    if len(convolutions) != len(strides):
        raise TeacherError(f"{file.path}: has {len(convolutions)} convolutions, and WavLM {len(strides)}")
    if "feature_extractor.conv_layers.1.layer_norm.weight" in names:
        raise TeacherError(f"{file.path}: normalises every convolution, as WavLM-large does: take WavLM-base+")
    hidden = shape("feature_projection.projection.bias", 1)[0]
    position = next(
        (f"encoder.pos_conv_embed.conv.{end}" for end in POSITION if f"encoder.pos_conv_embed.conv.{end}" in names), ""
    )
    _, grouped, taps = shape(position or "encoder.pos_conv_embed.conv.weight", 3)
    layers = [int(match[1]) for match in (re.match(r"encoder\.layers\.(\d+)\.", own) for own in names) if match]
    return {
        "hidden_size": hidden,
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": shape("encoder.layers.0.attention.gru_rel_pos_const", 4)[1],
        "intermediate_size": shape("encoder.layers.0.feed_forward.intermediate_dense.bias", 1)[0],
        "num_conv_pos_embeddings": taps,
        "num_conv_pos_embedding_groups": max(1, hidden // grouped),
        "num_buckets": shape("encoder.layers.0.attention.rel_attn_embed.weight", 2)[0],
        "conv_dim": [count for count, _, _ in convolutions],
        "conv_kernel": [taps for _, _, taps in convolutions],
        "conv_stride": strides,
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in names,
    }


POSITION = ("weight", "parametrizations.weight.original1", "weight_v")


def _configured(path: Path) -> dict[str, Any]:
    """The settings of ``config.json`` beyond the shapes; nothing where there is no such file."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(LARGEST_CONFIG))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TeacherError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict) or values.get("model_type") != "wavlm":
        raise TeacherError(f"{path}: is not the configuration of a WavLM")
    if values.get("do_stable_layer_norm") or values.get("feat_extract_norm", "group") != "group":
        raise TeacherError(f"{path}: is of WavLM-large's kind: take WavLM-base+")
    return read_settings(Configured, values, TeacherError, str(path)).model_dump(exclude_none=True)
