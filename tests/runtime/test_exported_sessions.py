"""Sessions of exports, of either engine: they give what a session of the graph gives, without PyTorch's graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.errors import StreamError
from astrape.portable.session import ExportedSession
from astrape.runtime.aoti import AotiSession
from astrape.runtime.portable import PortableSession
from tests.runtime.exports import SPEAKER, STATED_DB, decibels, small, streamed

pytestmark = pytest.mark.timeout(1800)
"""Compiling takes half a minute of computing, on a machine that may do ten other things."""

Opened = Callable[..., ExportedSession]


@pytest.fixture(scope="module", params=["onnx", "aoti"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens a session for two streams, as ``PortableSession`` or ``AotiSession`` does."""
    engine = PortableSession if request.param == "onnx" else AotiSession
    return partial(engine, request.getfixturevalue(f"{request.param}_export"))


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return 0.3 * np.random.default_rng(seed).standard_normal((2, 1, frames)).astype(np.float32)


@settings(max_examples=12, deadline=None)
@given(most=st.integers(2, 900), seed=st.integers(0, 99), constant=st.booleans())
def test_any_chunks_are_what_a_session_gives(opened: Opened, most: int, seed: int, constant: bool) -> None:
    graph, x, session = small(), noise(1600, seed), opened()
    got = streamed(session, x, most, seed, level=0.7, speaker=SPEAKER)
    want = streamed(graph.stream(batch_size=2), x, 500, level=0.7, speaker=torch.tensor(SPEAKER))
    for name, y in got.items():
        assert decibels(y, want[name][..., : y.shape[-1]]) < STATED_DB
        assert want[name].shape[-1] - y.shape[-1] < graph.produces[name]
    late = streamed(opened(constant_latency=True), x, most, seed, level=0.7, speaker=SPEAKER)
    for name, port in session.export.outputs.items():
        waits = port.host - math.ceil(port.algorithmic * port.rate)
        assert late[name].shape[-1] == int(1600 * port.rate / 8000)
        assert not late[name][..., :waits].any()
        assert np.array_equal(late[name][..., waits:], got[name][..., : late[name].shape[-1] - waits])


def test_controls_change_without_a_new_export(opened: Opened) -> None:
    graph, x = small(), noise(800)
    session, own = opened(), graph.stream(batch_size=2)
    changes = [{"level": 0.5, "speaker": SPEAKER}, {}, {"level": 1.5}, {"speaker": SPEAKER[::-1]}]
    for index, values in enumerate(changes):
        piece = x[..., 200 * index : 200 * (index + 1)]
        got = session.push(piece, **values)
        want = own.push(torch.from_numpy(piece), **{name: torch.tensor(v) for name, v in values.items()})
        for name, y in got.items():
            assert decibels(y, want[name].numpy()) < STATED_DB


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("frames", [0, 3, 800, 1001])
def test_flush_is_exact_and_begins_anew(opened: Opened, frames: int, constant: bool) -> None:
    session, own, x = opened(constant_latency=constant), small().stream(batch_size=2), noise(frames)
    for _ in range(2):
        pushed, last = session.push(x, speaker=SPEAKER), session.flush()
        first, end = own.push(torch.from_numpy(x), speaker=torch.tensor(SPEAKER)), own.flush()
        for name, port in session.export.outputs.items():
            whole = np.concatenate((pushed[name], last[name]), axis=-1)
            want = np.concatenate((first[name].numpy(), end[name].numpy()), axis=-1)
            waits = port.host - math.ceil(port.algorithmic * port.rate) if constant else 0
            assert whole.shape[-1] == want.shape[-1] + waits
            if want.size:
                assert decibels(whole[..., waits:], want) < STATED_DB
        assert not any(session.positions.values())


def test_reset_flush_and_snapshots_are_exact(opened: Opened) -> None:
    """The state is written where it lies, so what was saved of it has to be a copy."""
    session, x = opened(), noise(900)
    session.push(x[..., :333], speaker=SPEAKER)
    saved = session.snapshot()
    first, end = session.push(x[..., 333:]), session.flush()
    for other in (session, opened()):
        other.restore(saved)
        again, last = other.push(x[..., 333:]), other.flush()
        for name in first:
            assert np.array_equal(again[name], first[name])
            assert np.array_equal(last[name], end[name])
    whole = session.push(x)
    assert all(np.array_equal(whole[name][..., -y.shape[-1] :], y) for name, y in first.items())


