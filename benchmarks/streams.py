"""Steps of one frame out of what each library has for a stream."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import torch

from benchmarks.contest import Frames

__all__ = ["pushed", "stepped"]


def pushed(graph: Any, x: Frames, **how: Any) -> Callable[[], Frames]:
    """A session of ours over pieces ``(n, 1, channels, frames)``, again and again."""
    session, pieces = graph.stream(**how), cycle(torch.from_numpy(x))
    return lambda: session.push(next(pieces)).numpy()[0]


def stepped(stack: Any, variables: Any, x: Frames) -> Callable[[], Frames]:
    """The same of a layer of SequenceLayers, its ``step`` jitted with the weights as constants."""
    import jax
    import jax.numpy as jnp
    import sequence_layers.jax as sl

    variables = jax.tree.map(jnp.asarray, variables)

    @jax.jit
    def run(frames: Any, state: Any) -> Any:
        sequence = sl.Sequence.from_values(frames)
        y, state = stack.apply(variables, sequence, state, training=False, method="step")
        return y.values, state

    spec = sl.Sequence.from_values(jnp.zeros((1, 1, x.shape[2]))).channel_spec
    held = [stack.apply(variables, 1, spec, training=False, method="get_initial_state")]
    pieces = cycle(x.transpose(0, 1, 3, 2))

    def step() -> Frames:
        y, held[0] = run(next(pieces), held[0])
        return np.asarray(y)[0].T

    return step
