"""Hours of callbacks in virtual time, with stalls: the delay stays what it is, and every dropout is counted."""

from __future__ import annotations

import math
import resource
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from astrape.runtime.conceal import RETURN
from astrape.runtime.engine import Engine
from tests.runtime.test_engine import framed
from tests.runtime.virtual import VirtualHost

RATE = 44100
BLOCKS = [64, 128, 441, 480, 1024]


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def live_for(seconds: float, block: int, every: float) -> None:
    """Stalls of two kinds every now and then: those that what is held outlasts, and those that it does not.

    None in the first and the last second: a gap in the silence before the first frame is not heard, and what is to be
    heard after one is still to come.
    """
    hold = max(2 * block, 2 * 441)
    engine = Engine(framed(), RATE, block, hold=hold)
    rng = np.random.default_rng(block)
    loop = rng.uniform(-0.5, 0.5, (1, 10 * RATE)).astype(np.float32)
    loop = np.concatenate((loop, loop), axis=1)
    length = block / RATE
    callbacks = int(seconds / length)
    stalls: list[tuple[float, bool]] = []

    def cost(index: int) -> float:
        now = host.callbacks * length
        usual = 0.3 * length
        if (stalls and now < stalls[-1][0] + every) or not 1.0 < now < seconds - 1.0:
            return usual
        long = rng.random() < 0.5
        # Longer than all that may be in store, framing's part included; or what it outlasts.
        stall = (hold + 441 + 2 * block) / RATE + rng.uniform(0.02, 0.4) if long else 0.5 * (hold - block) / RATE
        stalls.append((now + stall, long))
        return usual + stall

    host = VirtualHost(engine, cost)
    late = engine.latency
    counted: list[int] = []
    """Callbacks in which the engine counted a dropout."""
    missed = np.full(callbacks, 0, np.int32)
    """Frames that are not the input by the latency later, by callback: what is heard, which asks no counter. All of it
    is in memory from the beginning, or an hour of 64 would count what the test keeps as the engine's."""
    dropouts = held = 0
    for k in range(callbacks):
        begin, was = k * block % (10 * RATE), (k * block - late) % (10 * RATE)
        y = host.callback(loop[:, begin : begin + block])
        wanted = loop[:, was : was + block]
        if k * block >= late and not np.array_equal(y, wanted):
            missed[k] = np.count_nonzero(np.abs(y - wanted) > 1e-6)
        if engine.dropouts > dropouts:
            counted += [k] * (engine.dropouts - dropouts)
            dropouts = engine.dropouts
        if k == callbacks // 10:
            held = resident()
    grown = resident() - held
    wrong = {int(k): int(missed[k]) for k in np.flatnonzero(missed)}
    status = engine.status()
    assert engine.latency == late
    assert status.position == callbacks * block
    assert status.dropouts == len(counted)
    # A dropout begins where sound goes wrong, and sound goes wrong nowhere else.
    assert set(counted) <= set(wrong)
    assert {k for k in wrong if k - 1 not in wrong} <= set(counted)
    ends, long = np.array([end for end, _ in stalls]), np.array([long for _, long in stalls])
    for k in wrong:
        # Gaps begin while it stalls, and end when the worker has caught up.
        near = (k * length > ends - 0.7) & (k * length < ends + 0.3)
        assert (near & long).any()
    for end in ends[long]:
        assert any(end - 0.7 < k * length < end + 0.3 for k in counted)
    # What is not the graph's sound, counted by ear: the missing frames, and what fades in behind each gap.
    fades = status.dropouts * math.ceil(RETURN * RATE)
    assert 0.99 * status.missing <= sum(wrong.values()) <= status.missing + fades
    assert long.sum() >= 3
    # 20 s are too short to tell a buffer that grows from what Python keeps in store.
    assert seconds < 600 or grown < 4 * 2**20


@pytest.mark.parametrize("block", BLOCKS)
def test_some_seconds_of_callbacks(block):
    live_for(12.0 if block < 441 else 24.0, block, every=0.8)


