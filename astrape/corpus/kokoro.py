"""Kokoro-82M in three parts, so that one sentence can be rendered in any number of voices, in step to the sample.

Kokoro (Apache-2.0, 24 kHz, a StyleTTS 2) comes as one ONNX graph that takes tokens and a style: 128 numbers of acoustic
style, then 128 of prosody. Cut in memory at the durations and at the contours, it gives

=========  ===================================================  =====================================================
part       takes                                                gives
=========  ===================================================  =====================================================
durations  tokens, prosody style, speed                         frames per token, 40 a second
contours   tokens, prosody style, durations                     F0 in Hz and energy, 80 a second; features, 40 a second
decoder    features, F0, energy, acoustic style                 audio, 600 samples a frame of 40
=========  ===================================================  =====================================================

Chained, the parts give what the whole gives. With durations and contours held, only the voice changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.utils import Extractor

__all__ = ["FRAME_SAMPLES", "SAMPLE_RATE", "Contours", "Kokoro"]

SAMPLE_RATE = 24000
FRAME_SAMPLES = 600
"""Samples to a frame of the durations: 40 frames a second."""

STYLE_SPLIT = "/decoder/Slice/GatherSliceToSplitFusion/"
ACOUSTIC, PROSODY = "/decoder/Slice_output_0", "/encoder/Slice_output_0"
DURATIONS = "/encoder/Gather_output_0"
F0, ENERGY = "/encoder/Squeeze_output_0", "/encoder/Squeeze_1_output_0"
FEATURES = "/encoder/MatMul_1_output_0"

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Contours:
    """The words and their prosody, without who speaks.

    Attributes:
        features: aligned text, ``(1, 512, frames)`` at 40 Hz.
        f0: fundamental, Hz, ``(1, 2 * frames)`` at 80 Hz; small or negative where unvoiced.
        energy: ``(1, 2 * frames)`` at 80 Hz.
    """

    features: Floats
    f0: Floats
    energy: Floats


class Kokoro:
    """The three parts, ready to run on one thread.

    Args:
        path: the whole model's ONNX file.
        threads: of each part; 1, since work is spread over processes.
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        model = onnx.load(str(path))
        _split_style(model)
        cutter = Extractor(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads

        def part(inputs: list[str], outputs: list[str]) -> Any:
            cut = cutter.extract_model(inputs, outputs)
            return onnxruntime.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])

        self._durations = part(["tokens", PROSODY, "speed"], [DURATIONS])
        self._contours = part(["tokens", PROSODY, DURATIONS], [F0, ENERGY, FEATURES])
        self._decoder = part([FEATURES, F0, ENERGY, ACOUSTIC], ["audio"])

    def durations(self, tokens: Integers, prosody: Floats, speed: float) -> Integers:
        """Frames of each token, the two silent ends included: ``(len(tokens) + 2,)``."""
        given = {"tokens": _ended(tokens), PROSODY: _row(prosody), "speed": np.array([speed], np.float32)}
        found: Integers = self._durations.run(None, given)[0]
        return found.reshape(-1)

    def contours(self, tokens: Integers, prosody: Floats, durations: Integers) -> Contours:
        given = {"tokens": _ended(tokens), PROSODY: _row(prosody), DURATIONS: self._shaped(durations)}
        f0, energy, features = self._contours.run(None, given)
        return Contours(features, f0, energy)

    def render(self, contours: Contours, acoustic: Floats, *, f0: Floats | None = None) -> Floats:
        """Audio in the voice of an acoustic style: ``(600 * frames,)``."""
        given = {
            FEATURES: contours.features,
            F0: contours.f0 if f0 is None else f0,
            ENERGY: contours.energy,
            ACOUSTIC: _row(acoustic),
        }
        audio: Floats = self._decoder.run(None, given)[0]
        return audio.reshape(-1)

    def _shaped(self, durations: Integers) -> Integers:
        rank = len(self._contours.get_inputs()[-1].shape)
        return durations.reshape((1,) * (rank - 1) + (-1,))


def _ended(tokens: Integers) -> Integers:
    return np.array([[0, *tokens, 0]], dtype=np.int64)


def _row(style: Floats) -> Floats:
    return np.asarray(style, np.float32).reshape(1, 128)


def _split_style(model: Any) -> None:
    """Replaces the node that splits the style by two inputs, acoustic and prosody."""
    graph = model.graph
    split = next(node for node in graph.node if node.name == STYLE_SPLIT)
    graph.node.remove(split)
    style = next(value for value in graph.input if value.name == "style")
    graph.input.remove(style)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 128]) for name in (ACOUSTIC, PROSODY))
    known = {value.name for value in graph.value_info}
    types = {DURATIONS: TensorProto.INT64}
    for name in (DURATIONS, F0, ENERGY, FEATURES):
        if name not in known:
            graph.value_info.append(helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None))
