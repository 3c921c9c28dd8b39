"""A block of one's own and its contract test: `python examples/own_block.py`, or `pytest examples/own_block.py`."""

from fractions import Fraction

import torch

import astrape
from astrape.blocks import Stream, StreamBlock, register
from astrape.testing import check_block


@register("pre_emphasis")
class PreEmphasis(StreamBlock):
    """y[n] = x[n] - amount * x[n - 1], with silence before time zero: lifts what is high."""

    def __init__(self, source: Stream, *, amount: float = 0.97) -> None:
        super().__init__(source)
        self.amount = amount

    @property
    def receptive_field(self) -> Fraction:
        return 2 / self.rate_in

    def init_state(self, batch_size, device=None, dtype=None):
        return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)

    def step(self, x, state, controls):
        heard = torch.cat([state, x], dim=-1)
        return x - self.amount * heard[..., :-1], heard[..., -1:].clone()


def test_pre_emphasis() -> None:
    check_block(PreEmphasis(Stream(16000, 2), amount=0.9))


if __name__ == "__main__":
    print(check_block(PreEmphasis(Stream(16000, 2))))
    recipe = {
        "recipe": "own",
        "inputs": {"mic": {"rate": 16000, "channels": 1}},
        "blocks": {"lift": {"use": "pre_emphasis", "amount": 0.9}, "features": {"use": "mel", "hop": 160}},
        "outputs": {"features": "features"},
    }
    print(astrape.compile(recipe).report())
