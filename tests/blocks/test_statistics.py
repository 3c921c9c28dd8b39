from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrape.blocks import RunningStatistics, Stream, block_class
from astrape.errors import RateError
from tests.blocks.chunks import assert_chunks_agree, chunk_lists, noise

SOURCE = Stream(50, 4)


@given(frames=st.integers(1, 30), scale=st.floats(0.01, 100.0), offset=st.floats(-1000.0, 1000.0))
def test_every_frame_is_numpys_weighted_average_of_its_past(frames: int, scale: float, offset: float) -> None:
    block = RunningStatistics(SOURCE, eps=0.01).double()
    x = noise(block, frames)
    x[:, :-1] = scale * x[:, :-1] + offset
    y = block(x).numpy()
    for row in range(len(x)):
        values, weights = x[row, :-1].numpy(), 1 / (1 + np.exp(-x[row, -1].numpy()))
        for frame in range(frames):
            past = slice(0, frame + 1)
            mean = np.average(values[:, past], axis=1, weights=weights[past])
            variance = np.average((values[:, past] - mean[:, None]) ** 2, axis=1, weights=weights[past])
            np.testing.assert_allclose(y[row, :3, frame], mean, rtol=1e-9, atol=1e-9 * scale)
            # The squares are summed as they are: an offset costs its square in digits.
            cost = 1e-14 * (offset**2 + scale**2)
            np.testing.assert_allclose(y[row, 3:, frame] ** 2, variance + 0.01, rtol=1e-9, atol=100 * cost)


@given(chunks=chunk_lists)
def test_chunks_agree(chunks: list[int]) -> None:
    assert_chunks_agree(RunningStatistics(SOURCE), chunks)


def test_numbers_are_declared() -> None:
    block = RunningStatistics(SOURCE)
    assert block.latency == 0
    assert block.receptive_field is None
    assert block.channels_out == 6
    assert block_class("running_statistics") is RunningStatistics


def test_a_frame_without_weight_changes_nothing() -> None:
    block = RunningStatistics(SOURCE).double()
    x = noise(block, 6)
    x[:, -1] = 0.0
    loud = torch.cat((x, 100 + torch.zeros(len(x), 4, 1, dtype=x.dtype)), dim=-1)
    loud[:, -1, -1] = -60.0
    torch.testing.assert_close(block(loud)[..., -1], block(x)[..., -1], rtol=1e-6, atol=1e-6)


def test_the_whole_is_the_last_frame() -> None:
    block = RunningStatistics(SOURCE).double()
    x = noise(block, 40)
    torch.testing.assert_close(block.whole(x), block(x)[..., -1:], rtol=1e-9, atol=1e-9)


def test_a_day_costs_no_accuracy() -> None:
    """Sums as after a day at 50 Hz: a float32 sum would have stopped to grow."""
    block = RunningStatistics(SOURCE)
    frames = 24 * 3600 * 50
    state = {
        "weight": torch.full((1, 1), float(frames), dtype=torch.float64),
        "sum": torch.full((1, 3), 3.0 * frames, dtype=torch.float64),
        "square": torch.full((1, 3), 13.0 * frames, dtype=torch.float64),
    }
    x = torch.zeros(1, 4, 1)
    x[:, :3] = 5.0
    x[:, 3] = 40.0
    _, after = block.step(x, state, ())
    assert after["weight"].item() == frames + 1
    torch.testing.assert_close(
        after["sum"], torch.full((1, 3), 3.0 * frames + 5, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_one_channel_has_no_values() -> None:
    with pytest.raises(RateError, match="1 channel has only one of them"):
        RunningStatistics(Stream(50, 1))
    with pytest.raises(ValueError, match="eps"):
        RunningStatistics(SOURCE, eps=-1.0)
