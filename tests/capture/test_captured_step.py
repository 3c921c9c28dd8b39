"""Captured steps against the functions that they were recorded from: the same numbers to the last bit, play after
play."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrape.blocks.state import map_state, state_leaves
from astrape.capture.lowering import Memory
from astrape.capture.record import Unrecordable
from astrape.capture.step import CapturedStep

SIZE = 4


def square(seed: int) -> Tensor:
    return torch.randn(1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_plays(function: Any, fresh: Any, state: Any, plays: int = 4, memory: Memory | None = None) -> CapturedStep:
    """A captured step gives what its function gives, for other values, from the state that each has left."""
    held = map_state(torch.clone, state)
    captured = CapturedStep(function, fresh(0), held, memory or Memory())
    for (_, before), (_, now) in zip(state_leaves(state), state_leaves(held), strict=True):
        assert torch.equal(before, now), "recording changed the state"
    want_state = map_state(torch.clone, state)
    for play in range(1, plays + 1):
        values = fresh(play)
        want, want_state = function(map_state(torch.clone, values), map_state(torch.clone, want_state))
        got = captured.play(values)
        pairs = zip(state_leaves((got, held)), state_leaves((want, want_state)), strict=True)
        for (name, a), (_, b) in pairs:
            assert torch.equal(a, b), f"{name} at play {play}"
    return captured


class Program:
    """A function drawn at random over 4 x 4 matrices: views, products, copies, in-place writes, states that move."""

    def __init__(self, draw: Any) -> None:
        self.steps = [
            (draw(st.integers(0, 14)), draw(st.integers(0, 99)), draw(st.integers(0, 99)))
            for _ in range(draw(st.integers(1, 25)))
        ]
        self.results = [draw(st.integers(0, 99)) for _ in range(3)]
        self.after = [draw(st.integers(0, 99)) for _ in range(3)]
        self.donated = draw(st.booleans())
        self.weight = square(1000)

    def __call__(self, fresh: Any, state: Any) -> tuple[Any, Any]:
        known: list[Tensor] = [fresh["x"], fresh["y"], *state["s"]]
        writable = [False] * 2 + [self.donated] * 3
        for kind, first, second in self.steps:
            a, b = known[first % len(known)], known[second % len(known)]
            owned = False
            if kind == 0:
                made = a + b
            elif kind == 1:
                made = a.transpose(1, 2)
            elif kind == 2:
                made, owned = a * 0.5, True
            elif kind == 3:
                made = torch.cat([a[:, :2], b[:, 2:]], dim=1)
            elif kind == 4:
                made = torch.bmm(a, b).tanh()
            elif kind == 5:
                made, owned = a.clone(), True
            elif kind == 6:
                made = torch.nn.functional.layer_norm(a, (SIZE,))
            elif kind == 7:
                made = a.flip(1).cumsum(dim=2)
            elif kind == 8:
                made, owned = torch.zeros_like(a).add_(b), True
            elif kind == 9:
                made = torch.where(a > b, a, b)
            elif kind == 10:
                made = torch.linspace(0, 1, SIZE, dtype=a.dtype) * a + self.weight
            elif kind == 11:
                target = [index for index, free in enumerate(writable) if free]
                if target:
                    known[target[first % len(target)]].mul_(0.9).add_(b.clone())
                continue
            elif kind == 12:
                target = [index for index, free in enumerate(writable) if free]
                if target:
                    known[target[first % len(target)]][:, 1:3].copy_(a[:, :2].clone())
                continue
            elif kind == 13:
                made = a.softmax(dim=-1).view(1, SIZE * SIZE).view(1, SIZE, SIZE)
            else:
                made = a.reshape(1, 2, 2 * SIZE)[:, :, ::2].reshape(1, 2, SIZE).repeat(1, 2, 1)
            known.append(made)
            writable.append(owned)
        results = {f"r{index}": known[pick % len(known)] for index, pick in enumerate(self.results)}
        return results, {"s": tuple(known[pick % len(known)] for pick in self.after)}


@st.composite
def programs(draw: Any) -> Program:
    return Program(draw)


@settings(max_examples=150, deadline=None)
@given(program=programs(), seed=st.integers(0, 99))
def test_random_programs(program, seed):
    def fresh(play: int) -> Any:
        return {"x": square(seed + 10 * play), "y": square(seed + 10 * play + 1)}

    assert_plays(program, fresh, {"s": tuple(square(seed + k + 500) for k in range(3))})


def test_states_that_change_places():
    def function(fresh: Any, state: Any) -> Any:
        return {"heard": state["old"]}, {"old": state["new"], "new": fresh}

    assert_plays(function, square, {"old": square(7), "new": square(8)})


def _slides(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    return h[:, 1] * x[:, 0], torch.cat([h[:, 1:], x + 1], dim=1)


SLIDING = {
    "alone": _slides,
    "with what is heard": lambda x, h: (h.sum(), torch.cat([h[:, 1:], x], dim=1)),
    "and told": lambda x, h: ((new := torch.cat([h[:, 1:], x + 1], dim=1)), new),
    "and read": lambda x, h: ((new := torch.cat([h[:, 1:], x + 1], dim=1)).sum(), new),
    "by two": lambda x, h: (h[:, 0], torch.cat([h[:, 2:], x + 1, x - 1], dim=1)),
    "by all but one": lambda x, h: (h[:, 0], torch.cat([h[:, 3:], torch.cat([x, x + 1, x - 1], dim=1)], dim=1)),
    "the other way": lambda x, h: (h[:, 0], torch.cat([x + 1, h[:, :-1]], dim=1)),
    "the same frames twice": lambda x, h: (h[:, 0], torch.cat([h[:, :-1], x + 1], dim=1)),
    "along another dimension": lambda x, h: (h[:, 0], torch.cat([h[:, :, 1:], x.mT + h[:, :, :1]], dim=2)),
    "after it was written to": lambda x, h: (h.mul_(2.0).sum(), torch.cat([h[:, 1:], x + 1], dim=1)),
    "with a part of itself": lambda x, h: (h[:, 0], torch.cat([h[:, 1:], h[:, :1]], dim=1)),
}


@pytest.mark.parametrize("name", SLIDING)
def test_histories_move_on_where_they_lie(name):
    """Whatever else is done with them; one that does not only move on is made anew and copied."""
    state = square(0)
    assert_plays(SLIDING[name], lambda seed: square(seed)[:, :1], state)


def test_histories_that_change_places_as_they_move():
    """Each has the other's older frames next, or the other's newest."""

    def swap(x, state):
        a, b = state
        return a[:, 0], (torch.cat([b[:, 1:], x + 1], dim=1), torch.cat([a[:, 1:], x - 1], dim=1))

    def newest(x, state):
        a, b = state
        return a[:, 0] + x[:, 0], (torch.cat([a[:, 1:], b[:, -1:]], dim=1), torch.cat([b[:, 1:], a[:, -1:]], dim=1))

    for function in (swap, newest):
        assert_plays(function, lambda seed: square(seed)[:, :1], (square(0), square(9)))


def test_a_state_that_is_turned_round():
    assert_plays(lambda x, state: (state + x, state.transpose(1, 2)), square, square(3))


def test_a_result_that_is_the_state_is_what_it_was_before_the_step():
    assert_plays(lambda x, state: (state, x), square, square(3))


def test_a_state_of_wholes_counts_on():
    def function(x: Any, state: Any) -> Any:
        ring = state["ring"].index_copy_(1, state["age"][0] % SIZE, x[:, :1])
        return ring.sum(dim=1), {"ring": ring, "age": state["age"] + 1}

    state = {"ring": square(5), "age": torch.tensor([[2**40 + 3]])}
    assert_plays(function, square, state, plays=11)


def test_weights_are_read_where_they_lie():
    layer = torch.nn.Linear(SIZE, SIZE, dtype=torch.float64)
    captured = CapturedStep(lambda x, state: (layer(x), state), square(0), (), Memory())
    with torch.no_grad():
        layer.weight.mul_(2)
        assert torch.equal(captured.play(square(1)), layer(square(1)))


def test_views_and_constants_are_no_kernels():
    def function(x: Any, state: Any) -> Any:
        ramp = torch.arange(SIZE, dtype=x.dtype).square() + 1
        return (x.transpose(1, 2)[:, :, 1:] * ramp[1:]).unsqueeze(0).squeeze(0), state

    assert len(assert_plays(function, square, ())) == 1


def test_a_tensor_that_changes_its_form_in_place():
    def function(x: Any, state: Any) -> Any:
        made = x * 2
        summed = made.sum(dim=1)
        made.transpose_(1, 2).add_(1)
        return {"made": made, "summed": summed, "later": made.cumsum(dim=1)}, state

    assert_plays(function, square, ())


def test_what_nobody_needs_is_left_out():
    def function(x: Any, state: Any) -> Any:
        x.exp().cos()
        return x + 1, state

    assert len(assert_plays(function, square, ())) == 1


@pytest.mark.parametrize(
    "check",
    [
        lambda x: torch._assert_async((x < 9).all(), "too loud"),
        lambda x: torch.arange(9.0).index_select(0, x.flatten().long()),
        lambda x: torch.zeros(9)[x.flatten().long()],
        lambda x: torch.nn.functional.embedding(x.flatten().long(), torch.zeros(9, 2)),
        lambda x: torch.zeros(9).scatter_(0, x.flatten().long().abs(), 1.0),
        lambda x: 7 % (9 - x.flatten().long()),
        lambda x: torch.linalg.inv(torch.eye(4, dtype=x.dtype) * (x.max() - 9)),
    ],
)
def test_what_nobody_needs_but_what_raises_is_played_all_the_same(check):
    def checked(x: Any, state: Any) -> Any:
        check(x)
        return x * 2, state

    quiet, loud = torch.arange(16.0, dtype=torch.float64).reshape(1, 4, 4) / 2, torch.full((1, 4, 4), 9.0).double()
    captured = CapturedStep(checked, quiet, (), Memory())
    assert torch.equal(captured.play(quiet / 2), quiet)
    with pytest.raises((RuntimeError, IndexError, ZeroDivisionError)):
        checked(loud, ())
    with pytest.raises((RuntimeError, IndexError, ZeroDivisionError)):
        captured.play(loud)


def test_memory_is_used_again():
    class Counted(Memory):
        taken = 0

        def take(self, size: int, device: torch.device) -> torch.UntypedStorage:
            fresh = not self._free.get((device, -(-size // 64) * 64))
            Counted.taken += fresh
            return super().take(size, device)

    def chain(x: Any, state: Any) -> Any:
        for _ in range(50):
            x = x.sin() * 2
        return x, state

    memory = Counted()
    assert_plays(chain, square, (), memory=memory)
    assert Counted.taken <= 4
    assert_plays(chain, square, (), memory=memory)
    assert Counted.taken <= 5, "a second captured step has only its result to itself"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x + 1 if bool((x > 0).any()) else x - 1, "depends on values"),
        (lambda x: x * x.sum().item(), "depends on values"),
        (lambda x: x[x > 0].sum(), "depends on values"),
        (lambda x: x + torch.rand_like(x), "random"),
        (lambda x: torch.nn.functional.dropout(x, 0.5), "random"),
        (lambda x: x.clone().resize_(1, 2, 2), "what memory"),
        (lambda x: x * max(x.flatten().tolist()), "'tolist' depends on values"),
        (lambda x: x * float(x.numpy().max()), "'numpy' depends on values"),
        (lambda x: x * float(np.asarray(x).max()), "depends on values"),
        (lambda x: x / torch.tensor(0.5, dtype=x.dtype).clamp_(min=x.abs().max()), "neither state nor made"),
        (lambda x: x + (x[0] < 0).double().to_sparse().to_dense()[None], "more than its memory"),
        (lambda x: torch.complex(x, x).conj().imag, "more than its memory"),
    ],
)
def test_what_cannot_be_recorded_is_refused(function, reason):
    with pytest.raises(Unrecordable, match=reason):
        CapturedStep(lambda x, state: (function(x), state), square(0), (), Memory())


def test_a_state_that_grows_is_refused():
    with pytest.raises(Unrecordable, match=r"state changed from \(1, 4, 4\) to \(1, 8, 4\)"):
        CapturedStep(lambda x, state: (x, torch.cat([state, x], dim=1)), square(0), square(1), Memory())


def test_a_function_of_too_many_operators_is_refused():
    def endless(x: Any, state: Any) -> Any:
        for _ in range(20_001):
            x = x + 1
        return x, state

    with pytest.raises(Unrecordable, match="20000"):
        CapturedStep(endless, square(0), (), Memory())
