"""Pushes that are like the last one take a short way, and nothing else shows it."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch

import astrape
from astrape.blocks.live import current as live
from astrape.graph.session.steady import Steady
from tests.graph.interrupts import interrupted_at
from tests.graph.recipes import recipe

BLOCKS = {
    "late": {"use": "delay", "frames": 3, "from": "mic"},
    "frames": {"use": "framing", "size": 8, "hop": 4, "from": "mic"},
    "loud": {"use": "gain", "gain": "level"},
    "back": {"use": "overlap_add", "hop": 4},
    "both": {"use": "add", "from": ["back", "late"]},
}
OUTPUTS = {"wav": "both", "frames": "loud"}


@pytest.fixture
def graph():
    controls = {"level": {"channels": 1, "default": 0.5, "min": -4.0, "max": 4.0}}
    return astrape.compile(recipe(BLOCKS, controls=controls, outputs=OUTPUTS)).double()


@pytest.fixture
def ways(monkeypatch):
    """Questions to the short path, and whether it was taken."""
    found, takes = [], Steady.takes

    def told(self, *given):
        found.append(takes(self, *given))
        return found[-1]

    monkeypatch.setattr(Steady, "takes", told)
    return found


def noise(frames, rows=2):
    return torch.rand(rows, 1, frames, dtype=torch.float64, generator=torch.Generator().manual_seed(frames)) - 0.5


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("constant_latency", [False, True])
def test_all_that_can_be_done_to_a_session_is_done_on_the_short_way_too(graph, ways, constant_latency):
    sessions = [graph.stream(2, constant_latency=constant_latency, chunk=chunk) for chunk in (8, None)]
    assert sessions[0].captured_steps
    x = noise(400)
    saved = None
    for number in range(50):
        piece = x[..., 8 * number : 8 * number + 8]
        if number == 20:
            saved = [session.snapshot() for session in sessions]
        if number == 31:
            piece = piece.clone()
            piece[1, 0, 3] = math.nan
        controls = {"level": number / 10} if number in (7, 8, 24) else {}
        one, other = (session.push(piece, **controls) for session in sessions)
        assert same(one, other)
        assert sessions[0].positions == sessions[1].positions
        assert sessions[0].faults == sessions[1].faults
        if number == 12:
            for session in sessions:
                session.reset([1])
        if number == 27:
            for session, snapshot in zip(sessions, saved, strict=True):
                session.restore(snapshot)
        if number == 38:
            for session in sessions:
                session.reset()
        if number == 44:
            assert same(sessions[0].push(x[..., :3]), sessions[1].push(x[..., :3]))
            assert same(sessions[0].push(x[..., :5]), sessions[1].push(x[..., :5]))
    # From the second push on, but for new controls, for what followed a change of the state, and for the faulty row.
    assert 30 < sum(ways) < 45
    assert same(*(session.flush() for session in sessions))


def test_what_is_given_out_is_the_callers_and_what_is_given_stays_as_it_is(graph, ways):
    session = graph.stream(2, chunk=8)
    x = noise(24).split(8, dim=-1)
    kept = [piece.clone() for piece in x]
    outputs = [session.push(piece) for piece in x]
    copies = [{name: y.clone() for name, y in output.items()} for output in outputs]
    assert ways == [True, True]
    for output in outputs[:2]:
        output["wav"].mul_(3)
    session.push(x[0])
    assert all(torch.equal(piece, given) for piece, given in zip(x, kept, strict=True))
    assert same(outputs[2], copies[2])
    assert not any(y.is_inference() for y in outputs[2].values())


def test_any_layout_and_no_other_form_is_taken(graph, ways):
    session, plain = graph.stream(2, chunk=8), graph.stream(2)
    wide = noise(64).transpose(0, 2).contiguous().transpose(0, 2)
    for number in range(4):
        piece = wide[..., number::8]
        assert same(session.push(piece), plain.push(piece))
    assert ways == [True] * 3
    for wrong, reason in (
        (noise(8, 3), "rows"),
        (noise(8)[0], "not"),
        ({"other": noise(8)}, "mic"),
        (noise(8).long(), "float"),
    ):
        with pytest.raises(astrape.StreamError, match=reason):
            session.push(wrong)
    given = noise(8).requires_grad_()
    with pytest.warns(UserWarning, match="gradient"):
        one = session.push(given)
    with pytest.warns(UserWarning, match="gradient"):
        other = plain.push(given)
    assert same(one, other)
    assert same(session.push({"mic": noise(8).float()}), plain.push({"mic": noise(8).float()}))
    assert same(session.push({"mic": noise(8)}), plain.push({"mic": noise(8)}))
    assert ways == [True] * 3 + [False] * 6 + [True]
    graph.float()
    with pytest.raises(astrape.StreamError, match="float32"):
        session.push(noise(8))


def test_a_dict_of_the_only_input_is_taken_as_the_tensor_is(graph, ways):
    session, plain = graph.stream(2, chunk=8), graph.stream(2)
    for number in range(4):
        piece = noise(8) + number
        assert same(session.push({"mic": piece}), plain.push(piece))
    assert ways == [True] * 3
    for wrong in ({}, {"mic": noise(8), "other": noise(8)}):
        with pytest.raises(astrape.StreamError, match="mic"):
            session.push(wrong)
    assert ways == [True] * 3 + [False] * 2


def test_numbers_that_are_kept_with_another_sign_are_taken_as_they_are(graph, ways):
    """Numbers that PyTorch negates when they are read lie in memory as they were."""
    session, plain = graph.stream(2, chunk=8), graph.stream(2)
    for number in range(3):
        turned = noise(8) + number
        negative = torch._neg_view(turned)
        assert negative.is_neg()
        assert negative.is_contiguous()
        assert same(session.push(negative), plain.push(-turned))
    assert ways == [True, True]


def test_an_output_that_is_not_finite_is_told(ways):
    graph = astrape.compile(recipe({"loud": {"use": "gain", "gain": 1e9}}))
    session, plain = graph.stream(chunk=4), graph.stream()
    for value in (1.0, 2.0, 1e30, 1.0):
        piece = torch.full((1, 1, 4), value)
        assert torch.equal(session.push(piece), plain.push(piece))
    assert ways == [True, True]
    assert [(fault.port, fault.frame) for fault in session.faults] == [("wav", 8)]
    assert session.faults == plain.faults


def test_an_interrupt_at_any_moment_leaves_it_where_it_was_or_refuses(graph):
    x = noise(32)
    session, plain = graph.stream(2, chunk=8), graph.stream(2)
    for piece in x[..., :24].split(8, dim=-1):
        session.push(piece)
        wanted = plain.push(piece)
    saved, going_on = session.snapshot(), plain.push(x[..., 24:])
    assert wanted is not None
    moment, finished, refused = 0, False, 0
    while not finished:
        moment += 1
        session.restore(saved)
        # The long way once, and the short one stands ready.
        session.restore(saved)
        session.push(x[..., 16:24])
        before = session.snapshot()
        given, interrupted = interrupted_at(moment, lambda: session.push(x[..., 24:]))
        finished = not interrupted
        assert live() is None
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        try:
            session.snapshot()
        except astrape.StreamError:
            refused += 1
            session.restore(before)
        else:
            assert finished or session.positions == before["positions"]
        with contextlib.suppress(TypeError):
            assert finished == (given is not None)
    assert refused > 3
    assert going_on.keys() == given.keys()
