"""The latency report as people read it: whole at every width of a terminal, and with its tolerance told."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import astrape
from astrape.graph.recipe import shipped_recipes
from astrape.graph.report import Report
from tests.forks import run_program
from tests.graph.random_recipes import compiled, random_recipes
from tests.graph.recipes import recipe

WIDTHS = (60, 80, 100, 140)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def milliseconds(seconds: Fraction) -> str:
    return "0" if seconds == 0 else f"{float(seconds * 1000):.3f} ms"


def require_whole(report: Report, text: str, width: int) -> None:
    """Each block's name, and beside or below it its latency and age, with no line wider than the terminal."""
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    begin = 0
    for row in report.blocks:
        latency, age = milliseconds(row.latency), milliseconds(row.age)
        at = next(
            index
            for index, line in enumerate(lines)
            if index >= begin and row.name in [cell.strip() for cell in line.split("│")]
        )
        cells = [cell.strip() for cell in lines[at].split("│")]
        if len(cells) > 1:
            heads = [cell.strip() for cell in next(line for line in lines if "┃ block" in line).split("┃")]
            assert cells[heads.index("latency")] == latency
            assert cells[heads.index("age")] == age
        else:
            end = next((i for i in range(at + 1, len(lines)) if not lines[i].startswith("  ")), len(lines))
            facts = [fact.strip() for fact in " ".join(lines[at + 1 : end]).split(",")]
            assert f"latency {latency}" in facts
            assert f"age {age}" in facts
        begin = at + 1
    summary = " ".join(text.split())
    assert f"host {milliseconds(report.graph.host_latency)} = {report.graph.host_samples} samples" in summary


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["voice-changer", "dry-wet", "nested-voice", "astrape-vc", "multirate"])
def test_shipped_reports_are_whole_at_every_width(name: str, width: int) -> None:
    report = astrape.load(name).report()
    require_whole(report, report.text(width), width)


def test_a_terminal_shows_name_latency_and_age_whole() -> None:
    """The command itself, on pseudo-terminals of four widths."""
    report = astrape.load("dry-wet").report()
    for width in WIDTHS:
        text = on_a_terminal(width, "report", "dry-wet")
        require_whole(report, text, width)
        assert ("too narrow" in text) == (width < max(map(len, str(report).splitlines())))


@pytest.mark.parametrize("width", [60, 80])
def test_names_of_recipes_are_whole_on_a_terminal(width: int) -> None:
    lines = on_a_terminal(width, "recipes").splitlines()
    assert max(map(len, lines)) <= width
    first = [line.split()[0] for line in lines if line.strip()]
    assert set(shipped_recipes()) <= set(first)
    assert any(line.startswith("too narrow here for ") and "controls" in line for line in lines)


ON_TERMINAL = """
import os, runpy, sys
terminal = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_NOCTTY)
for number in (1, 2):
    os.dup2(terminal, number)
runpy.run_module("astrape", run_name="__main__", alter_sys=True)
"""


def on_a_terminal(width: int, *words: str) -> str:
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(read_out, main)
        done = run_program(ON_TERMINAL, os.ttyname(other), *words, environment={**environment, "TERM": "xterm"})
        os.close(other)
        said = reading.result()
    os.close(main)
    assert done.returncode == 0, said
    return ESCAPES.sub("", said.decode()).replace("\r\n", "\n")


def read_out(main: int) -> bytes:
    """All that is written to a terminal until it is closed."""
    said = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            return said
        if not part:
            return said
        said += part


@settings(max_examples=40)
@given(drawn=random_recipes(), width=st.integers(40, 200))
def test_any_graph_is_whole_at_any_width(drawn: dict[str, Any], width: int) -> None:
    report = compiled(drawn).report()
    require_whole(report, report.text(width), width)


def test_long_names_take_a_line_of_their_own_and_lose_nothing() -> None:
    names = [f"a-block-whose-name-goes-on-and-on-for-{'long' * index}" for index in range(1, 6)]
    graph = astrape.compile(recipe({name: {"use": "delay", "frames": 3} for name in names}))
    report = graph.report()
    require_whole(report, report.text(80), 80)
    lines = [line.strip() for line in report.text(60).splitlines()]
    assert all(name in lines for name in names)
    assert "receptive field 4.000 ms" in report.text(60)
    assert all(name in str(report) for name in names)


def test_what_is_piped_or_made_a_string_has_all_columns() -> None:
    report = astrape.load("astrape-vc").report()
    heads = next(line for line in str(report).splitlines() if "┃ block" in line)
    assert [cell.strip() for cell in heads.split("┃")[1:-1]] == [
        "block", "type", "in Hz", "out Hz", "quantum", "look-ahead", "latency", "age", "receptive field", "parameters",
        "state",
    ]  # fmt: skip
    assert report.text() == str(report)


def test_what_is_left_out_is_named() -> None:
    report = astrape.load("voice-changer").report()
    told = " ".join(report.text(80).split()).partition("too narrow here for ")[2].partition(":")[0]
    heads = next(line for line in report.text(80).splitlines() if "┃ block" in line)
    shown = {cell.strip() for cell in heads.split("┃")[1:-1]}
    every = {cell.strip() for cell in str(report).splitlines()[2].split("┃")[1:-1]}
    assert set(told.split(", ")) == every - shown
    assert {"block", "latency", "age"} <= shown
    assert "too narrow" not in str(report)


def test_rich_prints_a_report_to_the_width_of_its_console() -> None:
    report = astrape.load("voice-changer").report()
    buffer = io.StringIO()
    Console(file=buffer, width=80, color_system=None).print(report)
    require_whole(report, buffer.getvalue(), 80)


def test_the_measured_report_tells_its_tolerance_and_why() -> None:
    """A resampler's measured centre differs by less than a frame; a learned layer's newest input not at all."""
    graph = astrape.compile(
        recipe(
            {
                "down": {"use": "resampler", "rate": 16000},
                "frames": {"use": "conv", "channels": 4, "kernel": 8, "stride": 8},
            },
            rate=44100,
        )
    )
    report = graph.report(measure=True)
    content = report.to_dict()
    down, frames = content["blocks"]
    one, other = Fraction(1, 44100), Fraction(1, 16000)
    assert down["latency_tolerance_ms"] == pytest.approx(float(1000 * (one + (other - one) / 2)))
    assert frames["latency_tolerance_ms"] == 0
    assert frames["measured_latency_ms"] == frames["latency_ms"]
    assert 0 < abs(down["measured_latency_ms"] - down["latency_ms"]) <= down["latency_tolerance_ms"]
    assert content["measured_algorithmic_tolerance_ms"] == down["latency_tolerance_ms"]
    text = str(report)
    assert f"tolerance {down['latency_tolerance_ms']:.3f} ms" in text
    assert "exact" in next(line for line in text.splitlines() if "│ frames" in line)
    assert "first or last weight may be zero" in text
    plain = astrape.compile(recipe({"near": {"use": "conv", "channels": 1, "kernel": 3}})).report(measure=True)
    assert "window" not in str(plain)


@settings(max_examples=15)
@given(drawn=random_recipes())
def test_what_agrees_lies_within_the_tolerance_that_is_told(drawn: dict[str, Any]) -> None:
    report = compiled(drawn).report(measure=True)
    assert report.measured is not None
    for row in report.blocks:
        assert row.measured is not None
        if row.measured.latency is not None and row.measured.agrees:
            assert abs(row.measured.latency - row.latency) <= row.measured.tolerance
    if not report.disagreements:
        assert abs(report.measured.latency - report.graph.latency) <= report.measured.tolerance
