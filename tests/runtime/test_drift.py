"""Two devices with two clocks: the delay between them stays, and the sound is the same."""

from __future__ import annotations

import numpy as np
import pytest

from astrape.runtime.drift import BANDWIDTH, Bridge

RATE = 48000
TONE = 440.0


def carried(seconds: float, fast: float, blocks: tuple[int, int], jitter: float = 0.0, pause: tuple = (0.0, 0.0)):
    """A tone recorded by a device that is ``fast`` by so much, played by one that is not.

    Returns:
        The bridge, what was played, and when each of its frames was handed on, seconds.
    """
    block_in, block_out = blocks
    bridge = Bridge(1, RATE, block_in, block_out)
    rng = np.random.default_rng(0)
    source = RATE * (1 + fast)
    played, sent, read = [], 0, 0
    y = np.zeros((1, block_out), np.float32)
    while read * block_out < seconds * RATE:
        # Whichever callback is due first; a source's block is there when its last frame is.
        due_in, due_out = (sent + 1) * block_in / source, read * block_out / RATE
        late = rng.uniform(0, jitter)
        if due_in <= due_out:
            time = (sent * block_in + np.arange(block_in)) / source
            if not pause[0] <= due_in < pause[1]:
                bridge.write(np.sin(2 * np.pi * TONE * time).astype(np.float32)[None], due_in + late)
            sent += 1
        else:
            bridge.read(y, due_out + late)
            played.append(y[0].copy())
            read += 1
    return bridge, np.concatenate(played).astype(np.float64), np.arange(read * block_out) / RATE


def wrong(bridge: Bridge, y: np.ndarray, time: np.ndarray) -> tuple[float, float]:
    """Frames by which the delay of a stretch is off, and what is left beside the tone, dB."""
    phase = 2 * np.pi * TONE * (time - bridge.late / RATE)
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    fitted, *_ = np.linalg.lstsq(basis, y, rcond=None)
    rest = y - basis @ fitted
    lead = np.arctan2(fitted[1], fitted[0]) / (2 * np.pi * TONE) * RATE
    return float(lead), float(10 * np.log10(np.mean(rest**2) / np.mean(y**2) + 1e-20))


@pytest.mark.parametrize("blocks", [(480, 480), (64, 512), (441, 128)])
@pytest.mark.parametrize("fast", [-3e-4, 0.0, 3e-4])
def test_drift_is_absorbed(fast, blocks):
    bridge, y, time = carried(40.0, fast, blocks)
    assert bridge.empty == 0
    assert bridge.restarts == 0
    assert abs(bridge.ratio - 1 - fast) < 2e-6
    for begin in (20, 30, 39):
        part = slice(begin * RATE, (begin + 1) * RATE)
        late, rest = wrong(bridge, y[part], time[part])
        assert abs(late) < 0.5
        assert rest < -60


def jitter_left(jitter: float) -> float:
    """Deviation of the delay, frames, that two loops leave of callbacks that are late by 0 to ``jitter`` seconds.

    A loop of second order with the gains ``b = sqrt(2) w`` and ``c = w^2`` passes white noise on with a variance of
    ``(2 b^2 + 2 c + b c) / (b (4 - 2 b - c))`` of its own, by the residues of its transfer function.
    """
    w = 2 * np.pi * BANDWIDTH * 480 / RATE
    b, c = np.sqrt(2) * w, w * w
    gain = (2 * b * b + 2 * c + b * c) / (b * (4 - 2 * b - c))
    return float(jitter / np.sqrt(12) * RATE * np.sqrt(2 * gain))


def test_callbacks_may_come_late():
    bridge, y, time = carried(60.0, 1e-4, (480, 480), jitter=2e-3)
    assert bridge.empty == 0
    stretches = [slice(begin * RATE, (begin + 1) * RATE) for begin in range(20, 60)]
    late, rest = np.transpose([wrong(bridge, y[part], time[part]) for part in stretches])
    # What two loops leave of the jitter: 2.3 frames here. Forty seconds of it are some ten independent values.
    left = jitter_left(2e-3)
    assert np.sqrt(np.mean(late**2)) < 1.6 * left
    assert np.abs(late).max() < 3.5 * left
    # Within a second it wanders by far less, since the loops are slow: by a fifth of a frame at most times, which is
    # 20 log10(2 pi 440 / 48000 / 5), and never by half a frame.
    assert np.median(rest) < -38.8
    assert rest.max() < -30.8


def test_a_source_that_was_away_comes_back_at_the_same_delay():
    bridge, y, time = carried(60.0, 1e-4, (480, 480), pause=(20.0, 25.0))
    assert bridge.empty > 4 * RATE
    assert not y[22 * RATE : 24 * RATE].any()
    late, rest = wrong(bridge, y[-RATE:], time[-RATE:])
    assert abs(late) < 3
    assert rest < -40


@pytest.mark.slow
@pytest.mark.parametrize("fast", [-2e-4, 2e-4])
def test_an_hour_of_drift(fast):
    bridge, y, time = carried(3600.0, fast, (480, 512), jitter=1e-3)
    assert bridge.empty == 0
    assert bridge.restarts == 0
    for begin in range(60, 3600, 300):
        part = slice(begin * RATE, (begin + 1) * RATE)
        late, rest = wrong(bridge, y[part], time[part])
        assert abs(late) < 3
        assert rest < -30.8
