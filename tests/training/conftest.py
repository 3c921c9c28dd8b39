"""A small corpus, and a teacher that takes no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from astrape.corpus.layouts import read_corpus
from astrape.training import teachers
from tests.training.corpora import vctk


@pytest.fixture
def corpus(tmp_path: Path) -> list[Any]:
    return read_corpus(vctk(tmp_path / "corpus"))


@pytest.fixture
def level(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setitem(teachers.TEACHERS, "level", "tests.training.corpora:LevelTeacher")
    return {"use": "level"}
