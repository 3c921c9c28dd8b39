"""Caches that cannot be made or read: recordings, disks, teachers, recipes, weights and records that are at fault."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from astrape.corpus.layouts import read_corpus
from astrape.training.caches import Cache, FrontEnd, StorageError, make_cache
from astrape.training.caches.files import ArrayFault, read_array, write_array
from astrape.training.caches.making import make_items
from astrape.training.caches.recording import read_recording
from astrape.training.errors import CacheError
from tests.training.corpora import LevelTeacher, arrays, order, recipe, speech, write


def test_what_cannot_be_read_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    root = tmp_path / "corpus" / "anna"
    write(root / "good.wav", speech(0, 1))
    write(root / "stereo.wav", np.stack([speech(0, 1), -0.5 * speech(0, 1)], axis=1))
    bad = speech(0, 1)
    bad[4000] = np.nan
    write(root / "nan.wav", bad, subtype="FLOAT")
    write(root / "none.wav", speech(0, 0))
    write(root / "short.wav", speech(0, 0.001))
    (root / "zero.wav").write_bytes(b"")
    (root / "junk.flac").write_bytes(b"junk" * 100)
    whole = write(root / "cut.flac", speech(0, 2)).read_bytes()
    (root / "cut.flac").write_bytes(whole[: len(whole) // 2])
    write(root / "slow.wav", speech(0, 1), rate=4000)
    write(root / "long.wav", np.zeros(8000 * 601, np.float32), rate=8000)
    corpus = read_corpus(tmp_path / "corpus")
    made = make_cache(order(tmp_path / "cache"), corpus)
    assert made.made == 2
    reasons = {one.key.split("/")[1]: one.error for one in made.failed}
    said = {
        "nan": "the sample at 0.250 s is not finite",
        "none": "holds no samples",
        "short": "one frame of 'features' takes",
        "zero": "is empty (0 bytes)",
        "junk": "is not a readable audio file",
        "cut": "cut.flac: ",
        "slow": "4000 Hz, and speech has 8000 to",
        "long": "601 s long, and an utterance has up to 600 s",
    }
    assert reasons.keys() == said.keys()
    for name, text in said.items():
        assert text in reasons[name], reasons[name]
    kept = {path.name for path in (tmp_path / "cache").rglob("*.npy")}
    assert kept == {"good.npy", "stereo.npy"}
    cache = Cache(tmp_path / "cache" / "wavlm_L2_800hz")
    held = cache.holdings()
    assert held.complete == {"anna/good", "anna/stereo"}
    assert held.failed == {f"anna/{name}" for name in said}
    assert cache.reason("anna/nan") == reasons["nan"]
    # Once it can be read, nothing is left of its fault.
    write(root / "nan.wav", speech(0, 1))
    assert make_cache(order(tmp_path / "cache"), corpus).made == 1
    assert cache.reason("anna/nan") is None
    stereo = read_recording(root / "stereo.wav", Fraction(16000))[0, 0].numpy()
    assert np.abs(stereo - 0.25 * speech(0, 1)).max() < 1e-4


def test_a_full_disk_ends_the_run_in_words_and_leaves_nothing_half(
    tmp_path: Path, corpus: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = order(tmp_path / "cache")
    make_cache(wanted, corpus[:2])
    written = 0
    real = os.fsync

    def full(handle: int) -> None:
        nonlocal written
        written += 1
        if written > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    hint = "hint: free space and run the same command again, which goes on from here"
    with pytest.raises(StorageError, match=rf"no space left on the device .*: {hint}"):
        make_cache(wanted, corpus)
    monkeypatch.undo()
    files = sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert len([name for name in files if name.endswith(".npy")]) == 5
    assert len(files) == 7
    assert make_cache(wanted, corpus).there == 5


def test_a_disk_that_is_too_small_is_found_out_before_the_work(
    tmp_path: Path, corpus: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=100_000))
    with pytest.raises(StorageError, match=r"takes 0\.3\d MB more, and 0\.10 MB are free there.*--limit"):
        make_cache(order(tmp_path / "cache"), corpus)
    assert not arrays(tmp_path / "cache")


def test_a_teacher_that_gives_nonsense_is_caught_by_utterance(
    tmp_path: Path, corpus: list[Any], level: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = order(tmp_path / "cache", "content", teacher=level)
    maker = wanted.open()
    cache = maker.prepare()
    items = maker.items(corpus[:1])
    for content, said in (
        (lambda _, audio: torch.full((1, 2, audio.shape[2] // 400), torch.nan), "is not finite"),
        (lambda _, audio: torch.zeros(1, 3, audio.shape[2] // 400), "is (1, 3,"),
        (lambda _, audio: torch.zeros(1, 2, 5), "gives 5 frames of content"),
        (lambda _, audio: 1 / 0, "ZeroDivisionError"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(LevelTeacher, "content", content)
            made, failed, _ = make_items(wanted, maker, cache, items)
        assert made == 0
        assert said in failed[0].error
    with monkeypatch.context() as patched:
        patched.setattr(LevelTeacher, "codes", lambda _, audio: torch.full((1, 1, audio.shape[2] // 400), 16))
        _, failed, _ = make_items(wanted, maker, cache, items)
    assert "of int64 below 16 are due" in failed[0].error
    assert not arrays(cache.folder)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("  features: features\n", ""), "does not say where training enters"),
        (("  features: features\n", "  features: mic\n"), "at the input 'mic' itself"),
        (("  features: features\n", "  features: nothing\n"), "has no output 'nothing'"),
        (("features: front}", "features: mic}"), "nothing to store"),
        (("rate: 44100, channels: 1", "rate: 400, channels: 1"), "and a cache is made of one input of audio"),
    ],
)
def test_recipes_without_a_front_end_are_refused(tmp_path: Path, changed: tuple[str, str], said: str) -> None:
    text = Path(recipe(tmp_path)).read_text()
    assert changed[0] in text
    if "400," in changed[1]:
        text = text.replace("{use: wavlm_cnn, layers: 3, channels: 8}", "{use: linear, channels: 8}")
        text = text.replace("  down: {use: resampler, rate: 16000}\n", "")
    path = tmp_path / "other.yaml"
    path.write_text(text.replace(*changed))
    with pytest.raises(CacheError) as caught:
        FrontEnd(str(path))
    assert said in str(caught.value)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    state = dict(FrontEnd(path).state)
    name = "front.conv_layers.1.conv.weight"
    for changed, said in (
        ({}, f"'{name}' is missing"),
        ({name: torch.zeros(1)}, f"'{name}' is (1,) and not (8, 8, 3)"),
        ({name: torch.full((8, 8, 3), torch.nan)}, f"'{name}' is not finite"),
    ):
        given = {key: tensor for key, tensor in state.items() if key != name} | changed
        save_file(given, tmp_path / "w.safetensors")
        with pytest.raises(CacheError) as caught:
            FrontEnd(path, weights=tmp_path / "w.safetensors")
        assert said in str(caught.value)
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(CacheError, match="cannot be read as safetensors"):
        FrontEnd(path, weights=tmp_path / "w.safetensors")


def test_arrays_are_mapped_and_what_is_no_array_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_array(path, array.T.copy().T)
    assert np.array_equal(read_array(path, np.float32, 3), array)
    assert np.array_equal(np.load(path), array)
    content = path.read_bytes()
    np.save(tmp_path / "double.npy", array.astype(np.float64))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(array))
    cases: dict[str, tuple[bytes, str]] = {
        "cut": (content[:-1], "truncated"),
        "longer": (content + b"x", "truncated"),
        "header": (content[:50], "truncated"),
        "zero": (b"", "empty"),
        "other": (b"no array at all" * 20, "unreadable"),
        "double": ((tmp_path / "double.npy").read_bytes(), "shape"),
        "fortran": ((tmp_path / "fortran.npy").read_bytes(), "shape"),
    }
    for held, kind in cases.values():
        path.write_bytes(held)
        with pytest.raises(ArrayFault) as caught:
            read_array(path, np.float32, 3)
        assert caught.value.kind == kind
    with pytest.raises(ArrayFault) as caught:
        read_array(tmp_path / "none.npy", np.float32, 3)
    assert caught.value.kind == "missing"


@pytest.mark.parametrize("held", ["", "{}", "[]", '{"what": "wavlm"}', '{"rate": "1/0"}', "\x00"])
def test_a_record_that_says_nothing_is_refused(tmp_path: Path, corpus: list[Any], held: str) -> None:
    wanted = order(tmp_path / "cache")
    make_cache(wanted, corpus[:1])
    (tmp_path / "cache" / "wavlm_L2_800hz" / "cache.json").write_text(held)
    with pytest.raises(CacheError, match="not a record of a cache"):
        make_cache(wanted, corpus)
