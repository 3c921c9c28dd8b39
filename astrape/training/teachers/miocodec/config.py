"""The configuration that MioCodec's checkpoints come with: what of it matters to inference, within bounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasPath, Field, model_validator

from astrape.errors import RecipeError
from astrape.graph.recipe.yaml_source import read_yaml
from astrape.settings import Between, Settings, Unfit, read_settings
from astrape.training.errors import TeacherError
from astrape.wording import reason_of

__all__ = ["CodecConfig", "MainConfig", "QuantizerConfig", "SpeakerConfig", "TransformerConfig", "read_config"]

LARGEST_FILE = 1 << 20
IGNORED = {"dropout", "max_seq_len", "use_flash_attention", "use_xavier_init", "wave_resnet_dropout"}
"""Entries that say nothing about the outputs: they concern training, speed and tables that are made when needed."""

IGNORED_PARTS = {"mel_prenet", "mel_decoder", "mel_postnet", "feature_decoder"}
MEL = ("n_mels", "padding", "mel_", "local_interpolation_mode")

Width = Annotated[int, Between(1, 8192)]
Small = Annotated[int, Between(1, 64)]
Depth = Annotated[int, Between(1, 128)]
Positive = Annotated[float, Between(1e-12, 1e9)]
Layers = Annotated[tuple[Annotated[int, Between(1, 48)], ...], Field(strict=False, min_length=1, max_length=16)]
Stages = Annotated[tuple[Annotated[int, Between(1, 512)], ...], Field(strict=False, max_length=16)]


class _Part(Settings):
    @model_validator(mode="before")
    @classmethod
    def _without_the_ignored(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        drop = IGNORED | (IGNORED_PARTS - set(cls.model_fields))
        return {key: value for key, value in values.items() if key not in drop and not key.startswith(MEL)}


class TransformerConfig(_Part):
    """A stack of pre-norm layers with rotary attention and gated feed-forward.

    Attributes:
        window: frames that a frame attends to, itself in their middle; ``None`` for all.
        condition: channels of what scales, shifts and gates (AdaLN-Zero), where ``adaptive``; else norms are learned.
    """

    dim: Annotated[int, Between(2, 8192)]
    layers: Depth = Field(alias="n_layers")
    heads: Annotated[int, Between(1, 256)] = Field(alias="n_heads")
    input_dim: Width | None = None
    output_dim: Width | None = None
    window: Annotated[int, Between(1, 1 << 20)] | None = Field(None, alias="window_size")
    causal: Literal[False] = False
    adaptive: bool = Field(False, alias="use_adaln_zero")
    condition_dim: Width | None = Field(None, alias="adanorm_condition_dim")
    rotary: bool = Field(True, alias="use_rope")
    rope_theta: Positive = 500000.0
    multiple_of: Annotated[int, Between(1, 65536)] = 256
    multiplier: Positive | None = Field(None, alias="ffn_dim_multiplier")
    eps: Positive = Field(1e-5, alias="norm_eps")
    qkv_bias: bool = False
    proj_bias: bool = False

    @model_validator(mode="after")
    def _fits(self) -> TransformerConfig:
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise Unfit(f"is {self.heads}", f"it must divide dim, {self.dim}, into even parts", ("n_heads",))
        if self.window is not None and self.window % 2 == 0:
            raise Unfit(f"is {self.window}", "give an odd number", ("window_size",))
        if self.adaptive and self.condition_dim is None:
            raise Unfit("lacks the key 'adanorm_condition_dim', though use_adaln_zero is true")
        return self

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layers."""
        hidden = int(2 * 4 * self.dim / 3)
        if self.multiplier is not None:
            hidden = int(self.multiplier * hidden)
        return self.multiple_of * math.ceil(hidden / self.multiple_of)

    @property
    def side(self) -> int | None:
        """Frames to each side that a frame attends to; ``None`` for all."""
        return None if self.window is None else self.window // 2

    @property
    def theta(self) -> float | None:
        """Base of the rotary frequencies; ``None`` for no positions."""
        return self.rope_theta if self.rotary else None

    @property
    def condition(self) -> int | None:
        return self.condition_dim if self.adaptive else None

    @property
    def width_in(self) -> int:
        return self.dim if self.input_dim is None else self.input_dim

    @property
    def width_out(self) -> int:
        return self.dim if self.output_dim is None else self.output_dim


