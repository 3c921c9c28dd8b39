"""Native kernels: exact where they say so, near where they do, and left out where they are wrong."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import astrape
from astrape.capture import checked, step
from astrape.capture.lowering import Memory
from astrape.capture.native import building, near, translate
from astrape.capture.native import library as libraries
from astrape.capture.native.instructions import codes
from astrape.capture.native.library import Library, Program, build_library
from astrape.capture.native.narrow import Weights
from astrape.capture.step import CapturedStep
from astrape.errors import StreamError
from astrape.graph.backends import native as backend
from astrape.graph.backends.native import quickest
from astrape.graph.session import steady
from tests.capture.test_kernels import ONES, REAL, WHOLE

pytestmark = pytest.mark.timeout(900)

aten = torch.ops.aten


@pytest.fixture(scope="session")
def kernels(tmp_path_factory) -> Library:
    """The library as this tree's sources make it."""
    try:
        return Library(build_library(tmp_path_factory.mktemp("native")))
    except OSError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def used(kernels: Library, monkeypatch) -> Library:
    """The library, for every session."""
    monkeypatch.setattr(checked, "library", lambda: kernels)
    monkeypatch.setattr(backend, "library", lambda build=False: kernels)
    monkeypatch.setattr(steady, "library", lambda: kernels)
    return kernels


def values(dtype: torch.dtype, count: int = 6) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(4)
    for index in range(count):
        yield (torch.randn(2, 3, 5, generator=generator, dtype=torch.float64) * 10**index).to(dtype)


def wild(dtype: torch.dtype) -> Tensor:
    """Zeros of both signs, infinities, NaN, and denormals."""
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -1e-40, 0.5, -0.5, 1.5]
    return torch.tensor(special * 3, dtype=dtype).reshape(2, 3, 5)


def native_step(kernels: Library, function, example: Tensor, near: bool, taught: list[Tensor]) -> CapturedStep:
    captured = CapturedStep(lambda fresh, state: (function(fresh), state), example, (), Memory())
    captured.go_native(kernels, near, taught)
    return captured


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", range(len(REAL)))
def test_exact_kernels_give_the_same_to_the_last_bit(kernels: Library, index: int, dtype: torch.dtype) -> None:
    function = REAL[index]
    with torch.no_grad():
        captured = native_step(kernels, function, ONES.to(dtype).expand(2, 3, 5).clone(), False, list(values(dtype, 2)))
        for x in (*values(dtype), wild(dtype)):
            got, want = captured.play(x), function(x)
            assert got.dtype == want.dtype
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
            if want.is_floating_point():
                assert torch.equal(torch.signbit(got)[want == 0], torch.signbit(want)[want == 0])


@pytest.mark.parametrize("index", range(len(WHOLE)))
def test_whole_numbers_too(kernels: Library, index: int) -> None:
    function = WHOLE[index]
    generator = torch.Generator().manual_seed(3)
    draws = [torch.randint(-(1 << 62), 1 << 62, (2, 3, 4), generator=generator) for _ in range(4)]
    with torch.no_grad():
        captured = native_step(kernels, function, draws[0], False, draws[:2])
        for x in (*draws, torch.arange(24).reshape(2, 3, 4)):
            assert torch.equal(captured.play(x), function(x))


