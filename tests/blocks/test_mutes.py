"""A muted microphone, exact zeros amid sound: what adapts to the signal comes back as it would have been without it.

The denoiser's and the norms' own mutes are in their files.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from astrape.blocks import Stream, StreamBlock
from astrape.blocks.dynamics import Compressor, Gate
from astrape.blocks.limiter import Limiter
from astrape.blocks.prosody import Loudness, Register
from astrape.blocks.sidechain import Envelope

RATE = 8000


def noise(seconds: float, level: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(1, 1, int(seconds * RATE), generator=generator, dtype=torch.float64)


ADAPTIVE = {
    "gate": (Gate, {"threshold_db": -30.0}, 0.2),
    "compressor": (Compressor, {}, 1.5),
    "limiter": (Limiter, {"ceiling_db": -18.0}, 1.5),
    "peak envelope": (Envelope, {"kind": "peak"}, 1.5),
    "rms envelope": (Envelope, {"kind": "rms"}, 1.5),
    "loudness": (Loudness, {"hop": 80, "window": 400}, 0.1),
}
"""Each with the seconds that its own time constants take: what it heard before is forgotten after them."""


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("mute", [0.3, 2.0, 20.0])
def test_after_a_mute_of_any_length_it_is_as_if_there_had_been_none(name: str, mute: float) -> None:
    kind, params, settles = ADAPTIVE[name]
    block: StreamBlock = kind(Stream(RATE, 1), **params).double()
    before, after = noise(2, 0.1, 0), noise(3, 0.1, 1)
    muted = block(torch.cat([before, torch.zeros(1, 1, int(mute * RATE), dtype=torch.float64), after], dim=-1))
    going_on = block(torch.cat([before, after], dim=-1))
    assert muted.isfinite().all()
    kept = int((3 - settles) * float(block.rate_out))
    torch.testing.assert_close(muted[..., -kept:], going_on[..., -kept:], rtol=2e-3, atol=1e-6)
    # And nothing of the level before comes out of the zeros, but for what an envelope is to do.
    if "envelope" not in name and name != "loudness":
        held = int(0.1 * RATE)
        assert not muted[..., 2 * RATE + held : 2 * RATE + int(mute * RATE)].any()


def test_the_register_waits_while_there_is_no_voice() -> None:
    f0 = 120 * torch.exp2(0.2 * torch.sin(torch.arange(400, dtype=torch.float64) / 9))[None, None]
    block = Register(Stream(100, 1), target=200.0)
    silent = torch.zeros(1, 1, 3000, dtype=torch.float64)
    muted = block(torch.cat([f0, silent, f0], dim=-1))
    going_on = block(torch.cat([f0, f0], dim=-1))
    assert torch.equal(muted["f0"][..., -400:], going_on["f0"][..., -400:])
    assert not muted["f0"][..., 400:3400].any()
    assert math.isclose(float(muted["register"][0, 0, 3399]), float(going_on["register"][0, 0, 399]))
