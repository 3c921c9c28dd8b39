"""The resampler that the published codec hears through: torchaudio's, with its defaults."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

__all__ = ["resample"]

ZEROS = 6
"""Zero crossings of the sinc to each side."""

ROLLOFF = 0.99


def resample(audio: Tensor, rate_in: int, rate_out: int) -> Tensor:
    """``(batch, samples)`` at another rate, by a sinc under a Hann window: the numbers of torchaudio's ``Resample``.

    The codec was trained behind this filter, whose 6 zero crossings leave more aliasing than astrape's own resampler
    does: for the same embeddings it must be the same filter. Sample ``j`` of the result stands at ``j / rate_out``
    seconds; the ceiling of ``samples rate_out / rate_in`` come out, with silence beyond both ends.
    """
    if rate_in == rate_out:
        return audio
    common = math.gcd(rate_in, rate_out)
    old, new = rate_in // common, rate_out // common
    cutoff = min(old, new) * ROLLOFF
    side = math.ceil(ZEROS * old / cutoff)
    # Filter j of the bank: an input counts by its distance from output j. Outputs are in float32, as torchaudio's are.
    inputs = torch.arange(-side, side + old, dtype=torch.float64) / old
    outputs = -(torch.arange(new, dtype=torch.float32) / new)
    times = ((outputs[:, None] + inputs) * cutoff).clamp(-ZEROS, ZEROS)
    bank = torch.sinc(times) * torch.cos(times * math.pi / (2 * ZEROS)).square() * (cutoff / old)
    padded = functional.pad(audio[:, None], (side, side + old))
    resampled = functional.conv1d(padded, bank[:, None].to(audio), stride=old)
    length = math.ceil(new * audio.shape[1] / old)
    return rearrange(resampled, "b phase n -> b (n phase)")[:, :length]
