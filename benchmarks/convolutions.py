"""A stack of causal convolutions, a frame at a time, with the same weights everywhere."""

from __future__ import annotations

from importlib.metadata import version
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import nn

from astrape.graph import compile
from benchmarks.contest import Contest, Contestant, Frames
from benchmarks.streams import pushed, stepped

__all__ = ["convolutions"]

LAYERS, WIDTH, KERNEL, RATE = 6, 384, 3, 100

RECIPE: dict[str, Any] = {
    "recipe": "convolutions",
    "inputs": {"x": {"rate": RATE, "channels": WIDTH}},
    "blocks": {
        name: block
        for layer in range(LAYERS)
        for name, block in (
            (f"conv_{layer}", {"use": "conv", "channels": WIDTH, "kernel": KERNEL}),
            (f"act_{layer}", {"use": "activation", "kind": "silu"}),
        )
    },
    "outputs": {"y": f"act_{LAYERS - 1}"},
}


def convolutions() -> Contest:
    """Six layers 384 wide, kernel 3, with SiLU."""
    torch.manual_seed(0)
    graph = compile(RECIPE).eval()
    weights = {name: value.detach().numpy() for name, value in graph.named_parameters()}
    x = np.random.default_rng(0).standard_normal((64, 1, WIDTH, 1)).astype(np.float32)
    return Contest(
        f"{LAYERS} causal convolutions {WIDTH} wide, kernel {KERNEL}, a frame of 10 ms at a time",
        1 / RATE,
        [
            Contestant("astrape", pushed(graph, x, chunk=1)),
            Contestant("astrape, eager", pushed(graph, x, backend="eager")),
            Contestant(f"moshi {version('moshi')}", _moshi(weights, x)),
            Contestant(f"SequenceLayers {version('sequence-layers')}, jitted", _sequence_layers(weights, x)),
        ],
    )


def _moshi(weights: dict[str, Frames], x: Frames) -> Any:
    from moshi.modules.conv import StreamingConv1d

    layers: list[nn.Module] = []
    for layer in range(LAYERS):
        conv = StreamingConv1d(WIDTH, WIDTH, KERNEL, causal=True, norm="none", pad_mode="constant")
        with torch.no_grad():
            conv.conv.conv.weight.copy_(torch.from_numpy(weights[f"conv_{layer}.weight"]))
            conv.conv.conv.bias.copy_(torch.from_numpy(weights[f"conv_{layer}.bias"]))
        layers += [conv.eval(), nn.SiLU()]
    for module in layers:
        if isinstance(module, StreamingConv1d):
            module.streaming_forever(1)
    pieces = cycle(torch.from_numpy(x))

    def step() -> Frames:
        with torch.inference_mode():
            y = next(pieces)
            for module in layers:
                y = module(y)
        return y[0].numpy()

    return step


def _sequence_layers(weights: dict[str, Frames], x: Frames) -> Any:
    import jax
    import jax.numpy as jnp
    import sequence_layers.jax as sl

    stack = sl.Serial.Config(
        [
            config
            for layer in range(LAYERS)
            for config in (
                sl.Conv1D.Config(WIDTH, KERNEL, padding="causal", name=f"conv_{layer}"),
                sl.Swish.Config(name=f"act_{layer}"),
            )
        ]
    ).make()
    frame = sl.Sequence.from_values(jnp.zeros((1, 1, WIDTH)))
    variables = jax.tree.map(np.array, stack.init(jax.random.key(0), frame, training=False))
    for layer in range(LAYERS):
        own = variables["params"][f"conv_{layer}"]
        own["kernel"] = weights[f"conv_{layer}.weight"].transpose(2, 1, 0)
        own["bias"] = weights[f"conv_{layer}.bias"]
    return stepped(stack, variables, x)
