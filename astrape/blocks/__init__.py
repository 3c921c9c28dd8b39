"""Strictly causal blocks: the base class, the names recipes know, and every family that comes with the package.

Importing this package registers all of them. A family imports :mod:`astrape.blocks.base`,
:mod:`astrape.blocks.registry` and the modules of the families it builds on, never this package, so that the order of
the lines below does not matter.
"""

from __future__ import annotations

from astrape.blocks.activation import Activation
from astrape.blocks.adaln import AdaLN
from astrape.blocks.adapter import StridingAdapter
from astrape.blocks.attention import Attention
from astrape.blocks.bands import BandEnvelope, SpectralProduct
from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.channels import Matrix, Pan
from astrape.blocks.compose import Parallel, Residual, Sequential
from astrape.blocks.conv import Conv, Downsample, RepeatUpsample, TransposedConv
from astrape.blocks.convolve import Convolve, Room
from astrape.blocks.crossover import Crossover
from astrape.blocks.denoise import SpectralDenoise
from astrape.blocks.dynamics import Compressor, Gate
from astrape.blocks.filter import FIR, Biquad, DCBlock, SteepHighpass
from astrape.blocks.framing import Framing, OverlapAdd
from astrape.blocks.gated import AdaptiveConv, GatedSkip
from astrape.blocks.harmonic import HarmonicSource
from astrape.blocks.hilbert import Hilbert
from astrape.blocks.hindsight import Hindsight
from astrape.blocks.limiter import Limiter, Saturation
from astrape.blocks.linear import Affine, Linear
from astrape.blocks.mel import Mel
from astrape.blocks.norm import Norm
from astrape.blocks.oscillator import Oscillator
from astrape.blocks.pitch import PitchTracker
from astrape.blocks.plumbing import Add, Concat, Delay, Gain, Mix, Multiply, Split
from astrape.blocks.prosody import LogPitch, Loudness, Register
from astrape.blocks.quantize import FSQ, Q2D2, FSQDecode, Q2D2Decode
from astrape.blocks.recurrent import GRU, SSM
from astrape.blocks.registry import block_class, block_names, register
from astrape.blocks.resample import Resampler
from astrape.blocks.residual import ResidualConv, SnakeConv
from astrape.blocks.shift import SpectralShift
from astrape.blocks.sidechain import Envelope, SidechainCompressor, SidechainGate
from astrape.blocks.sources import Noise, PulseSource
from astrape.blocks.spectral import ISTFT, STFT, ExpPolar, Magnitude
from astrape.blocks.statistics import RunningStatistics
from astrape.blocks.transformer import Transformer, TransformerLayer
from astrape.blocks.wavlm import WavLMCNN

__all__ = [
    "FIR",
    "FSQ",
    "GRU",
    "ISTFT",
    "Q2D2",
    "SSM",
    "STFT",
    "Activation",
    "AdaLN",
    "AdaptiveConv",
    "Add",
    "Affine",
    "Attention",
    "BandEnvelope",
    "Biquad",
    "Compressor",
    "Concat",
    "Conv",
    "Convolve",
    "Crossover",
    "DCBlock",
    "Delay",
    "Downsample",
    "Envelope",
    "ExpPolar",
    "FSQDecode",
    "Framing",
    "Gain",
    "Gate",
    "GatedSkip",
    "HarmonicSource",
    "Hilbert",
    "Hindsight",
    "Limiter",
    "Linear",
    "LogPitch",
    "Loudness",
    "Magnitude",
    "Matrix",
    "Mel",
    "Mix",
    "Multiply",
    "Noise",
    "Norm",
    "Oscillator",
    "OverlapAdd",
    "Pan",
    "Parallel",
    "PitchTracker",
    "PulseSource",
    "Q2D2Decode",
    "Register",
    "RepeatUpsample",
    "Resampler",
    "Residual",
    "ResidualConv",
    "Room",
    "RunningStatistics",
    "Saturation",
    "Sequential",
    "SidechainCompressor",
    "SidechainGate",
    "Signal",
    "SnakeConv",
    "SpectralDenoise",
    "SpectralProduct",
    "SpectralShift",
    "Split",
    "State",
    "SteepHighpass",
    "Stream",
    "StreamBlock",
    "StridingAdapter",
    "Transformer",
    "TransformerLayer",
    "TransposedConv",
    "WavLMCNN",
    "block_class",
    "block_names",
    "register",
]
