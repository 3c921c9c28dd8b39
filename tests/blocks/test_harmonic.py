"""The source filter's second output: the fundamental and the voicing that its comb is made of."""

from __future__ import annotations

import torch

from astrape.blocks import HarmonicSource
from astrape.blocks.base import Stream
from astrape.testing import check_block


def build(pitch: bool) -> HarmonicSource:
    torch.manual_seed(0)
    return HarmonicSource(Stream(175, 6), condition="speaker", n_fft=504, hop=252, condition_channels=4, pitch=pitch)


def test_pitch_is_what_the_comb_is_made_of() -> None:
    block = build(True).double()
    frames, speaker = torch.randn(2, 6, 20, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    out = block(frames, speaker=speaker)
    f0, voiced = out["pitch"].split(1, dim=1)
    assert 50 < f0.min() < f0.max() < 600
    assert 0 < voiced.min() < voiced.max() < 1
    number = torch.arange(1, 17)[:, None, None]
    teeth = torch.exp(-(((block.frequencies[:, None] - number * f0[:, None]) / block.width) ** 2)).sum(dim=1)
    torch.testing.assert_close(out["comb"], torch.log(voiced * teeth + 1e-4))


def test_the_comb_is_the_same_with_and_without() -> None:
    frames, speaker = torch.randn(1, 6, 20), torch.randn(1, 4)
    assert torch.equal(build(True)(frames, speaker=speaker)["comb"], build(False)(frames, speaker=speaker))


def test_it_keeps_the_contract() -> None:
    check_block(build(True))
