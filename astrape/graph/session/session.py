"""The session: a graph run live, on any number of frames at a time."""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic

import torch
from torch import Tensor

from astrape.blocks.base import Signal
from astrape.blocks.state import clone_state, replace_rows, state_bytes
from astrape.capture.lowering import Kernel
from astrape.errors import StreamError
from astrape.graph.backends.held import Chosen
from astrape.graph.network import Network, Prepared
from astrape.graph.session.arrival import checked_controls, checked_frames, checked_rows, sliced
from astrape.graph.session.executor import Executor
from astrape.graph.session.faults import Fault, FaultGuard
from astrape.graph.session.output import frames_to_the_end, hold_back, session_text, without_first
from astrape.graph.session.snapshot import read_snapshot
from astrape.graph.session.steady import Steady
from astrape.graph.typed import Out

__all__ = ["Session"]

MOST_AT_ONCE = 2**16
"""Frames of an input that run through the graph in one go. 65536: about 1.5 s of audio, well beyond any live buffer."""


class Session(Generic[Out]):
    """A stream through a compiled graph. ``graph.stream()`` makes it.

    Every node fires as soon as its inputs hold a quantum, so that the work spreads over the host's callbacks. What
    comes out does not depend on how the input was cut::

        session = graph.stream()
        parts = [session.push(piece) for piece in x.split(sizes, dim=-1)]
        assert torch.allclose(torch.cat(parts, dim=-1), graph(x))

    A control takes effect at the next quantum that has not been computed yet, so the result depends on the position in
    the stream at which it was changed.

    Args:
        graph: what to run. Its weights are taken to stay as they are.
        batch_size: independent streams that run in step.
        device, dtype: where and in what precision to run; as the graph's parameters when left out. Where they differ,
            the session works on a converted copy and leaves the graph alone.
        chunk: frames of the first input (or of each, by name) that a push is going to have. Such pushes are captured
            at once, for which every block is run on noise some times (1 to 3 s for astrape-vc, and no more than
            some 8 s of computing), and then run faster: see :mod:`astrape.graph.session.replay`. Pushes of other
            lengths work as ever, and so does a graph that cannot be captured. Results are the same to the last bit.
            Weights that change afterwards are followed in part or not at all, ``reset`` included: make a new session.
        backend: what runs it. ``"eager"``: the blocks themselves. ``"recorded"``: captured steps, for pushes of
            ``chunk`` frames, or of a quantum, to the last bit. ``"compiled"``: the same as programs of native kernels,
            those that round in their own way too, so that results are the same up to rounding; on the CPU. Where the
            kernels did not come with the package they are built first, which takes a C compiler, some seconds, and once
            a machine. ``"onnx"``: ONNX Runtime, in float32 on the CPU, by whole quanta, for which the graph is exported
            first (some 10 s; see ``docs/export.md``). Left out, ``recorded`` where a ``chunk`` is given, else
            ``eager``; neither needs a compiler. :attr:`backend` says what came of it.
        precision: of weights, in a float32 session. ``"float16"``, with ``compiled``: parameters are rounded to float16
            in a copy of the graph, and products of a few frames read half of the bytes; all else is float32.
            ``"float32"``: everything is read as float32. Left out, ``compiled`` reads those matrices as float16 that it
            holds to the last bit, which changes nothing. ``"int8"`` is refused, with the reason.
        constant_latency: return exactly as many frames as were given (times the ratio of rates, rounded down): frame
            ``n`` stands for the input at ``n - graph.host_latencies[output]``. It is silence before the first. Where
            an output has another rate than the input and its framing is not a whole number of its frames, one frame of
            them may be a part of a frame late, since it cannot be computed sooner: it comes with the next input.

    Attributes:
        positions: frames given so far, by input.
        controls: current values by name, ``(batch, channels)``.
    """

    def __init__(
        self,
        graph: Network[Out],
        batch_size: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        constant_latency: bool = False,
        chunk: int | Mapping[str, int] | None = None,
        backend: str | None = None,
        precision: str | None = None,
    ) -> None:
        if graph.training_only:
            raise StreamError(f"'{graph.name}' holds training-only nodes and cannot stream: stream its deploy()")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise StreamError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        self._executor = Executor(graph, batch_size, device, dtype, chunk, backend, precision)
        self.graph = self._executor.graph
        self.batch_size = batch_size
        self.constant_latency = constant_latency
        self._like = self._executor.like
        self.controls: dict[str, Tensor] = {}
        self._faults = FaultGuard(batch_size)
        self._state: Any
        self._waiting: dict[str, Tensor]
        self._late: dict[str, Tensor]
        self._prepared: Prepared | None
        self.positions: dict[str, int]
        self._given: dict[str, int]
        self._whole = True
        self._begin()

    def __repr__(self) -> str:
        late = {name: self.latency_frames(name) for name in self.graph.outputs}
        count, kept = self.batch_size, self.state_bytes
        return session_text(self.graph, count, self.positions, late, self.controls, kept, len(self.faults))

    @property
    def backend(self) -> Chosen:
        """The backend that runs the session, with the reason for it and the precision of its weights.

        ``session.backend.name``, ``.why`` and ``.precision``.
        """
        return self._executor.chosen

    @property
    def captured_steps(self) -> int:
        """Patterns of firings that are replayed; 0 without a ``chunk``, and for graphs that cannot be captured."""
        return self._executor.captured_steps

    def captured_kernels(self) -> list[list[list[Kernel]]]:
        """Kernels of all captured steps: by part of the graph, and by pattern; for measuring them."""
        return self._executor.captured_kernels

    @property
    def uncaptured(self) -> str | None:
        """Why a session with a ``chunk`` has captured nothing, or not all; ``None`` if it has, or was not asked to."""
        return self._executor.uncaptured

    @property
    def faults(self) -> list[Fault]:
        """Non-finite input or output, by row and in order. Cleared by ``reset``.

        From its first non-finite frame on, an input of a row is heard as silence, so that the state stays sound; an
        output of a row that is not finite gives silence from there on. Other rows and ports go on undisturbed.
        """
        return list(self._faults.found)

    @property
    def state_bytes(self) -> int:
        """Bytes of all state. It does not grow."""
        return state_bytes(self._state)

    def push(self, x: Signal, **controls: Tensor | float) -> Out:
        """Take any number of frames, zero included, and return what can be computed.

        Args:
            x: ``(batch, channels, frames)``, or a dict of them by input where there are several.
            controls: values to hold from here on; a control without a default must be given at the first push.

        Returns:
            ``(batch, channels, frames)``, or a dict of them by output where there are several.

        Raises:
            StreamError: for input of the wrong shape, for controls that are missing, unknown or out of range, and where
                the graph has been turned to another precision or place since the session began.

        Warns:
            UserWarning: where a gradient is asked for. ``graph(x)`` and ``graph.step`` have one, a session has none.
        """
        steady = None if controls else self._steady(x)
        if steady is None:
            self._refuse_unusable()
            arrived, taken = checked_frames(self.graph, self._like, x), self._checked_controls(controls)
        try:
            self._whole = False
            if steady is None:
                y = self.graph.as_output(self._push(arrived, taken), self._like)
            else:
                y = steady.as_output(self._leave(steady.frames, steady.run(), steady.sound()))
            self._whole = True
            return y
        except BaseException:
            # Even between the last two lines: what the caller never got is not to be counted as given.
            self._whole = False
            raise

    def flush(self) -> Out:
        """End the stream: return exactly the frames that are missing, and leave the session reset.

        Silence is fed until every output has as many frames as the longest input lasts, plus its latency (the
        algorithmic one; the host-facing one with ``constant_latency``). After that, output without its first
        ``latency`` frames has the input's length times the ratio, to the sample. Controls stay as they are.
        """
        self._refuse_unusable()
        late = {name: self.latency_frames(name) for name in self.graph.outputs}
        framings = {name: self._executor.framing(name) for name in self.graph.outputs}
        missing, lacking = frames_to_the_end(self.graph, self.positions, self._given, late, framings)
        silence, prepared = self._silence(lacking), self._checked_controls({})
        try:
            self._whole = False
            outputs = self._push(silence, prepared)
            wanted = {name: tensor[..., : missing[name]] for name, tensor in outputs.items()}
            full = self.graph.as_output(wanted, self._like)
            self._begin()
            self._whole = True
            return full
        except BaseException:
            self._whole = False
            raise

    def latency_frames(self, output: str) -> int:
        """Frames by which this session's output is late: rounded up from the exact latency."""
        return (
            self._executor.host_latency(output) if self.constant_latency else self._executor.algorithmic_latency(output)
        )

    def compensated(self, chunks: Iterable[Signal], **controls: Tensor | float) -> Iterator[Out]:
        """Stream an iterable of chunks to its end and yield the output without its latency.

        What is yielded has, put together, the input's length times the ratio, aligned with it to the sample.
        """
        skip = {name: self.latency_frames(name) for name in self.graph.outputs}
        values = controls
        for chunk in chunks:
            yield without_first(self.push(chunk, **values), skip)
            values = {}
        yield without_first(self.flush(), skip)

    def reset(self, rows: Sequence[int] | Tensor | None = None) -> None:
        """Start anew: the whole session, or some rows of the batch while the others go on.

        The rows of a batch share one clock. A row that is reset within a period of the graph therefore starts as a
        stream that has heard silence since the period began; at a multiple of ``graph.consumes`` that is a fresh
        stream. The whole session starts at frame zero.

        Args:
            rows: indices, or a boolean mask; all when left out.
        """
        if rows is None:
            self._whole = False
            self._begin()
            self._whole = True
            return
        self._refuse_unusable()
        chosen = checked_rows(self._like, rows)
        if not bool(chosen.any()):
            return
        # ONNX Runtime's step has memory of its own, which the fresh session is about to use.
        self._state = clone_state(self._state)
        fresh = copy.copy(self)
        fresh._faults, fresh._executor = FaultGuard(self.batch_size), self._executor.uncaptured_copy()
        fresh._begin()
        begun = min(self.positions[name] // count for name, count in self.graph.consumes.items())
        silence = self._silence(
            {name: self.positions[name] - begun * count for name, count in self.graph.consumes.items()}
        )
        if any(tensor.shape[-1] for tensor in silence.values()):
            fresh._push(silence, fresh._checked_controls({}))
        replaced = (
            replace_rows(mine, new, chosen)
            for mine, new in (
                (self._state, fresh._state),
                (self._waiting, fresh._waiting),
                (self._late, fresh._late),
            )
        )
        self._whole = False
        self._state, self._waiting, self._late = replaced
        self._faults.clear(chosen)
        self._whole = True

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that the stream depends on: state, waiting frames, positions, controls and faults."""
        self._refuse_unusable()
        return {
            "graph": self.graph.name,
            "batch_size": self.batch_size,
            "constant_latency": self.constant_latency,
            "state": clone_state(self._state),
            "waiting": clone_state(self._waiting),
            "late": clone_state(self._late),
            "controls": clone_state(self.controls),
            "positions": dict(self.positions),
            "given": dict(self._given),
            "faults": self._faults.saved(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to a snapshot, of this session or of another of the same graph and batch size.

        It may have been taken in another precision or on another device.

        Raises:
            StreamError: for a snapshot of another graph, batch size or mode.
        """
        places = self._executor.waiting_places
        found = read_snapshot(saved, self.graph, self._like, places, self.constant_latency)
        self._whole = False
        self._state, self._waiting, self._late = found.state, found.waiting, found.late
        self.controls, self.positions, self._given = found.controls, found.positions, found.given
        self._faults = found.faults
        self._prepared = None
        self._whole = True

    def _silence(self, frames: Mapping[str, int]) -> dict[str, Tensor]:
        inputs = self.graph.inputs
        return {name: self._like.new_zeros(self.batch_size, inputs[name].channels, frames[name]) for name in inputs}

    def _begin(self) -> None:
        graph, like = self.graph, self._like
        self._state = graph.init_state(self.batch_size, like.device, like.dtype)
        self._waiting = {}
        self._late = {}
        self._prepared = None
        self.positions = dict.fromkeys(graph.inputs, 0)
        self._given = dict.fromkeys(graph.outputs, 0)
        self._faults.clear()
        if self.constant_latency:
            for name, stream in graph.outputs.items():
                waits = self._executor.host_latency(name) - self._executor.algorithmic_latency(name)
                self._late[name] = like.new_zeros(self.batch_size, stream.channels, waits)

    def _push(self, arrived: dict[str, Tensor], taken: tuple[dict[str, Tensor], Prepared]) -> dict[str, Tensor]:
        """Run new frames through the graph. Callers clear ``_whole`` first, so that an interrupt is noticed."""
        self.controls, self._prepared = taken
        if max(tensor.shape[-1] for tensor in arrived.values()) > MOST_AT_ONCE:
            return self._sliced(arrived, taken)
        arrived = self._faults.clean("in", arrived, self.positions)
        # In a context of its own, which ends with the call: an interrupt at any moment leaves no other code live.
        run, advance = contextvars.copy_context().run, self._executor.advance
        outputs, self._state, self._waiting = run(advance, arrived, self._state, self._waiting, taken[1])
        return self._leave({name: tensor.shape[-1] for name, tensor in arrived.items()}, outputs)

    def _steady(self, x: Signal) -> Steady | None:
        """The short way, for a push like the last one."""
        steady = self._executor.steady if self._whole else None
        fits = steady and not self._faults.silencing and steady.takes(x, self._state, self._prepared)
        return steady if fits else None

    def _leave(self, heard: dict[str, int], outputs: dict[str, Tensor], sound: bool = False) -> dict[str, Tensor]:
        """Count and hand out outputs, after that many frames of each input; ``sound``: they are known to be finite."""
        for name, frames in heard.items():
            self.positions[name] += frames
        if not sound:
            queued = {name: self._given[name] + held.shape[-1] for name, held in self._late.items()}
            outputs = self._faults.clean("out", outputs, queued or self._given)
        if self.constant_latency:
            heard_s = min(self.positions[name] / stream.rate for name, stream in self.graph.inputs.items())
            outputs = hold_back(outputs, self._late, self.graph.outputs, heard_s, self._given)
        for name, tensor in outputs.items():
            self._given[name] += tensor.shape[-1]
        # Copies, which are the caller's own and, unlike what was made in inference mode, may go on into training.
        return {name: tensor.clone() for name, tensor in outputs.items()}

    def _sliced(self, arrived: dict[str, Tensor], taken: tuple[dict[str, Tensor], Prepared]) -> dict[str, Tensor]:
        """A long push as many short ones, all inputs in step, so that what blocks need meanwhile stays small."""
        parts = [self._push(piece, taken) for piece in sliced(arrived, MOST_AT_ONCE)]
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: torch.cat([part[name] for part in parts if name in part], dim=-1) for name in names}

    def _refuse_unusable(self) -> None:
        graph, like = self.graph, self._like
        if not self._whole:
            raise StreamError("an earlier push was interrupted, and its state is lost: reset() or restore() a snapshot")
        if (graph.dtype, graph.device) != (like.dtype, like.device):
            raise StreamError(
                f"'{graph.name}' is {graph.dtype} on {graph.device} now, and was {like.dtype} on {like.device} when "
                "this session began: make a new session with stream(), which takes a dtype and device of its own too"
            )

    def _checked_controls(self, given: Mapping[str, Tensor | float]) -> tuple[dict[str, Tensor], Prepared]:
        return checked_controls(self.graph, self._like, (self.controls, self._prepared), given)
