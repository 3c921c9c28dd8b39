"""A quantum as ONNX: one model of the step with explicit state, and one of what controls come to.

``torch.export`` takes the step apart into functional operators with static shapes, and ``torch.onnx.export`` writes
each of them. All that is ours is the policy ``portable``, by which blocks stay within what ONNX has. A converter of our
own would be faster (this one takes 12 s of computing for astrape-mini), but every block that is added would have to be
added to it, where these two know all of PyTorch's operators already.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from astrape.errors import ExportError
from astrape.graph.quantum import Leaf, Quantum
from astrape.portable.names import CONTROL, INPUT, NEXT, OUTPUT, PREPARED, STATE
from astrape.wording import lacking, one_line

__all__ = ["Models", "onnx_models", "traced"]

OPSET = 20
"""ONNX operator set, of 2023: supported by ONNX Runtime 1.17 and later."""

HALF = ".half"

FEWEST_HALVES = 64
"""Numbers of a constant from which on half of its bytes are more than what a cast takes."""

LARGEST = (1 << 31) - (1 << 24)
"""Bytes of a model in one file."""


class Models(NamedTuple):
    """Models as bytes; ``controls`` is ``None`` for a graph that listens to none."""

    step: bytes
    controls: bytes | None


def onnx_models(quantum: Quantum, controls: bool = True, halves: bool = False) -> Models:
    """Both models of a quantum, made by the policy ``portable``; that of the controls only if it is wanted.

    With ``halves``, weights and tables that float16 holds to the last bit lie in the file so, and are made float32
    again when it is loaded: a runtime folds constants then.

    Raises:
        ExportError: without onnx and onnxscript, for another precision than float32, and for a graph with an operator
            that ONNX has not; it is named.
    """
    if quantum.graph.dtype != torch.float32:
        raise ExportError(f"'{quantum.graph.name}' is {quantum.graph.dtype}: ONNX Runtime takes float32, use float()")
    entering = [*_named(INPUT, quantum.inputs), *_named(PREPARED, quantum.prepared), *_named(STATE, quantum.state)]
    leaving = [*_named(OUTPUT, quantum.outputs), *_named(NEXT, quantum.state)]
    step = _model(quantum.step, quantum.example(), entering, leaving, quantum.graph.name, halves)
    if not quantum.prepared or not controls:
        return Models(step, None)
    values = list(quantum.some_controls().values())
    names = [CONTROL + name for name in quantum.graph.controls]
    made = _named(PREPARED, quantum.prepared)
    return Models(step, _model(quantum.controls, values, names, made, quantum.graph.name, halves))


def traced(module: nn.Module, arguments: Sequence[Tensor], name: str) -> torch.export.ExportedProgram:
    """A module as functional operators with static shapes.

    Raises:
        ExportError: where what it does depends on values.
    """
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(module, tuple(arguments), strict=False)
    except Exception as error:
        raise ExportError(f"'{name}' cannot be traced: {_line(error)}") from error


def _model(
    module: nn.Module,
    arguments: Sequence[Tensor],
    entering: Sequence[str],
    leaving: Sequence[str],
    name: str,
    halves: bool,
) -> bytes:
    try:
        from onnxscript import optimizer
    except ImportError as error:
        raise ExportError(lacking("a graph in ONNX", str(error.name), "export")) from error
    program = traced(module, arguments, name)
    try:
        with torch.no_grad(), quiet():
            found = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=list(entering),
                output_names=list(leaving),
                opset_version=OPSET,
                optimize=False,
            )
            assert found is not None
            # What is constant is computed now. The exporter's own clean-up tries rewriting rules beside that, which
            # takes 12 s and not half a second, for a step that is no faster.
            optimizer.fold_constants(found.model)
            optimizer.remove_unused_nodes(found.model)
        model = found.model_proto
    except Exception as error:
        raise ExportError(f"'{name}' has an operator that ONNX has not: {_line(error)}") from error
    found_names = [[item.name for item in model.graph.input], [item.name for item in model.graph.output]]
    if found_names != [list(entering), list(leaving)]:
        wrong = sorted({*found_names[0], *found_names[1]} ^ {*entering, *leaving})
        raise ExportError(f"'{name}' exported has other inputs and outputs than it was to have: {', '.join(wrong[:6])}")
    if halves:
        _narrow(model)
    if model.ByteSize() > LARGEST:
        raise ExportError(f"'{name}' has {model.ByteSize()} bytes of weights and tables, and a model at most {LARGEST}")
    content: bytes = model.SerializeToString()
    return content


def _narrow(model: Any) -> None:
    """Have constants lie as float16 that it holds to the last bit, each with a cast before all that the model does."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for held in model.graph.initializer:
        values = numpy_helper.to_array(held) if held.data_type == TensorProto.FLOAT else np.zeros(0)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size >= FEWEST_HALVES and np.array_equal(half.astype(np.float32), values):
            casts.append(helper.make_node("Cast", [held.name + HALF], [held.name], to=TensorProto.FLOAT))
            held.CopyFrom(numpy_helper.from_array(half, held.name + HALF))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _named(prefix: str, leaves: Sequence[Leaf]) -> list[str]:
    return [prefix + leaf.name for leaf in leaves]


@contextmanager
def quiet() -> Iterator[None]:
    """Context without the exporters' messages to their own developers."""
    heard = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("onnx_ir")
    levels = [logger.level for logger in heard]
    for logger in heard:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(heard, levels, strict=True):
            logger.setLevel(level)


def _line(error: BaseException) -> str:
    """The innermost reason, in one line."""
    reason: Any = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    return one_line(reason, 300)
