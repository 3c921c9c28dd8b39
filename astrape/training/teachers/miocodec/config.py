"""The configuration that MioCodec's checkpoints come with: what of it matters to inference, within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from astrape.training.errors import TeacherError

__all__ = ["CodecConfig", "SpeakerConfig", "TransformerConfig", "read_config"]

LARGEST_FILE = 1 << 20
IGNORED = {"dropout", "max_seq_len", "use_flash_attention", "use_xavier_init", "wave_resnet_dropout"}
"""Entries that say nothing about the outputs: they concern training, speed and tables that are made when needed."""

IGNORED_NULL = {"mel_prenet", "mel_decoder", "mel_postnet"}
MEL = ("n_mels", "padding", "mel_", "local_interpolation_mode")


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of pre-norm layers with rotary attention and gated feed-forward."""

    dim: int
    layers: int
    heads: int
    hidden: int
    input_dim: int | None
    output_dim: int | None
    side: int | None
    """Frames to each side that a frame attends to, half the window; ``None`` for all."""

    theta: float | None
    """Base of the rotary frequencies; ``None`` for no positions."""

    condition: int | None
    """Channels of what scales, shifts and gates (AdaLN-Zero); ``None`` for learned norms."""

    eps: float
    qkv_bias: bool
    proj_bias: bool

    @property
    def width_in(self) -> int:
        return self.dim if self.input_dim is None else self.input_dim

    @property
    def width_out(self) -> int:
        return self.dim if self.output_dim is None else self.output_dim


@dataclass(frozen=True)
class SpeakerConfig:
    """ConvNeXt and attentive statistics."""

    input_channels: int
    output_channels: int
    dim: int
    hidden: int
    layers: int
    attention: int


@dataclass(frozen=True)
class CodecConfig:
    """All of a codec that has a wave decoder."""

    sample_rate: int
    content_layers: tuple[int, ...]
    speaker_layers: tuple[int, ...]
    normalise: bool
    halve: int
    """Frames of the front end in a content frame."""

    halve_by_conv: bool
    n_fft: int
    hop: int
    istft_padding: str
    decoder_dim: int
    upsample: int
    interpolation: str
    resnet_blocks: int
    resnet_kernel: int
    resnet_groups: int
    upsampler: tuple[tuple[int, int], ...]
    """Factor and kernel of each stage after the decoder."""

    levels: tuple[int, ...]
    quantiser_in: int
    quantiser_out: int
    local_encoder: TransformerConfig
    prenet: TransformerConfig
    decoder: TransformerConfig
    speaker: SpeakerConfig


