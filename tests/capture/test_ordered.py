"""Products and norms in PyTorch's own order: as sums written out, as PyTorch's, and left out where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import astrape
from astrape.capture.lowering import Memory
from astrape.capture.native import ordered
from astrape.capture.native.instructions import codes
from astrape.capture.native.library import Library
from astrape.capture.native.narrow import Weights
from astrape.capture.native.ordered import APART, FUSED
from astrape.capture.step import CapturedStep
from tests.capture.test_native import kernels, used

__all__ = ["kernels", "used"]

pytestmark = pytest.mark.timeout(900)

aten = torch.ops.aten

FORMS = [(160, 320), (12, 8), (331, 80), (9, 400)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def written_out(matrix: Tensor, vector: Tensor, bias: Tensor | None, way: int) -> Tensor:
    """Each of eight lanes by itself, number after number, and then halves of them together, in NumPy."""
    w, x = matrix.double().numpy(), vector.double().numpy()
    total = np.zeros((len(w), 8), np.float32)
    for k in range(0, w.shape[1], 8):
        product = w[:, k : k + 8] * x[k : k + 8]  # exact: 48 bits of 53
        if way == APART:
            total += product.astype(np.float32)
        else:
            total = fused(product, total)
    for half in (4, 2, 1):
        total = total[:, :half] + total[:, half:]
    found = torch.from_numpy(total[:, 0])
    return found if bias is None else found + bias


def fused(product: Any, total: Any) -> Any:
    """An exact product and a float32 as one float32: what the sum in float64 leaves out decides where it is halfway."""
    wide = total.astype(np.float64)
    found = product + wide
    left = (product - (found - (found - product))) + (wide - (found - product))
    odd = (left != 0) & ((found.view(np.int64) & 1) == 0)
    return np.where(odd, np.nextafter(found, np.where(left > 0, np.inf, -np.inf)), found).astype(np.float32)


def instructions(way: int, halves: Tensor | None, operator: Any, *args: Any) -> tuple[list[Any], Tensor]:
    """A product by one way; where ``halves`` is its matrix, as it is read by registers."""
    place = torch.full((*args[-2].shape[:2], 1), torch.nan)
    made = ordered.ordered(operator, args, {}, place)
    assert made is not None
    found = made.ways[way]
    if halves is not None:
        weights = Weights(lambda: {halves.untyped_storage().data_ptr()})
        found = [read for one in found if (read := weights.read(one)) is not None]
        assert len(found) == 1
    return found, place


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("way", [FUSED, APART])
@pytest.mark.parametrize(("rows", "sums"), FORMS)
def test_sums_are_those_that_are_written_out(kernels: Library, rows: int, sums: int, way: int, copied: bool) -> None:
    for narrow in (False, True):
        weight, column = noise(2, rows, sums), noise(1, 1, sums, seed=1).mT.expand(2, -1, 1)
        weight = weight.half().float() if narrow else weight
        for bias in (None, noise(2, rows, 1, seed=2)):
            operator, given = (aten.bmm, ()) if bias is None else (aten.baddbmm, (bias,))
            made, place = instructions(way, weight if copied else None, operator.default, *given, weight, column)
            kernel = "halves" if narrow and copied else "product"
            assert [one.code for one in made] == [codes[f"{kernel}_in_order_f"]]
            kernels.program(made)()
            flat = None if bias is None else bias.flatten()
            assert torch.equal(place.flatten(), written_out(weight.flatten(0, 1), column[0, :, 0], flat, way))


def test_a_vector_of_its_own_for_each_of_a_batch(kernels: Library) -> None:
    weight, columns = noise(3, 13, 24), noise(3, 24, 1, seed=1)
    for copied in (None, weight):
        made, place = instructions(APART, copied, aten.bmm.default, weight, columns)
        kernels.program(made)()
        for got, matrix, vector in zip(place, weight, columns, strict=True):
            assert torch.equal(got[:, 0], written_out(matrix, vector[:, 0], None, APART))


@pytest.mark.parametrize("way", [FUSED, APART])
@pytest.mark.parametrize(
    ("batch", "sums", "columns"),
    [(7, 283, 24), (2, 31, 8), (1, 64, 48), (3, 40, 32), (4, 187, 49), (2, 40, 9), (1, 30, 63)],
)
def test_a_row_is_summed_from_end_to_end(kernels: Library, batch: int, sums: int, columns: int, way: int) -> None:
    row, matrix = noise(batch * sums).as_strided((batch, 1, sums), (3, sums, 1)), noise(batch, sums, columns, seed=1)
    place = torch.full((batch, 1, columns), torch.nan)
    made = ordered.ordered(aten.bmm.default, (row, matrix), {}, place)
    assert made is not None
    kernels.program(made.ways[way])()
    total = np.zeros((batch, columns), np.float32)
    for k in range(sums):
        product = row[:, :, k].double().numpy() * matrix[:, k].double().numpy()
        total = fused(product, total) if way == FUSED else total + product.astype(np.float32)
    assert torch.equal(place[:, 0], torch.from_numpy(total))


@pytest.mark.parametrize("size", [8, 24, 128, 136, 264, 320, 512, 1000, 3000])
@pytest.mark.parametrize("parts", [True, False])
def test_a_norm_is_a_norm(kernels: Library, size: int, parts: bool) -> None:
    """Beside float64; to the last bit beside PyTorch is what a capture asks."""
    x = 3 * noise(2, 3, size) + 1
    weight, bias = (noise(size, seed=1), noise(size, seed=2)) if parts else (None, None)
    place = torch.full_like(x, torch.nan)
    made = ordered.ordered(aten.native_layer_norm.default, (x, [size], weight, bias, 1e-5), {}, place)
    assert made is not None
    kernels.program(made.ways[0])()
    wide = [None if one is None else one.double() for one in (weight, bias)]
    torch.testing.assert_close(
        place.double(), torch.nn.functional.layer_norm(x.double(), [size], *wide, 1e-5), rtol=4e-6, atol=4e-6
    )


def test_what_is_taken_is_pytorchs_to_the_last_bit(kernels: Library) -> None:
    """On a machine whose libraries sum otherwise nothing is taken, and the numbers are the same."""
    weight, bias, scale, shift = noise(96, 64), noise(96), noise(96, seed=3), noise(96, seed=4)

    def function(fresh: Tensor, state: Any) -> tuple[Tensor, Any]:
        columns = fresh.reshape(1, 1, -1).mT.expand(2, -1, 1)
        y = torch.baddbmm(bias.view(2, -1, 1), weight.view(2, 48, 64), columns)
        return torch.nn.functional.layer_norm(y.reshape(1, 96), [96], scale, shift), state

    draws = [noise(64, seed=seed) for seed in range(12)]
    captured = CapturedStep(function, draws[0], (), Memory())
    captured.go_native(kernels, False, draws[:2], Weights(lambda: {weight.untyped_storage().data_ptr()}))
    for x in draws:
        assert torch.equal(captured.play(x), function(x, ())[0])


def test_another_order_than_pytorchs_is_left_out(kernels: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found out on noise, even where it gives the right numbers for all that a step is captured on."""
    weight, zero = noise(2, 48, 64), torch.zeros(64)
    make = ordered.ORDERED[aten.bmm.default]

    def short(*given: Any) -> Any:
        ways = make(*given)
        for (one,) in ways:
            one.sizes[3] -= 8
        return ways

    def function(fresh: Tensor, state: Any) -> tuple[Tensor, Any]:
        return torch.bmm(weight, fresh.reshape(1, 1, -1).mT.expand(2, -1, 1)), state

    monkeypatch.setitem(ordered.ORDERED, aten.bmm.default, short)
    monkeypatch.setattr(ordered, "_tried", {})
    captured = CapturedStep(function, zero, (), Memory())
    captured.go_native(kernels, False, [zero])
    x = noise(64)
    assert torch.equal(captured.play(x), function(x, ())[0])


