"""The page on the latency of astrape-vc says what the report says."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from astrape import Graph

PAGE = Path(__file__).parents[2] / "docs" / "latency-of-astrape-vc.md"
VARIANTS = ["astrape-vc", "astrape-vc-original", "astrape-vc-lowlatency"]


Load = Callable[[str], Graph]


def shown(seconds: Fraction) -> str:
    return f"{float(seconds * 1000):.3f} ms"


def rows(first: str) -> list[list[str]]:
    """Cells of the table rows that begin so."""
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    return [row for row in cells if row[0] == first]


@pytest.mark.parametrize("name", VARIANTS)
def test_totals(name: str, shipped: Load) -> None:
    graph = shipped(name)
    totals = [shown(graph.latency), shown(graph.framing), shown(graph.host_latency), str(graph.host_samples)]
    assert rows(name) == [[name, "0", *totals]]


def test_every_block_with_latency_is_listed_with_it(shipped: Load) -> None:
    full, low = (shipped(name) for name in ("astrape-vc", "astrape-vc-lowlatency"))
    late = {row.name: row.latency for row in full.report().blocks if row.latency}
    assert set(late) == {"down", "wavlm", "decoder/istft"}
    lower = {row.name: row.latency for row in low.report().blocks}
    for name, latency in late.items():
        first, second = rows(name)
        assert first[1] == shown(latency)
        assert second[1:3] == [shown(latency), shown(lower[name])]
    assert rows("all")[0][1] == shown(sum(late.values(), Fraction(0)))
    assert rows("framing")[0][1:3] == [shown(full.framing), shown(low.framing)]
    assert rows("host")[0][1:3] == [shown(full.host_latency), shown(low.host_latency)]


def test_the_originals_adapter_is_as_late_as_the_page_says(shipped: Load) -> None:
    late = {row.name: row.latency for row in shipped("astrape-vc-original").report().blocks}
    assert late["adapter"] == Fraction(15, 1000)
    assert "15.000 ms old" in PAGE.read_text()