NEAR = {
    "functions": lambda x: x.exp2() + x.exp() + x.abs().log() + x.abs().log2() - x.abs().log10(),
    "angles": lambda x: x.sin() + x.cos() * x.tan() + x.tanh(),
    "roots": lambda x: x.abs().sqrt() + x.abs().add(0.1).rsqrt() + x.sigmoid() - F.silu(x) + F.gelu(x),
    "norm": lambda x: F.layer_norm(x, x.shape[-1:], torch.linspace(1, 2, 12).to(x), torch.linspace(0, 1, 12).to(x)),
    "bare norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "softmax": lambda x: x.softmax(dim=-1),
    "sums": lambda x: x.sum(dim=-1, keepdim=True) + x.mean(dim=(1, 2), keepdim=True) - x.sum(dim=1, keepdim=True),
    "scaled": lambda x: torch.add(x, x.flip(-1), alpha=3) - torch.sub(x, x.flip(1), alpha=0.7),
    "topk": lambda x: torch.cat([(found := x.topk(5)).values, x.gather(-1, found.indices)], dim=-1),
    "ends": lambda x: torch.maximum(x, x.flip(-1)) - torch.minimum(x, x.flip(1)),
    "matrices": lambda x: x @ x.mT + torch.bmm(x, x.transpose(1, 2).contiguous()),
    "column": lambda x: torch.baddbmm(x[..., :1], x.mT.contiguous().mT, x[:, :1].mT[:, :12]),
    "row": lambda x: torch.bmm(x[:, :1], x.mT.contiguous()) + torch.bmm(x[:, :1], x.mT),
    "addmm": lambda x: torch.addmm(x[0, :, :1], x[0], x[1].t()) + torch.mm(x[0], x[1].t().contiguous()),
    "dots": lambda x: torch.baddbmm(x[..., :1].reshape(-1, 1, 1), x.reshape(-1, 1, 12), x.reshape(-1, 12, 1)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NEAR)
def test_near_kernels_are_as_near_as_float64_says(kernels: Library, name: str, dtype: torch.dtype) -> None:
    """Against the same function in float64: no further from it than a few roundings."""
    function = NEAR[name]
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randn(2, 7, 12, generator=generator).to(dtype) for _ in range(4)]
    with torch.no_grad():
        captured = native_step(kernels, function, draws[0], True, draws[:1])
        assert captured.native_kernels >= 1
        # An infinite share of what PyTorch rounds elsewhere is not at issue: all of these are the library's.
        assert captured.other_kernels == 0
        for x in draws[1:]:
            want = function(x.double())
            share = 4e-6 if dtype == torch.float32 else 1e-13
            torch.testing.assert_close(
                captured.play(x).double(), want, rtol=share, atol=share * float(want.abs().max())
            )


FORMS = [
    *((1, 600, 5, 3), (2, 160, 1, 1100), (3, 1, 700, 42), (1, 1, 333, 9), (4, 37, 21, 63)),
    # Vectors beside each other: fewer and more than fit two registers, with more of the sums than are held.
    *((16, 64, 21, 63), (8, 16, 42, 42), (2, 23, 16, 283), (3, 9, 6, 500), (1, 19, 11, 1), (2, 5, 33, 40)),
]


@pytest.mark.parametrize("shape", FORMS)
def test_products_of_any_form(kernels: Library, shape: tuple[int, int, int, int]) -> None:
    """Longer than what a kernel holds at a time, with remainders, and matrices that lie either way."""
    batch, rows, columns, sums = shape
    generator = torch.Generator().manual_seed(2)

    def product(fresh: tuple[Tensor, ...]) -> Tensor:
        one, other, bias, turned, back = fresh
        return torch.baddbmm(bias, one, other) + torch.baddbmm(bias, turned, back)

    def draw() -> tuple[Tensor, ...]:
        sizes = ((batch, rows, sums), (batch, sums, columns), (batch, rows, columns))
        one, other, bias = (torch.randn(size, generator=generator) for size in sizes)
        return one, other, bias, one.mT.contiguous().mT, other.mT.contiguous().mT

    captured = CapturedStep(lambda fresh, state: (product(fresh), state), draw(), (), Memory())
    captured.go_native(kernels, True, [draw()])
    assert captured.other_kernels == 0
    fresh = draw()
    want = product(tuple(part.double() for part in fresh))
    torch.testing.assert_close(captured.play(fresh).double(), want, rtol=0, atol=3e-6 * float(want.abs().max()))