class SpeakerConfig(_Part):
    """ConvNeXt and attentive statistics."""

    input_channels: Width
    output_channels: Width
    dim: Width
    hidden: Annotated[int, Between(1, 32768)] = Field(alias="intermediate_dim")
    layers: Depth = Field(alias="num_layers")
    attention: Width = Field(128, alias="attention_channels")
    skip_embed: Literal[False] = False
    use_attn_pool: Literal[True] = True


class QuantizerConfig(_Part):
    """Finite scalar quantization, and the projections around it."""

    input_dim: Width
    output_dim: Width
    levels: Annotated[tuple[Annotated[int, Between(2, 512)], ...], Field(strict=False, min_length=1, max_length=16)]


class MainConfig(_Part):
    """Rates, layers that are read, and the wave decoder.

    Attributes:
        halve: frames of the front end in a content frame.
    """

    use_wave_decoder: bool = False
    sample_rate: Annotated[int, Between(8000, 192000)] = 24000
    content_layers: Layers = Field((6, 9), alias="local_ssl_layers")
    speaker_layers: Layers = Field((1, 2), alias="global_ssl_layers")
    normalise: bool = Field(True, alias="normalize_ssl_features")
    halve: Annotated[int, Between(1, 16)] = Field(2, alias="downsample_factor")
    halve_by_conv: bool = Field(True, alias="use_conv_downsample")
    n_fft: Annotated[int, Between(4, 8192)] = 1024
    hop: Width = Field(256, alias="hop_length")
    istft_padding: Literal["same", "center"] = "same"
    decoder_dim: Width = Field(512, alias="wave_decoder_dim")
    upsample: Small = Field(4, alias="wave_upsample_factor")
    interpolation: Literal["linear", "nearest"] = Field("linear", alias="wave_interpolation_mode")
    resnet_blocks: Small = Field(2, alias="wave_resnet_num_blocks")
    resnet_kernel: Annotated[int, Between(1, 127)] = Field(3, alias="wave_resnet_kernel_size")
    resnet_groups: Width = Field(32, alias="wave_resnet_num_groups")
    factors: Stages | None = Field(None, alias="wave_upsampler_factors")
    kernels: Stages | None = Field(None, alias="wave_upsampler_kernel_sizes")

    @model_validator(mode="after")
    def _fits(self) -> MainConfig:
        if not self.use_wave_decoder:
            raise Unfit(
                "is not true: this codec makes mel spectrograms for a vocoder of its own",
                "take Aratako/MioCodec-25Hz-44.1kHz-v2",
                ("use_wave_decoder",),
            )
        factors, kernels = self.factors or (), self.kernels
        if factors and max(factors) > 64:
            raise Unfit(f"has a factor of {max(factors)}", "give at most 64", ("wave_upsampler_factors",))
        if (
            factors
            and kernels
            and [one >= two for one, two in zip(kernels, factors, strict=False)]
            != [True] * max(len(factors), len(kernels))
        ):
            hint = f"give one for each of {len(factors)} factors, and none smaller than its factor"
            raise Unfit(f"is a list of {len(kernels)}", hint, ("wave_upsampler_kernel_sizes",))
        if self.decoder_dim % self.resnet_groups or self.decoder_dim % (1 << len(factors)):
            raise Unfit(
                f"is {self.decoder_dim}, and is halved in each of {len(factors)} upsampling stages",
                f"give a multiple of wave_resnet_num_groups, {self.resnet_groups}, and of {1 << len(factors)}",
                ("wave_decoder_dim",),
            )
        if self.n_fft % 2 or self.hop > self.n_fft:
            raise Unfit(f"is {self.n_fft}", f"give an even number no less than hop_length, {self.hop}", ("n_fft",))
        return self

    @property
    def upsampler(self) -> tuple[tuple[int, int], ...]:
        """Factor and kernel of each stage after the decoder."""
        factors = self.factors or ()
        return tuple(zip(factors, self.kernels or [2 * one for one in factors], strict=True))


