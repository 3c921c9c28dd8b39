"""Discriminators of waveforms: by periods and by scales (HiFi-GAN: Kong, Kim & Bae, arXiv:2010.05646), and by spectra.

The first two have 70.73M parameters together, the third a million. They are needed for training only and no recipe
streams them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from astrape.blocks.parameters import bounded
from astrape.training.objectives.adversarial import Judgement
from astrape.training.objectives.spectrum import Spectrum

__all__ = ["MultiPeriodDiscriminator", "MultiResolutionDiscriminator", "MultiScaleDiscriminator"]

SLOPE = 0.1


class _Stack(nn.Module):
    """Convolutions with leaky ReLU after each but the last, which gives the logits."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([weight_norm(layer) for layer in layers])

    def judge(self, x: Tensor) -> Judgement:
        *hidden, last = self.layers
        features = []
        for layer in hidden:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return Judgement(last(x).flatten(1), features)


class PeriodDiscriminator(_Stack):
    """A waveform folded into rows of ``period`` samples, seen column by column.

    2-D convolutions (5, 1) with strides 3, 3, 3, 3, 1, then (3, 1) to one channel: what they compare lies whole periods
    apart. A waveform that does not fill its last row is continued by its mirror image.

    Args:
        period: samples to a row, 1 to 4096.
        channels: of the hidden layers; 32, 128, 512, 1024, 1024 by default.
    """

    def __init__(self, period: int, channels: Sequence[int] = (32, 128, 512, 1024, 1024)) -> None:
        strides = [3] * (len(channels) - 1) + [1]
        pairs = zip([1, *channels[:-1]], channels, strides, strict=True)
        layers = [nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0)) for before, after, stride in pairs]
        super().__init__([*layers, nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0))])
        self.period = bounded("period", period, 1, 4096)

    def forward(self, wave: Tensor) -> Judgement:
        missing = -wave.shape[-1] % self.period
        if missing:
            wave = F.pad(wave, (0, missing), mode="reflect")
        return self.judge(wave.reshape(wave.shape[0], 1, -1, self.period))


class ScaleDiscriminator(_Stack):
    """A waveform seen as it is, by grouped 1-D convolutions that shorten it 64 times.

    Args:
        width: 1 for the layers as published; a divisor of 8 narrows them all, to 128 / width channels and so on.
    """

    def __init__(self, width: int = 1) -> None:
        bounded("width", width, 1, 8)
        plan = [
            (1, 128, 15, 1, 1),
            (128, 128, 41, 2, 4),
            (128, 256, 41, 2, 16),
            (256, 512, 41, 4, 16),
            (512, 1024, 41, 4, 16),
            (1024, 1024, 41, 1, 16),
            (1024, 1024, 5, 1, 1),
            (1024, 1, 3, 1, 1),
        ]
        super().__init__(
            [
                nn.Conv1d(
                    max(1, before // width),
                    max(1, after // width),
                    kernel,
                    stride,
                    groups=groups,
                    padding=kernel // 2,
                )
                for before, after, kernel, stride, groups in plan
            ]
        )

    def forward(self, wave: Tensor) -> Judgement:
        return self.judge(wave)


class MultiPeriodDiscriminator(nn.Module):
    """A :class:`PeriodDiscriminator` for each of several periods, prime to one another so that they see apart.

    Args:
        periods: 2, 3, 5, 7 and 11 by default.
        channels: of the hidden layers of each; 32, 128, 512, 1024, 1024 by default, 41.1M parameters.

    Raises:
        ValueError: for a period out of range.
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        channels: Sequence[int] = (32, 128, 512, 1024, 1024),
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList([PeriodDiscriminator(period, channels) for period in periods])

    def forward(self, wave: Tensor) -> list[Judgement]:
        """``(batch, 1, samples)`` to a judgement for each period."""
        return [part(wave) for part in self.parts]


class MultiScaleDiscriminator(nn.Module):
    """A :class:`ScaleDiscriminator` for the waveform and for each of its averages over 4 samples, 2 apart.

    Args:
        scales: 3 by default: the waveform, half and a quarter of its rate. 1 to 8.
        width: 1 by default, 29.6M parameters; 2, 4 or 8 divide all channels, for small machines.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(self, scales: int = 3, width: int = 1) -> None:
        super().__init__()
        self.parts = nn.ModuleList([ScaleDiscriminator(width) for _ in range(bounded("scales", scales, 1, 8))])
        self.pool = nn.AvgPool1d(4, 2, padding=2)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """``(batch, 1, samples)`` to a judgement for each scale."""
        judged = []
        for index, part in enumerate(self.parts):
            wave = self.pool(wave) if index else wave
            judged.append(part(wave))
        return judged


class ResolutionDiscriminator(_Stack):
    """A waveform seen as a picture of its log magnitudes, frequency by time.

    2-D convolutions over a picture that gets coarser: kernels of 9 bins by 3 frames three times, 5 by 3, 3 by 3 twice.
    Both sides are halved, of the frequency by the first four layers, of the time by the second to the fourth, while the
    channels grow 1, 2, 4, 8, 8 times. So most of the parameters see few points, and cost little time.

    Args:
        n_fft: transform length, samples; frames are a quarter of it apart.
        channels: of the first layer; 16 by default.
    """

    def __init__(self, n_fft: int, channels: int = 16) -> None:
        bounded("channels", channels, 1, 256)
        plan = [
            (1, channels, (9, 3), (2, 1)),
            (channels, 2 * channels, (9, 3), (2, 2)),
            (2 * channels, 4 * channels, (9, 3), (2, 2)),
            (4 * channels, 8 * channels, (5, 3), (2, 2)),
            (8 * channels, 8 * channels, (3, 3), (1, 1)),
            (8 * channels, 1, (3, 3), (1, 1)),
        ]
        super().__init__(
            [
                nn.Conv2d(before, after, kernel, stride, padding=(kernel[0] // 2, kernel[1] // 2))
                for before, after, kernel, stride in plan
            ]
        )
        self.spectrum = Spectrum(n_fft)

    def forward(self, wave: Tensor) -> Judgement:
        wave = F.pad(wave, (0, max(0, self.spectrum.n_fft - wave.shape[-1])))
        # Natural logarithms of speech lie around -6, and no layer before the first one would take that out.
        picture = (self.spectrum.magnitude(wave).log() + 6) / 3
        return self.judge(picture.unsqueeze(1))


class MultiResolutionDiscriminator(nn.Module):
    """A :class:`ResolutionDiscriminator` for each of several transform lengths.

    After UnivNet's (Jang et al., arXiv:2106.07889), with pictures that get smaller. It hears buzz and blur, and is
    small enough for one core: 1.03M parameters, 0.76 billion multiplications for half a second at 44.1 kHz.

    Args:
        sizes: transform lengths, samples; 512, 1024 and 2048 by default. A window is to be longer than the longest.
        channels: of the first layer of each; 16 by default.

    Raises:
        ValueError: for a size or a number of channels out of range.
    """

    def __init__(self, sizes: Sequence[int] = (512, 1024, 2048), channels: int = 16) -> None:
        super().__init__()
        self.parts = nn.ModuleList([ResolutionDiscriminator(size, channels) for size in sizes])

    def forward(self, wave: Tensor) -> list[Judgement]:
        """``(batch, 1, samples)`` to a judgement for each resolution."""
        return [part(wave) for part in self.parts]
