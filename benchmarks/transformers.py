"""A transformer over a sliding window, a frame at a time, with the same weights everywhere."""

from __future__ import annotations

from importlib.metadata import version
from itertools import cycle
from typing import Any

import numpy as np
import torch

from astrape.graph import compile
from benchmarks.contest import Contest, Contestant, Frames
from benchmarks.streams import pushed, stepped

__all__ = ["transformers"]

LAYERS, WIDTH, HEADS, WINDOW, RATE = 8, 512, 8, 256, 25
HIDDEN = 1344  # what moshi makes of 4 * WIDTH with a gate
EPSILON = 1e-5

RECIPE: dict[str, Any] = {
    "recipe": "transformers",
    "inputs": {"x": {"rate": RATE, "channels": WIDTH}},
    "blocks": {
        "stack": {
            "use": "transformer",
            "layers": LAYERS,
            "heads": HEADS,
            "window": WINDOW,
            "ffn": HIDDEN,
            "rotary": "interleaved",
            "bias": False,
            "final_norm": False,
        }
    },
    "outputs": {"y": "stack"},
}


def transformers() -> Contest:
    """Eight layers 512 wide, eight heads, a window of 256 frames, rotary positions and a gated net."""
    torch.manual_seed(0)
    graph = compile(RECIPE).eval()
    weights = {name: value.detach() for name, value in graph.named_parameters()}
    x = np.random.default_rng(0).standard_normal((64, 1, WIDTH, 1)).astype(np.float32)
    return Contest(
        f"transformer of {LAYERS} layers {WIDTH} wide, window {WINDOW}, a frame of 40 ms at a time",
        1 / RATE,
        [
            Contestant("astrape", pushed(graph, x, chunk=1)),
            Contestant("astrape, eager", pushed(graph, x, backend="eager")),
            Contestant(f"moshi {version('moshi')}", _moshi(weights, x)),
            Contestant(f"SequenceLayers {version('sequence-layers')}, jitted", _sequence_layers(weights, x, False)),
            Contestant(f"SequenceLayers {version('sequence-layers')}, ring", _sequence_layers(weights, x, True)),
        ],
    )


def _layers(weights: dict[str, Any]) -> list[dict[str, Any]]:
    """Parameters by layer, under the names that they have in one."""
    found: list[dict[str, Any]] = [{} for _ in range(LAYERS)]
    for name, value in weights.items():
        _, _, layer, own = name.split(".", 3)
        found[int(layer)][own] = value
    return found


def _moshi(weights: dict[str, Any], x: Frames) -> Any:
    from moshi.modules.transformer import StreamingTransformer

    stack = StreamingTransformer(
        WIDTH,
        HEADS,
        LAYERS,
        dim_feedforward=4 * WIDTH,
        causal=True,
        context=WINDOW,
        positional_embedding="rope",
        gating="silu",
        norm="layer_norm",
    ).eval()
    with torch.no_grad():
        for module, own in zip(stack.layers, _layers(weights), strict=True):
            for norm in ("norm1", "norm2"):
                getattr(module, norm).weight.copy_(own[f"{norm}.weight"])
                getattr(module, norm).bias.copy_(own[f"{norm}.bias"])
                getattr(module, norm).eps = EPSILON
            module.self_attn.in_projs[0].weight.copy_(own["attn.in_proj_weight"])
            module.self_attn.out_projs[0].weight.copy_(own["attn.out_proj.weight"])
            module.gating.linear_in.weight.copy_(torch.cat([own["w1.weight"], own["w3.weight"]]))
            module.gating.linear_out.weight.copy_(own["w2.weight"])
    stack.streaming_forever(1)
    pieces = cycle(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 1, 3, 2))))

    def step() -> Frames:
        with torch.inference_mode():
            return stack(next(pieces))[0].numpy().T

    return step


def _sequence_layers(weights: dict[str, Any], x: Frames, ring: bool) -> Any:
    import jax
    import jax.numpy as jnp
    import sequence_layers.jax as sl
    from flax.core import meta

    head = WIDTH // HEADS
    turns = [sl.ApplyRotaryPositionalEncoding.Config(max_wavelength=10_000.0, name=f"turn_{part}") for part in "qk"]

    def layer(index: int) -> Any:
        attending = sl.Residual.Config(
            [
                sl.LayerNormalization.Config(epsilon=EPSILON, name="norm1"),
                sl.LocalDotProductSelfAttention.Config(
                    HEADS,
                    head,
                    block_size=1,
                    max_past_horizon=WINDOW - 1,
                    query_network=turns[0],
                    key_network=turns[1],
                    use_kv_cache_ringbuffer=ring,
                    name="attn",
                ),
                sl.Flatten.Config(name="flat"),
                sl.Dense.Config(WIDTH, use_bias=False, name="out"),
            ],
            name=f"attending_{index}",
        )
        feeding = sl.Residual.Config(
            [
                sl.LayerNormalization.Config(epsilon=EPSILON, name="norm2"),
                sl.Dense.Config(2 * HIDDEN, use_bias=False, name="w1"),
                sl.GatedUnit.Config(None, jax.nn.silu, name="gate"),
                sl.Dense.Config(WIDTH, use_bias=False, name="w2"),
            ],
            name=f"feeding_{index}",
        )
        return sl.Serial.Config([attending, feeding], name=f"layer_{index}")

    stack = sl.Serial.Config([layer(index) for index in range(LAYERS)]).make()
    frame = sl.Sequence.from_values(jnp.zeros((1, 1, WIDTH)))
    variables = meta.unbox(stack.init(jax.random.key(0), frame, training=False))
    # Pairs that turn together lie in the two halves of a head there, and beside each other here.
    halves = np.r_[0:head:2, 1:head:2]
    for index, own in enumerate(_layers(weights)):
        mine = {name: value.numpy() for name, value in own.items()}
        heads = mine["attn.in_proj_weight"].reshape(3, HEADS, head, WIDTH)
        heads = np.stack([heads[0][:, halves], heads[1][:, halves], heads[2]])
        params = variables["params"][f"layer_{index}"]
        params[f"attending_{index}"] = {
            "norm1": {"scale": mine["norm1.weight"], "bias": mine["norm1.bias"]},
            "attn": {"query_key_value_projection": {"kernel": heads.transpose(3, 0, 1, 2)}},
            "out": {"kernel": mine["attn.out_proj.weight"].T},
        }
        params[f"feeding_{index}"] = {
            "norm2": {"scale": mine["norm2.weight"], "bias": mine["norm2.bias"]},
            "w1": {"kernel": np.concatenate([mine["w3.weight"], mine["w1.weight"]]).T},
            "w2": {"kernel": mine["w2.weight"].T},
        }
    return stepped(stack, variables, x)
