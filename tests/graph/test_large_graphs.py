"""Graphs of thousands of nodes: what compiling and reporting takes grows with their number and no faster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import astrape
from astrape.blocks.plumbing import Add
from astrape.graph.compile.schedule import period_of
from tests.graph.recipes import recipe

FEW, MANY = 100, 800


def lines_run(call: Callable[[], Any]) -> int:
    """Lines of the library's own code that ``call`` runs: a measure of work that a busy machine does not change."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if "/astrape/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def calls_made(call: Callable[[], Any]) -> int:
    count = 0

    def profile(*_: Any) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    return count


def chain(nodes: int) -> dict[str, Any]:
    return recipe({f"n{i}": {"use": "gain", "gain": 0.9} for i in range(nodes)})


def outputs(nodes: int) -> dict[str, Any]:
    blocks = {f"n{i}": {"use": "gain", "gain": 0.9, "from": "mic"} for i in range(nodes)}
    return {**recipe(blocks), "outputs": {f"o{i}": f"n{i}" for i in range(nodes)}}


def fan(nodes: int) -> dict[str, Any]:
    blocks: dict[str, Any] = {f"n{i}": {"use": "gain", "gain": 0.9, "from": "mic"} for i in range(nodes)}
    return recipe({**blocks, "mix": {"use": "add", "from": list(blocks)}})


def loops(nodes: int) -> dict[str, Any]:
    blocks: dict[str, Any] = {}
    for i in range(nodes // 2):
        blocks[f"a{i}"] = {"use": "add", "from": [f"a{i - 1}" if i else "mic", f"d{i}"]}
        blocks[f"d{i}"] = {"use": "delay", "frames": 4}
    return {**recipe(blocks), "outputs": {"wav": f"a{nodes // 2 - 1}"}}


def fed_back(nodes: int) -> dict[str, Any]:
    blocks: dict[str, Any] = {"a": {"use": "add", "from": ["mic", "d"]}}
    blocks |= {f"n{i}": {"use": "gain", "gain": 0.9} for i in range(nodes)}
    return {**recipe({**blocks, "d": {"use": "delay", "frames": 4}}), "outputs": {"wav": "a"}}


@pytest.mark.parametrize("make", [chain, outputs, fan, loops, fed_back])
def test_work_grows_with_the_number_of_nodes(make: Callable[[int], dict[str, Any]]) -> None:
    few, many = (lines_run(lambda n=n: str(astrape.compile(make(n)).report())) for n in (FEW, MANY))  # type: ignore[misc]
    assert many / few < 1.15 * MANY / FEW


def test_a_row_of_the_report_is_cheap() -> None:
    """By calls and returns of functions, of which a table of rich's own makes 10,000 a row, and this one 480."""
    few, many = (astrape.compile(chain(n)).report() for n in (FEW, MANY))
    assert (calls_made(lambda: str(many)) - calls_made(lambda: str(few))) / (MANY - FEW) < 1000


def test_balance_reads_the_ports_once() -> None:
    """Once a block, and not once a port, since each time lists all ports."""
    reads = 0

    class Counted(Add):
        @property
        def consumes(self) -> dict[str, int]:
            nonlocal reads
            reads += 1
            return super().consumes

    stream = astrape.compile(chain(1)).inputs["mic"]
    period_of(Counted({str(i): stream for i in range(50)}))
    assert reads == 1
