"""Somebody else's layers as blocks, held against the contract, and one that does not keep it.

    python examples/wrap_torch_layer.py

A layer of PyTorch knows nothing of streams. What it needs to become a block is a place for its memory outside of
itself (`init_state`), and a `step` that takes that memory and hands back the next.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

import astrape
from astrape.blocks import Stream, StreamBlock, register
from astrape.testing import ContractError, check_block


@register("torch_lstm")
class TorchLSTM(StreamBlock):
    """`nn.LSTM`, with `channels` cells in each of its layers. The memory of an LSTM has no end: it declares none."""

    def __init__(self, source: Stream, *, channels: int, layers: int = 1) -> None:
        super().__init__(source, channels=channels)
        self.lstm = nn.LSTM(source.channels, channels, layers, batch_first=True)

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> dict[str, Tensor]:
        shape = (batch_size, self.lstm.num_layers, self.lstm.hidden_size)  # the batch comes first in every state
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in ("hidden", "cell")}

    def step(self, x: Tensor, state: dict[str, Tensor], controls: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if x.shape[-1] == 0:  # a host may call with nothing, and nn.LSTM refuses an empty sequence
            return x.new_zeros(x.shape[0], self.channels_out, 0), state
        memory = tuple(state[name].transpose(0, 1).contiguous() for name in ("hidden", "cell"))
        y, (hidden, cell) = self.lstm(x.transpose(1, 2), memory)
        after = {"hidden": hidden.transpose(0, 1).contiguous(), "cell": cell.transpose(0, 1).contiguous()}
        return y.transpose(1, 2), after


@register("torch_conv")
class TorchConv(StreamBlock):
    """`nn.Conv1d` without padding of its own: the state holds the `kernel - 1` frames that came before."""

    def __init__(self, source: Stream, *, channels: int, kernel: int) -> None:
        super().__init__(source, channels=channels)
        self.conv = nn.Conv1d(source.channels, channels, kernel)

    @property
    def receptive_field(self) -> Fraction:
        return self.conv.kernel_size[0] / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> Tensor:
        return torch.zeros(batch_size, self.channels_in, self.conv.kernel_size[0] - 1, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, Tensor]:
        heard = torch.cat([state, x], dim=-1)
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.channels_out, 0), state
        return self.conv(heard), heard[..., x.shape[-1] :].clone()


class CentredConv(StreamBlock):
    """`nn.Conv1d(padding="same")`: every output frame needs one frame that has not been heard yet."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.conv = nn.Conv1d(source.channels, source.channels, 3, padding="same")

    def step(self, x: Tensor, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return (self.conv(x) if x.shape[-1] else x), state


def main() -> None:
    torch.manual_seed(0)
    features = Stream(100, 8)
    for block in (TorchLSTM(features, channels=5, layers=2), TorchConv(features, channels=4, kernel=7)):
        measured = check_block(block)
        print(f"{type(block).__name__} keeps the contract, with {measured.state_bytes} bytes of state")
    try:
        check_block(CentredConv(features))
    except ContractError as error:
        print(f"CentredConv breaks it: {error}")

    # Registered, they are blocks like any other.
    recipe = {
        "recipe": "wrapped",
        "inputs": {"mic": {"rate": 16000, "channels": 1}},
        "blocks": {
            "mel": {"use": "mel", "bins": 40, "n_fft": 640, "hop": 320},
            "near": {"use": "torch_conv", "channels": 32, "kernel": 5},
            "far": {"use": "torch_lstm", "channels": 32},
        },
        "outputs": {"content": "far"},
    }
    print(astrape.compile(recipe).report())


if __name__ == "__main__":
    main()
