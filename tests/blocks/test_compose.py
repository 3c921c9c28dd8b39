"""Blocks made of blocks: they keep the contract, give what their parts give, and are refused where they cannot."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from astrape.blocks import (
    ISTFT,
    STFT,
    Activation,
    AdaLN,
    Conv,
    Delay,
    ExpPolar,
    Linear,
    Magnitude,
    Norm,
    Parallel,
    Resampler,
    Residual,
    Sequential,
    Stream,
)
from astrape.errors import AlignmentError, CausalityError, ContractError, RateError
from astrape.testing import check_block

MIC = Stream(8000, 3)


def strided() -> Sequential:
    down = Conv(MIC, channels=4, kernel=6, stride=3)
    late = Delay(down.output, frames=2)
    return Sequential(down, late, Conv(late.output, channels=2, kernel=4, stride=2))


def test_a_chain_that_changes_rate_keeps_the_contract() -> None:
    torch.manual_seed(0)
    block = strided()
    measured = check_block(block, examples=5)
    assert (block.quantum, block.ratio) == (6, Fraction(1, 6))
    assert block.latency == Fraction(2 * 3, 8000)
    # 4 frames of the last, 3 * 3 + 6 samples: both windows end with their quanta; the delay reaches 6 samples further.
    assert measured.receptive_field == block.receptive_field == Fraction(3 * 3 + 6 + 6, 8000)


def test_a_residual_and_a_branching_keep_the_contract() -> None:
    torch.manual_seed(0)
    check_block(Residual({"norm": Norm(MIC, kind="layer"), "conv": Conv(MIC, kernel=5)}), examples=5)
    check_block(Parallel(Conv(MIC, channels=2, kernel=3), Conv(MIC, channels=5, kernel=7)), examples=5)
    check_block(Parallel(Conv(MIC, kernel=3, stride=2), Conv(MIC, kernel=2, stride=2), combine="add"), examples=5)


def test_controls_reach_the_blocks_that_listen() -> None:
    adaptive = AdaLN(MIC, condition="speaker", condition_channels=4)
    block = Sequential(
        Conv(MIC, kernel=3), adaptive, Parallel(Activation(MIC, kind="silu"), Norm(MIC, kind="rms"), combine="add")
    )
    assert block.controls == {"speaker": 4}
    check_block(block, examples=5)


def test_the_parts_by_hand_give_the_same() -> None:
    torch.manual_seed(0)
    down, late, last = (block := strided())
    x = torch.randn(2, 3, 60)
    assert torch.equal(block(x), last(late(down(x))))
    body = Sequential(Conv(MIC, kernel=3), Activation(MIC, kind="silu"))
    assert torch.equal(Residual({"0": body[0], "1": body[1]})(x), x + body(x))
    both = Parallel({"a": body[0], "b": body[1]})
    assert torch.equal(both(x), torch.cat([body[0](x), body[1](x)], dim=1))


def test_weights_go_by_the_names_of_the_parts() -> None:
    assert list(Sequential(Linear(MIC, channels=2)).state_dict()) == ["0.weight", "0.bias"]
    assert list(Sequential({"out": Linear(MIC, channels=2)}).state_dict()) == ["out.weight", "out.bias"]


def test_only_what_remembers_has_a_state() -> None:
    block = Sequential({"conv": Conv(MIC, kernel=3), "act": Activation(MIC, kind="silu")})
    assert list(block.init_state(1)) == ["conv"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sequential()
    with pytest.raises(RateError, match=r"'1' is built on .*build it on the output before it"):
        Sequential(Conv(MIC, channels=2, kernel=1), Activation(MIC, kind="silu"))
    with pytest.raises(RateError, match="keep rate and channels"):
        Residual(Conv(MIC, channels=2, kernel=1))
    with pytest.raises(AlignmentError, match=r"0\.25 ms late"):
        Residual(Delay(MIC, frames=2))
    with pytest.raises(AlignmentError, match=r"differ by 0\.25 ms"):
        Parallel(Activation(MIC, kind="silu"), Delay(MIC, frames=2))
    with pytest.raises(RateError, match="do not combine"):
        Parallel(Conv(MIC, channels=2, kernel=1), Conv(MIC, channels=4, kernel=1), combine="add")
    with pytest.raises(ValueError, match="control 'speaker' has 4 channels, and 5"):
        Sequential(*(AdaLN(MIC, condition="speaker", condition_channels=count) for count in (4, 5)))
    with pytest.raises(CausalityError, match="looks ahead"):
        Sequential(Norm(MIC, kind="utterance"))


def test_the_age_of_a_chain_is_measured_as_its_blocks_are() -> None:
    """Blocks without memory keep the age of what precedes them; mixed ages are measured child by child."""
    linear = Linear(Stream(100, 6), channels=18)
    polar = ExpPolar(linear.output)
    head = Sequential(linear, polar, ISTFT(polar.output, n_fft=16, hop=4))
    assert head.latency_by == "centre"
    check_block(head, examples=5)
    stft = STFT(Stream(8000, 1), n_fft=16, hop=4)
    assert Sequential(stft, Magnitude(stft.output)).latency_by == "centre"
    assert Sequential(Linear(MIC, channels=MIC.channels), Activation(MIC, kind="silu")).latency_by == "newest"
    down = Resampler(Stream(8000, 1), rate=4000, zeros=8, stopband_db=60)
    mixed = Sequential(down, Conv(down.output, kernel=5))
    assert mixed.latency_by == "declared"
    check_block(mixed, examples=5)


def test_a_chain_that_claims_less_age_than_it_has_is_caught() -> None:
    class Younger(Sequential):
        @property
        def latency(self) -> Fraction:
            return super().latency / 2

    stft = STFT(Stream(8000, 1), n_fft=64, hop=4)
    with pytest.raises(ContractError, match="latency"):
        check_block(Younger(stft, Magnitude(stft.output)), examples=5)
