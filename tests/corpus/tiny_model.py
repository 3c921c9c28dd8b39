"""A model with the seams of Kokoro's, small enough to know what it gives: a tone and its third harmonic.

Frames of a token, F0 and level are simple functions of the token and of the two styles, written out in NumPy below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from astrape.corpus.kokoro import ACOUSTIC, DURATIONS, ENERGY, F0, FEATURES, PROSODY, STYLE_SPLIT

RATE = 24000


def durations(tokens: NDArray[np.int64], prosody: NDArray[np.float32], speed: float) -> NDArray[np.int64]:
    """Frames of each token, the silent ends among them."""
    ended = np.array([0, *tokens, 0])
    return np.maximum(1, np.round((2 + ended % 3 + prosody.mean()) / speed)).astype(np.int64)


def contour(tokens: NDArray[np.int64], prosody: NDArray[np.float32], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """F0 at 80 Hz."""
    spoken = np.repeat(np.array([0, *tokens, 0]), 2 * frames)
    return np.where(spoken > 0, 120 + 40 * prosody.mean() + 3 * (spoken % 7), 0).astype(np.float32)


def write_model(path: Path) -> None:
    """The ONNX file."""
    nodes: list[Any] = []
    constants: dict[str, Any] = {}

    def constant(value: Any, kind: Any = np.float32) -> str:
        name = f"c{len(constants)}"
        constants[name] = np.array(value, kind)
        return name

    def add(op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = output or f"t{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    whole = np.int64
    sizes = constant([128, 128], whole)
    nodes.append(helper.make_node("Split", ["style", sizes], [ACOUSTIC, PROSODY], name=STYLE_SPLIT, axis=1))
    mean = add("ReduceMean", [PROSODY], keepdims=0)
    flat = add("Squeeze", ["tokens", constant([0], whole)])
    rest = add("Cast", [add("Mod", [flat, constant(3, whole)])], to=TensorProto.FLOAT)
    long = add("Div", [add("Add", [add("Add", [rest, constant(2.0)]), mean]), "speed"])
    add("Cast", [add("Max", [add("Round", [long]), constant(1.0)])], DURATIONS, to=TensorProto.INT64)

    axis = constant(0, whole)
    until = add("CumSum", [DURATIONS, axis])
    total = add("ReduceSum", [DURATIONS], keepdims=0)
    frames = add("Range", [constant(0, whole), total, constant(1, whole)])
    past = add(
        "GreaterOrEqual",
        [add("Unsqueeze", [frames, constant([1], whole)]), add("Unsqueeze", [until, constant([0], whole)])],
    )
    which = add("ReduceSum", [add("Cast", [past], to=TensorProto.INT64), constant([1], whole)], keepdims=0)
    spoken = add("Gather", [flat, which])
    as_float = add("Cast", [spoken], to=TensorProto.FLOAT)
    add("Unsqueeze", [as_float, constant([0, 1], whole)], FEATURES)
    tune = add("Cast", [add("Mod", [spoken, constant(7, whole)])], to=TensorProto.FLOAT)
    base = add("Add", [add("Mul", [mean, constant(40.0)]), constant(120.0)])
    hertz = add("Add", [add("Mul", [tune, constant(3.0)]), base])
    voiced = add("Where", [add("Greater", [as_float, constant(0.0)]), hertz, constant(0.0)])

    def repeated(name: str, count: int, output: str | None = None) -> str:
        column = add("Unsqueeze", [add("Reshape", [name, constant([-1], whole)]), constant([1], whole)])
        tiled = add("Tile", [column, constant([1, count], whole)])
        return add("Reshape", [tiled, constant([1, -1], whole)], output)

    repeated(voiced, 2, F0)
    add("Cast", [add("Greater", [F0, constant(0.0)])], ENERGY, to=TensorProto.FLOAT)

    per_sample = add("Div", [repeated(F0, 300), constant(float(RATE))])
    phase = add("Mul", [add("CumSum", [per_sample, constant(1, whole)]), constant(2 * np.pi)])
    third = add("Mul", [add("Sin", [add("Mul", [phase, constant(3.0)])]), add("ReduceMean", [ACOUSTIC], keepdims=0)])
    level = add("Add", [add("Mul", [add("Sin", [repeated(FEATURES, 600)]), constant(0.1)]), constant(0.3)])
    wave = add("Mul", [add("Add", [add("Sin", [phase]), third]), add("Mul", [level, repeated(ENERGY, 300)])])
    add("Reshape", [wave, constant([-1], whole)], "audio")

    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "n"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    outputs = [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["samples"])]
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