class _Section:
    """A mapping of the file whose entries are taken one by one; what nobody took is an error."""

    def __init__(self, where: str, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise TeacherError(f"{where}: must be a mapping, not {values!r}")
        self.where, self._left = where, dict(values)

    def take(self, key: str, default: Any = None) -> Any:
        return self._left.pop(key, default)

    def section(self, key: str) -> _Section:
        return _Section(f"{self.where}.{key}", self.take(key))

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise TeacherError(f"{self.where}.{key} must be {low} to {high}, not {value!r}")
        return value

    def optional(self, key: str, low: int, high: int) -> int | None:
        value = self.take(key)
        return None if value is None else _Section(self.where, {key: value}).whole(key, low, high)

    def number(self, key: str, default: float) -> float:
        value = self.take(key, default)
        # YAML reads 1e-5, which has no point, as a word.
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not 0 < found < 1e9:
            raise TeacherError(f"{self.where}.{key} must be a positive number, not {value!r}")
        return found

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise TeacherError(f"{self.where}.{key} must be true or false, not {value!r}")
        return value

    def choice(self, key: str, choices: Sequence[Any], default: Any) -> Any:
        value = self.take(key, default)
        if value not in choices:
            listed = " or ".join(str(choice) for choice in choices)
            raise TeacherError(f"{self.where}.{key} must be {listed}, not {value!r}")
        return value

    def numbers(self, key: str, low: int, high: int, default: Any = None) -> tuple[int, ...]:
        value = self.take(key, default)
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 16:
            raise TeacherError(f"{self.where}.{key} must be a list of 1 to 16 numbers, not {value!r}")
        return tuple(
            _Section(self.where, {f"{key}[{at}]": one}).whole(f"{key}[{at}]", low, high) for at, one in enumerate(value)
        )

    def done(self) -> None:
        left = [key for key in self._left if key not in IGNORED]
        if left:
            raise TeacherError(f"{self.where}.{left[0]} is nothing that MioCodec is known to have")


def read_config(path: Path) -> CodecConfig:
    """A codec's ``config.yaml``, as published: ``model.init_args`` with the parts of the model.

    Raises:
        TeacherError: for a file that cannot be read, entries that are unknown or out of bounds, and codecs without
            a wave decoder. It names file and entry.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise TeacherError(f"{path}: is larger than {LARGEST_FILE} bytes, and no configuration")
        values = yaml.safe_load(text)
    except OSError as error:
        raise TeacherError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise TeacherError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    try:
        return _codec(values)
    except TeacherError as error:
        raise TeacherError(f"{path}: {error}") from error


def _codec(values: Any) -> CodecConfig:
    if not isinstance(values, Mapping):
        raise TeacherError("holds no mapping")
    model = _Section("model", values.get("model")).section("init_args")
    main = model.section("config")
    if not main.flag("use_wave_decoder", False):
        raise TeacherError(
            "model.init_args.config.use_wave_decoder is not true: this codec makes mel spectrograms for a vocoder of "
            "its own; take Aratako/MioCodec-25Hz-44.1kHz-v2"
        )
    front = model.section("ssl_feature_extractor").section("init_args")
    front.choice("model_name", ["wavlm_base_plus"], "wavlm_base_plus")
    sample_rate = main.whole("sample_rate", 8000, 192000, 24000)
    front.choice("sample_rate", [sample_rate], 16000)
    reached = front.whole("output_layer", 1, 48)
    front.done()
    quantiser = model.section("local_quantizer").section("init_args")
    factors, kernels = _upsampler(main)
    config = CodecConfig(
        sample_rate=sample_rate,
        content_layers=main.numbers("local_ssl_layers", 1, reached, [6, 9]),
        speaker_layers=main.numbers("global_ssl_layers", 1, reached, [1, 2]),
        normalise=main.flag("normalize_ssl_features", True),
        halve=main.whole("downsample_factor", 1, 16, 2),
        halve_by_conv=main.flag("use_conv_downsample", True),
        n_fft=main.whole("n_fft", 4, 8192, 1024),
        hop=main.whole("hop_length", 1, 8192, 256),
        istft_padding=main.choice("istft_padding", ["same", "center"], "same"),
        decoder_dim=main.whole("wave_decoder_dim", 1, 8192, 512),
        upsample=main.whole("wave_upsample_factor", 1, 64, 4),
        interpolation=main.choice("wave_interpolation_mode", ["linear", "nearest"], "linear"),
        resnet_blocks=main.whole("wave_resnet_num_blocks", 1, 64, 2),
        resnet_kernel=main.whole("wave_resnet_kernel_size", 1, 127, 3),
        resnet_groups=main.whole("wave_resnet_num_groups", 1, 8192, 32),
        upsampler=tuple(zip(factors, kernels, strict=True)),
        levels=quantiser.numbers("levels", 2, 512),
        quantiser_in=quantiser.whole("input_dim", 1, 8192),
        quantiser_out=quantiser.whole("output_dim", 1, 8192),
        local_encoder=_transformer(model.section("local_encoder")),
        prenet=_transformer(model.section("wave_prenet")),
        decoder=_transformer(model.section("wave_decoder")),
        speaker=_speaker(model.section("global_encoder")),
    )
    for section in (quantiser, main, model):
        for key in [key for key in section._left if key.startswith(MEL)]:
            section.take(key)
        for key in IGNORED_NULL | {"feature_decoder"}:
            section.take(key)
        section.done()
    _check_widths(config)
    return config


def _upsampler(main: _Section) -> tuple[tuple[int, ...], tuple[int, ...]]:
    factors = main.take("wave_upsampler_factors")
    kernels = main.take("wave_upsampler_kernel_sizes")
    if not factors:
        return (), ()
    section = _Section(main.where, {"wave_upsampler_factors": factors, "wave_upsampler_kernel_sizes": kernels})
    strides = section.numbers("wave_upsampler_factors", 1, 64)
    sizes = tuple(2 * stride for stride in strides) if kernels is None else None
    sizes = sizes or section.numbers("wave_upsampler_kernel_sizes", 1, 512)
    if len(sizes) != len(strides) or any(size < stride for size, stride in zip(sizes, strides, strict=True)):
        raise TeacherError(f"{main.where}.wave_upsampler_kernel_sizes must be one for each factor, and no smaller")
    return strides, sizes


def _transformer(outer: _Section) -> TransformerConfig:
    section = outer.section("init_args")
    dim = section.whole("dim", 2, 8192)
    heads = section.whole("n_heads", 1, 256)
    if dim % heads or (dim // heads) % 2:
        raise TeacherError(f"{section.where}.n_heads must divide dim, {dim}, into even parts, not be {heads}")
    window = section.optional("window_size", 1, 1 << 20)
    if window is not None and window % 2 == 0:
        raise TeacherError(f"{section.where}.window_size must be odd, not {window}")
    section.choice("causal", [False], False)
    adaptive = section.flag("use_adaln_zero", False)
    condition = section.optional("adanorm_condition_dim", 1, 8192)
    theta = section.number("rope_theta", 500000.0)
    multiple = section.whole("multiple_of", 1, 65536, 256)
    scale = section.take("ffn_dim_multiplier")
    hidden = int(2 * 4 * dim / 3)
    if scale is not None:
        hidden = int(_Section(section.where, {"ffn_dim_multiplier": scale}).number("ffn_dim_multiplier", 1) * hidden)
    config = TransformerConfig(
        dim=dim,
        layers=section.whole("n_layers", 1, 128),
        heads=heads,
        hidden=multiple * math.ceil(hidden / multiple),
        input_dim=section.optional("input_dim", 1, 8192),
        output_dim=section.optional("output_dim", 1, 8192),
        side=None if window is None else window // 2,
        theta=theta if section.flag("use_rope", True) else None,
        condition=condition if adaptive else None,
        eps=section.number("norm_eps", 1e-5),
        qkv_bias=section.flag("qkv_bias", False),
        proj_bias=section.flag("proj_bias", False),
    )
    if adaptive and condition is None:
        raise TeacherError(f"{section.where}.adanorm_condition_dim is missing, though use_adaln_zero is true")
    section.done()
    return config


def _speaker(outer: _Section) -> SpeakerConfig:
    section = outer.section("init_args")
    section.choice("skip_embed", [False], False)
    section.choice("use_attn_pool", [True], True)
    config = SpeakerConfig(
        input_channels=section.whole("input_channels", 1, 8192),
        output_channels=section.whole("output_channels", 1, 8192),
        dim=section.whole("dim", 1, 8192),
        hidden=section.whole("intermediate_dim", 1, 32768),
        layers=section.whole("num_layers", 1, 128),
        attention=section.whole("attention_channels", 1, 8192, 128),
    )
    section.done()
    return config


def _check_widths(config: CodecConfig) -> None:
    """What follows on each other has to be as wide as each other."""
    stages = len(config.upsampler)
    pairs = [
        ("local_encoder.output_dim", config.local_encoder.width_out, "local_quantizer.input_dim", config.quantiser_in),
        ("local_quantizer.output_dim", config.quantiser_out, "wave_prenet.input_dim", config.prenet.width_in),
        ("wave_prenet.output_dim", config.prenet.width_out, "config.wave_decoder_dim", config.decoder_dim),
        ("config.wave_decoder_dim", config.decoder_dim, "wave_decoder.input_dim", config.decoder.width_in),
        ("wave_decoder.output_dim", config.decoder.width_out, "config.wave_decoder_dim", config.decoder_dim),
        (
            "local_encoder.input_dim",
            config.local_encoder.width_in,
            "global_encoder.input",
            config.speaker.input_channels,
        ),
    ]
    if config.decoder.condition is not None:
        condition = config.decoder.condition
        pairs.append(("global_encoder.output", config.speaker.output_channels, "wave_decoder.condition", condition))
    for first, one, second, other in pairs:
        if one != other:
            raise TeacherError(f"{first} is {one}, and {second} {other}: they must be the same")
    if config.decoder.condition is None:
        raise TeacherError("wave_decoder.use_adaln_zero is not true: nothing would tell the decoder the speaker")
    if config.decoder_dim % config.resnet_groups or config.decoder_dim % (1 << stages):
        raise TeacherError(
            f"config.wave_decoder_dim, {config.decoder_dim}, must be a multiple of wave_resnet_num_groups and of "
            f"{1 << stages}, for it is halved in each of {stages} upsampling stages"
        )
    if config.n_fft % 2 or config.hop > config.n_fft:
        raise TeacherError(f"config.n_fft must be even and no less than hop_length, not {config.n_fft}")