def test_forms_that_are_not_a_frame_have_no_order() -> None:
    column, place = noise(2, 24, 1), torch.empty(2, 16, 1)
    for args in (
        (noise(2, 16, 20), noise(2, 20, 1)),  # no whole registers
        (noise(2, 16, 24), noise(2, 24, 3)),  # more than a vector
        (noise(2, 24, 16).mT, column),  # column by column
        (noise(2, 16, 24), noise(2, 48, 1)[:, ::2]),  # a vector with gaps
        (noise(2, 16, 24).double(), column.double()),
        (noise(2, 1, 24), noise(2, 24, 7)),  # fewer columns than a register has
        (noise(2, 1, 24), noise(2, 24, 32)[..., 4:12]),  # that lie between registers
        (noise(2, 1, 4), noise(2, 4, 8)),  # too few to tell an order by
    ):
        shape = (2, args[0].shape[1], args[1].shape[-1])
        assert ordered.ordered(aten.bmm.default, args, {}, torch.empty(shape, dtype=args[0].dtype)) is None
    assert ordered.ordered(aten.bmm.default, (noise(2, 16, 24), column), {}, place) is not None
    uneven = noise(3, 12)
    assert ordered.ordered(aten.native_layer_norm.default, (uneven, [12], None, None, 1e-5), {}, uneven) is None


def test_a_matrix_that_may_change_is_read_where_it_lies_or_by_pytorch() -> None:
    weights = Weights(set)
    for rows, taken in ((16, True), (1024, False)):
        made = ordered.ordered(aten.bmm.default, (noise(1, rows, 64), noise(1, 64, 1)), {}, torch.empty(1, rows, 1))
        assert made is not None
        assert (weights.read(made.ways[0][0]) is not None) == taken


def test_a_recorded_session_of_the_voice_is_the_blocks_own_numbers(used: Library) -> None:
    graph = astrape.load("astrape-mini")
    sessions = [graph.stream(chunk=441, backend="recorded"), graph.stream()]
    generator = torch.Generator().manual_seed(1)
    controls = {"speaker": torch.randn(128, generator=generator)}
    for _ in range(30):
        x = 0.1 * torch.randn(1, 1, 441, generator=generator)
        got, want = (session.push(x, **controls) for session in sessions)
        assert all(torch.equal(got[name], want[name]) for name in want)
        controls = {}
