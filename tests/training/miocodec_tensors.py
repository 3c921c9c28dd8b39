"""Sizes of codecs, the configuration and the tensors that go with them, and random weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]

PUBLISHED: dict[str, Any] = {
    "rate": 44100,
    "n_fft": 392,
    "hop": 98,
    "levels": [8, 8, 8, 5, 5],
    "content_layers": [6, 9],
    "speaker_layers": [1, 2],
    "local": {"dim": 768, "layers": 6, "heads": 12, "window": 125, "hidden": 2048},
    "prenet": {"dim": 768, "layers": 6, "heads": 12, "window": 65, "hidden": 2048, "out": 512},
    "wave": {"dim": 512, "layers": 8, "heads": 8, "window": 65, "hidden": 1536, "condition": 128},
    "speaker": {"in": 768, "dim": 384, "hidden": 1152, "layers": 4, "attention": 128, "out": 128},
    "groups": 32,
    "stages": [(3, 9), (3, 9)],
    "multiple": 256,
    "theta": 10000.0,
    "wavlm": {
        "dim": 768,
        "heads": 12,
        "hidden": 3072,
        "layers": 9,
        "conv": 512,
        "taps": 128,
        "groups": 16,
        "buckets": 320,
    },
}

SMALL: dict[str, Any] = PUBLISHED | {
    "local": {"dim": 32, "layers": 2, "heads": 4, "window": 21, "hidden": 96},
    "prenet": {"dim": 32, "layers": 2, "heads": 4, "window": 7, "hidden": 96, "out": 64},
    "wave": {"dim": 64, "layers": 2, "heads": 4, "window": 15, "hidden": 176, "condition": 16},
    "speaker": {"in": 32, "dim": 24, "hidden": 40, "layers": 2, "attention": 128, "out": 16},
    "groups": 16,
    "multiple": 16,
    "wavlm": {"dim": 32, "heads": 4, "hidden": 48, "layers": 10, "conv": 24, "taps": 16, "groups": 4, "buckets": 32},
}
KERNELS = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]


def config_file(sizes: dict[str, Any]) -> dict[str, Any]:
    """``config.yaml`` of a codec of these sizes, entry for entry as published."""

    def part(where: str, **args: Any) -> dict[str, Any]:
        return {"class_path": f"miocodec.module.{where}", "init_args": args}

    def transformer(name: str, **more: Any) -> dict[str, Any]:
        own = sizes[name]
        return part(
            "transformer.Transformer",
            dim=own["dim"],
            n_layers=own["layers"],
            n_heads=own["heads"],
            window_size=own["window"],
            use_rope=True,
            rope_theta=sizes["theta"],
            max_seq_len=512,
            use_flash_attention=True,
            multiple_of=sizes["multiple"],
            **more,
        )

    wide, speaker, wave = sizes["local"]["dim"], sizes["speaker"], sizes["wave"]
    return {
        "model": {
            "class_path": "miocodec.model.MioCodecModel",
            "init_args": {
                "config": {
                    "local_ssl_layers": sizes["content_layers"],
                    "global_ssl_layers": sizes["speaker_layers"],
                    "normalize_ssl_features": True,
                    "downsample_factor": 2,
                    "use_conv_downsample": True,
                    "sample_rate": sizes["rate"],
                    "n_fft": sizes["n_fft"],
                    "hop_length": sizes["hop"],
                    "use_wave_decoder": True,
                    "wave_upsample_factor": 2,
                    "wave_interpolation_mode": "linear",
                    "wave_decoder_dim": wave["dim"],
                    "wave_resnet_num_blocks": 2,
                    "wave_resnet_kernel_size": 3,
                    "wave_resnet_num_groups": sizes["groups"],
                    "wave_resnet_dropout": 0.1,
                    "istft_padding": "same",
                    "wave_upsampler_factors": [factor for factor, _ in sizes["stages"]],
                    "wave_upsampler_kernel_sizes": [kernel for _, kernel in sizes["stages"]],
                },
                "ssl_feature_extractor": part(
                    "ssl_extractor.SSLFeatureExtractor",
                    model_name="wavlm_base_plus",
                    output_layer=9,
                    sample_rate=sizes["rate"],
                ),
                "local_encoder": transformer("local"),
                "local_quantizer": part(
                    "fsq.FiniteScalarQuantizer", input_dim=wide, output_dim=wide, levels=sizes["levels"]
                ),
                "feature_decoder": transformer("local"),
                "global_encoder": part(
                    "global_encoder.GlobalEncoder",
                    input_channels=speaker["in"],
                    output_channels=speaker["out"],
                    num_layers=speaker["layers"],
                    dim=speaker["dim"],
                    intermediate_dim=speaker["hidden"],
                ),
                "mel_prenet": None,
                "mel_decoder": None,
                "mel_postnet": None,
                "wave_prenet": transformer("prenet", output_dim=sizes["prenet"]["out"]),
                "wave_decoder": transformer("wave", adanorm_condition_dim=wave["condition"], use_adaln_zero=True),
            },
        }
    }


def codec_tensors(sizes: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a published checkpoint, and its shape."""
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, bias: bool = True, width: int | None = None) -> None:
        found[f"{name}.weight"] = shape
        if bias:
            found[f"{name}.bias"] = (shape[0] if width is None else width,)

    def transformer(root: str, own: dict[str, Any]) -> None:
        dim = own["dim"]
        for index in range(own["layers"]):
            for name in ("wq", "wk", "wv", "wo"):
                layer(f"{root}.layers.{index}.attention.{name}", dim, dim, bias=False)
            layer(f"{root}.layers.{index}.feed_forward.w1", own["hidden"], dim, bias=False)
            layer(f"{root}.layers.{index}.feed_forward.w2", dim, own["hidden"], bias=False)
            layer(f"{root}.layers.{index}.feed_forward.w3", own["hidden"], dim, bias=False)
            for name in ("attention_norm", "ffn_norm"):
                if "condition" in own:
                    layer(f"{root}.layers.{index}.{name}.condition_proj.1", 3 * dim, own["condition"])
                else:
                    layer(f"{root}.layers.{index}.{name}", dim)
        if "condition" in own:
            layer(f"{root}.norm.condition_proj.1", 2 * dim, own["condition"])
        else:
            layer(f"{root}.norm", dim)
        if "out" in own:
            layer(f"{root}.output_proj", own["out"], dim)

    def residual(root: str, channels: int) -> None:
        for index in (1, 2):
            layer(f"{root}.norm{index}", channels)
            layer(f"{root}.conv{index}", channels, channels, 3)

    wide, wave, speaker = sizes["local"]["dim"], sizes["wave"]["dim"], sizes["speaker"]
    transformer("local_encoder", sizes["local"])
    layer("conv_downsample", wide, wide, 2)
    layer("local_quantizer.proj_in", len(sizes["levels"]), wide)
    layer("local_quantizer.proj_out", wide, len(sizes["levels"]))
    root = "global_encoder.backbone"
    layer(f"{root}.embed", speaker["dim"], speaker["in"], 7)
    layer(f"{root}.norm", speaker["dim"])
    for index in range(speaker["layers"]):
        layer(f"{root}.convnext.{index}.dwconv", speaker["dim"], 1, 7)
        layer(f"{root}.convnext.{index}.norm", speaker["dim"])
        layer(f"{root}.convnext.{index}.pwconv1", speaker["hidden"], speaker["dim"])
        layer(f"{root}.convnext.{index}.pwconv2", speaker["dim"], speaker["hidden"])
        found[f"{root}.convnext.{index}.gamma"] = (speaker["dim"],)
    layer(f"{root}.final_layer_norm", speaker["dim"])
    layer("global_encoder.pooling.attn.0", speaker["attention"], speaker["dim"], 1)
    layer("global_encoder.pooling.attn.2", speaker["dim"], speaker["attention"], 1)
    layer("global_encoder.pooling.proj", speaker["out"], 2 * speaker["dim"])
    layer("global_encoder.pooling.norm", speaker["out"])
    transformer("wave_prenet", sizes["prenet"])
    layer("wave_conv_upsample", wave, wave, 2)
    transformer("wave_decoder", sizes["wave"])
    for stack in ("wave_prior_net", "wave_post_net"):
        for index in range(2):
            residual(f"{stack}.blocks.{index}", wave)
    channels = wave
    for index, (_, kernel) in enumerate(sizes["stages"]):
        name = f"wave_upsampler.upsample_layers.{index}"
        found[f"{name}.parametrizations.weight.original0"] = (channels, 1, 1)
        found[f"{name}.parametrizations.weight.original1"] = (channels, channels // 2, kernel)
        found[f"{name}.bias"] = (channels // 2,)
        channels //= 2
        residual(f"wave_upsampler.resnet_blocks.{index}", channels)
        found |= {f"wave_upsampler.snake_activations.{index}.{part}": (channels,) for part in ("alpha", "beta")}
    layer("wave_upsampler.out_proj", wave, channels)
    found |= {f"wave_upsampler.out_snake.{part}": (wave,) for part in ("alpha", "beta")}
    layer("istft_head.out", sizes["n_fft"] + 2, wave)
    return found


def wavlm_tensors(sizes: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of torchaudio's ``wavlm_base_plus.pth``, and its shape."""
    own = sizes["wavlm"]
    dim, conv = own["dim"], own["conv"]
    found: dict[str, tuple[int, ...]] = {}
    for index, (kernel, _) in enumerate(KERNELS):
        found[f"feature_extractor.conv_layers.{index}.conv.weight"] = (conv, conv if index else 1, kernel)
    found |= {f"feature_extractor.conv_layers.0.layer_norm.{part}": (conv,) for part in ("weight", "bias")}
    found |= {f"encoder.feature_projection.layer_norm.{part}": (conv,) for part in ("weight", "bias")}
    found["encoder.feature_projection.projection.weight"] = (dim, conv)
    found["encoder.feature_projection.projection.bias"] = (dim,)
    root = "encoder.transformer"
    found[f"{root}.pos_conv_embed.conv.bias"] = (dim,)
    found[f"{root}.pos_conv_embed.conv.weight_g"] = (1, 1, own["taps"])
    found[f"{root}.pos_conv_embed.conv.weight_v"] = (dim, dim // own["groups"], own["taps"])
    found |= {f"{root}.layer_norm.{part}": (dim,) for part in ("weight", "bias")}
    found[f"{root}.layers.0.attention.rel_attn_embed.weight"] = (own["buckets"], own["heads"])
    for index in range(own["layers"]):
        at = f"{root}.layers.{index}"
        found[f"{at}.attention.gru_rel_pos_const"] = (1, own["heads"], 1, 1)
        found[f"{at}.attention.gru_rel_pos_linear.weight"] = (8, dim // own["heads"])
        found[f"{at}.attention.gru_rel_pos_linear.bias"] = (8,)
        found[f"{at}.attention.attention.in_proj_weight"] = (3 * dim, dim)
        found[f"{at}.attention.attention.in_proj_bias"] = (3 * dim,)
        found[f"{at}.attention.attention.out_proj.weight"] = (dim, dim)
        found[f"{at}.attention.attention.out_proj.bias"] = (dim,)
        found |= {f"{at}.{norm}.{part}": (dim,) for norm in ("layer_norm", "final_layer_norm") for part in NORM}
        found[f"{at}.feed_forward.intermediate_dense.weight"] = (own["hidden"], dim)
        found[f"{at}.feed_forward.intermediate_dense.bias"] = (own["hidden"],)
        found[f"{at}.feed_forward.output_dense.weight"] = (dim, own["hidden"])
        found[f"{at}.feed_forward.output_dense.bias"] = (dim,)
    return found


NORM = ("weight", "bias")


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> State:
    """Random weights that keep signals at about their size."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if ("norm" in name and name.endswith("weight") and len(shape) == 1) or (
            len(shape) > 1 and max(shape) == math.prod(shape)
        ):
            values = 1 + 0.1 * values
        elif len(shape) == 1:
            values = 0.1 * values
        else:
            values = values / math.sqrt(math.prod(shape[1:]))
        state[name] = values
    return state