class _FrontEnd(_Part):
    model_name: Literal["wavlm_base_plus"] = "wavlm_base_plus"
    sample_rate: int = 16000
    output_layer: Annotated[int, Between(1, 48)]


class CodecConfig(_Part):
    """All of a codec that has a wave decoder."""

    main: MainConfig = Field(alias="config")
    front: _FrontEnd = Field(validation_alias=AliasPath("ssl_feature_extractor", "init_args"))
    quantizer: QuantizerConfig = Field(validation_alias=AliasPath("local_quantizer", "init_args"))
    local_encoder: TransformerConfig = Field(validation_alias=AliasPath("local_encoder", "init_args"))
    prenet: TransformerConfig = Field(validation_alias=AliasPath("wave_prenet", "init_args"))
    decoder: TransformerConfig = Field(validation_alias=AliasPath("wave_decoder", "init_args"))
    speaker: SpeakerConfig = Field(validation_alias=AliasPath("global_encoder", "init_args"))

    @model_validator(mode="after")
    def _fits(self) -> CodecConfig:
        front, main = self.front, self.main
        if front.sample_rate != main.sample_rate:
            hint = f"give that of the codec, {main.sample_rate}"
            raise Unfit(f"is {front.sample_rate}", hint, ("ssl_feature_extractor", "init_args", "sample_rate"))
        for key, layers in (("local_ssl_layers", main.content_layers), ("global_ssl_layers", main.speaker_layers)):
            for place, layer in enumerate(layers):
                if layer > front.output_layer:
                    hint = f"give a whole number from 1 to output_layer, {front.output_layer}"
                    raise Unfit(f"is {layer}", hint, ("config", key, place))
        quantizer, decoder = self.quantizer, self.decoder
        pairs = [
            (
                "local_encoder.output_dim",
                self.local_encoder.width_out,
                "local_quantizer.input_dim",
                quantizer.input_dim,
            ),
            ("local_quantizer.output_dim", quantizer.output_dim, "wave_prenet.input_dim", self.prenet.width_in),
            ("wave_prenet.output_dim", self.prenet.width_out, "config.wave_decoder_dim", main.decoder_dim),
            ("config.wave_decoder_dim", main.decoder_dim, "wave_decoder.input_dim", decoder.width_in),
            ("wave_decoder.output_dim", decoder.width_out, "config.wave_decoder_dim", main.decoder_dim),
            (
                "local_encoder.input_dim",
                self.local_encoder.width_in,
                "global_encoder.input",
                self.speaker.input_channels,
            ),
        ]
        if decoder.condition is None:
            fault = "is not true: the decoder would not be told the speaker"
            raise Unfit(fault, at=("wave_decoder", "init_args", "use_adaln_zero"))
        pairs.append(
            ("global_encoder.output", self.speaker.output_channels, "wave_decoder.condition", decoder.condition)
        )
        for first, one, second, other in pairs:
            if one != other:
                raise Unfit(f"does not fit together: {first} is {one}, and {second} {other}", "they must be the same")
        return self


class _Model(Settings, extra="ignore"):
    init_args: CodecConfig


class _File(Settings, extra="ignore"):
    model: _Model


def read_config(path: Path) -> CodecConfig:
    """A codec's ``config.yaml``, as published: ``model.init_args`` with the parts of the model.

    Raises:
        TeacherError: for a file that cannot be read, entries that are unknown or out of bounds, and codecs without
            a wave decoder. It names file, line and entry.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
        source = read_yaml(text, str(path))
    except OSError as error:
        raise TeacherError(f"{path}: cannot be read: {reason_of(error)}") from error
    except RecipeError as error:
        raise TeacherError(str(error)) from error
    return read_settings(_File, source.data, TeacherError, source.location).model.init_args