def test_a_fault_stays_in_its_row(opened: Opened) -> None:
    x = noise(900)
    bad = x.copy()
    bad[1, 0, 500] = np.nan
    session, sound = opened(), opened()
    hurt = streamed(session, bad, 70, speaker=SPEAKER)
    want = streamed(sound, x, 70, speaker=SPEAKER)
    own = small().stream(batch_size=2)
    other = streamed(own, bad, 70, speaker=torch.tensor(SPEAKER))
    assert [(f.row, f.port, f.frame) for f in session.faults] == [(1, "mic", 500)]
    assert [(f.row, f.port, f.frame) for f in own.faults] == [(1, "mic", 500)]
    for name, y in hurt.items():
        assert np.isfinite(y).all()
        assert np.array_equal(y[0], want[name][0])
        assert decibels(y, other[name][..., : y.shape[-1]]) < STATED_DB
    session.reset()
    assert session.faults == []
    again = streamed(session, x, 70)
    assert all(np.array_equal(again[name], y) for name, y in want.items())


@pytest.mark.parametrize(
    ("push", "message"),
    [
        (lambda s: s.push(noise(9)), "control 'speaker' .4 channels. has no value"),
        (lambda s: s.push(noise(9), speaker=SPEAKER, level=3), "control 'level' is 3, above 2"),
        (lambda s: s.push(noise(9), speaker=SPEAKER, level=16777216), "control 'level' is 16777216, above 2"),
        (lambda s: s.push(noise(9), speaker=[1, 2]), r"control 'speaker' takes \(2, 4\) or \(4,\), not \(2,\)"),
        (lambda s: s.push(noise(9), speaker=[0, 0, 0, math.inf]), "control 'speaker' is not finite"),
        (lambda s: s.push(noise(9), pace=1), r"unknown control 'pace' \(choose from: level, speaker\)"),
        (lambda s: s.push(noise(9)[:1], speaker=SPEAKER), r"'mic' takes \(2, 1, frames\), not \(1, 1, 9\)"),
        (lambda s: s.push(noise(9).astype(int), speaker=SPEAKER), "'mic' takes floating-point frames, not int64"),
        (lambda s: s.push({"mike": noise(9)}, speaker=SPEAKER), "'small' takes inputs mic, not mike"),
    ],
)
def test_wrong_use_is_told(opened: Opened, push, message: str) -> None:
    session = opened()
    with pytest.raises(StreamError, match=message):
        push(session)
    # And nothing was taken of it.
    assert session.controls == {}
    assert session.positions == {"mic": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("late"), "'late'"),
        (lambda saved: saved["state"].popitem(), "it holds "),
        (lambda saved: saved["state"].update({"conv": np.zeros((2, 1), np.float32)}), r"'conv' is float32 \(2, 1\)"),
        (lambda saved: saved["waiting"].update(mic=np.zeros((1, 1, 3), np.float32)), r"'mic' is float32 \(1, 1, 3\)"),
        (lambda saved: saved["positions"].clear(), "'mic'"),
        (lambda saved: saved["controls"].update(speaker=[1, 2]), "control 'speaker' takes"),
    ],
)
def test_a_snapshot_that_does_not_fit_changes_nothing(opened: Opened, change, message: str) -> None:
    session, other, x = opened(), opened(), noise(300)
    for each in (session, other):
        each.push(x[..., :133], speaker=SPEAKER)
    saved = session.snapshot()
    change(saved)
    with pytest.raises(StreamError, match=f"the snapshot does not fit 'small' .*{message}.*hint: "):
        session.restore(saved)
    got, want = session.push(x[..., 133:]), other.push(x[..., 133:])
    assert all(np.array_equal(got[name], y) for name, y in want.items())


def test_a_snapshot_of_the_other_mode_is_refused(opened: Opened) -> None:
    late = opened(constant_latency=True)
    late.push(noise(100), speaker=SPEAKER)
    with pytest.raises(StreamError, match="it holds hiss, slow, wav, not nothing"):
        opened().restore(late.snapshot())
