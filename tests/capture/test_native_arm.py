"""The native kernels on ARM: the same sources and the same tests, built by a cross compiler and run under QEMU."""

from __future__ import annotations

import shutil

import pytest
import torch

from astrape.capture.native import building
from astrape.capture.native.instructions import WORDS, codes
from tests.capture.emulated import EmulatedLibrary, EmulatedProgram
from tests.capture.test_native import (
    native_step,
    test_a_weight_is_read_for_a_few_frames_at_once,
    test_an_index_out_of_range_is_an_error,
    test_attention_of_one_query_is_native,
    test_compiled_sessions_are_near,
    test_exact_kernels_give_the_same_to_the_last_bit,
    test_near_kernels_are_as_near_as_float64_says,
    test_one_breath_is_what_pytorch_takes,
    test_products_of_any_form,
    test_weights_that_float16_holds_are_read_as_such,
    test_whole_numbers_too,
    used,
)
from tests.capture.test_ordered import (
    test_a_norm_is_a_norm,
    test_a_row_is_summed_from_end_to_end,
    test_a_vector_of_its_own_for_each_of_a_batch,
    test_sums_are_those_that_are_written_out,
)

__all__ = [
    "test_a_norm_is_a_norm",
    "test_a_row_is_summed_from_end_to_end",
    "test_a_vector_of_its_own_for_each_of_a_batch",
    "test_a_weight_is_read_for_a_few_frames_at_once",
    "test_an_index_out_of_range_is_an_error",
    "test_attention_of_one_query_is_native",
    "test_compiled_sessions_are_near",
    "test_exact_kernels_give_the_same_to_the_last_bit",
    "test_near_kernels_are_as_near_as_float64_says",
    "test_one_breath_is_what_pytorch_takes",
    "test_products_of_any_form",
    "test_sums_are_those_that_are_written_out",
    "test_weights_that_float16_holds_are_read_as_such",
    "test_whole_numbers_too",
    "used",
]

pytestmark = pytest.mark.timeout(900)

COMPILERS = {"gcc": ("aarch64-linux-gnu-gcc",), "clang": ("clang", "--target=aarch64-linux-gnu")}


@pytest.fixture(scope="module", params=COMPILERS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EmulatedLibrary:
    try:
        return EmulatedLibrary(tmp_path_factory.mktemp("arm"), COMPILERS[request.param])
    except OSError as reason:
        pytest.skip(str(reason))


def test_the_library_has_the_same_table(kernels: EmulatedLibrary) -> None:
    assert kernels.form[0] == 8 * WORDS
    assert kernels.form[1] + kernels.form[2] == len(codes)
    assert kernels.form[3] == 1


def test_denormals_are_0_where_they_are_to_be(kernels: EmulatedLibrary) -> None:
    """In a push; and the processor is left as it was, for the program after it."""
    x = torch.tensor([1e-40, -1e-40, 0.5, 3e-38])
    captured = native_step(kernels, lambda x: x * 0.25, x, False, [x])
    (program,) = captured.kernels
    assert isinstance(program, EmulatedProgram)
    found = []
    for flush in (False, True, False):
        program.flush = flush
        found.append(captured.play(x).clone())
    assert torch.equal(found[0], x * 0.25)
    assert torch.equal(found[2], found[0])
    assert torch.equal(found[1], torch.tensor([0.0, 0.0, 0.125, 0.0]))


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_a_machine_of_arm_builds_what_others_of_it_load(monkeypatch, tmp_path, machine: str) -> None:
    """Linux and macOS have a name each for it, and what is built for one processor is what a wheel brings."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("'aarch64-linux-gnu-gcc' is not installed")
    monkeypatch.setenv("CC", "aarch64-linux-gnu-gcc")
    monkeypatch.setattr(building.platform, "machine", lambda: machine)
    monkeypatch.setattr(building, "COMMON", ("-O0", *building.COMMON[1:]))
    names = building.names.__wrapped__()
    monkeypatch.setattr(building, "names", lambda: names)
    path = building.build(tmp_path / "own")
    assert building.build_for_others(tmp_path / "others") == [tmp_path / "others" / path.name]
    assert names == (path.name,)
    assert int.from_bytes(path.read_bytes()[18:20], "little") == 0xB7  # ELF's number for it
