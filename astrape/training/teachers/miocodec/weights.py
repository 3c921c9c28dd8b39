"""Reading weights: what is missing, unknown or of another shape is named before any of it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astrape.graph.checksums import checked_tensors
from astrape.graph.fitting import listed, mismatches
from astrape.training.errors import TeacherError
from astrape.voice.checkpoint.archive import CheckpointError, unpickled
from astrape.wording import reason_of

__all__ = ["LARGEST_FILE", "TensorFile", "fill", "open_tensors"]

LARGEST_FILE = 4 << 30
"""Bytes. MioCodec has 0.53 GB, all of WavLM 0.38 GB, a file with both and what only training needs about 1.1 GB."""

Read = Callable[[str], Tensor]


class TensorFile:
    """Names and shapes of a file's tensors, each of which is read when it is asked for."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]], read: Read) -> None:
        self.path, self.shapes, self._read = path, shapes, read

    def __call__(self, name: str) -> Tensor:
        """A tensor as float32.

        Raises:
            TeacherError: for whole numbers, values that are not finite, and damaged files.
        """
        try:
            tensor = self._read(name)
        except Exception as error:
            raise TeacherError(f"{self.path}: '{name}' cannot be read: {error}") from error
        if not tensor.is_floating_point():
            raise TeacherError(f"{self.path}: '{name}' holds {tensor.dtype}, not floating numbers")
        if not bool(torch.isfinite(tensor).all()):
            raise TeacherError(f"{self.path}: '{name}' holds numbers that are not finite")
        return tensor.to(torch.float32)


def open_tensors(path: Path) -> TensorFile:
    """A file of safetensors, or a state dict that ``torch.load(weights_only=True)`` takes, so that nothing in it runs.

    Raises:
        TeacherError: for files that are too large, cannot be read, or hold something else.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise TeacherError(f"{path}: cannot be read: {reason_of(error)}") from error
    if size > LARGEST_FILE:
        raise TeacherError(f"{path}: has {size} bytes, more than {LARGEST_FILE}: this is not such a checkpoint")
    return _safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)


def _safetensors(path: Path) -> TensorFile:
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(os.fspath(path), framework="pt")
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise TeacherError(f"{path}: cannot be read as safetensors: {error}") from error
    return TensorFile(path, shapes, lambda name: checked_tensors(opened, [name], path)[name])


def _unpickled(path: Path) -> TensorFile:
    try:
        content = unpickled(path, legacy=True)
    except CheckpointError as error:
        raise TeacherError(str(error)) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise TeacherError(f"{path}: holds a {type(content).__name__} and no state dict")
    state: dict[str, Any] = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    # Copies: they are mapped from the file, which may be written again while the teacher is there.
    return TensorFile(
        path, {name: tuple(value.shape) for name, value in state.items()}, lambda name: state[name].clone()
    )


def fill(module: nn.Module, file: TensorFile, sources: Mapping[str, str], ignored: Iterable[str] = ()) -> None:
    """Give a module, built without memory of its own, the tensors of a file.

    Args:
        module: its parameters are on the ``meta`` device, whose shapes are those that the file has to have.
        file: an opened file.
        sources: for each parameter of the module, the name in the file. A name that ends in ``.weight`` may be there
            as the two parts of a weight norm instead: magnitude and direction, which are put together.
        ignored: names of the file that nothing takes.

    Raises:
        TeacherError: for tensors that are missing, unknown or of another shape: the first five of them named.
    """
    own = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    parts = {name: _normed(file, sources[name]) for name in own}
    # A weight norm's direction has the shape of the weight; its magnitude one number for each index of one dimension.
    wanted = {pair[1] if (pair := parts[name]) else sources[name]: shape for name, shape in own.items()}
    magnitudes = {pair[0]: own[name] for name, pair in parts.items() if pair}
    rest = {name: shape for name, shape in file.shapes.items() if name not in magnitudes and name not in set(ignored)}
    wrong = mismatches(wanted, rest)
    wrong += [
        f"'{name}' is {file.shapes[name]}, which is not a magnitude for {shape}"
        for name, shape in magnitudes.items()
        if not _magnitudes_fit(file.shapes[name], shape)
    ]
    if wrong:
        raise TeacherError(f"{file.path}: does not fit its model: {listed(wrong)}")
    state = {}
    for name in own:
        pair = parts[name]
        state[name] = _denormed(file(pair[0]), file(pair[1])) if pair else file(sources[name])
    module.load_state_dict(state, assign=True)


def _normed(file: TensorFile, source: str) -> tuple[str, str] | None:
    """Names of magnitude and direction, if the file has a weight in these two parts."""
    stem = source.removesuffix(".weight")
    if stem == source:
        return None
    for pair in (
        (f"{stem}.parametrizations.weight.original0", f"{stem}.parametrizations.weight.original1"),
        (f"{stem}.weight_g", f"{stem}.weight_v"),
    ):
        if all(name in file.shapes for name in pair):
            return pair
    return None


def _magnitudes_fit(magnitudes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether there is one magnitude for each index of one dimension."""
    kept = [axis for axis, count in enumerate(magnitudes) if count != 1]
    return len(magnitudes) == len(shape) and len(kept) <= 1 and all(magnitudes[axis] == shape[axis] for axis in kept)


def _denormed(magnitude: Tensor, direction: Tensor) -> Tensor:
    over = [axis for axis, count in enumerate(magnitude.shape) if count == 1]
    weight: Tensor = direction * (magnitude / torch.linalg.vector_norm(direction, dim=over, keepdim=True))
    return weight
