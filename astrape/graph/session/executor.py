"""The executor: what runs a session's graph, be it the blocks themselves, captured steps or ONNX Runtime."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Generic

import torch
from torch import Tensor

from astrape.blocks.live import Live
from astrape.capture.lowering import Kernel
from astrape.capture.native.near import FEW
from astrape.capture.record import inference
from astrape.errors import StreamError
from astrape.graph.backends.held import BACKENDS, Chosen, onnx_held
from astrape.graph.backends.native import need_library
from astrape.graph.backends.precision import check_precision, with_halves
from astrape.graph.network import Network, Prepared
from astrape.graph.session.replay import Replay
from astrape.graph.session.steady import Steady
from astrape.graph.typed import Out

__all__ = ["Executor"]


class Executor(Generic[Out]):
    """Runs a graph on what a session hands it, and keeps nothing of the stream: state and frames are passed.

    Args:
        graph, batch_size, device, dtype, chunk, backend, precision: as :class:`~astrape.graph.session.session.Session`
            takes them.

    Attributes:
        graph: what runs: the graph itself, or a copy in another precision or place.
        like: ``(batch, 1, 1)``, of the session's device and precision.

    Raises:
        StreamError: for a backend or precision that is unknown, or that this graph or machine does not have.
    """

    def __init__(
        self,
        graph: Network[Out],
        batch_size: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        chunk: int | Mapping[str, int] | None,
        backend: str | None,
        precision: str | None,
    ) -> None:
        device = graph.device if device is None else torch.device(device)
        dtype = graph.dtype if dtype is None else dtype
        self.graph = _converted(graph, device, dtype)
        self.like = torch.zeros(batch_size, 1, 1, device=device, dtype=dtype)
        if backend not in (None, *BACKENDS):
            raise StreamError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
        check_precision(precision, backend, self.like)
        self._asked, self._precision = backend, precision
        if precision == "float16":
            self.graph = with_halves(self.graph)
        self._held = onnx_held(self.graph, self.like) if backend == "onnx" else None
        if backend == "compiled":
            need_library(self.like)
        self._live = Live(FEW + 1) if backend == "compiled" else Live()
        self._replay: Replay | None = None
        captured = self.graph.consumes if chunk is None and backend in ("recorded", "compiled") else chunk
        if captured is not None and backend not in ("eager", "onnx"):
            with self._live.run():
                self._replay = Replay(self.graph, self.like, captured, backend == "compiled", precision)

    @property
    def chosen(self) -> Chosen:
        """The backend, the reason for it, and how weights are read."""
        if self._held is not None:
            return self._held.chosen
        if self._replay is None:
            why = "asked for" if self._asked else "no chunk was named, so pushes may have any length"
            return Chosen("eager", why, self._precision or "float32")
        return self._replay.chosen

    @property
    def captured_steps(self) -> int:
        """Patterns of firings that are replayed."""
        return 0 if self._replay is None else self._replay.captured_steps

    @property
    def captured_kernels(self) -> list[list[list[Kernel]]]:
        """Kernels of all captured steps: by part of the graph, and by pattern."""
        segments = () if self._replay is None else self._replay.segments
        steps = ([step for step in segment.captured_steps.values() if step] for segment in segments)
        return [[step.kernels for step in patterns] for patterns in steps if patterns]

    @property
    def uncaptured(self) -> str | None:
        """Why not all that was asked for is captured; ``None`` where it is, or where nothing was asked for."""
        return None if self._replay is None else self._replay.refused

    @property
    def steady(self) -> Steady | None:
        """The short way for a push like the last one, where there is one."""
        return None if self._replay is None else self._replay.steady

    @property
    def waiting_places(self) -> Iterable[str]:
        """Keys of the buffers where frames may wait for the rest of their quantum."""
        if self._held is not None:
            return self._held.keys
        return [edge.key for actor in self.graph.actors for edge in actor.edges]

    def framing(self, output: str) -> Fraction:
        """Seconds by which an output may come later than its latency says."""
        return self.graph.framings[output].seconds if self._held is None else self._held.framings[output]

    def algorithmic_latency(self, output: str) -> int:
        """Frames by which an output is late without what framing adds, rounded up."""
        return math.ceil(self.graph.latencies[output] * self.graph.outputs[output].rate)

    def host_latency(self, output: str) -> int:
        """Frames by which an output is late for a host that gets as many frames as it gives."""
        return (self.graph if self._held is None else self._held).host_latencies[output]

    def advance(
        self, arrived: Mapping[str, Tensor], state: Any, waiting: Mapping[str, Tensor], prepared: Prepared
    ) -> tuple[dict[str, Tensor], Any, dict[str, Tensor]]:
        """:meth:`Network.advance <astrape.graph.network.Network.advance>`, with the right to write into ``state``."""
        with inference(True), self._live.run():
            return (self._held or self._replay or self.graph).advance(arrived, state, waiting, prepared)

    def uncaptured_copy(self) -> Executor[Out]:
        """The same without captured steps, which write one state for all that they run."""
        made = copy.copy(self)
        made._replay = None
        return made


def _converted(graph: Network[Out], device: torch.device, dtype: torch.dtype) -> Network[Out]:
    if graph.device == device and graph.dtype == dtype:
        return graph
    return copy.deepcopy(graph).to(device=device, dtype=dtype)
