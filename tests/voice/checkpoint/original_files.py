"""Checkpoint files like the original's, of random networks."""

from __future__ import annotations

import argparse
from pathlib import Path, PosixPath
from typing import Any, TypeVar

import torch
from torch import nn

from tests.voice.checkpoint.original_decoder_oracle import DecoderSizes, OriginalDecoder
from tests.voice.checkpoint.original_oracle import EncoderSizes, OriginalEncoder

__all__ = ["SMALL_DECODER", "SMALL_ENCODER", "decoder_file", "encoder_file", "random_decoder", "random_encoder"]

Net = TypeVar("Net", bound=nn.Module)

SMALL_ENCODER: dict[str, Any] = {
    "features": 10,
    "conv": 12,
    "stem": (1, 2, 3),
    "trans": 16,
    "layers": 2,
    "heads": 2,
    "ffn": 24,
    "window": 8,
    "content": 20,
    "wide": 16,
    "hidden": 8,
}
SMALL_DECODER: dict[str, Any] = {
    "content": 20,
    "speaker": 6,
    "dim": 16,
    "layers": 2,
    "heads": 2,
    "ffn": 24,
    "window": 8,
    "width": 12,
    "dilations": (1, 2),
    "bridge": 14,
}


def random_encoder(seed: int, **sizes: Any) -> OriginalEncoder:
    torch.manual_seed(seed)
    return shaken(OriginalEncoder(EncoderSizes(**sizes)))


def random_decoder(seed: int, **sizes: Any) -> OriginalDecoder:
    torch.manual_seed(seed)
    return shaken(OriginalDecoder(DecoderSizes(**sizes)))


def shaken(net: Net) -> Net:
    """Parameters that begin at a constant (norms, gates, periodic activations), moved so that they count."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1 or parameter.shape[0] == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        if isinstance(net, OriginalDecoder):
            net.istft_head.out.bias.add_(2.0)  # spectra loud enough for 1e-4 to be little
    return net.eval()


def encoder_file(path: Path, net: OriginalEncoder, **changes: Any) -> Path:
    """An encoder file as the original's training writes it, command line and optimiser included."""
    moments = [torch.optim.AdamW(net.parameters()).state_dict()]
    args = vars(argparse.Namespace(data_dir=PosixPath("data/x"), out_dir=PosixPath("."), lr=1e-4, resume_from=None))
    content = {
        "model_type": "MCSTransQ2D2",
        "config": net.s.config(),
        "state_dict": net.state_dict(),
        "optimizer": moments[0],
        "epoch": 3,
        "metrics": {"probe": {"cos768": 0.9}},
        "args": args,
        "best_probe_cos768": 0.9,
    }
    return written(path, content | changes)


def decoder_file(path: Path, net: OriginalDecoder, **changes: Any) -> Path:
    content = {"state_dict": net.state_dict(), "disc": {}, "decoder_config": net.s.config(), "epoch": 3}
    return written(path, content | changes)


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path
