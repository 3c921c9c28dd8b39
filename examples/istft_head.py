"""The head of a spectral vocoder as one block: `python examples/istft_head.py`.

A network thinks in features a hundred times a second and has to end in sound. Its last three stages belong together,
as in Vocos (Siuzdak, arXiv:2306.00814): a linear layer from features to log-magnitudes and phases, `exp_polar` to real
and imaginary parts, and an inverse STFT to samples. `Sequential` makes one block of them. Its latency is the inverse
STFT's alone, half of what a window is longer than its hop: the other half is with the STFT that heard the sound.
"""

import torch

from astrape.blocks import ISTFT, ExpPolar, Linear, Sequential, Stream
from astrape.testing import check_block


def istft_head(features: Stream, *, n_fft: int, hop: int) -> Sequential:
    """Features ``(batch, channels, frames)`` to samples ``(batch, 1, frames * hop)``."""
    linear = Linear(features, channels=n_fft + 2)
    polar = ExpPolar(linear.output)
    return Sequential({"out": linear, "polar": polar, "istft": ISTFT(polar.output, n_fft=n_fft, hop=hop)})


def main() -> None:
    torch.manual_seed(0)
    features = Stream(100, 32)
    head = istft_head(features, n_fft=640, hop=160)
    frames = torch.randn(1, 32, 50)

    whole, state, parts = head(frames), head.init_state(1), []
    for frame in frames.split(1, dim=-1):
        part, state = head.step(frame, state, {})
        parts.append(part)

    print(f"{features} -> {head.output}, {sum(p.numel() for p in head.parameters())} parameters")
    print(f"latency {1000 * head.latency} ms, {head.latency * head.output.rate} samples: half of 640 - 160")
    print(f"frame by frame it differs by {(torch.cat(parts, -1) - whole).abs().max():.1e} from the whole pass")
    print(check_block(head))


if __name__ == "__main__":
    main()
