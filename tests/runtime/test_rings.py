"""Rings: what is read is what was written, by number, or is said not to be there."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from astrape.runtime.rings import Ring

WRITE = st.tuples(st.just("write"), st.integers(0, 40), st.just(0))
READ = st.tuples(st.just("read"), st.integers(-10, 200), st.integers(0, 40))


@given(st.lists(st.one_of(WRITE, READ), max_size=60))
def test_a_ring_is_the_end_of_an_endless_stream(steps):
    ring, whole = Ring(2, 32), np.zeros((2, 0), np.float32)
    for kind, number, size in steps:
        if kind == "write":
            x = np.random.default_rng(len(whole)).random((2, number), np.float32)
            whole = np.concatenate((whole, x), axis=1)
            ring.write(x)
            continue
        out = np.full((2, size), np.nan, np.float32)
        got = ring.read(number, out)
        there = np.concatenate((np.zeros((2, 10), np.float32), whole), axis=1)[:, number + 10 :][:, :size]
        oldest = whole.shape[1] - 32
        if max(number, 0) < oldest and there.shape[1] > max(0, -number):
            assert got <= max(0, -number)
        else:
            assert got == there.shape[1]
        np.testing.assert_array_equal(out[:, :got], there[:, :got])
    assert ring.written == whole.shape[1]


def test_a_reader_is_never_given_what_was_overwritten_meanwhile():
    ring, stop, wrong = Ring(1, 256), threading.Event(), []

    def read() -> None:
        out = np.zeros((1, 100), np.float32)
        while not stop.is_set():
            first = max(0, ring.written - 250)
            got = ring.read(first, out)
            expected = np.arange(first, first + got, dtype=np.float32)
            if not np.array_equal(out[0, :got], expected):
                wrong.append(first)

    reader = threading.Thread(target=read)
    reader.start()
    for begin in range(0, 2_000_000, 64):
        ring.write(np.arange(begin, begin + 64, dtype=np.float32)[None])
    stop.set()
    reader.join()
    assert not wrong