@pytest.mark.hours
@pytest.mark.timeout(0)
@pytest.mark.parametrize("block", BLOCKS[::-1])
def test_an_hour_of_callbacks(block):
    began = time.process_time()
    live_for(3600.0, block, every=5.0)
    print(f"an hour in blocks of {block}: {time.process_time() - began:.0f} s of processor")


def calls_of(engine: Engine, block: int, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """An engine as it is in a mode, warm, and a block in and out for its callback."""
    host = VirtualHost(engine, lambda k: 0.0)
    x = np.full((1, block), 0.1, np.float32)
    for _ in range(max(200, 30_000 // block)):
        host.callback(x)
    engine.bypass = mode == "bypass"
    y = np.zeros((1, block), np.float32)
    for k in range(300):
        # Without a worker every block is a gap; with one now and then, gaps begin and end.
        if mode != "gaps" or k % 3:
            engine.work()
        engine.process(x, y)
    return x, y


MODES = ["usual", "bypass", "gaps"]


def taken(block: int, mode: str, overload: str) -> tuple[int, int]:
    """Bytes that 600 callbacks keep, and what one takes on its way: the tenth largest, since the runner of tests has a
    thread that now and then takes memory too.
    """
    engine = Engine(framed(), RATE, block, hold=max(882, 2 * block), overload=overload)
    x, y = calls_of(engine, block, mode)
    grown, peaks = 0, []
    tracemalloc.start()
    try:
        for k in range(700):
            if mode != "gaps" or k % 3:
                engine.work()
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            engine.process(x, y)
            after, peak = tracemalloc.get_traced_memory()
            if k >= 100:
                grown += after - before
                peaks.append(peak - before)
    finally:
        tracemalloc.stop()
    # A third of the slices is not computed, and is missing.
    assert engine.status().missing > 100 * block if mode == "gaps" else engine.dropouts <= 1
    return grown, sorted(peaks)[-10]


@pytest.mark.parametrize(("mode", "overload"), [("usual", "repeat"), ("bypass", "repeat"), ("gaps", "bypass")])
def test_callbacks_leave_no_memory_behind_and_take_no_buffer(mode, overload):
    small, large = taken(64, mode, overload), taken(1024, mode, overload)
    # Counters are larger numbers than before, and that is all.
    assert small[0] < 1024
    assert large[0] < 1024
    # On the way there are views of arrays; a buffer, be it of one byte a frame, would be larger by 960 in the second.
    assert large[1] - small[1] < 512


@pytest.mark.parametrize("mode", MODES)
def test_callbacks_take_no_lock_and_wait_for_nothing(mode):
    engine = Engine(framed(), RATE, 64, hold=882, overload="bypass")
    x, y = calls_of(engine, 64, mode)
    called: Counter[str] = Counter()

    def look(frame: FrameType, event: str, what: Any) -> None:
        if event == "c_call":
            called[what.__name__] += 1
        elif event == "call":
            called[frame.f_code.co_qualname] += 1

    # Somebody waits for the lock, as the worker does when it has nothing to do: waking it is a release.
    engine._wake.acquire()
    for k in range(60):
        if mode != "gaps" or k % 3:
            engine.work()
        if not engine._wake.locked():
            engine._wake.acquire()
        sys.setprofile(look)
        try:
            engine.process(x, y)
        finally:
            sys.setprofile(None)
    assert called["Engine.process"] == called["release"] == 60
    assert not {"acquire", "__enter__", "wait", "join", "sleep", "put", "get", "collect", "open", "write"} & {
        name for name in called if name != "Ring.write"
    }


def test_callbacks_take_no_pages():
    engine = Engine(framed(), RATE, 64, hold=882)
    host = VirtualHost(engine, lambda k: 0.0)
    x = np.zeros((1, 64), np.float32)
    for _ in range(4000):
        host.callback(x)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(4000):
        host.callback(x)
    # 6 s of sound. The interpreter may take a page now and then; a step that gives memory back takes hundreds.
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < 50
