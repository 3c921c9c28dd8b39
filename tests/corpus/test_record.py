"""The record of a corpus: what is written is read back, and what is not as it is written is refused by its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from astrape.corpus.errors import CorpusError
from astrape.corpus.items import CorpusSettings
from astrape.corpus.record import RECORD, corpus_settings, keep_record

TOOLS = {"numpy": "2.1.0"}


def test_settings_are_read_back_and_extents_only_grow(tmp_path: Path) -> None:
    small = CorpusSettings(tmp_path, hours=2, flite=0.0, recordings=False, warps=0.25, seed=5)
    assert keep_record(small, TOOLS) == []
    assert corpus_settings(tmp_path) == small
    keep_record(CorpusSettings(tmp_path, hours=1.0, flite=3.0, recordings=True, warps=0.25, seed=5), TOOLS)
    assert corpus_settings(tmp_path) == CorpusSettings(
        tmp_path, hours=2, flite=3.0, recordings=True, warps=0.25, seed=5
    )
    (note,) = keep_record(small, {"numpy": "2.2.0"})
    assert note.startswith("numpy is 2.2.0 now and was 2.1.0")
    with pytest.raises(CorpusError, match="was made with seed 5, and this run has 6"):
        keep_record(CorpusSettings(tmp_path, warps=0.25, seed=6), TOOLS)


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("settings", "hours"), "eight", "settings.hours is 'eight': give a number of 0 or more"),
        (("settings", "warps"), 2.0, "settings.warps is 2.0: give a number from 0 to 1"),
        (("settings", "seed"), 1.5, "settings.seed is 1.5: give a whole number"),
        (("settings", "recordings"), 1, "settings.recordings is 1: give true or false"),
        (("packages", "kokoro-js", "sha256"), 7, "packages.kokoro-js.sha256 is 7: give a string"),
        (("tools",), [], "tools is an empty list: give a mapping"),
    ],
)
def test_a_value_that_no_run_writes_is_refused_by_its_key(
    tmp_path: Path, keys: tuple[str, ...], value: Any, told: str
) -> None:
    keep_record(CorpusSettings(tmp_path), TOOLS)
    record = json.loads((tmp_path / RECORD).read_text())
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / RECORD).write_text(json.dumps(record))
    with pytest.raises(CorpusError) as refused:
        corpus_settings(tmp_path)
    assert str(refused.value) == f"{tmp_path / RECORD}: {told}"


def test_what_is_not_json_is_no_record(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(CorpusError, match="is not a record of a corpus"):
        corpus_settings(tmp_path)
