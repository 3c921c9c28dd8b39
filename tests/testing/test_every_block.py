"""Every block that recipes know keeps the contract. A new one needs a line in ``CASES`` and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from astrape.blocks import STFT, Stream, block_class, block_names
from astrape.measure.subject import Draw
from astrape.testing import check_block

AUDIO = Stream(16000, 1)
FRAMES = Stream(50, 6)
PAIR = {"dry": Stream(50, 4), "wet": Stream(50, 4)}


@dataclass(frozen=True)
class Case:
    """Arguments to build a block, and those of ``check_block`` for it."""

    source: Stream | Mapping[str, Stream]
    params: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] = field(default_factory=dict)


def voice_spectra(stream: Stream, frames: int, batch: int, generator: torch.Generator) -> Tensor:
    """Spectra of a hum, where there is a pitch to be found and moved."""
    stft = STFT(Stream(8000, 1), n_fft=256, hop=64).double()
    turns = torch.arange(64 * frames, dtype=torch.float64) * (120 / 8000)
    noise = torch.randn(batch, 1, 64 * frames, generator=generator, dtype=torch.float64)
    spectra: Tensor = stft(0.02 * noise + turns % 1 - 0.5)
    return spectra


def draw_codes(size: int) -> Draw:
    """Codes of a codebook, which noise is not."""

    def draw(stream: Stream, frames: int, batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(size, (batch, stream.channels, frames), generator=generator).double()

    return draw


def voice_f0(stream: Stream, frames: int, batch: int, generator: torch.Generator) -> Tensor:
    """F0 in Hz, with pauses, in all channels."""
    f0 = 60 + 300 * torch.rand(batch, stream.channels, frames, generator=generator, dtype=torch.float64)
    return f0.masked_fill(torch.arange(frames) % 7 >= 5, 0.0)


CASES: dict[str, list[Case]] = {
    "activation": [Case(FRAMES, {"kind": kind}) for kind in ("gelu", "silu", "snake_beta")],
    "adaln": [Case(FRAMES, {"condition": "speaker", "condition_channels": 5})],
    "adaptive_conv": [
        Case(FRAMES, {"condition": "speaker", "condition_channels": 5, "dilation": 2}),
        Case(FRAMES, {"condition": "speaker", "condition_channels": 5, "expand": 2}),
    ],
    "add": [Case(PAIR)],
    "affine": [Case(FRAMES, {"scale": 0.4, "shift": 2.0})],
    "attention": [Case(Stream(25, 8), {"heads": 2, "window": 5})],
    "band_envelope": [
        Case(Stream(100, 12), {"n_fft": 63, "hop": 21}),
        Case(Stream(100, 12), {"n_fft": 64, "hop": 21, "phase": "minimum", "fmax": 700.0, "extrapolate_from": 500.0}),
    ],
    "biquad": [
        Case(AUDIO, {"kind": "lowpass", "frequency": 1000.0}),
        Case(AUDIO, {"kind": "peaking", "frequency": "cutoff", "gain_db": 6.0}, {"controls": {"cutoff": 800.0}}),
    ],
    "compressor": [Case(Stream(16000, 2)), Case(AUDIO, {"threshold_db": "level"}, {"controls": {"level": -30.0}})],
    "concat": [Case(PAIR)],
    "conv": [
        Case(FRAMES, {"channels": 4, "kernel": 5}),
        Case(FRAMES, {"channels": 4, "kernel": 5, "dilation": 3}),
        Case(FRAMES, {"kernel": 5, "depthwise": True}),
        Case(FRAMES, {"channels": 4, "kernel": 4, "stride": 4}),
        Case(FRAMES, {"channels": 4, "kernel": 4, "stride": 4, "align": "first"}),
        Case(FRAMES, {"channels": 6, "kernel": 7, "stride": 2, "groups": 3}),
        Case(FRAMES, {"channels": 4, "kernel": 2, "stride": 5}),
    ],
    "convolve": [
        Case(Stream(16000, 2), {"taps": [0.5, -0.2, 0.1] * 15, "partition": 16}),
        Case(AUDIO, {"taps": [[1.0, 0.5] * 20, [0.0, 0.3] * 20], "partition": 16}),
    ],
    "crossover": [
        Case(Stream(16000, 2), {"frequencies": [500.0, 3000.0]}),
        Case(AUDIO, {"frequencies": [900.0], "order": 2}),
    ],
    "dc_block": [Case(AUDIO)],
    "delay": [Case(FRAMES, {"frames": 9}), Case(FRAMES, {"ms": 40, "compensate": False})],
    "downsample": [Case(FRAMES, {"factor": 2, "channels": 5})],
    "envelope": [Case(Stream(16000, 2)), Case(AUDIO, {"kind": "rms"})],
    "exp_polar": [Case(Stream(50, 10))],
    "fir": [Case(AUDIO, {"taps": [0.1, 0.2, 0.4, 0.2, 0.1]}), Case(AUDIO, {"taps": [0.0, 0.0, 1.0, -0.5]})],
    "framing": [Case(AUDIO, {"size": 24, "hop": 8}), Case(AUDIO, {"size": 6, "hop": 6})],
    "fsq": [
        Case(FRAMES, {"levels": [8, 5, 5], "channels": 4}),
        Case(FRAMES, {"levels": [8, 8, 8, 5, 5, 2], "project_in": False, "project_out": False}),
    ],
    "fsq_decode": [Case(Stream(50, 1), {"levels": [8, 5, 5], "channels": 4}, {"draw": draw_codes(200)})],
    "gain": [Case(FRAMES, {"gain": 0.5}), Case(AUDIO, {"gain": "level"})],
    "gate": [Case(AUDIO)],
    "gated_skip": [Case(PAIR, {"kernel": 3, "dilation": 2})],
    "harmonic_source": [
        Case(Stream(100, 4), {"condition": "speaker", "condition_channels": 5, "n_fft": 32, "hop": 8, "harmonics": 3})
    ],
    "gru": [Case(FRAMES, {"channels": 5})],
    "hindsight": [Case(FRAMES, {"frames": 2})],
    "istft": [Case(Stream(100, 34), {"n_fft": 32, "hop": 8}), Case(Stream(100, 26), {"n_fft": 24, "hop": 10})],
    "hilbert": [Case(Stream(16000, 2), {"taps": 31})],
    "limiter": [
        Case(Stream(16000, 2), {"lookahead_ms": 1.0}),
        Case(AUDIO, {"ceiling_db": "top"}, {"controls": [{"top": -6.0}, {"top": -20.0}]}),
    ],
    "linear": [Case(FRAMES, {"channels": 4})],
    "log_pitch": [Case(Stream(100, 1), {}, {"draw": voice_f0})],
    "loudness": [Case(AUDIO, {"hop": 160, "window": 640}), Case(AUDIO, {"hop": 160, "window": 401})],
    "magnitude": [Case(Stream(50, 10))],
    "matrix": [Case(FRAMES, {"gains": [[0.5, -0.5, 0.1, 0.2, 0.3, 1.0]] * 2})],
    "mel": [Case(AUDIO, {"hop": 80, "bins": 20, "n_fft": 256})],
    "mix": [Case(PAIR, {"weights": [0.5, "amount"]}), Case(PAIR, {"wet": 0.3})],
    "multiply": [Case(PAIR), Case({"dry": Stream(50, 4), "gain": Stream(50, 1), "wet": Stream(50, 4)})],
    "noise": [
        Case(Stream(100, 2), {"hop": 7}),
        Case(Stream(100, 2), {"channels": 1, "seed": "seed"}, {"controls": [{"seed": 1.0}, {"seed": 2.0}]}),
    ],
    "norm": [
        *(Case(FRAMES, {"kind": kind}) for kind in ("layer", "rms", "cumulative")),
        Case(FRAMES, {"kind": "cumulative", "skip_silence": True}),
    ],
    "oscillator": [
        Case(AUDIO, {"frequency": 440.0, "shape": "square", "harmonics": 9}),
        Case(AUDIO, {"frequency": "hertz"}, {"controls": [{"hertz": 440.0}, {"hertz": 90.5}]}),
        Case(AUDIO),
    ],
    "overlap_add": [Case(Stream(100, 24), {"hop": 8}), Case(Stream(100, 24), {"hop": 8, "window": "hann"})],
    "pan": [Case(AUDIO, {"position": 0.3}), Case(Stream(16000, 2), {"position": "place"})],
    "pitch_tracker": [Case(AUDIO, {"hop": 160})],
    "pulse_source": [
        Case(Stream(100, 1), {"hop": 40, "contour": contour}, {"draw": voice_f0}) for contour in ("slope", "between")
    ],
    "q2d2": [
        Case(FRAMES, {"levels": 9, "channels": 5}),
        Case(FRAMES, {"levels": [5, 5, 3, 7], "dim": 6, "channels": 5}),
        Case(FRAMES, {"levels": [8, 8, 5, 6], "grid": "hexagonal", "channels": 5}),
        Case(FRAMES, {"levels": [13, 12], "grid": "rectangular", "channels": 5, "codes": False}),
    ],
    "q2d2_decode": [
        Case(Stream(50, 1), {"levels": 9, "channels": 5}, {"draw": draw_codes(145**3)}),
        Case(Stream(50, 1), {"levels": [4, 4], "grid": "hexagonal", "channels": 5}, {"draw": draw_codes(16)}),
    ],
    "repeat_upsample": [Case(FRAMES, {"factor": 3})],
    "register": [
        Case(
            Stream(100, 1),
            {"target": "register", "pitch": "pitch"},
            {"draw": voice_f0, "controls": [{"register": 200.0, "pitch": 1.0}, {"register": 110.0, "pitch": -3.0}]},
        ),
        Case(Stream(100, 1), {"pitch": 2.0, "memory": 1.0}, {"draw": voice_f0}),
    ],
    "residual_conv": [Case(FRAMES, {"kernel": 5, "dilation": 2}), Case(FRAMES, {"expand": 2})],
    "resampler": [
        Case(Stream(44100, 1), {"rate": 16000}),
        Case(Stream(16000, 1), {"rate": 44100}),
        Case(Stream(48000, 2), {"rate": 8000}),
        Case(Stream(16000, 1), {"rate": 48000}),
        Case(Stream(44100, 1), {"rate": 48000, "shift": "37/49"}),
    ],
    "spectral_product": [
        Case({"spectrum": Stream(50, 10), "envelope": Stream(50, 5)}),
        Case({"spectrum": Stream(50, 10), "envelope": Stream(50, 10)}),
    ],
    "spectral_shift": [
        Case(Stream(125, 258), {"hop": 64, "pitch": 3.0}),
        Case(
            Stream(125, 258),
            {"hop": 64, "pitch": "up", "formant": "wide"},
            {"draw": voice_spectra, "controls": [{"up": 2.0, "wide": -3.0}, {"up": -5.0, "wide": 1.0}]},
        ),
    ],
    "running_statistics": [Case(FRAMES)],
    "snake_conv": [Case(FRAMES, {"dilation": 2})],
    "room": [Case(AUDIO, {"seconds": 0.02, "partition": 32})],
    "saturation": [
        Case(AUDIO),
        *(Case(FRAMES, {"shape": shape, "drive_db": "hot"}, {"controls": {"hot": 9.0}}) for shape in ("soft", "hard")),
    ],
    "sidechain_compressor": [Case({"music": Stream(16000, 2), "voice": AUDIO})],
    "sidechain_gate": [Case({"music": Stream(16000, 2), "voice": AUDIO}, {"threshold_db": -3.0})],
    "spectral_denoise": [Case(Stream(125, 34)), Case(Stream(125, 34), {"strength": "amount"})],
    "split": [Case(FRAMES, {"parts": [1, 2, 3]})],
    "ssm": [Case(FRAMES)],
    "steep_highpass": [Case(Stream(16000, 2), {"frequency": 70.0})],
    "stft": [
        Case(AUDIO, {"n_fft": 64, "hop": 16}),
        Case(AUDIO, {"n_fft": 60, "hop": 25, "window": "rectangular"}),
        Case(AUDIO, {"n_fft": 2048, "hop": 512}),
    ],
    "striding_adapter": [
        Case(Stream(200, 8), {"channels": 3, "hidden": 4}),
        Case(Stream(200, 8), {"channels": 3, "hidden": 8, "factor": 3, "align": "first"}),
    ],
    "transformer": [
        Case(Stream(25, 8), {"layers": 2, "heads": 2, "window": 6, "ffn": 12}),
        Case(
            Stream(25, 8),
            {"layers": 2, "heads": 2, "window": 6, "ffn": 12, "condition": "speaker", "condition_channels": 5},
        ),
    ],
    "transformer_layer": [Case(Stream(25, 8), {"heads": 2, "window": 6, "ffn": 12, "rotary": "interleaved"})],
    "transposed_conv": [
        Case(FRAMES, {"channels": 4, "kernel": 14, "stride": 7}),
        Case(FRAMES, {"channels": 4, "kernel": 3, "stride": 2}),
    ],
    "wavlm_cnn": [
        Case(AUDIO, {"layers": 3, "channels": 4}),
        Case(AUDIO, {"channels": 3, "norm": "frozen"}),
        Case(AUDIO, {"layers": 2, "channels": 4, "norm": "layer", "bias": True}),
    ],
}


def test_every_registered_block_has_a_case() -> None:
    own = {name for name in block_names() if block_class(name).__module__.startswith("astrape.")}
    missing = sorted(own - set(CASES))
    assert not missing, f"no case for {', '.join(missing)}: add a line to CASES"


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name, cases in CASES.items() for index in range(len(cases))]
)
def test_every_block_keeps_the_contract(name: str, index: int) -> None:
    torch.manual_seed(0)
    case = CASES[name][index]
    block = block_class(name)(case.source, **case.params)
    check_block(block, examples=8, **case.check)