@pytest.mark.parametrize("rows", [2, 7, 320])
@pytest.mark.parametrize("sums", [1, 31, 64, 333])
def test_weights_that_float16_holds_are_read_as_such(kernels: Library, rows: int, sums: int) -> None:
    """Halves of a weight in a batch, as a live step has them, a row times a matrix, and numbers at float16's ends."""
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(2, rows, sums, generator=generator).half().float()
    weight.view(-1)[: min(4, weight.numel())] = (
        torch.tensor([6e-8, -65504.0, 0.0, 6.1e-5])[: weight.numel()].half().float()
    )
    bias = torch.randn(2, rows, 1, generator=generator)

    def function(x: Tensor) -> Tensor:
        column = x.reshape(1, 1, -1).mT.expand(2, -1, 1)
        return (
            torch.baddbmm(bias, weight, column).flatten()
            + torch.cat([row := torch.mm(x, weight[0].t()), row], dim=-1)[0]
        )

    draws = [torch.randn(1, sums, generator=generator) for _ in range(3)]
    found = {}
    for weights in ((), (weight.untyped_storage().data_ptr(),)):
        captured = CapturedStep(lambda fresh, state: (function(fresh), state), draws[0], (), Memory())
        captured.go_native(kernels, True, draws[:1], Weights(lambda held=weights: held))
        assert captured.other_kernels == 0
        used = [int(words[0]) for kernel in captured._kernels for words in kernel.words]
        assert used.count(codes["halves_f"]) == (2 if weights else 0)
        found[weights] = [captured.play(x).clone() for x in draws]
    for one, x in zip(found[weights], draws, strict=True):
        wide = weight.double(), bias.double(), x.double()
        want = (wide[0] @ wide[2][0] + wide[1][..., 0]).flatten() + (wide[0][0] @ wide[2][0]).repeat(2)
        torch.testing.assert_close(one.double(), want, rtol=1e-6, atol=2e-6 * float(want.abs().max()))


