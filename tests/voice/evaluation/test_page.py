"""The tables of an evaluation's page: all that was measured, once, in tables that fit on it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from astrape.voice.evaluation.context import Tools
from astrape.voice.evaluation.metric import Score
from astrape.voice.evaluation.page import MOST_COLUMNS, write_page
from astrape.voice.evaluation.pairs import Pair, Target, utterance
from astrape.voice.evaluation.registry import available
from astrape.voice.evaluation.result import Evaluation, PairResult
from astrape.voice.evaluation.statistics import aggregate

QUANTITIES = [(metric.name, quantity) for metric in available(Tools()).values() for quantity in metric.quantities]


@pytest.fixture
def page(tmp_path: Path) -> str:
    """The page of a run of three sources in which everything was measured, and the latency is the same for all."""
    generator = np.random.default_rng(0)
    results = []
    for index in range(3):
        path = tmp_path / f"speech-{index}.wav"
        soundfile.write(path, np.zeros(1600, np.float32), 16000)
        scores = {
            quantity.name: Score(59.8 if "latency" in quantity.name else float(generator.normal()))
            for _, quantity in QUANTITIES
        }
        results.append(PairResult(Pair(utterance(path), Target("voice", (path,), path)), seconds=0.1, scores=scores))
    names = [quantity.name for _, quantity in QUANTITIES]
    run = Evaluation(
        system={},
        settings={},
        packages={},
        quantities=tuple(QUANTITIES),
        skipped={},
        results=tuple(results),
        aggregate={name: aggregate([r.scores[name] for r in results], ["a", "b", "c"]) for name in names},
        created_utc="",
    )
    write_page(run, tmp_path / "index.html", listen=0)
    return (tmp_path / "index.html").read_text(encoding="utf-8")


def test_every_quantity_is_in_one_table_of_pairs_and_no_table_is_wider_than_the_page(page: str) -> None:
    tables = re.findall(r'<table class="pairs">.*?</table>', page, re.S)
    heads = [re.findall(r'<button type="button">([^<]*)</button>', table) for table in tables]
    assert all(head[:2] == ["Source", "Target"] and 0 < len(head[2:]) <= MOST_COLUMNS for head in heads)
    assert sorted(label for head in heads for label in head[2:]) == sorted(q.label for _, q in QUANTITIES)
    for table, head in zip(tables, heads, strict=True):
        body = table.partition('class="interval"')[2].partition("<tbody>")[2]
        rows = re.findall(r"<tr>.*?</tr>", body)
        assert len(rows) == 3
        assert all(row.count("<td") + row.count("<th") == len(head) for row in rows)


def test_a_constant_shows_no_interval(page: str) -> None:
    summary = page.partition('id="summary"')[2].partition("</section>")[0]
    host = summary.partition("Host latency")[2].partition("</tr>")[0]
    assert "59.8 ms" in host
    assert " to " not in re.sub(r"<small.*?</small>", "", host)
    pitch = summary.partition("Pitch correlation")[2].partition("</tr>")[0]
    assert " to " in re.sub(r"<small.*?</small>", "", pitch)
