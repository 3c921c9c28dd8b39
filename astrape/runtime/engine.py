"""The live engine: a graph behind an audio callback that never waits, late by a known number that never grows."""

from __future__ import annotations

import _thread
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.runtime.conceal import Concealer
from astrape.runtime.lanes import Controls, Lane, Lanes
from astrape.runtime.pacing import Pace, framing_hold, measured_costs, pace
from astrape.runtime.priority import raise_priority
from astrape.runtime.rings import Frames, Ring
from astrape.runtime.status import Status

__all__ = ["Engine"]

KEPT = 2.0
"""Seconds of sound that the rings keep: what a stall may last before input is lost."""

MOST_HOLD = 10
"""Seconds that may be held for computing: more is a mistake, and takes memory."""

CATCH_UP = 0.1
"""Seconds by which output may be overdue before whole periods of input are left out instead of computed for nobody."""

COSTS = 512
"""Pushes whose times are remembered."""

HEAVY = 0.45
"""Load from which on a change of controls is not faded: the old and the new side by side would not fit."""

Change = Callable[[], None]


class Engine:
    """A graph run live, block by block, for a sound card, a page or a plugin.

    :meth:`process` is what an audio callback calls. It moves frames into a ring and out of another, and waits for
    nothing; :meth:`start` has a worker thread compute in between. Output frame ``n`` is the graph's for the input at
    ``n - latency``, whatever happens: what is not there in time is missing, is concealed and counted, and what comes
    too late is not played later. So the delay never grows.

    Where the graph's longest push fits a block twice over, the callback computes itself, and there is no further delay.

    A test, or a host that renders offline, calls :meth:`work` itself and needs no thread.

    Args:
        graph: with one audio input and one audio output (``output``, where there are several); hosted at ``rate``.
        rate: of the host, Hz.
        block: frames of the host's blocks; the most where they vary.
        fixed: whether all blocks have ``block`` frames.
        controls: values to begin with.
        output: name of the output.
        hold: frames to hold for computing, beyond what framing takes; chosen by measuring when left out. 0 has the
            callback compute, unless ``inline`` says otherwise.
        inline: whether the callback computes; chosen by measuring when left out.
        overload: what is heard where frames are missing: ``repeat``, ``silence`` or ``bypass``.

    Raises:
        AstrapeError: for a graph, rate, block or policy that does not fit.
    """

    def __init__(
        self,
        graph: Graph,
        rate: Fraction | int,
        block: int,
        *,
        fixed: bool = True,
        controls: Controls | None = None,
        output: str | None = None,
        hold: int | None = None,
        inline: bool | None = None,
        overload: str = "repeat",
    ) -> None:
        if block < 1:
            raise AstrapeError(f"a block has at least 1 frame, not {block}")
        if hold is not None and not (block <= hold <= MOST_HOLD * rate or (hold == 0 and inline is not False)):
            raise AstrapeError(
                f"hold of {hold} frames: a worker takes at least the {block} of a block, and at most {MOST_HOLD} s: "
                "hint: with 0 the callback computes"
            )
        self.rate = Fraction(rate)
        self.block = block
        self.fixed = fixed
        lane = Lane.of(graph, rate, block, controls or {}, output)
        self.pace = self._paced(lane, hold, inline)
        self.inline = self.pace.inline
        late = lane.age + self.pace.hold
        self._lanes = Lanes(lane, late, self._spare_of(lane))
        self._lag = self._played_lag = 0
        kept = int(KEPT * self.rate) + late + 2 * block
        self.heard = Ring(lane.channels_in, kept)
        self.made = Ring(lane.channels, kept)
        self.played = Ring(lane.channels, kept)
        self._slice = np.zeros((lane.channels_in, block), np.float32)
        self._dry = np.zeros((lane.channels_in, block), np.float32)
        self._odd = np.zeros((lane.channels_in, block), bool)
        self._other = np.zeros((lane.channels, block), np.float32)
        self._ramp = np.arange(block, dtype=np.float32)
        self._gain = np.zeros(block, np.float32)
        self._concealer = Concealer(self.played, float(self.rate), block, overload)
        self._fade = max(1, round(0.01 * self.rate))
        self._taken = 0
        self._wet = 1.0
        self.bypass = False
        self._changes: deque[tuple[str, Any]] = deque()
        self._costs = np.zeros(COSTS)
        self._pushes = 0
        self._dropouts = self._missing = self._skipped = 0
        self._in_gap = False
        self._hole = (0, 0)
        """Frames of the output that are not there, though others behind them are."""
        self._wake = _thread.allocate_lock()
        self._stop = False
        self._thread: threading.Thread | None = None
        self.priority: str | None = None
        self.failure: BaseException | None = None
        self._pad()

    @property
    def latency(self) -> int:
        """Frames from an input sample to the output sample that stands for it."""
        return self._lanes.late + self._lag

    @property
    def host_latency(self) -> Fraction:
        """The same in seconds, exact: the graph's algorithm, framing in these blocks, and what the worker holds."""
        return self.latency / self.rate

    @property
    def graph(self) -> Graph:
        """The graph that is heard, as it is hosted."""
        return self._lanes.lane.graph

    def start(self) -> None:
        """Have a thread compute. Nothing is started where the callback does it itself."""
        if not self.inline:
            self._begin_thread()

    def _begin_thread(self) -> None:
        if self._thread is not None:
            return
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="astrape-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, once it has finished the slice that it is at."""
        if self._thread is None:
            return
        self._stop = True
        self._rouse()
        self._thread.join()
        self._thread = None

    def process(self, x: Frames, y: Frames) -> None:
        """One block of the host: takes ``x``, fills ``y``. This is the callback, and waits for nothing.

        Args:
            x: ``(channels, frames)`` float32, at most ``block`` frames.
            y: the same number of frames, written over.
        """
        count = x.shape[1]
        position = self.heard.written
        self.heard.write(x)
        if self.inline:
            self._compute(count)
        else:
            self._rouse()
        ready = self._fetch(position, y)
        if ready < count:
            # One gap is one dropout, however many blocks it takes.
            self._dropouts += not self._in_gap or ready > 0
            self._missing += count - ready
        self._in_gap = ready < count
        dry = None
        if self.bypass or self._wet < 1.0 or self._concealer.dry:
            dry = self._dry_signal(position - self.latency, count)
        if ready < count or self._concealer.active:
            self._concealer.apply(y, ready, dry if self._concealer.dry else None)
        if dry is not None and (self.bypass or self._wet < 1.0):
            self._mix_dry(y, dry)
        self.played.write(y)

    def work(self) -> bool:
        """Compute the next slice, if it is there: what the worker's thread does again and again.

        Returns:
            Whether it was.
        """
        if self.inline:
            return False
        self._keep_up()
        if self.waiting < self.block:
            return False
        self._compute(self.block)
        return True

    @property
    def dropouts(self) -> int:
        """Gaps in the output so far."""
        return self._dropouts

    @property
    def waiting(self) -> int:
        """Frames of the input that have not been computed yet."""
        return self.heard.written - self._taken

    def set(self, **controls: Any) -> None:
        """Change controls, voices among them, from the next slice on, without a click.

        Raises:
            StreamError: for an unknown control, or one out of range.
        """
        for name, value in controls.items():
            self.graph.check_control(name, value)
        self._changes.append(("set", controls))

    def switch(self, graph: Graph, controls: Controls | None = None, output: str | None = None) -> None:
        """Let another graph take over without a gap. It is made ready on this thread, which takes a second or so.

        It runs along for 0.3 s before it fades in. Where it needs a greater delay, ``latency`` is greater from then on;
        where it could do with less, the delay stays, so that nothing jumps.

        Raises:
            AstrapeError: for a graph that does not fit, or has other channels than the first.
        """
        lane = Lane.of(graph, self.rate, self.block, controls or {}, output)
        now = self._lanes.lane
        if (lane.channels_in, lane.channels) != (now.channels_in, now.channels):
            raise AstrapeError(
                f"'{graph.name}' has {lane.channels_in} channels in and {lane.channels} out, and what is running has "
                f"{now.channels_in} and {now.channels}: start anew with it"
            )
        needs = self._paced(lane, None, self.inline and None)
        if self.inline and not needs.inline:
            # From here on a worker computes; until the switch it only waits.
            self._begin_thread()
        self._changes.append(("switch", (lane, self._spare_of(lane), needs)))

    def status(self) -> Status:
        """The engine's state now."""
        lane = self._lanes.lane
        length = self.block / float(self.rate)
        recent = self._costs[: min(COSTS, self._pushes)] / length
        return Status(
            rate=self.rate,
            latency=self.latency,
            graph=self.latency - self.worker,
            worker=self.worker,
            host=math.ceil((lane.graph.latencies[lane.output] + lane.graph.framings[lane.output].seconds) * self.rate),
            inline=self.inline,
            load=float(np.median(recent)) if len(recent) else 0.0,
            worst=float(recent.max()) if len(recent) else 0.0,
            position=self.heard.written,
            dropouts=self._dropouts,
            missing=self._missing,
            skipped=self._skipped,
            repaired=lane.repaired,
            priority=self.priority,
        )

    @property
    def worker(self) -> int:
        """Frames of ``latency`` that are held for computing."""
        return self.pace.worker + self._lag

    def _paced(self, lane: Lane, hold: int | None, inline: bool | None) -> Pace:
        block = self.block if self.fixed else None
        framing = framing_hold(lane.graph, lane.output, block)
        if hold is not None:
            return Pace(framing, hold, hold == 0 if inline is None else inline, math.nan, math.nan)
        costs = measured_costs(lane.session, self.block)
        return pace(lane.graph, lane.output, block, costs, self.block, inline)

    def _spare_of(self, lane: Lane) -> Lane | None:
        heavy = self.pace.load > HEAVY
        return None if heavy else Lane(lane.graph, lane.output, None, lane.session.controls)

    def _rouse(self) -> None:
        """Wake the worker. Releasing a lock that somebody waits for does not wait."""
        if self._wake.locked():
            try:
                self._wake.release()
            except RuntimeError:
                # The worker let go of it in between, and is awake.
                return

    def _run(self) -> None:
        self.priority = raise_priority()
        try:
            while not self._stop:
                if not self.work():
                    self._wake.acquire(timeout=0.1)
        except BaseException as error:
            self.failure = error

    def _compute(self, count: int) -> None:
        begin = time.perf_counter()
        if self._changes and not self._lanes.fading:
            self._apply()
        x = self._slice[:, :count]
        if self.heard.read(self._taken, x) < count:
            x[:] = 0.0
        y = self._lanes.push(x)
        self._taken += count
        self.made.write(y)
        self._pad()
        self._costs[self._pushes % COSTS] = time.perf_counter() - begin
        self._pushes += 1

    def _apply(self) -> None:
        kind, what = self._changes.popleft()
        if kind == "set":
            # The last position of a slider that was moved meanwhile counts.
            while self._changes and self._changes[0][0] == "set":
                what = {**what, **self._changes.popleft()[1]}
            self._lanes.change(what)
            return
        lane, spare, needs = what
        self._lag = max(self._lag, lane.age + needs.hold - self._lanes.late)
        self._lanes.switch(lane, spare, self._taken)
        self.inline = self.inline and needs.inline

    def _pad(self) -> None:
        """Silence where no frame is to come: before the first, and where input was left out."""
        gap = self._lanes.position - self.made.written
        if gap > 0:
            self.made.write(np.zeros((self.made.channels, gap), np.float32))

    def _keep_up(self) -> None:
        """Leave out whole periods of input whose output is overdue, or that have been lost."""
        period = self.graph.quantum
        overdue = self.heard.written - self._played_lag - self.made.written
        lost = self.heard.oldest - self._taken
        if lost <= 0 and overdue <= max(int(CATCH_UP * self.rate), 2 * self.block):
            return
        frames = -(-max(overdue, lost) // period) * period
        frames = min(frames, self.waiting // period * period)
        if frames <= 0:
            return
        begin = self.made.written
        within = next(iter(self._lanes.lane.session.positions.values())) % period
        self._taken += frames
        self._skipped += frames
        self._lanes.skip(frames)
        # Frames in the graph, half a quantum and its algorithmic latency, would be heard too late.
        self._hole = (begin, self._lanes.position + self._lanes.lane.age + (period if within else 0))
        self._pad()

    def _fetch(self, position: int, y: Frames) -> int:
        """Output for the host's frames from ``position`` on, and how many are there."""
        lag = self._lag
        first = position - self._played_lag
        ready = self.made.read(first, y)
        begin, end = self._hole
        if first < end and first + ready > begin:
            ready = max(0, begin - first)
        if lag != self._played_lag:
            # The delay has grown with a switch: fade back to what was heard so much earlier.
            count = y.shape[1]
            other = self._other[:, :count]
            again = self.made.read(position - lag, other)
            gain = self._gain[:count]
            np.multiply(self._ramp[:count], 1.0 / count, out=gain)
            other -= y
            other *= gain
            y += other
            ready, self._played_lag = min(ready, again), lag
        return ready

    def _dry_signal(self, first: int, count: int) -> Frames:
        """The input from frame ``first`` on, for all channels of the output or, one channel, for each of them."""
        dry = self._dry[:, :count]
        self.heard.read(first, dry)
        odd = self._odd[:, :count]
        np.logical_not(np.isfinite(dry, out=odd), out=odd)
        np.copyto(dry, 0.0, where=odd)
        return dry if len(dry) == self.made.channels else dry[:1]

    def _mix_dry(self, y: Frames, dry: Frames) -> None:
        """Fade between the output and the dry signal, 10 ms from one to the other."""
        count = y.shape[1]
        gain = self._gain[:count]
        step = (-1.0 if self.bypass else 1.0) / self._fade
        np.multiply(self._ramp[:count], step, out=gain)
        gain += self._wet + step
        np.clip(gain, 0.0, 1.0, out=gain)
        self._wet = float(gain[-1]) if count else self._wet
        y -= dry
        y *= gain
        y += dry