@pytest.mark.parametrize("frames", [*range(1, 10), 11, 15, 16, 17])
@pytest.mark.parametrize("halves", [False, True])
def test_a_weight_is_read_for_a_few_frames_at_once(kernels: Library, frames: int, halves: bool) -> None:
    """Rows of frames times a weight that lies either way, in one kernel up to sixteen, and in any number right."""
    generator = torch.Generator().manual_seed(frames)
    kind = torch.float16 if halves else torch.float32
    weight = torch.randn(333, 380, generator=generator).to(kind).float()
    turned = torch.randn(380, 700, generator=generator).to(kind).float()
    constant = {one.untyped_storage().data_ptr() for one in (weight, turned)}

    def function(x: Tensor) -> Tensor:
        bias = x[:, :333] * 0.5
        return torch.cat([torch.addmm(bias, x, weight.t()), torch.mm(x, turned)], dim=-1)

    draws = [torch.randn(frames, 380, generator=generator) for _ in range(3)]
    captured = CapturedStep(lambda fresh, state: (function(fresh), state), draws[0], (), Memory())
    weights = Weights(lambda: constant)
    captured.go_native(kernels, True, draws[:1], weights)
    used = [int(words[0]) for kernel in captured.kernels if isinstance(kernel, Program) for words in kernel.words]
    # One matrix lies column by column: it is read so for one frame, of a copy, in float32 too; PyTorch's for more.
    native = 2 if frames == 1 else int(frames <= near.FEW)
    assert captured.other_kernels == 2 - native
    assert [used.count(codes[name]) for name in ("halves_f", "product_f")] == ([native, 0] if halves else [0, native])
    assert [one.dtype for one in weights.copies] == ([kind] * native if halves else [kind] * (native - 1))
    for x in draws:
        wide = x.double()
        want = torch.cat([wide[:, :333] * 0.5 + wide @ weight.double().t(), wide @ turned.double()], dim=-1)
        torch.testing.assert_close(captured.play(x).double(), want, rtol=0, atol=3e-6 * float(want.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_taps_that_stay_are_read_side_by_side(kernels: Library, dtype: torch.dtype) -> None:
    """A depthwise convolution's, a number for each channel: of what may change, and of what lies so, none is copied."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(320, 1, 5, generator=generator).to(dtype)

    def function(x: Tensor) -> Tensor:
        return torch.addcmul(torch.addcmul(x, x, weight[..., 0]), x.flip(0), weight[..., 3])

    draws = [torch.randn(4, 320, 1, generator=generator).to(dtype) for _ in range(3)]
    for constant, copies in (({weight.untyped_storage().data_ptr()}, 2), (set(), 0)):
        captured = CapturedStep(lambda fresh, state: (function(fresh), state), draws[0], (), Memory())
        weights = Weights(lambda held=constant: held)
        captured.go_native(kernels, True, draws[:1], weights)
        assert captured.other_kernels == 0
        assert [tuple(one.shape) for one in weights.copies] == [(1, 1, 1, 320)] * copies
        for x in draws:
            torch.testing.assert_close(captured.play(x), function(x), rtol=1e-6, atol=1e-6)


def test_a_history_moves_where_it_lies(kernels: Library) -> None:
    """Memory that overlaps itself, of one row and of several, in one instruction and one for what is new."""
    generator = torch.Generator().manual_seed(8)
    for batch, count in ((1, 1), (3, 1), (3, 2)):
        history = torch.randn(batch, 5, 8, generator=generator)

        def step(x: Tensor, state: Tensor, count: int = count) -> tuple[Tensor, Tensor]:
            x = x * 2.0
            return state[:, 0] + x[:, 0], torch.cat([state[:, count:], x], dim=1)

        draws = [torch.randn(batch, count, 8, generator=generator) for _ in range(6)]
        place = history.clone()
        captured = CapturedStep(step, draws[0], place, Memory())
        captured.go_native(kernels, False, draws[:1])
        place.copy_(history)
        assert (captured.native_kernels, captured.other_kernels) == (4, 0)
        want = history.clone()
        for x in draws:
            y, want = step(x, want)
            assert torch.equal(captured.play(x), y)
            assert torch.equal(place, want)


def test_attention_of_one_query_is_native(kernels: Library) -> None:
    """A mask, scaled products with keys, a weighted sum of values, rotation in place, a norm across what strides."""

    def function(fresh: tuple[Tensor, ...]) -> Tensor:
        mask, query, keys = fresh
        scores = torch.baddbmm(mask.expand(3, 1, 40), query, keys.mT, alpha=0.3)
        found = torch.bmm(scores.softmax(dim=-1), keys)
        turned = found.clone().addcmul_(query, query, value=-1)
        return turned + F.layer_norm(keys.mT, (40,), mask[0, 0], mask[0, 0])[..., :1].mT[..., :64]

    generator = torch.Generator().manual_seed(5)
    draws = [
        tuple(torch.randn(shape, generator=generator) for shape in ((1, 1, 40), (3, 1, 64), (3, 40, 64)))
        for _ in range(3)
    ]
    captured = CapturedStep(lambda fresh, state: (function(fresh), state), draws[0], (), Memory())
    captured.go_native(kernels, True, draws[:1])
    assert captured.other_kernels == 0
    for fresh in draws:
        want = function(tuple(part.double() for part in fresh))
        torch.testing.assert_close(captured.play(fresh).double(), want, rtol=0, atol=6e-6 * float(want.abs().max()))


def test_other_weights_stay_what_they_are(kernels: Library) -> None:
    """A number that float16 does not hold; and memory that a control writes to, whatever its numbers are now."""
    x, weight = torch.randn(1, 64), torch.randn(2, 8, 64).half().float()
    weight[1, 3, 5] = 0.1

    def function(x: Tensor) -> Tensor:
        return torch.bmm(weight, x.reshape(1, 1, -1).mT.expand(2, -1, 1))

    for value, weights in ((0.1, (weight.untyped_storage().data_ptr(),)), (0.5, ())):
        weight[1, 3, 5] = value
        captured = CapturedStep(lambda fresh, state: (function(fresh), state), x, (), Memory())
        captured.go_native(kernels, True, [x], Weights(lambda held=weights: held))
        assert codes["halves_f"] not in [int(words[0]) for kernel in captured._kernels for words in kernel.words]
        torch.testing.assert_close(captured.play(x), function(x), rtol=1e-5, atol=1e-5)


def test_one_breath_is_what_pytorch_takes(kernels: Library) -> None:
    """Products that are added in one rounding: any length, any layout, any factor."""
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 3, 5, 8, 13, 33, 320):
        for value in (1, -1, 0.3):
            for stride in (1, 2):

                def function(x: Tensor, stride: int = stride, value: float = value) -> Tensor:
                    x = x[..., ::stride]
                    return torch.addcmul(x[0], x[1], x[2], value=value)

                draws = [torch.randn(3, 4, count * stride, generator=generator) for _ in range(3)]
                captured = native_step(kernels, function, draws[0], False, draws[:1])
                if captured.other_kernels:
                    pytest.skip("PyTorch rounds twice on this machine, and so keeps what is its own")
                for x in draws:
                    assert torch.equal(captured.play(x), function(x))


def test_a_kernel_that_is_wrong_is_left_out(kernels: Library, monkeypatch) -> None:
    """The comparison is what stands between a mistake in a table and a session."""

    def function(x: Tensor) -> Tensor:
        return (x + x.flip(-1)) * x.flip(0)

    x = torch.randn(2, 3, 5)
    whole = native_step(kernels, function, x, False, [x])
    monkeypatch.setitem(translate.UFUNCS, next(f for f, name in translate.UFUNCS.items() if name == "add"), "sub")
    broken = native_step(kernels, function, x, False, [x])
    assert (whole.other_kernels, broken.other_kernels) == (0, 1)
    assert torch.equal(broken.play(-x), function(-x))


def test_rounding_is_no_licence(kernels: Library, monkeypatch) -> None:
    """A near kernel that is further off than rounding goes, is left out too."""
    x = torch.randn(2, 3, 5)
    assert native_step(kernels, torch.exp, x, True, [x]).other_kernels == 0
    monkeypatch.setitem(step.ROUNDING, torch.float32, 1e-9)
    assert native_step(kernels, torch.exp, x, True, [x]).other_kernels == 1


def test_an_index_out_of_range_is_an_error(kernels: Library) -> None:
    def function(fresh: tuple[Tensor, Tensor]) -> Tensor:
        return fresh[0].gather(-1, fresh[1])

    good = torch.randn(4), torch.tensor([3, 0])
    captured = CapturedStep(lambda fresh, state: (function(fresh), state), good, (), Memory())
    captured.go_native(kernels, False, [good])
    assert captured.other_kernels == 0
    assert torch.equal(captured.play(good), function(good))
    for index in (4, -1, 1 << 40):
        with pytest.raises(IndexError, match="out of range"):
            captured.play((good[0], torch.tensor([0, index])))


def test_memory_that_is_read_and_written_at_once_stays_with_pytorch(kernels: Library) -> None:
    """Halves of pairs take turns and may be native; a shift within one memory may not."""
    x = torch.arange(8)
    ring = torch.arange(8)
    assert translate.native_in_place(aten.copy_.default, (ring[1:], ring[:-1]), {}) is None
    assert translate.native_in_place(aten.add_.Tensor, (ring[:4], ring[2:6]), {}) is None
    halves = x.view(torch.int32).view(8, 2)
    assert translate.native_in_place(aten.bitwise_xor_.Tensor, (halves[:, 0], halves[:, 1]), {}) is not None
    assert translate.native_in_place(aten.mul_.Tensor, (ring, ring), {}) is not None


def test_recorded_sessions_stay_equal_to_the_last_bit(used: Library) -> None:
    """On a voice, which takes other ways through the pitch tracker than the noise that kernels are compared on."""
    graph = astrape.load("astrape-mini")
    plain, recorded = graph.stream(), graph.stream(chunk=441)
    assert recorded.backend.name == "recorded"
    t = torch.arange(441 * 60) / 44100
    phase = torch.cumsum((140 + 40 * torch.sin(4 * t)) / 44100, dim=0)
    x = sum(0.1 / h * torch.sin(2 * torch.pi * h * phase) for h in range(1, 12)) * (t % 0.3 > 0.1)
    given = {"speaker": torch.randn(1, 128, generator=torch.Generator().manual_seed(0))}
    for piece in x[None, None].split(441, dim=-1):
        got, want = recorded.push(piece, **given), plain.push(piece, **given)
        assert all(torch.equal(got[name], want[name]) for name in want)


def test_compiled_sessions_are_near(used: Library) -> None:
    """A network's output for speech, and F0, agree within rounding; one program, with nothing of PyTorch's in it."""
    graph = astrape.load("astrape-mini")
    plain, compiled = graph.stream(), graph.stream(backend="compiled")
    assert compiled.backend.name == "compiled"
    assert ", 0 of PyTorch's; weights: " in compiled.backend.why
    t = torch.arange(441 * 60) / 44100
    phase = torch.cumsum((140 + 40 * torch.sin(4 * t)) / 44100, dim=0)
    x = sum(0.1 / h * torch.sin(2 * torch.pi * h * phase) for h in range(1, 12))
    given = {"speaker": 0.1 * torch.randn(1, 128, generator=torch.Generator().manual_seed(0))}
    pairs = [(compiled.push(p, **given), plain.push(p, **given)) for p in x[None, None].split(441, dim=-1)]
    for name, most in (("content", -100), ("f0", -120), ("wav", -40)):
        got, want = (torch.cat([pair[index][name] for pair in pairs], dim=-1).double() for index in (0, 1))
        assert float(want.square().sum()) > 0
        assert 10 * float(((got - want).square().sum() / want.square().sum()).log10()) < most


def test_without_a_compiler_the_reason_is_told(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(building, "SOURCES", tmp_path)
    with pytest.raises(StreamError, match=r"cannot build them: there is no C compiler.*hint: leave backend out"):
        astrape.load("multirate").stream(backend="compiled")
    assert quickest(astrape.load("multirate")) is None
    with pytest.raises(StreamError, match=r"float32 or float64 on the cpu, not in torch.bfloat16"):
        astrape.load("multirate").stream(backend="compiled", dtype=torch.bfloat16)


def test_what_a_compiler_says_is_told(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(OSError, match="'false' failed"):
        build_library(tmp_path)
    monkeypatch.setattr(building.subprocess, "run", lambda *a, **k: Refused())
    monkeypatch.setenv("CC", "cc")
    with pytest.raises(OSError, match=r"'cc' failed: near.c:3: error: so it is"):
        build_library(tmp_path)


@dataclasses.dataclass
class Refused:
    returncode: int = 1
    stderr: str = "note: a\nnear.c:3: error: so it is\n"


def test_what_comes_with_the_package_is_for_the_kind_of_machine(tmp_path, monkeypatch) -> None:
    """It is found beside the sources, under a name that tells the kind and not this very processor."""
    # A compiler has to take each kind's sources, and optimising them is most of its work.
    monkeypatch.setattr(building, "COMMON", ("-O0", *building.COMMON[1:]))
    names = building.names.__wrapped__()
    monkeypatch.setattr(building, "names", lambda: names)
    try:
        made = building.build_for_others(tmp_path)
    except OSError as reason:
        pytest.skip(str(reason))
    assert len(made) == len(building.LEVELS[platform.machine()])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(building, "SOURCES", tmp_path)
    found = libraries.find_libraries()
    assert set(found) <= set(made)
    assert bool(found) == (len(names) > 1)
    for path in found:
        assert Library(path).path == path


def test_live_takes_what_is_quickest(used: Library) -> None:
    graph = astrape.load("astrape-mini")
    assert quickest(graph) == "compiled"
    assert quickest(graph.double()) == "compiled"
    assert quickest(graph.bfloat16()) is None


def test_a_library_of_another_version_is_not_loaded(kernels: Library, monkeypatch) -> None:
    monkeypatch.setattr(libraries, "WORDS", 30)
    with pytest.raises(OSError, match="another version of astrape"):
        Library(kernels.path)
