"""Random bytes changed in every kind of file that is read: it is refused, or what it says is what was written."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import astrape
from astrape.errors import AstrapeError, RecipeError
from astrape.graph.checksums import checked_sums, read_tensors
from astrape.graph.weights import load_weights, weights_metadata
from astrape.training.caches.files import ArrayFault, check_sum, read_array, write_array
from astrape.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from astrape.voice.checkpoint.archive import unpickled
from astrape.voice.metadata import Metadata
from astrape.voice.voicebank import Voicebank, read_voicebank, write_voicebank

TENSORS = {
    "a": torch.arange(300.0),
    "b.c": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "n": torch.tensor(7),
}
RECIPE = {
    "recipe": "small",
    "inputs": {"x": {"rate": 100, "channels": 4}},
    "blocks": {"one": {"use": "conv", "channels": 8, "kernel": 3}, "two": {"use": "linear", "channels": 4}},
    "outputs": {"y": "two"},
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return bool(one == other)


def checkpoint(path: Path) -> Callable[[], Any]:
    save_checkpoint(path, {"model": TENSORS, "step": 3})
    return lambda: load_checkpoint(path)


def original(path: Path) -> Callable[[], Any]:
    torch.save({"state_dict": TENSORS, "config": {"width": 3}}, path)
    return lambda: unpickled(path)


def weights(path: Path) -> Callable[[], Any]:
    save_weights(path, astrape.compile(RECIPE).state_dict(), {"recipe": "small"})

    def read() -> Any:
        graph = astrape.compile(RECIPE)
        load_weights(graph, path)
        return dict(graph.state_dict())

    return read


def array(path: Path) -> Callable[[], Any]:
    write_array(path, np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32))

    def read() -> Any:
        found = read_array(path, np.float32, 4)
        check_sum(path)
        return found.tobytes()

    return read


def voicebank(path: Path) -> Callable[[], Any]:
    about = Metadata(
        6.5, 44100, "speech.wav", "an encoder", "ab" * 32, peak_amplitude=0.5, extra={"note": "mine"}, sealed=True
    )
    write_voicebank(Voicebank(np.random.default_rng(0).standard_normal(128), about), path)

    def read() -> Any:
        found = read_voicebank(path)
        return found.embedding.tobytes(), found.metadata.to_dict()

    return read


KINDS = {"x.pt": checkpoint, "original.pt": original, "x.safetensors": weights, "x.npy": array, "x.astrape": voicebank}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_refused_or_say_what_they_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    read = KINDS[name](path)
    whole, sound = path.read_bytes(), read()
    generator = np.random.default_rng(11)
    refused = 0
    for _ in range(150):
        made = bytearray(whole)
        for place in generator.integers(0, len(made), generator.integers(1, 11)):
            made[place] ^= int(generator.integers(1, 256))
        path.write_bytes(made)
        try:
            found = read()
        except AstrapeError:
            refused += 1
            continue
        assert same(found, sound)
    # The rest are in padding, which nothing depends on.
    assert refused > 100
    path.write_bytes(whole)
    assert same(read(), sound)


@pytest.mark.parametrize("name", KINDS)
def test_a_single_byte_of_the_values_is_seen(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    read = KINDS[name](path)
    whole = path.read_bytes()
    middle = (
        len(whole) - 60 if name in ("x.npy", "x.safetensors") else whole.index(b"speech") if "astrape" in name else 0
    )
    middle = middle or whole.index(np.float32(299).tobytes())
    made = bytearray(whole)
    made[middle] ^= 1
    path.write_bytes(made)
    with pytest.raises(AstrapeError, match=r"damaged|CRC-32"):
        read()


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    graph = astrape.compile(RECIPE)
    save_file(graph.state_dict(), tmp_path / "plain.safetensors")
    load_weights(graph, tmp_path / "plain.safetensors")
    assert read_tensors(tmp_path / "plain.safetensors").keys() == graph.state_dict().keys()
    np.save(tmp_path / "plain.npy", np.zeros((2, 3), np.float32))
    check_sum(tmp_path / "plain.npy")
    # And what has them is read by others.
    write_array(tmp_path / "own.npy", np.arange(6.0, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(np.load(tmp_path / "own.npy"), np.arange(6.0).reshape(2, 3))


def test_what_weights_say_of_themselves_is_read_alone(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", TENSORS, {"recipe": "small", "epoch": "3"})
    assert {"recipe": "small", "epoch": "3"}.items() <= weights_metadata(tmp_path / "a.safetensors").items()
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(RecipeError, match="cannot be read as safetensors"):
        weights_metadata(tmp_path / "b.safetensors")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = astrape.compile(RECIPE).state_dict()
    name = next(iter(state))
    save_weights(tmp_path / "a.safetensors", state | {name: torch.full_like(state[name], torch.inf)}, {})
    with pytest.raises(RecipeError, match=f"'{name}' has weights that are not finite"):
        astrape.compile(RECIPE) and load_weights(astrape.compile(RECIPE), tmp_path / "a.safetensors")


def test_a_damaged_array_is_a_fault_of_its_cache(tmp_path: Path) -> None:
    write_array(tmp_path / "a.npy", np.zeros((2, 30), np.float32))
    content = bytearray((tmp_path / "a.npy").read_bytes())
    content[-5] ^= 4
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ArrayFault, match="not what was written") as caught:
        check_sum(tmp_path / "a.npy")
    assert caught.value.kind == "checksum"


@pytest.mark.parametrize("key", ["recipe", "speaker_encoder", "licence"])
def test_what_weights_say_of_themselves_is_checked_too(tmp_path: Path, key: str) -> None:
    """One bit of a text, as a disk may turn it; and a text that is gone."""
    path = tmp_path / "w.safetensors"
    about = {"recipe": "small", "speaker_encoder": "astrape-speaker", "licence": "MIT"}
    save_weights(path, TENSORS, about)
    whole = path.read_bytes()
    assert {name: weights_metadata(path)[name] for name in about} == about
    at = whole.index(f'"{about[key]}"'.encode()) + 1
    for changed in (
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        whole.replace(f'"{key}"'.encode(), f'"{key[:-1]}x"'.encode(), 1),
    ):
        path.write_bytes(changed)
        for read in (weights_metadata, read_tensors):
            with pytest.raises(RecipeError, match="metadata is not what was written"):
                read(path)


@pytest.mark.parametrize("name", ["astrape-mini", "astrape-speaker"])
def test_weights_that_ship_are_sealed(name: str) -> None:
    shipped = resources.files("astrape.recipes") / "weights" / f"{name}.safetensors"
    with resources.as_file(shipped) as path, safe_open(path, framework="pt") as file:
        assert set(checked_sums(file, path) or {}) == {*read_tensors(path), "__metadata__"}


def test_every_bit_of_a_header_counts(tmp_path: Path) -> None:
    """Whichever bit of a file's header turns, the file is refused: by safetensors itself, or by the checksums."""
    path = tmp_path / "w.safetensors"
    about = {"recipe": "small", "format": "pt", "steps": "10", "speaker_encoder": "astrape-speaker"}
    save_weights(path, {"a.bias": torch.arange(2.0), "a.weight": torch.ones(2, 1, 3)}, about)
    whole = path.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    for place in range(length):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(RecipeError):
                read_tensors(path)
